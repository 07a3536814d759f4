"""Preload: import once, in the manager, what jobs will import in every horse.

Rule of the room: all of it happens before the first fork, so that every worker shares the pages.
"""

from __future__ import annotations

import ctypes
import encodings.idna  # noqa: F401  # what a process's first connection to a host name imports
import gc
import importlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from django.utils.module_loading import autodiscover_modules

from .immortal import make_definitions_immortal

logger = logging.getLogger("django_rq_pool")

JOB_MODULES = ("tasks", "jobs")
"""Modules of this name in an installed app hold jobs, as Django users have it."""


def import_jobs(modules: Iterable[str]) -> None:
    """Imports each installed app's job modules, then the given ones.

    The garbage collector is off meanwhile: it looks at ever more objects, of which next to none is
    garbage, for a fifth of the time that the imports take. `freeze_heap` collects afterwards, what
    was imported here only: before, the collector had its turns.

    Args:
        modules: dotted names, from the setting ``RQ_POOL_PRELOAD``.

    Raises:
        Exception: whatever a module raises when it is imported. A module that is there and does
            not import would fail every job in it, so the pool must not start.
    """
    collects = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        autodiscover_modules(*JOB_MODULES)
        for module in modules:
            try:
                importlib.import_module(module)
            except BaseException:
                logger.error("%r cannot be imported, as RQ_POOL_PRELOAD asks; why:", module)
                raise
    finally:
        if collects:
            gc.enable()


def freeze_heap(*, immortal: bool) -> None:
    """Collects the garbage once, then moves what is left out of the collector's sight.

    A collection in a forked worker writes to every object it looks at, and each page it touches
    stops being shared: some 20 MB a worker. Frozen objects are not looked at.

    Args:
        immortal: make what can be made so immortal; see `immortal`.
    """
    gc.collect()
    if immortal:
        gc.unfreeze()  # what is frozen already is not seen else
        make_definitions_immortal()
    gc.freeze()
    fold_heap()


_HUGE_PAGE_SIZE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
_MAPS = Path("/proc/self/maps")
_MADV_COLLAPSE = 25


def fold_heap() -> int:
    """Has the system keep the heap in huge pages, as far as it can (Linux 6.1; see madvise(2)).

    A fork copies an entry for each page of the heap, and the end of the forked process takes them
    back, for each job. A huge page has one entry instead of 512, and is cut up only where it is
    written to.

    Returns:
        How many huge pages there are now.
    """
    try:
        size = int(_HUGE_PAGE_SIZE.read_text())
        maps = _MAPS.read_text()
    except OSError:  # another system, or one without huge pages
        return 0
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return sum(madvise(start, size, _MADV_COLLAPSE) == 0 for start in _heap(maps, size))


def _heap(maps: str, size: int) -> Iterator[int]:
    """The addresses of the pieces of this size and alignment that the heap consists of."""
    for line in maps.splitlines():
        extent, rights, _, _, _, *name = line.split(maxsplit=5)
        if rights == "rw-p" and name in ([], ["[heap]"]):
            start, end = (int(address, 16) for address in extent.split("-"))
            yield from range(-(-start // size) * size, end - size + 1, size)
