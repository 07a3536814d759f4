"""Scaling: how many workers a group whose count has bounds should have now.

Rule of the room: everything that matters comes in as an argument, a count and its reason come out.
Up at once and by as many as the waiting jobs call for, down one by one and late: a worker too many
costs little, and one too few makes jobs wait.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..config.options import Bounds
from .demand import LEAD, PATIENCE, Observation, State, expected_wait, learn, missing
from .peers import Peer, lets_go, part_of

LONGEST_PATIENCE = 240.0
"""Seconds. The patience is doubled when workers are missing soon after one was let go, so that a
load that jumps about, or needs now one worker more and now one less, does not move the count each
time; and halved when they are not."""
SOON = 4
"""Times the patience."""
QUIET = 30.0
"""Seconds without any job before the last worker of all is let go."""
HOPELESS = 60.0
"""Seconds in which idle workers take none of the jobs that wait before they are let go too, all but
one: that one shows when jobs are taken again."""


@dataclass(frozen=True)
class Decision:
    """A group's count and why.

    Attributes:
        count: how many workers this pool shall give the group now.
        bounds: between which that lies.
        need: how many it could use, within its bounds; what groups that must share are weighed by.
        coming: how many of its workers were added so lately that nobody sees yet what they do.
        run_time: how long a job takes, in seconds, or None while nobody knows.
        stuck: whether its idle workers take none of the jobs that wait.
        why: the reason, in words.
    """

    count: int
    bounds: Bounds
    need: int
    coming: int
    run_time: float | None
    stuck: bool
    why: str

    def __str__(self) -> str:
        """Such as ``4 of 1..10, oldest job 7.2 s > 5 s``."""
        return f"{self.count} of {self.bounds}, {self.why}"

    def shown(self, mine: Peer) -> Peer:
        """What this pool has to show its peers now, given what it was when it was observed."""
        return replace(
            mine,
            count=self.count,
            coming=self.coming,
            run_time=self.run_time,
            stuck=self.stuck,
        )


def decide(target: float, seen: Observation, state: State, now: float) -> tuple[State, Decision]:
    """Decides a group's count, within the bounds of ``seen.mine``.

    Jobs are late if one has waited for longer than the target, or if one that comes soon would, as
    far as the run time and the growth of the queue tell. Then workers are added, see `missing`; a
    worker is let go if the others have room for its work.

    Idle workers that take none of the waiting jobs (a queue is suspended, a pool is paused, workers
    do not boot, a scheduler is missing) are a reason to add none: more of them would not help.

    Args:
        target: how long a job may wait, in seconds.
        seen: the observation, made about once a second.
        state: what the decision before returned; ``State()`` for the first.
        now: the time of the observation.

    Returns:
        The state for the next decision, and the decision.
    """
    state = learn(state, seen, target, now)
    wait = expected_wait(seen, state)
    lack = missing(seen, state, target, wait)
    bounds, count, why = seen.mine.bounds, seen.mine.count, "in time"
    if not bounds.min <= count <= bounds.max:
        count, why = _within(bounds, count), "by its bounds"
    elif lack:
        step, unless = _rise(lack, seen, state, now)
        count, why = count + step, f"{_lateness(seen, target, wait)}{unless}"
        state = _risen(state, step, now) if step else state
        if count > bounds.min and _is_hopeless(seen, state, now):
            count, state = count - 1, _fallen(state, now)
    elif seen.oldest > target:
        why = f"oldest job {seen.oldest:.1f} s, but the queue shortens"
    elif count > bounds.min and _may_fall(seen, state, target, wait, now):
        quiet = now - state.active_at
        work = f"work for {max(state.demand, state.load):.1f} lately"
        count, why = count - 1, work if quiet < QUIET else f"no job for {quiet:.0f} s"
        state = _fallen(state, now)
    coming = state.rose_by if now - state.rose_at < LEAD else 0
    return state, Decision(
        count,
        bounds,
        _need(lack, seen, state),
        coming,
        state.run_time,
        state.stuck_since is not None,
        why,
    )


def _rise(lack: int, seen: Observation, state: State, now: float) -> tuple[int, str]:
    """How many workers this pool adds, and why it adds none."""
    if seen.mine.count == seen.mine.bounds.max:
        return 0, ", and more are not allowed"
    if now - state.rose_at < LEAD:
        return 0, ", and new workers are on their way"
    if state.stuck_since is not None:
        return 0, ", but idle workers take none"
    step = part_of(lack, seen.mine, seen.others)
    return step, "" if step else ", and other hosts come first"


def _risen(state: State, step: int, now: float) -> State:
    patience = state.patience
    if state.rose_at < state.fell_at and now - state.fell_at < SOON * patience:
        patience = min(2 * patience, LONGEST_PATIENCE)
    return replace(state, rose_at=now, rose_by=step, patience=patience)


def _fallen(state: State, now: float) -> State:
    patience = state.patience
    if now - state.rose_at > SOON * patience:
        patience = max(patience / 2, PATIENCE)
    return replace(state, fell_at=now, patience=patience)


def _may_fall(
    seen: Observation, state: State, target: float, wait: float | None, now: float
) -> bool:
    """Whether this pool lets a worker go."""
    if not _has_been_patient(state, now):
        return False
    if seen.mine.busy >= seen.mine.count or (wait or 0.0) > target / 2:
        return False
    if seen.count == 1:
        return now - state.active_at >= QUIET
    return lets_go(seen.count - max(1, state.fitting), seen.mine, seen.others)


def _is_hopeless(seen: Observation, state: State, now: float) -> bool:
    """Whether this pool lets a worker go though jobs wait."""
    if state.stuck_since is None or now - state.stuck_since < HOPELESS:
        return False
    return seen.mine.count - seen.mine.busy > 1 and _has_been_patient(state, now)


def _has_been_patient(state: State, now: float) -> bool:
    return now - state.rose_at >= state.patience and now - state.fell_at >= state.patience / 3


def _need(lack: int, seen: Observation, state: State) -> int:
    """How many workers this pool could use, without regard to how fast it may add them."""
    if lack:
        return _within(seen.mine.bounds, seen.mine.count + math.ceil(lack / (1 + len(seen.others))))
    others = seen.count - seen.mine.count
    return _within(seen.mine.bounds, max(seen.mine.busy, state.fitting - others))


def _within(bounds: Bounds, count: int) -> int:
    return min(max(count, bounds.min), bounds.max)


def _lateness(seen: Observation, target: float, wait: float | None) -> str:
    if seen.oldest > target:
        return f"oldest job {seen.oldest:.1f} s > {target:g} s"
    jobs = "1 job waits" if seen.waiting == 1 else f"{seen.waiting} jobs wait"
    late = seen.served and wait is not None
    return f"{jobs}, expected {wait:.1f} s > {target:g} s" if late else jobs
