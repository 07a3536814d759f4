"""Phases: what a Unix signal means to the manager in each phase of its life.

Rule of the room: one table that answers every signal in every phase, with nothing to compute.
A stop under way can be made harder by a later signal, never softer: no arrow points upwards.
"""

from __future__ import annotations

import signal
from enum import Enum

INFO = signal.Signals(getattr(signal, "SIGINFO", 29))
"""The signal that asks for a report; Linux has no SIGINFO and uses its number 29."""


class Phase(Enum):
    """What the manager is doing; ``value`` is what it says in the log."""

    RUNNING = "running"
    QUITTING = "stopping gracefully, leaving when the last worker is gone"
    LEAVING = "stopping gracefully, leaving at once"
    TERMINATING = "stopping immediately"


_HARDER = {
    signal.SIGQUIT: Phase.QUITTING,
    signal.SIGINT: Phase.LEAVING,
    signal.SIGTERM: Phase.TERMINATING,
}
_HARDNESS = list(Phase)
_OTHERS = (
    signal.SIGHUP,
    signal.SIGWINCH,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    INFO,
)

MANAGER_SIGNALS: tuple[signal.Signals, ...] = (*_HARDER, *_OTHERS)

TRANSITIONS: dict[tuple[Phase, signal.Signals], Phase] = {
    (phase, signum): max(phase, _HARDER.get(signum, phase), key=_HARDNESS.index)
    for phase in Phase
    for signum in MANAGER_SIGNALS
}
