"""Phases: what each Unix signal does in each phase of the manager.

Rule of the room: one table for every signal in every phase. A later signal can make a stop harder,
never softer.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from ..config.stop_policy import INFO, STOP_SIGNALS, StopRules, TermPolicy


def name_of(signum: signal.Signals) -> str:
    """The name of a signal without ``SIG``, such as ``TERM``.

    Args:
        signum: the signal.
    """
    return "INFO" if signum == INFO else signum.name.removeprefix("SIG")


class Phase(Enum):
    """What the manager is doing. The value is the text in the log."""

    RUNNING = "running"
    RESUMING = "reloading the counts, then forking workers again"
    HOLDING = "holding: workers leave gracefully, none is forked until HUP"
    QUITTING = "stopping gracefully, leaving when the last worker is gone"
    LEAVING = "stopping gracefully, leaving at once"
    TERMINATING = "stopping immediately"


STOPS = (Phase.QUITTING, Phase.LEAVING, Phase.TERMINATING)
"""The phases that end the pool, each harder than the one before."""


class Effect(Enum):
    """What a signal makes the manager do, besides a change of phase. The value is for the log."""

    NOTHING = "changes nothing"
    RELOAD = "reloading the counts, then replacing every worker"
    REOPEN = "reopening the log files"
    FORWARD = "forwarded to every worker"
    REPORT = "reporting"


@dataclass(frozen=True)
class Response:
    """What a signal does.

    Attributes:
        phase: the next phase.
        effect: what else the manager does.
    """

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

"""The signals that the manager handles and that do not stop the pool."""

MANAGER_SIGNALS = (*STOP_SIGNALS, *OTHER_SIGNALS)
"""The signals that the manager handles."""

Responses = Mapping[tuple[Phase, signal.Signals], Response]
"""The response to a signal in a phase."""


def responses(rules: StopRules, *, may_hold: bool) -> Responses:
    """Builds the table of what each of `MANAGER_SIGNALS` does in each phase.

    Args:
        rules: how the pool stops.
        may_hold: whether WINCH stops all workers until HUP. True in a daemon only: a terminal
            sends WINCH to a foreground process whenever its window is resized.
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
    signal.SIGHUP: Effect.REOPEN,  # logrotate may send HUP while the last job still runs
    signal.SIGWINCH: Effect.NOTHING,
    signal.SIGUSR1: Effect.FORWARD,
    signal.SIGUSR2: Effect.NOTHING,  # a worker that is stopping takes no new job anyway
    signal.SIGCONT: Effect.NOTHING,
}


def after_load(phase: Phase) -> Phase:
    """The phase after the counts were reloaded, successfully or not.

    Args:
        phase: the phase before.
    """
    return Phase.RUNNING if phase is Phase.RESUMING else phase
