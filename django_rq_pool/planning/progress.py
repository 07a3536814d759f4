"""Progress: how far a pool is from what is wanted.

Rule of the room: questions about the roster. An answer is true for this instant only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .backoff import Backoff
from .phases import STOPS, Phase
from .plan import Wanted
from .roster import Roster


def ready_workers(wanted: Sequence[Wanted], roster: Roster) -> Counter[str]:
    """How many workers of each group are ready.

    Workers that are asked to stop, or have an old generation, do not count.

    Args:
        wanted: what each queue group shall have.
        roster: the processes that the pool has.

    Returns:
        The number of workers by group name.
    """
    generations = {want.group: want.generation for want in wanted}
    return Counter(
        record.group
        for record in roster.workers()
        if record.ready_at is not None
        and record.stop is None
        and record.generation == generations.get(record.group)
    )


def all_ready(wanted: Sequence[Wanted], roster: Roster) -> bool:
    """Whether every group has as many ready workers as it shall have.

    Args:
        wanted: what each queue group shall have.
        roster: the processes that the pool has.
    """
    ready = ready_workers(wanted, roster)
    return all(ready[want.group] >= want.workers for want in wanted)


def every_group_ready(wanted: Sequence[Wanted], roster: Roster) -> bool:
    """Whether every group that shall have workers has at least one that is ready.

    Args:
        wanted: what each queue group shall have.
        roster: the processes that the pool has.
    """
    ready = ready_workers(wanted, roster)
    return all(ready[want.group] or not want.workers for want in wanted)


@dataclass(frozen=True)
class StartGoal:
    """What a pool must reach for a successful start.

    Attributes:
        all_workers: True: every worker must be ready. False: one worker of each group.
        until: the deadline, in monotonic seconds.
    """

    all_workers: bool
    until: float = math.inf


@dataclass(frozen=True)
class StartResult:
    """The result of a start.

    Attributes:
        text: why it failed, as a sentence; empty if it succeeded.
    """

    text: str = ""

    @property
    def success(self) -> bool:
        """Whether the start succeeded."""
        return not self.text


def start_result(
    goal: StartGoal,
    phase: Phase,
    wanted: Sequence[Wanted],
    roster: Roster,
    backoffs: Mapping[str, Backoff],
    now: float,
    obstacle: str = "",
) -> StartResult | None:
    """Decides whether a start has succeeded or failed.

    One worker that cannot boot is a failure, because a later attempt would hardly succeed. An
    unreachable Redis is a failure at the deadline only.

    Args:
        goal: what the pool must reach.
        phase: the phase of the manager.
        wanted: what each queue group shall have.
        roster: the processes that the pool has.
        backoffs: the failures of each group, by name.
        now: the time, in monotonic seconds.
        obstacle: why no worker is forked yet, or nothing.

    Returns:
        The result, or None while it is open.
    """
    if phase in STOPS:
        return StartResult("The pool was told to stop before it was ready.")
    failing = [group for group, backoff in backoffs.items() if backoff.boot_failures]
    if failing:
        return StartResult(f"Workers of {failing[0]} cannot boot.")
    reached = all_ready if goal.all_workers else every_group_ready
    if phase is Phase.RUNNING and not obstacle and reached(wanted, roster):
        return StartResult()
    if now >= goal.until:
        reason = obstacle or summary(wanted, roster)
        return StartResult(f"The pool was not ready in time: {reason}.")
    return None


def summary(wanted: Sequence[Wanted], roster: Roster) -> str:
    """How many workers of each group are ready, as text.

    Args:
        wanted: what each queue group shall have.
        roster: the processes that the pool has.

    Returns:
        Such as ``high 2 of 3, low 1 of 1``.
    """
    ready = ready_workers(wanted, roster)
    groups = [f"{want.group} {ready[want.group]} of {want.workers}" for want in wanted]
    return ", ".join(groups) or "no group"
