"""Phases: what a Unix signal means to the manager in each phase of its life.

Rule of the room: one table that answers every signal in every phase. A stop under way can be made
harder by a later signal, never softer: no arrow points upwards.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from ..config.stop_policy import STOP_SIGNALS, StopRules, TermPolicy

INFO = signal.Signals(getattr(signal, "SIGINFO", 29))
"""The signal that asks for a report; Linux has no SIGINFO and uses its number 29."""


def name_of(signum: signal.Signals) -> str:
    """What people call a signal."""
    return "INFO" if signum == INFO else signum.name.removeprefix("SIG")


class Phase(Enum):
    """What the manager is doing; ``value`` is what it says in the log."""

    RUNNING = "running"
    RESUMING = "reloading the counts, then forking workers again"
    HOLDING = "holding: workers leave gracefully, none is forked until HUP"
    QUITTING = "stopping gracefully, leaving when the last worker is gone"
    LEAVING = "stopping gracefully, leaving at once"
    TERMINATING = "stopping immediately"


STOPS = (Phase.QUITTING, Phase.LEAVING, Phase.TERMINATING)
"""The phases that end the pool, each harder than the one before."""


class Effect(Enum):
    """What a signal asks of the manager beside, or instead of, another phase."""

    NOTHING = "changes nothing"
    RELOAD = "reloading the counts, then replacing every worker"
    REOPEN = "reopening the log files"
    FORWARD = "forwarded to every worker"
    REPORT = "reporting"


@dataclass(frozen=True)
class Response:
    """What a signal means: the phase that follows, and what is to be done."""

    phase: Phase
    effect: Effect = Effect.NOTHING


_TERM = {
    TermPolicy.IMMEDIATE: Phase.TERMINATING,
    TermPolicy.GRACEFUL_WAIT: Phase.QUITTING,
    TermPolicy.GRACEFUL: Phase.LEAVING,
}

OTHER_SIGNALS: tuple[signal.Signals, ...] = (
    signal.SIGHUP,
    signal.SIGWINCH,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    INFO,
)

MANAGER_SIGNALS = (*STOP_SIGNALS, *OTHER_SIGNALS)

Responses = Mapping[tuple[Phase, signal.Signals], Response]


def responses(rules: StopRules, *, may_hold: bool) -> Responses:
    """The table: what each of `MANAGER_SIGNALS` means in each phase.

    Args:
        rules: how the pool stops.
        may_hold: whether WINCH makes the pool hold. It does in a daemon only: in the foreground
            it is what a terminal sends whose window changes its size.
    """
    stops = {
        signal.SIGQUIT: Phase.QUITTING if rules.term_child is None else Phase.LEAVING,
        signal.SIGINT: Phase.LEAVING,
        signal.SIGTERM: _TERM[rules.term],
    }

    def respond(phase: Phase, signum: signal.Signals) -> Response:
        if signum in stops:
            stop = stops[signum]
            is_harder = phase not in STOPS or STOPS.index(stop) > STOPS.index(phase)
            return Response(stop if is_harder else phase)
        if signum == INFO:
            return Response(phase, Effect.REPORT)
        if phase in STOPS:
            return Response(phase, _WHILE_STOPPING[signum])
        if signum == signal.SIGHUP:
            resumed = Phase.RUNNING if phase is Phase.RUNNING else Phase.RESUMING
            return Response(resumed, Effect.RELOAD)
        if signum == signal.SIGWINCH:
            return Response(Phase.HOLDING if may_hold else phase)
        return Response(phase, Effect.FORWARD)

    return {
        (phase, signum): respond(phase, signum) for phase in Phase for signum in MANAGER_SIGNALS
    }


_WHILE_STOPPING = {
    signal.SIGHUP: Effect.REOPEN,  # log files are rotated while the last job takes its time, too
    signal.SIGWINCH: Effect.NOTHING,
    signal.SIGUSR1: Effect.FORWARD,
    signal.SIGUSR2: Effect.NOTHING,  # a worker that leaves takes no new job anyway
    signal.SIGCONT: Effect.NOTHING,
}


def after_load(phase: Phase) -> Phase:
    """The phase that follows when the counts have been reloaded, whether they were good or bad."""
    return Phase.RUNNING if phase is Phase.RESUMING else phase
