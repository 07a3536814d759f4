"""Project: what Django's settings say of which site a pool is.

Rule of the room: it asks the settings, and connects to nothing. What follows from the answers is
decided in `identity`.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django_rq.queues import get_queue
from redis.sentinel import SentinelConnectionPool

from .groups import Counts
from .identity import Identity, default_name, project_folder

_LOCAL = ("127.0.0.1", "::1", "0.0.0.0", "")  # noqa: S104 - names of this host, nothing is bound


def project_name() -> str:
    """The name of a pool that is given none; see `identity.default_name`."""
    return default_name(_settings_module(), _folder())


def find_identity(name: str, counts: Counts) -> Identity:
    """Which pool this is.

    Args:
        name: its name.
        counts: its queue groups.
    """
    former = _settings_module().partition(".")[0]
    classes = {
        queue: group.options.queue_class for group in counts.groups for queue in group.queues
    }
    return Identity(
        name,
        former if name == project_name() != former else None,
        _folder() or str(Path.cwd()),
        {queue: frozenset(_places(queue, classes.get(queue))) for queue in _queues()},
    )


def _settings_module() -> str:
    # Settings that were made by a call have no module.
    return str(getattr(settings, "SETTINGS_MODULE", None) or "django")


def _folder() -> str | None:
    """The folder of the project, if its settings are a module with a file."""
    module = _settings_module()
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or module == "django":
        return None
    return project_folder(module, os.path.realpath(file))


def _queues() -> Mapping[str, Any]:
    queues: Mapping[str, Any] = settings.RQ_QUEUES
    return queues


def _places(queue: str, queue_class: str | type | None) -> Iterator[str]:
    """What stands for the place of a queue: a hash of each address, the database and the key."""
    try:
        found = get_queue(queue, queue_class=queue_class)
        pool = found.connection.connection_pool
        addresses = list(_addresses(pool))
    except Exception:  # a queue that no group serves may be as wrong as it likes
        return
    database = pool.connection_kwargs.get("db") or 0
    for address in addresses:
        text = f"{address} {database} {found.key}"
        yield hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:32]


def _addresses(pool: Any) -> Iterator[str]:
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            for address in _addresses(sentinel.connection_pool):
                yield f"{pool.service_name} of {address}"
        return
    options = pool.connection_kwargs
    if options.get("path"):
        yield os.path.realpath(options["path"])
        return
    host = options.get("host") or ""
    yield f"{'localhost' if host in _LOCAL else host.lower()}:{options.get('port') or 6379}"
