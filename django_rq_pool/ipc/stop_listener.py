"""Stop listener: how a process that helps the pool notices that it shall leave.

Rule of the room: a stop signal and the end of the manager mean the same; other signals of the pool
are ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

from ..config.stop_policy import INFO, STOP_SIGNALS, TIMER_SIGNALS
from ..system import signals
from .lifeline import Lifeline

_WITHOUT_EFFECT = (
    signal.SIGHUP,
    signal.SIGWINCH,
    signal.SIGUSR1,
    signal.SIGUSR2,
    INFO,
    *TIMER_SIGNALS,
)


class StopListener:
    """Listens from its construction on, in a process that was forked with signals blocked.

    Args:
        lifeline: ends when the manager does.

    Attributes:
        stopping: whether the process shall leave.
        interruptible: a context that signals end; see `signals.SignalInbox.interruptible`.
    """

    def __init__(self, lifeline: Lifeline) -> None:
        self._inbox = signals.SignalInbox(STOP_SIGNALS, _WITHOUT_EFFECT)
        self._lifeline = lifeline
        self.stopping = False
        self.interruptible = self._inbox.interruptible
        signals.unblock()

    def wait(self, seconds: float, fds: Iterable[int] = ()) -> bool:
        """Waits until a descriptor is readable, the process shall leave, or time is up.

        Args:
            seconds: how long at most.
            fds: descriptors to watch.

        Returns:
            Whether the process shall leave.
        """
        self.wait_for(fds, seconds)
        return self.stopping

    def wait_for(self, fds: Iterable[int], seconds: float) -> set[int]:
        """Waits like `wait`.

        Args:
            fds: descriptors to watch.
            seconds: how long at most.

        Returns:
            Which of the descriptors are readable.
        """
        lifeline = [] if self.stopping else [self._lifeline.fileno()]
        readable = self._inbox.wait([*lifeline, *fds], max(0.0, seconds))
        if readable.intersection(lifeline):
            self.stopping = True
        self.is_stopping()
        return readable.difference(lifeline)

    def is_stopping(self) -> bool:
        """Handles the signals that have arrived. Returns `stopping`."""
        if any(signum in STOP_SIGNALS for signum in self._inbox.take()):
            self.stopping = True
        return self.stopping
