"""Reports: what workers tell their manager, one datagram each.

Rule of the room: a report is complete or not there. Datagrams between two ends of a socket pair
keep their borders, however many workers write at once.
"""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from enum import Enum

from ..system.messages import decode, encode
from ..text import shortened

logger = logging.getLogger("django_rq_pool")

_LONGEST = 16_000
"""Characters of text in a report: a traceback longer than this loses its middle."""

MAX_MODULES = 200
"""Modules that jobs import and a worker reports at most: nobody would read more names."""


class Event(str, Enum):
    """What a report is about."""

    READY = "ready"
    """The worker is registered and listens."""
    BOOT_FAILED = "boot failed"
    """The worker leaves before it was ready; the text is the traceback."""
    CRASHED = "crashed"
    """An error of its code ends the worker, which was ready; the text is the traceback."""
    REDIS_LOST = "redis lost"
    """The worker cannot reach Redis, or Redis refuses it, its password or what it writes. It keeps
    trying; the text is the sentence for the log."""
    REDIS_BACK = "redis back"
    """Redis accepts writes of the worker again."""
    HOOK_FAILED = "hook failed"
    """A ``before_start`` hook has raised; the text is the traceback."""
    IMPORTED = "imported"
    """A job of the worker had to import modules; the text is their names, with spaces between."""


@dataclass(frozen=True)
class Report:
    """What one worker reports.

    Attributes:
        pid: the worker's process.
        event: what it is about.
        text: more about it; see `Event`.
    """

    pid: int
    event: Event
    text: str = ""


class Reports:
    """Both ends of the socket pair. The manager reads, every worker writes."""

    def __init__(self) -> None:
        self._manager_end, self._workers_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager_end.setblocking(False)
        self._workers_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * _LONGEST)

    def fileno(self) -> int:
        """What the manager waits on."""
        return self._manager_end.fileno()

    def take(self) -> list[Report]:
        """Every report that has come in. What is no report is logged and dropped."""
        reports: list[Report] = []
        while True:
            try:
                data = self._manager_end.recv(8 * _LONGEST)
            except BlockingIOError:
                return reports
            try:
                message = decode(data)
                event = Event(message.text("event"))
                reports.append(Report(message.whole("pid"), event, message.text("text")))
            except ValueError as error:  # MessageError is one
                logger.warning("a worker's report cannot be read and is dropped: %s", error)

    def send(self, event: Event, text: str = "") -> bool:
        """Called by a worker.

        Args:
            event: what the report is about.
            text: see `Event`.

        Returns:
            False if the manager is gone. That is no error: nobody is left to be told.
        """
        report = {"pid": os.getpid(), "event": event.value, "text": shortened(text, _LONGEST)}
        try:
            self._workers_end.send(encode(report))
        except OSError:
            return False
        return True

    def become_worker(self) -> None:
        """Closes the manager's end in a forked worker."""
        self._manager_end.close()

    def close(self) -> None:
        """Closes both ends."""
        self._manager_end.close()
        self._workers_end.close()
