"""Start hooks: when each ``before_start`` hook runs, runs again, and is ended.

Rule of the room: arithmetic on frozen records. The time and the random number are arguments. The
hooks run one after the other, each until it has finished once; no worker is forked before that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from .backoff import delay
from .boots import SHOW_TIME
from .phases import STOPS, Phase

TOLD_AFTER = 30.0
"""Seconds after which it is told that a hook still runs; then after twice as many, and so on."""


@dataclass(frozen=True)
class HookProcess:
    """The process that runs a hook. Times are monotonic seconds.

    Attributes:
        pid: its process id.
        began: when it was forked.
        tell_at: when to tell that it still runs.
        shows: whether it was asked to show where it is.
        asked_at: when it was asked to leave, or None.
        killed: whether the manager has killed it.
    """

    pid: int
    began: float
    tell_at: float
    shows: bool = False
    asked_at: float | None = None
    killed: bool = False


class HookStep(Enum):
    """What the manager does next about the hooks."""

    RUN = "fork a process for the next hook"
    SHOW = "have it show where it is"
    TELL = "tell that it still runs"
    ASK = "ask it to leave"
    KILL = "kill it"


@dataclass(frozen=True)
class StartHooks:
    """The hooks of a start.

    Attributes:
        names: of all of them, in their order.
        done: how many have finished.
        process: the one that runs now.
        failures: how often the present hook has failed.
        not_before: the earliest time of its next run, in monotonic seconds.
    """

    names: tuple[str, ...]
    done: int = 0
    process: HookProcess | None = None
    failures: int = 0
    not_before: float = float("-inf")

    @property
    def over(self) -> bool:
        """Whether all have finished."""
        return self.done == len(self.names)

    @property
    def name(self) -> str:
        """The present hook. There is none when all have finished.

        Raises:
            IndexError: all have finished.
        """
        return self.names[self.done]

    def forked(self, pid: int, now: float) -> StartHooks:
        """Notes that a process runs the present hook."""
        return replace(self, process=HookProcess(pid, now, now + TOLD_AFTER))

    def finished(self) -> StartHooks:
        """Notes that the present hook has finished."""
        return StartHooks(self.names, self.done + 1)

    def failed(self, now: float, chance: float) -> StartHooks:
        """Notes that the present hook has failed, or its process could not be forked.

        Args:
            now: the time, in monotonic seconds.
            chance: a random number from 0 to 1, for the jitter.
        """
        failures = self.failures + 1
        wait = delay(failures, chance)
        return replace(self, process=None, failures=failures, not_before=now + wait)

    def after(self, step: HookStep, now: float) -> StartHooks:
        """Notes that a step was taken that leaves the process as it is."""
        process = self.process
        if process is None:
            return self
        if step is HookStep.SHOW:
            process = replace(process, shows=True)
        elif step is HookStep.TELL:
            tell_at = process.began + 2 * (process.tell_at - process.began)
            process = replace(process, shows=False, tell_at=tell_at)
        elif step is HookStep.ASK:
            process = replace(process, asked_at=now)
        elif step is HookStep.KILL:
            process = replace(process, killed=True)
        return replace(self, process=process)

    def next_step(self, phase: Phase, now: float, grace: float) -> tuple[HookStep | None, float]:
        """Decides what to do now.

        Args:
            phase: the phase of the manager.
            now: the time, in monotonic seconds.
            grace: seconds that a process may take to leave before it is killed.

        Returns:
            The step, or None; and when to look again, in monotonic seconds.
        """
        if phase in STOPS:
            return self._end(now, grace)
        if self.over:
            return None, float("inf")
        if self.process is None:
            due, step = self.not_before, HookStep.RUN
        elif self.process.shows:
            due, step = self.process.tell_at + SHOW_TIME, HookStep.TELL
        else:
            due, step = self.process.tell_at, HookStep.SHOW
        return (step if now >= due else None), due

    def _end(self, now: float, grace: float) -> tuple[HookStep | None, float]:
        process = self.process
        if process is None or process.killed:
            return None, float("inf")
        if process.asked_at is None:
            return HookStep.ASK, now
        due = process.asked_at + grace
        return (HookStep.KILL if now >= due else None), due
