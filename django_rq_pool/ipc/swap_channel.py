"""Swap channel: how a new pool and an older one talk while one takes over from the other.

Rule of the room: messages on a Unix socket that only this user's processes can reach and that ends
with the older manager (Linux). The older pool says what workers it has, the new one what workers it
may keep. What was said holds as long as the connection does, so a new pool that dies changes
nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
from collections.abc import Mapping

from ..system import process_files, processes
from ..system.messages import MessageError, MessageReader, encode
from ..system.ownership import is_ours

logger = logging.getLogger("django_rq_pool")

Workers = Mapping[str, int]
"""How many workers, by the name of the queue group."""

_CREDENTIALS = struct.Struct("3i")
"""Pid, user and group of a peer; see SO_PEERCRED in unix(7)."""

_SOCKET = "swap"
"""The name of the socket among the manager's process files."""


def available() -> bool:
    """Whether this system has what it takes."""
    return process_files.available()


def _peer(connection: socket.socket) -> tuple[int, int]:
    """The pid and the user of the process at the other end."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(data)
    return pid, user


class SwapChannel:
    """One end of a connection between two pools.

    Args:
        connection: a connected socket.

    Attributes:
        received: workers by queue group, as the other end said last; None before it said anything.
        ended: whether the other end is gone, or said what is no message.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._reader = MessageReader()
        self._sent: Workers | None = None
        self.received: dict[str, int] | None = None
        self.ended = False

    def fileno(self) -> int:
        """What the manager waits on."""
        return self._connection.fileno()

    def send(self, workers: Workers) -> None:
        """Tells the other end, unless it has been told so already."""
        if self.ended or workers == self._sent:
            return
        self._sent = dict(workers)
        try:
            self._connection.sendall(encode({"workers": self._sent}))
        except OSError:  # gone, or it does not read: a handful of short lines fits into its buffer
            self.ended = True

    def receive(self) -> None:
        """Takes in what the other end has said."""
        try:
            while data := self._connection.recv(65_536):
                for message in self._reader.feed(data):
                    self.received = message.whole_by_name("workers")
            self.ended = True
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        except MessageError as error:
            logger.warning("a swap channel is closed, for what came cannot be read: %s", error)
            self.ended = True

    def close(self) -> None:
        """Closes this end; what was said through it does not hold any more."""
        self._connection.close()


class SwapListener:
    """Where newer pools connect to this one's manager. Open until `close`.

    Raises:
        OSError: see `process_files.listen_at`.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        try:
            self._place = process_files.listen_at(self._socket, _SOCKET)
            self._socket.listen(4)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """What the manager waits on."""
        return self._socket.fileno()

    def accept(self) -> list[SwapChannel]:
        """Every pool of this user that has connected since the last call."""
        channels: list[SwapChannel] = []
        with contextlib.suppress(OSError):  # nobody is there any more
            while True:
                connection, _ = self._socket.accept()
                if is_ours(_peer(connection)[1]):
                    channels.append(SwapChannel(connection))
                else:
                    connection.close()
        return channels

    def close(self) -> None:
        """Closes the socket; channels that were accepted stay open."""
        if self._socket.fileno() >= 0:
            os.close(self._place)
            self._socket.close()


def listen() -> SwapListener | None:
    """A listener for this process, or None where the system has no such sockets."""
    if not available():
        return None
    try:
        return SwapListener()
    except OSError as error:
        logger.debug("this pool cannot be taken over gradually: %s", error)
        return None


def connect(pid: int) -> SwapChannel | None:
    """A channel to the manager with this pid, or None when it does not listen."""
    address = process_files.path_of(pid, _SOCKET)
    if address is None:  # an earlier version's, perhaps
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(address)
        listener, user = _peer(connection)
        if listener == pid and is_ours(user):
            return SwapChannel(connection)
    except OSError as error:
        logger.debug("manager %d has no swap channel: %s", pid, error)
    connection.close()
    return None


def ask(pid: int, limit: float) -> Workers | None:
    """Asks the manager with this pid what workers it has, and waits for the answer.

    Args:
        pid: the manager's process.
        limit: seconds to wait for the answer.

    Returns:
        Workers by queue group; None when there was no answer.
    """
    channel = connect(pid)
    if channel is None:
        return None
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    until = processes.monotonic() + limit
    while channel.received is None and not channel.ended:
        left = until - processes.monotonic()
        if left <= 0:
            break
        poll.poll(1000 * left)
        channel.receive()
    channel.close()
    return channel.received
