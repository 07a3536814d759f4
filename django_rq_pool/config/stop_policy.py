"""Stop policy: how the pool stops, as its configuration says.

Rule of the room: data that the manager and its workers share.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

STOP_SIGNALS: tuple[signal.Signals, ...] = (signal.SIGQUIT, signal.SIGINT, signal.SIGTERM)
"""The signals that end a pool."""

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
    """What TERM means to the manager and to every worker of the pool."""

    IMMEDIATE = "immediate"
    """End running jobs, account for them, leave nobody behind."""
    GRACEFUL_WAIT = "graceful-wait"
    """As QUIT: leave when the last worker is gone."""
    GRACEFUL = "graceful"
    """As INT: leave at once, the workers finish on their own."""


@dataclass(frozen=True)
class StopRules:
    """How the pool stops.

    Attributes:
        term: what TERM means.
        term_child: None, or the seconds that a job has to clean up after an immediate stop has
            raised ``TermException`` in it. QUIT then makes the manager leave at once, as
            resque-pool's TERM_CHILD has it for platforms that send TERM and wait.
    """

    term: TermPolicy = TermPolicy.IMMEDIATE
    term_child: float | None = None
