"""The step line: how a new pool and an older one talk while one takes over from the other.

A pool that takes over at once asks what workers there are, to begin with as many.

Rule of the room: lines of JSON on a Unix socket that one user's processes can reach and no file
stands for (Linux). The older pool says what workers it has, the new one what workers it may keep;
what was said holds as long as the connection does, so a new pool that dies changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import struct
import sys
from collections.abc import Callable

from ..swap.handover import Workers
from ..system import processes

logger = logging.getLogger("django_rq_pool")

_CREDENTIALS = struct.Struct("3i")
"""Pid, user and group of a peer; see SO_PEERCRED in unix(7)."""


def available() -> bool:
    """Whether this system has what it takes."""
    return sys.platform.startswith("linux")


def _address(pid: int) -> str:
    return f"\0rqpool/{os.geteuid()}/{pid}"


def _peer(connection: socket.socket) -> tuple[int, int]:
    """The pid and the user of the process at the other end."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(data)
    return pid, user


class StepLine:
    """One end of a line. What the other end says last is in `heard`.

    Attributes:
        heard: workers by queue group; None before the first word.
        ended: whether the other end is gone.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._received = b""
        self._said: Workers | None = None
        self.heard: dict[str, int] | None = None
        self.ended = False

    def fileno(self) -> int:
        return self._connection.fileno()

    def say(self, workers: Workers) -> None:
        """Tells the other end, unless it has been told so."""
        if self.ended or workers == self._said:
            return
        self._said = dict(workers)
        try:
            self._connection.sendall(json.dumps(self._said).encode() + b"\n")
        except OSError:  # gone, or deaf: a handful of short lines fits into its buffer
            self.ended = True

    def listen(self) -> None:
        """Takes in what the other end has said."""
        try:
            while data := self._connection.recv(65_536):
                self._received += data
            self.ended = True
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        *lines, self._received = self._received.split(b"\n")
        if lines:
            self.heard = json.loads(lines[-1])

    def close(self) -> None:
        self._connection.close()


def connect(pid: int) -> StepLine | None:
    """A line to the manager with this pid, or None when it has none."""
    if not available():
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(_address(pid))
        if _peer(connection) == (pid, os.geteuid()):
            return StepLine(connection)
    except OSError as error:
        logger.debug("manager %d has no step line: %s", pid, error)
    connection.close()
    return None


def ask(pid: int, limit: float) -> Workers | None:
    """Asks the manager with this pid what workers it has.

    Args:
        limit: seconds to wait for the answer.

    Returns:
        Workers by queue group; None when there was no answer.
    """
    line = connect(pid)
    if line is None:
        return None
    poll = select.poll()
    poll.register(line.fileno(), select.POLLIN)
    until = processes.monotonic() + limit
    while line.heard is None and not line.ended and (now := processes.monotonic()) < until:
        poll.poll(1000 * (until - now))
        line.listen()
    line.close()
    return line.heard


class GivesWay:
    """The older pool's side: gives up workers as a new pool becomes ready. While it finishes its
    last jobs a third pool may want to take over from both.

    Attributes:
        keep: how many workers of a group may be kept; a group that is not here is not limited.
    """

    def __init__(self) -> None:
        self.keep: Workers = {}
        self._lines: list[StepLine] = []
        self._door: socket.socket | None = None
        if available():
            self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._door.setblocking(False)
            try:
                self._door.bind(_address(os.getpid()))
                self._door.listen(4)
            except OSError as error:  # another container's process of the same pid, say
                logger.debug("this pool cannot be taken over step by step: %s", error)
                self._door.close()
                self._door = None

    def filenos(self) -> list[int]:
        """What the manager waits on."""
        return [each.fileno() for each in (self._door, *self._lines) if each is not None]

    def look(self, have: Callable[[], Workers], *, leaving: bool) -> None:
        """Lets new pools in, tells them what workers there are, and hears what may be kept.

        Args:
            have: counts the workers of this pool, those that are leaving or to be forked included.
            leaving: whether this pool is stopping: nothing comes back then.
        """
        self._let_in()
        if not self._lines:
            return
        for line in list(self._lines):
            line.listen()
            if line.ended:
                line.close()
                self._lines.remove(line)
                if line.heard and not leaving:
                    logger.warning("the new pool is gone before it took over: workers come back")
        heard = [line.heard for line in self._lines if line.heard is not None]
        groups = {group for kept in heard for group in kept}
        self.keep = {group: min(kept[group] for kept in heard if group in kept) for group in groups}
        for line in self._lines:
            line.say(have())

    def _let_in(self) -> None:
        if self._door is None:
            return
        with contextlib.suppress(OSError):  # nobody is there any more
            while True:
                connection, _ = self._door.accept()
                if _peer(connection)[1] == os.geteuid():
                    self._lines.append(StepLine(connection))
                else:
                    connection.close()

    def close(self) -> None:
        for each in (self._door, *self._lines):
            if each is not None:
                each.close()
