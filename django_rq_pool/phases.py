"""Phases: what a Unix signal means to the manager in each phase of its life.

Rule of the room: one table that answers every signal in every phase. A stop under way can be made
harder by a later signal, never softer: no arrow points upwards.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

INFO = signal.Signals(getattr(signal, "SIGINFO", 29))
"""The signal that asks for a report; Linux has no SIGINFO and uses its number 29."""


class Phase(Enum):
    """What the manager is doing; ``value`` is what it says in the log."""

    RUNNING = "running"
    QUITTING = "stopping gracefully, leaving when the last worker is gone"
    LEAVING = "stopping gracefully, leaving at once"
    TERMINATING = "stopping immediately"


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


_TERM = {
    TermPolicy.IMMEDIATE: Phase.TERMINATING,
    TermPolicy.GRACEFUL_WAIT: Phase.QUITTING,
    TermPolicy.GRACEFUL: Phase.LEAVING,
}
_HARDNESS = list(Phase)

MANAGER_SIGNALS: tuple[signal.Signals, ...] = (
    signal.SIGQUIT,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGWINCH,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    INFO,
)

Transitions = Mapping[tuple[Phase, signal.Signals], Phase]


def transitions(rules: StopRules) -> Transitions:
    """The table: the phase that follows for each phase and each of `MANAGER_SIGNALS`."""
    means = {
        signal.SIGQUIT: Phase.QUITTING if rules.term_child is None else Phase.LEAVING,
        signal.SIGINT: Phase.LEAVING,
        signal.SIGTERM: _TERM[rules.term],
    }
    return {
        (phase, signum): max(phase, means.get(signum, phase), key=_HARDNESS.index)
        for phase in Phase
        for signum in MANAGER_SIGNALS
    }
