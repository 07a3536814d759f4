"""Progress: how far a pool is on its way to what is wanted.

Rule of the room: questions about the roster, with answers that hold for this instant only.
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
    """How many workers of each group listen and stay, of the generation that is wanted."""
    generations = {want.group: want.generation for want in wanted}
    return Counter(
        record.group
        for record in roster.workers()
        if record.ready_at is not None
        and record.stop is None
        and record.generation == generations.get(record.group)
    )


def all_ready(wanted: Sequence[Wanted], roster: Roster) -> bool:
    """Whether every group has as many workers as it shall have, all ready."""
    ready = ready_workers(wanted, roster)
    return all(ready[want.group] >= want.workers for want in wanted)


def every_group_ready(wanted: Sequence[Wanted], roster: Roster) -> bool:
    """Whether every group that shall have workers has one that is ready."""
    ready = ready_workers(wanted, roster)
    return all(ready[want.group] or not want.workers for want in wanted)


@dataclass(frozen=True)
class StartGoal:
    """What a pool has to reach so that its start counts as one.

    Attributes:
        all_workers: every worker is to be ready; else one of each group.
        until: by when, on the monotonic clock.
    """

    all_workers: bool
    until: float = math.inf


@dataclass(frozen=True)
class StartResult:
    """How a start went: the text says why it failed, and is empty when it has succeeded."""

    text: str = ""

    @property
    def success(self) -> bool:
        return not self.text


def judge(
    goal: StartGoal,
    phase: Phase,
    wanted: Sequence[Wanted],
    roster: Roster,
    backoffs: Mapping[str, Backoff],
    now: float,
) -> StartResult | None:
    """Whether a start has succeeded or failed; None while that is open.

    One worker that cannot boot is a failure: what else would succeed later, without anybody's
    help? Redis being away is none, until time is up.
    """
    if phase in STOPS:
        return StartResult("The pool was told to stop before it was ready.")
    failing = [group for group, backoff in backoffs.items() if backoff.boot_failures]
    if failing:
        return StartResult(f"Workers of {failing[0]} cannot boot.")
    reached = all_ready if goal.all_workers else every_group_ready
    if phase is Phase.RUNNING and reached(wanted, roster):
        return StartResult()
    if now >= goal.until:
        return StartResult(f"The pool was not ready in time: {shown(wanted, roster)}.")
    return None


def shown(wanted: Sequence[Wanted], roster: Roster) -> str:
    """The groups for people: how many workers are ready of how many."""
    ready = ready_workers(wanted, roster)
    groups = [f"{want.group} {ready[want.group]} of {want.workers}" for want in wanted]
    return ", ".join(groups) or "no group"
