"""Counts channel: between the manager and the process that loads the counts and measures.

Rule of the room: records go in and come out. What to do with them is the business of
`manager.counts_watcher` and of `autoscaling`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from dataclasses import dataclass, field

from ..system.messages import MessageError, MessageReader, encode
from .counts_records import Record, decoded, encoded

logger = logging.getLogger("django_rq_pool")


@dataclass
class Received:
    """What has come in.

    Attributes:
        records: every record that has come in whole.
        ended: whether no more will come: the other end has closed its side, or is broken.
        broken: whether it said what is no record.
    """

    records: list[Record] = field(default_factory=list)
    ended: bool = False
    broken: bool = False


class CountsChannel:
    """A socket pair between the autoscaling process and the manager."""

    def __init__(self) -> None:
        self._manager_end, self._child_end = socket.socketpair()
        self._manager_end.setblocking(False)
        self._mine = self._manager_end
        self._reader = MessageReader()

    def fileno(self) -> int:
        """What this process waits on."""
        return self._mine.fileno()

    def become_child(self) -> None:
        """Closes the manager's end in the forked process."""
        self._manager_end.close()
        self._mine = self._child_end

    def become_manager(self) -> None:
        """Closes the child's end in the manager, which would never see the end otherwise."""
        self._child_end.close()

    def send(self, record: Record) -> None:
        """Sends a record. An other end that is gone is no error: nobody is left to be told.

        Counts must have passed `require_sendable`. The manager, which must not wait, sends some
        hundred bytes only, which fit into the socket's buffer.
        """
        with contextlib.suppress(OSError):
            self._mine.sendall(encode(encoded(record)))

    def receive(self) -> Received:
        """Every record that has come in, without waiting."""
        received = Received()
        while not received.ended:
            try:
                data = self._mine.recv(65_536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            received.ended = not data
            try:
                received.records += [decoded(each) for each in self._reader.feed(data)]
            except MessageError as error:
                logger.error("the counts channel is closed: what came cannot be read: %s", error)
                received.ended = received.broken = True
        return received

    def close(self) -> None:
        """Called by the manager, and by what it forks meanwhile."""
        self._manager_end.close()
