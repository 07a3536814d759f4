"""Stacks: has a forked process show which line of Python it is at, though it may hang.

Rule of the room: the handler of faulthandler writes, which is in C. So it works where Python runs
no handler any more: in a call that blocks, or while a lock is awaited that nobody will release.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from . import processes
from .signals import SHOW_STACK

_LONGEST = 16_000
"""Bytes of a stack that are read: nobody would read more."""

_FRAME = re.compile(r'^  File "(.+)", line (\d+|\?\?\?) in (.+)$')
_INSTALLED = ("site-packages", "dist-packages")


class StackFile:
    """A file without a name, which this process shares with all that it forks, one at a time.

    From its construction on, this process and what it forks can be asked. The signal is not blocked
    around a fork, so that a fork handler that hangs is found too. Where the system has no room for
    the file, or is not Linux, there are no stacks.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        if not sys.platform.startswith("linux"):
            return
        with contextlib.suppress(OSError):
            self._fd = os.memfd_create("rqpool-stack")
            with _usual_signal_stack():
                faulthandler.register(SHOW_STACK, file=self._fd, all_threads=True)

    def ask(self, pid: int) -> None:
        """Asks a child. It needs a moment until it has written.

        Args:
            pid: the child. It has not been reaped.
        """
        if self._fd is not None:
            os.lseek(self._fd, 0, os.SEEK_SET)  # the children's position too
            os.ftruncate(self._fd, 0)
            processes.send(pid, SHOW_STACK)

    def read(self) -> str:
        """What the child that was asked last has written: a line for each call, the innermost
        first, thread by thread, down to its fork. Empty if it has written nothing."""
        if self._fd is None:
            return ""
        text = os.pread(self._fd, _LONGEST, 0).decode(errors="replace").strip()
        return "\n\n".join(map(_since_fork, text.split("\n\n")))

    def close(self) -> None:
        """Gives the signal back its action, and closes the file."""
        if self._fd is not None:
            forget()
            os.close(self._fd)
            self._fd = None


def forget() -> None:
    """Gives the signal back its action in this process, which shows its stack no more."""
    faulthandler.unregister(SHOW_STACK)


class _SignalStack(ctypes.Structure):
    """``stack_t`` of Linux; see sigaltstack(2)."""

    _fields_ = (
        ("ss_sp", ctypes.c_void_p),
        ("ss_flags", ctypes.c_int),
        ("ss_size", ctypes.c_size_t),
    )


@contextlib.contextmanager
def _usual_signal_stack() -> Iterator[None]:
    """Keeps the stack on which signals are handled as it is.

    faulthandler gives the process one of 16 KB, which every handler of Python uses from then on.
    When five signals arrive at once, their frames are more than that, and overwrite the heap.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = _SignalStack()
    known = libc.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            libc.sigaltstack(ctypes.byref(before), None)


def _since_fork(thread: str) -> str:
    """The calls of a thread without those that were its parent's."""
    lines = thread.splitlines()
    ends = (n for n, line in enumerate(lines) if f'File "{processes.__file__}"' in line)
    return "\n".join(lines[: next(ends, None)])


class _Frame(NamedTuple):
    path: str
    line: str
    function: str

    def __str__(self) -> str:
        return f"{self.function}, {self.path} line {self.line}"


def place(stack: str) -> str:
    """Where the thread stands that was asked, in a few words.

    Args:
        stack: what `StackFile.read` has returned.

    Returns:
        Such as ``connect, /srv/shop/rqpool.py line 7``: the innermost call that is not in Python's
        own library, or the innermost of all. Empty if the stack says nothing.
    """
    asked = stack.rpartition("Current thread")[2].partition("\n\n")[0]
    frames = list(_frames(asked.splitlines()))
    own = (frame for frame in frames if not _is_of_python(frame.path))
    return str(next(own, next(iter(frames), "")))


def _frames(lines: Iterable[str]) -> Iterator[_Frame]:
    for line in lines:
        match = _FRAME.match(line)
        if match is not None:
            yield _Frame(*match.groups())


def _is_of_python(path: str) -> bool:
    library = sysconfig.get_path("stdlib")
    return path.startswith(("<frozen", library)) and not any(each in path for each in _INSTALLED)
