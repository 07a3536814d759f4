"""Preload: import once, in the manager, what jobs will import in every horse.

Rule of the room: all of it happens before the first fork, so that every worker shares the pages.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  # what a process's first connection to a host name imports
import gc
import importlib
from collections.abc import Iterable

from django.utils.module_loading import autodiscover_modules

JOB_MODULES = ("tasks", "jobs")
"""Modules of this name in an installed app hold jobs, as Django users have it."""


def import_jobs(modules: Iterable[str]) -> None:
    """Imports each installed app's job modules, then the given ones.

    Args:
        modules: dotted names, from the setting ``RQ_POOL_PRELOAD``.

    Raises:
        Exception: whatever a module raises when it is imported. A module that is there and does
            not import would fail every job in it, so the pool must not start.
    """
    autodiscover_modules(*JOB_MODULES)
    for module in modules:
        importlib.import_module(module)


def freeze_heap() -> None:
    """Collects the garbage once, then moves what is left out of the collector's sight.

    A collection in a forked worker writes to every object it looks at, and each page it touches
    stops being shared: some 20 MB a worker. Frozen objects are not looked at.
    """
    gc.collect()
    gc.freeze()
