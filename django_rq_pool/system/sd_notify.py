"""Notify: tells systemd, or whoever speaks its protocol, how the pool is doing.

Rule of the room: nothing here blocks or raises, or stays open between two calls. Without
NOTIFY_SOCKET every method does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import MutableMapping

logger = logging.getLogger("django_rq_pool")

SOCKET_VARIABLE = "NOTIFY_SOCKET"
"""Set by systemd for ``Type=notify``: where the pool says that it is ready."""
WATCHDOG_VARIABLE = "WATCHDOG_USEC"
"""Set by systemd for ``WatchdogSec=``: how long the manager's loop may be silent."""
WATCHDOG_PID_VARIABLE = "WATCHDOG_PID"
"""Set by systemd: the process that the watchdog is meant for."""

RETRY = 1.0
"""Seconds until what found the socket's queue full is sent again."""

EXTENSION = 30.0
"""Seconds that systemd shall wait on, each time; asked for again after a third of them."""

_UNSENT = 8
"""Messages kept at most while the socket's queue is full; older ones mean nothing by then."""


class Notifier:
    """The pool's side of systemd's protocol; see sd_notify(3).

    The loop calls `tick` at each turn, and nobody else does: a pool whose loop hangs sends no
    ping, and systemd restarts it.

    Args:
        environment: the process's variables. Those of the protocol are taken out, as
            sd_notify(3) has it with ``unset_environment``: workers, horses and what jobs start
            must neither speak for the pool nor ping in its name. To be made before the first
            fork of a worker, in the process that becomes the manager: WATCHDOG_PID, where it is
            given, must be its own.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._address = _address(environment.pop(SOCKET_VARIABLE, ""))
        self._ping_every = _ping_interval(
            environment.pop(WATCHDOG_VARIABLE, ""), environment.pop(WATCHDOG_PID_VARIABLE, "")
        )
        self._ping_at = 0.0
        self._extend_at: float | None = None
        self._status = ""
        self._unsent: deque[str] = deque(maxlen=_UNSENT)
        self._retry_at = 0.0
        self._told_failure = False

    @property
    def is_heard(self) -> bool:
        """Whether there is anybody to tell."""
        return self._address is not None

    def ready(self) -> None:
        """The pool is whole: after its start, or again after `reloading`."""
        self._say("READY=1")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it (``Type=notify-reload`` waits for that)."""
        self._say(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """A stop begins. Not to be said by a pool that a younger one replaces: systemd would take
        the service for stopping, and end the younger too; see `hand_over`."""
        self._say("STOPPING=1")

    def main_pid(self, pid: int) -> None:
        """Another process is the service's main one from now on: said by the younger pool of a
        swap before it asks the older to leave.

        systemd believes it of a process of the service's own control group, and with
        ``NotifyAccess=all`` only.
        """
        self._say(f"MAINPID={pid}")

    def hand_over(self) -> None:
        """Says nothing any more: a younger pool speaks for the service."""
        self._address = None

    def status(self, text: str) -> None:
        """A line for people, shown by ``systemctl status``; sent when it has changed."""
        if text != self._status and self._send("STATUS=" + " ".join(text.splitlines())):
            self._status = text

    def tick(self, now: float, *, extending: bool = False) -> float | None:
        """Sends what is due.

        Args:
            now: monotonic clock, seconds.
            extending: whether a start or a stop is under way that may take longer than systemd
                waits (``TimeoutStartSec``, ``TimeoutStopSec``), as when jobs finish.

        Returns:
            When to call again, at the latest; None: no such time.
        """
        if self._address is None:
            return None
        due = [self._retry(now), self._ping(now), self._extend(now, extending)]
        return min((each for each in due if each is not None), default=None)

    def _retry(self, now: float) -> float | None:
        if self._unsent and now >= self._retry_at:
            self._retry_at = now + RETRY
            self._send_unsent()
        return self._retry_at if self._unsent else None

    def _ping(self, now: float) -> float | None:
        if self._ping_every is None:
            return None
        if now >= self._ping_at:
            sent = self._send("WATCHDOG=1")
            self._ping_at = now + (self._ping_every if sent else min(RETRY, self._ping_every))
        return self._ping_at

    def _extend(self, now: float, extending: bool) -> float | None:
        if not extending:
            self._extend_at = None
        elif self._extend_at is None or now >= self._extend_at:
            sent = self._send(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1_000_000:.0f}")
            self._extend_at = now + (EXTENSION / 3 if sent else RETRY)
        return self._extend_at

    def _say(self, message: str) -> None:
        """Sends what must arrive, in the order in which it was said; at the next ticks, when the
        socket's queue is full."""
        if self._address is not None:
            self._unsent.append(message)
            self._send_unsent()

    def _send_unsent(self) -> None:
        while self._unsent and self._send(self._unsent[0]):
            self._unsent.popleft()

    def _send(self, message: str) -> bool:
        """Sends a message.

        The socket is made for each one: workers do not inherit it, and one that systemd has made
        anew is found.

        Returns:
            Whether that is settled: False when another try may help.
        """
        if self._address is None:
            return True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                sender.sendto(message.encode(errors="replace"), self._address)
            except OSError as error:
                if not self._told_failure:
                    self._told_failure = True
                    logger.debug("NOTIFY_SOCKET could not be sent %r: %s", message, error)
                return not isinstance(error, BlockingIOError)
        return True


def _address(given: str) -> str | None:
    """The address of a socket: a path, or a name in Linux's abstract space (``@``)."""
    if given.startswith("@"):
        return "\0" + given[1:]
    if given.startswith("/"):
        return given
    if given:
        logger.warning(
            "NOTIFY_SOCKET: %r is neither a path nor an abstract name (@): nothing is sent", given
        )
    return None


def _ping_interval(microseconds: str, pid: str) -> float | None:
    """Seconds between two pings: half of what the watchdog allows. None: no pings are wanted."""
    if not microseconds.isascii() or not microseconds.isdigit() or not int(microseconds):
        return None
    if pid and pid != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000
