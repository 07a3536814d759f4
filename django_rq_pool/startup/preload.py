"""Preload: imports once, in the manager, what jobs would import in every work horse.

Rule of the room: all of it happens before the first fork, so that every worker shares the pages.
"""

from __future__ import annotations

import ctypes
import encodings.idna  # noqa: F401  # the first connection to a host name imports it
import gc
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import StartError
from .immortal import KNOWN_VERSIONS, can_be_done, make_definitions_immortal
from .job_modules import ImportFailure, all_modules, attempt, unknown_exclusions

logger = logging.getLogger("django_rq_pool")


class PreloadError(StartError):
    """A module cannot be imported before the first fork; the text says which, and why."""


def import_jobs(modules: Iterable[str], exclude: Sequence[str], consequence: str) -> None:
    """Imports each installed app's job modules, then the given ones, then the modules of hooks.

    The garbage collector is off meanwhile. It would look at ever more objects, hardly any of them
    garbage, and take a fifth of the time of the imports. `freeze_heap` collects afterwards.

    Args:
        modules: dotted names, from the setting ``RQ_POOL_PRELOAD``.
        exclude: apps and modules that are not imported (``RQ_POOL_PRELOAD_EXCLUDE``).
        consequence: what a failure means, as a sentence.

    Raises:
        PreloadError: a module of the project cannot be imported. Its traceback is in the log.
    """
    for sentence in unknown_exclusions(exclude):
        logger.warning("%s", sentence)
    collects = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        for module in all_modules(modules, exclude):
            failure = attempt(module)
            if failure is not None:
                _handle(failure, consequence)
    finally:
        if collects:
            gc.enable()


def _handle(failure: ImportFailure, consequence: str) -> None:
    if failure.fatal:
        logger.error("%s\n%s", failure.text, failure.traceback)
        raise PreloadError(f"{failure.text} {consequence} {failure.advice}")
    logger.warning("preload: %s Its jobs will fail. %s", failure.text, failure.advice)
    logger.debug("%s", failure.traceback)


def freeze_heap(*, immortal: bool, huge_pages: bool) -> None:
    """Collects the garbage once, then hides what is left from the collector.

    A collection in a forked worker writes to every object that it looks at, and each page that it
    writes to is copied: some 20 MB for each worker. It does not look at frozen objects.

    Args:
        immortal: make definitions immortal where the interpreter is known; see `immortal`. It is
            logged how many.
        huge_pages: keep the heap in huge pages where the system can; see `use_huge_pages`.
    """
    gc.collect()
    if immortal and can_be_done():
        gc.unfreeze()  # frozen objects cannot be found
        logger.info(
            "RQ_POOL_IMMORTAL: %d objects (classes, functions, modules and their parts) are never "
            "freed, so that workers share their memory. If the interpreter crashes, turn it off "
            "first.",
            make_definitions_immortal(),
        )
    elif immortal:
        logger.warning(
            "RQ_POOL_IMMORTAL: it does nothing on this interpreter (%s). It is for CPython %s.",
            ".".join(map(str, sys.version_info[:3])),
            " and ".join(".".join(map(str, version)) for version in KNOWN_VERSIONS),
        )
    gc.freeze()
    if huge_pages:
        use_huge_pages()


_HUGE_PAGE_SIZE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
_MAPS = Path("/proc/self/maps")
_MADV_COLLAPSE = 25


def use_huge_pages() -> int:
    """Has the system keep the heap in huge pages where it can (Linux 6.1; MADV_COLLAPSE in
    madvise(2)).

    For each job, a fork copies a table entry for each page of the heap, and the end of the work
    horse removes them. A huge page has one entry instead of 512, and is split only where it is
    written to.

    Returns:
        The number of huge pages now.
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
    """The addresses of the parts of the heap that have this size and alignment, in bytes."""
    for line in maps.splitlines():
        extent, rights, _, _, _, *name = line.split(maxsplit=5)
        if rights == "rw-p" and name in ([], ["[heap]"]):
            start, end = (int(address, 16) for address in extent.split("-"))
            yield from range(-(-start // size) * size, end - size + 1, size)
