"""Learning: which modules jobs import that the manager could have imported for all of them.

Rule of the room: a horse writes, its worker reads when the horse has ended; one page of memory that
both share, so that no job costs a message. Nothing here imports anything.
"""

from __future__ import annotations

import itertools
import mmap
import struct
import sys
from collections import Counter

from ..ipc.reports import MAX_MODULES

_LENGTH = struct.Struct("=I")
_PAGE = 4 * mmap.PAGESIZE

_MANY = 10
"""A package with more new modules than this is named as a whole: most such packages import what is
in them, and nobody would read so many names."""


class ImportTracker:
    """What one worker's horses had to import. Made before the first of them is forked."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _PAGE)  # anonymous and shared: a forked horse writes to the same
        self._taught: set[str] = set()
        self._there = 0

    # In the process that runs the job

    def begin(self) -> None:
        """Notes what has been imported before a job.

        Their number is enough, for `sys.modules` keeps its order. To look at each name would touch
        the pages of all of them, 3 MB in each horse.
        """
        self._there = len(sys.modules)

    def end(self) -> None:
        """Writes down what has been imported since."""
        text = "\n".join(_newest(len(sys.modules) - self._there)).encode()
        room = _PAGE - _LENGTH.size
        if len(text) > room:
            text = text[:room].rpartition(b"\n")[0]
        self._page[_LENGTH.size : _LENGTH.size + len(text)] = text
        _LENGTH.pack_into(self._page, 0, len(text))  # last: a killed horse has written nothing

    # In the worker

    def take(self) -> list[str]:
        """The modules of the latest job that no job before it had to import; one that imported
        others comes before them."""
        (length,) = _LENGTH.unpack_from(self._page)
        _LENGTH.pack_into(self._page, 0, 0)
        names = self._page[_LENGTH.size : _LENGTH.size + length].decode().split("\n")
        fresh = [name for name in names if name and name not in self._taught]
        fresh = fresh[: MAX_MODULES - len(self._taught)]
        self._taught.update(fresh)
        return fresh


def _newest(number: int) -> list[str]:
    """The modules imported last, the very last first, as far as somebody could preload them.

    Of a package that is new with many modules it is the package alone; of another the modules that
    hold no new ones, for to import the package need not import them. What was made by other means
    than an import is left out.
    """
    newest = list(itertools.islice(reversed(sys.modules), max(0, number)))
    names = set(newest)
    package = {
        name: next((parent for parent in _parents(name) if parent in names), name) for name in names
    }
    sizes = Counter(package.values())
    holders = {parent for name in names for parent in _parents(name)}

    def helps(name: str) -> bool:
        if sizes[package[name]] > _MANY:
            return name == package[name]
        return name not in holders

    return [
        name
        for name in newest
        if getattr(sys.modules[name], "__spec__", None) is not None and helps(name)
    ]


def _parents(name: str) -> list[str]:
    """Every package that a module is in: for ``a.b.c`` it is ``a`` and ``a.b``."""
    return list(itertools.accumulate(name.split(".")[:-1], "{}.{}".format))
