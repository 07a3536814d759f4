"""Stop policy: how a pool stops.

Rule of the room: data that the manager and its workers share.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

STOP_SIGNALS: tuple[signal.Signals, ...] = (signal.SIGQUIT, signal.SIGINT, signal.SIGTERM)
"""The signals that end a pool."""

INFO = signal.Signals(getattr(signal, "SIGINFO", 29))
"""The signal that asks for a report. Linux has no SIGINFO: number 29, as on BSD, is used there."""

TIMER_SIGNALS: tuple[signal.Signals, ...] = (signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF)
"""Signals of timers. They have no effect on any process of a pool, unless its code uses them: RQ's
time limits use SIGALRM while a job or a callback runs."""

WORKER_SIGNALS: Mapping[signal.Signals, str] = {
    signal.SIGQUIT: "Finish the job, take no other, and leave. The manager replaces the worker.",
    signal.SIGINT: "End the job now, settle it, and leave.",
    signal.SIGTERM: "As INT, or as QUIT where the pool's policy for TERM is a graceful one.",
    signal.SIGHUP: "Reopen the log files.",
    signal.SIGUSR1: "End the job now, settle it, and go on.",
    signal.SIGUSR2: "Pause: take no new job. RQ shows the worker as suspended.",
    signal.SIGCONT: "Go on after a pause.",
}
"""The signals that a worker handles, and what each means to it."""


class TermPolicy(Enum):
    """What TERM does to the manager and to every worker of the pool."""

    IMMEDIATE = "immediate"
    """Interrupt running jobs, record what happens to them, and leave no process behind."""
    GRACEFUL_WAIT = "graceful-wait"
    """Like QUIT: workers finish their jobs, and the manager leaves after the last of them."""
    GRACEFUL = "graceful"
    """Like INT: the manager leaves at once, and the workers finish their jobs on their own."""


@dataclass(frozen=True)
class StopRules:
    """How the pool stops.

    Attributes:
        term: what TERM does.
        term_child: the seconds that a job has to clean up, after an immediate stop has raised
            ``TermException`` in it. None: jobs get no such exception. With a number, QUIT makes
            the manager leave at once. Both are resque-pool's TERM_CHILD, which is for platforms
            that send TERM and wait.
    """

    term: TermPolicy = TermPolicy.IMMEDIATE
    term_child: float | None = None
