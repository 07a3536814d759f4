"""sd_notify: sends the state of the pool to systemd, or another program with its protocol.

Rule of the room: nothing blocks, raises or stays open between two calls. Without NOTIFY_SOCKET in
the environment, every method does nothing.
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
"""Seconds between two attempts to send a message while the socket's queue is full."""

EXTENSION = 30.0
"""Seconds that systemd shall wait longer. The request is repeated after a third of this time."""

_UNSENT = 8
"""The most messages to keep while the socket's queue is full. Older ones are outdated by then."""

VARIABLES = (SOCKET_VARIABLE, WATCHDOG_VARIABLE, WATCHDOG_PID_VARIABLE)
"""All of them."""


class Notifier:
    """The pool's side of systemd's protocol; see sd_notify(3).

    Only the manager's loop calls `tick`, at each turn. If the loop hangs, no watchdog ping is sent
    and systemd restarts the pool.

    Make it in the manager, before the first fork of a worker.

    Args:
        environment: the environment variables. Those of the protocol are removed, like
            ``unset_environment`` of sd_notify(3) does, so that workers and programs that jobs
            start cannot speak for the pool. WATCHDOG_PID, if it is set, must be the manager's pid.
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
        self._failure_logged = False

    @property
    def enabled(self) -> bool:
        """Whether messages are sent."""
        return self._address is not None

    def ready(self) -> None:
        """Reports that every worker is ready, after a start or a reload."""
        self._queue("READY=1")

    def reloading(self) -> None:
        """Reports that a reload begins. `ready` ends it; ``Type=notify-reload`` waits for that."""
        self._queue(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Reports that the pool stops.

        A pool that a younger one replaces must call `mute` instead. Otherwise systemd would
        consider the service as stopping, and stop the younger pool too.
        """
        self._queue("STOPPING=1")

    def main_pid(self, pid: int) -> None:
        """Reports the service's new main process.

        The younger pool of a swap sends it before it asks the older one to leave. systemd accepts
        it only for a process of the service's control group, and with ``NotifyAccess=all``.

        Args:
            pid: the main process.
        """
        self._queue(f"MAINPID={pid}")

    def mute(self) -> None:
        """Sends nothing any more, because a younger pool now speaks for the service."""
        self._address = None

    def status(self, text: str) -> None:
        """Sends the line that ``systemctl status`` shows, if it has changed.

        Args:
            text: the line.
        """
        if text != self._status and self._send("STATUS=" + " ".join(text.splitlines())):
            self._status = text

    def tick(self, now: float, *, extending: bool = False) -> float | None:
        """Sends what is due.

        Args:
            now: the time, in monotonic seconds.
            extending: whether a start or stop is in progress that may take longer than
                ``TimeoutStartSec`` or ``TimeoutStopSec``, for example until jobs finish.

        Returns:
            When to call it again at the latest, in monotonic seconds; None: no need.
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

    def _queue(self, message: str) -> None:
        """Sends a message that must arrive, after those before it.

        If the socket's queue is full, it is sent at one of the next ticks.
        """
        if self._address is not None:
            self._unsent.append(message)
            self._send_unsent()

    def _send_unsent(self) -> None:
        while self._unsent and self._send(self._unsent[0]):
            self._unsent.popleft()

    def _send(self, message: str) -> bool:
        """Sends a message.

        It opens a socket for each message. So workers do not inherit one, and a new socket of a
        restarted systemd is found.

        Returns:
            False if the queue is full and another attempt may help, else True.
        """
        if self._address is None:
            return True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            try:
                sender.sendto(message.encode(errors="replace"), self._address)
            except OSError as error:
                if not self._failure_logged:
                    self._failure_logged = True
                    logger.debug("NOTIFY_SOCKET: sending %r failed: %s", message, error)
                return not isinstance(error, BlockingIOError)
        return True


def _address(given: str) -> str | None:
    """The address of a socket: an absolute path, or an abstract name of Linux (``@``)."""
    if given.startswith("@"):
        return "\0" + given[1:]
    if given.startswith("/"):
        return given
    if given:
        logger.warning(
            "NOTIFY_SOCKET: %r is neither an absolute path nor an abstract name (@). "
            "systemd is not notified.",
            given,
        )
    return None


def _ping_interval(microseconds: str, pid: str) -> float | None:
    """Seconds between two watchdog pings, half of the watchdog's limit. None: send no pings."""
    if not microseconds.isascii() or not microseconds.isdigit() or not int(microseconds):
        return None
    if pid and pid != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000
