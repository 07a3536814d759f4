"""Process files: files and sockets that stand at no path and end with the process that has them.

Rule of the room: only this user's processes (and root's) reach one, by the process that keeps it
open: ``/proc/PID/fd`` (Linux). Nobody can take its place beforehand, no cleaner of a folder removes
it, a service with a ``/tmp`` of its own has it too, and a killed process leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .ownership import is_ours

_FOLDER = "rqpool-"
"""How the name of the folder begins in which each is made."""


def available() -> bool:
    """Whether this system has what it takes."""
    return sys.platform.startswith("linux")


def make_file(name: str) -> int:
    """Makes an empty file of this process.

    Args:
        name: by which `path_of` finds it.

    Returns:
        Its descriptor, for reading and writing. The file lives as long as that is open.

    Raises:
        OSError: there is no folder for temporary files that can be written to.
    """
    with _place_for(name) as path:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def listen_at(listener: socket.socket, name: str) -> int:
    """Binds a Unix socket of this process.

    Args:
        listener: the socket.
        name: by which `path_of` finds it.

    Returns:
        A descriptor that stands for its place. Others can connect as long as that is open.

    Raises:
        OSError: see `make_file`.
    """
    with _place_for(name) as path:
        folder = os.open(Path(path).parent, os.O_PATH | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{name}")  # a socket's path has 108 bytes at most
        finally:
            os.close(folder)
        Path(path).chmod(0o600)
        return os.open(path, os.O_PATH | os.O_CLOEXEC)


def path_of(pid: int, name: str) -> str | None:
    """A path by which this process can open another one's file, or connect to its socket.

    Args:
        pid: the other process, of which the caller knows what it is.
        name: the name that it gave to the file.

    Returns:
        The path; None when the process is gone or another user's, or has no such file.
    """
    with contextlib.suppress(OSError):  # it has ended, or the system does not let us look
        for path in Path(f"/proc/{pid}/fd").iterdir():
            if _leads_to(path, name):
                return str(path)
    return None


def _leads_to(path: Path, name: str) -> bool:
    try:
        there = path.readlink()
        is_it = there.name == f"{name} (deleted)" and there.parent.name.startswith(_FOLDER)
        return is_it and is_ours(path.stat().st_uid)
    except OSError:  # closed meanwhile
        return False


@contextlib.contextmanager
def _place_for(name: str) -> Iterator[str]:
    """A path for a moment, in a folder that only this user can enter."""
    with tempfile.TemporaryDirectory(prefix=_FOLDER) as folder:
        yield str(Path(folder, name))
