"""The pool put together: the steps from a configuration to a running manager.

Rule of the room: order only. Load, let go of connections, freeze, fork.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from .accountant import run_accountant
from .conf import Configuration
from .connections import close_connections
from .manager import Manager
from .preload import freeze_heap, import_jobs
from .worker import run_worker

logger = logging.getLogger("django_rq_pool")


def run(
    configuration: Configuration, *, burst: bool = False, preload: Iterable[str] | None = None
) -> int:
    """Runs the pool until a signal ends it; see `django_rq_pool.run_pool`."""
    for warning in configuration.warnings:
        logger.warning("%s", warning)
    import_jobs(configuration.preload if preload is None else preload)
    close_connections()
    freeze_heap()
    return Manager(
        configuration.name,
        configuration.groups,
        run_worker,
        run_accountant,
        rules=configuration.rules,
        burst=burst,
    ).run()
