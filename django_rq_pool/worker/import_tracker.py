"""Import tracker: which modules jobs import that the manager could have imported for all of them.

Rule of the room: a work horse writes, and its worker reads when the horse has ended. They share
memory, so that no job costs a message. Nothing here imports a module.
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
"""A package with more new modules than this is named as a whole: most of these packages import
their own modules, and nobody would read so many names."""


class ImportTracker:
    """What the work horses of one worker had to import. Made before the first of them is forked."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _PAGE)  # anonymous and shared: a forked horse writes to the same
        self._reported: set[str] = set()
        self._before = 0

    # In the process that runs the job

    def begin(self) -> None:
        """Notes what was imported before a job.

        The number of modules is enough, because `sys.modules` keeps its order. Looking at each name
        would touch the pages of all of them, 3 MB in each work horse.
        """
        self._before = len(sys.modules)

    def end(self) -> None:
        """Writes to the shared memory what has been imported since."""
        text = "\n".join(_newest(len(sys.modules) - self._before)).encode()
        room = _PAGE - _LENGTH.size
        if len(text) > room:
            text = text[:room].rpartition(b"\n")[0]
        self._page[_LENGTH.size : _LENGTH.size + len(text)] = text
        _LENGTH.pack_into(self._page, 0, len(text))  # last: a killed horse has written nothing

    # In the worker

    def take(self) -> list[str]:
        """The modules that the latest job had to import and no job before it. A module that
        imported others comes before them."""
        (length,) = _LENGTH.unpack_from(self._page)
        _LENGTH.pack_into(self._page, 0, 0)
        names = self._page[_LENGTH.size : _LENGTH.size + length].decode().split("\n")
        new = [name for name in names if name and name not in self._reported]
        new = new[: MAX_MODULES - len(self._reported)]
        self._reported.update(new)
        return new


def _newest(number: int) -> list[str]:
    """The modules imported last, the very last first, without those that cannot be preloaded.

    Of a new package with many modules it is the package alone. Of another package it is the modules
    that contain no new ones, because importing the package need not import these. Modules that were
    not made by an import are left out.
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
    """Every package that contains a module: for ``a.b.c`` these are ``a`` and ``a.b``."""
    return list(itertools.accumulate(name.split(".")[:-1], "{}.{}".format))
