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

_LOOKS = 5
"""How often a file is looked for. Its process may put another in its place at that very moment."""


def available() -> bool:
    """Whether this system has what it takes."""
    return sys.platform.startswith("linux")


def make_file(name: str, content: bytes) -> int:
    """Makes a file of this process. Others see it when it is complete, and not before.

    Args:
        name: by which `read_file` finds it.
        content: what it holds.

    Returns:
        Its descriptor. The file lives as long as that is open.

    Raises:
        OSError: there is no folder for temporary files, or it is full.
    """
    with _place_for(name) as path:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while content:
                content = content[os.write(fd, content) :]
        except OSError:
            os.close(fd)
            raise
        return fd


def read_file(pid: int, name: str) -> bytes | None:
    """Reads another process's file.

    Args:
        pid: the other process, of which the caller knows what it is.
        name: the name that it gave to the file. If it has several, any of them is read.

    Returns:
        What the file holds; None when there is none, or this process may not read it.
    """
    for _ in range(_LOOKS):
        path = path_of(pid, name)
        if path is None:
            continue
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                # The descriptor may have become that of another file, such as a pipe.
                if _leads_to(Path(f"/proc/self/fd/{fd}"), name):
                    return file.read()
    return None


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
    """A path by which this process can connect to another one's socket.

    Args:
        pid: the other process, of which the caller knows what it is.
        name: the name that it gave to the socket.

    Returns:
        The path; None when the process is gone or another user's, or has no such socket.
    """
    with contextlib.suppress(OSError):  # it has ended, or the system does not let us look
        for path in Path(f"/proc/{pid}/fd").iterdir():
            if _leads_to(path, name):
                return str(path)
    return None


def _leads_to(path: Path, name: str) -> bool:
    """Whether the file of a descriptor is one of that name which has got rid of its path."""
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
