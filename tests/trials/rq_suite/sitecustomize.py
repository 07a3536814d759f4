"""Prepares each Python process of a run of RQ's tests: which server it meets, and which workers.

Rule of the room: Python imports it before anything else, because its folder is on PYTHONPATH. RQ's
tests connect to the usual port of the usual host, also in processes that they start; here that port
stands for the run's own server.
"""

import os
from typing import Any

from redis.connection import Connection

USUAL_PORT = 6379


def use_private_server(port: int) -> None:
    """Has redis-py connect to a port of this host instead of the usual one."""
    connect = Connection._connect

    def connect_privately(self: Any) -> Any:
        theirs = self.port
        if int(theirs) == USUAL_PORT:
            self.port = port
        try:
            return connect(self)
        finally:
            self.port = theirs

    Connection._connect = connect_privately  # type: ignore[method-assign]


use_private_server(int(os.environ["RQ_SUITE_PORT"]))
if os.environ["RQ_SUITE_WORKERS"] == "pooled":
    try:
        import rq  # noqa: F401
    except ValueError:
        pass  # a test of a key prefix that RQ refuses
    else:
        import django
        from django.conf import settings

        settings.configure(RQ_QUEUES={"default": {"URL": "redis://localhost"}}, RQ_POOL={})
        django.setup()
        import pooled_workers

        pooled_workers.install()
