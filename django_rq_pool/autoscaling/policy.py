"""Policy: decides how many workers a scaled group shall have now.

Rule of the room: an observation and a state go in, a count and its reason come out. Workers are
added at once, as many as are missing. They are removed late and one by one, because one worker too
many costs little, and one too few makes jobs wait.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..config.options import Bounds
from .demand import LEAD, PATIENCE, Observation, State, expected_wait, learn, missing
from .peers import Peer, removes_one, share_of_missing

LONGEST_PATIENCE = 240.0
"""The longest patience, in seconds. The patience is doubled if workers are missing soon after one
was removed, and halved if they are not. So a load that jumps does not change the count each
time."""
SOON = 4
"""Soon after a change means within this many times the patience."""
QUIET = 30.0
"""Seconds without any job before the last worker of all pools is removed."""
HOPELESS = 60.0
"""Seconds in which idle workers take none of the waiting jobs, before they are removed too. One
stays, because it shows when jobs are taken again."""


@dataclass(frozen=True)
class Decision:
    """The count of a group and its reason.

    Attributes:
        count: how many workers this pool shall give the group now.
        bounds: the range of the count.
        need: how many workers it could use, within its bounds. If ``max_total`` limits the pool,
            groups share its workers in proportion to this.
        coming: how many of its workers were added so recently that their effect is not measurable.
        run_time: the mean run time of a job, in seconds, or None if it is unknown.
        stuck: whether its idle workers take none of the waiting jobs.
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

    def applied_to(self, mine: Peer) -> Peer:
        """The figures that this pool publishes after the decision.

        Args:
            mine: its figures when it was observed.
        """
        return replace(
            mine,
            count=self.count,
            coming=self.coming,
            run_time=self.run_time,
            stuck=self.stuck,
        )


def decide(target: float, seen: Observation, state: State, now: float) -> tuple[State, Decision]:
    """Decides a group's count, within the bounds of ``seen.mine``.

    Jobs are late if one has waited longer than the target, or if a job that comes soon is expected
    to. Then workers are added, see `demand.missing`. A worker is removed if the others have room
    for its work.

    No worker is added while idle workers take none of the waiting jobs, because more of them would
    not help. Reasons are a suspended queue, a paused pool, workers that cannot boot, or a missing
    scheduler.

    Args:
        target: how long a job may wait, in seconds.
        seen: the observation, made about once a second.
        state: the state that the previous decision returned; ``State()`` for the first one.
        now: the time of the observation, in monotonic seconds.

    Returns:
        The state for the next decision, and the decision.
    """
    state = learn(state, seen, target, now)
    wait = expected_wait(seen, state)
    lack = missing(seen, state, target, wait)
    bounds, count, why = seen.mine.bounds, seen.mine.count, "in time"
    if not bounds.min <= count <= bounds.max:
        count, why = _within(bounds, count), "moved into its bounds"
    elif lack:
        step, limit = _rise(lack, seen, state, now)
        count, why = count + step, f"{_lateness(seen, target, wait)}{limit}"
        state = _risen(state, step, now) if step else state
        if count > bounds.min and _is_hopeless(seen, state, now):
            count, state = count - 1, _fallen(state, now)
    elif seen.oldest > target:
        why = f"oldest job {seen.oldest:.1f} s, but the queue gets shorter"
    elif count > bounds.min and _may_fall(seen, state, target, wait, now):
        quiet = now - state.active_at
        load = f"recent load of {max(state.demand, state.load):.1f} workers"
        count, why = count - 1, load if quiet < QUIET else f"no job for {quiet:.0f} s"
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
    """How many workers this pool adds; if none, also why not."""
    if seen.mine.count == seen.mine.bounds.max:
        return 0, ", at its maximum"
    if now - state.rose_at < LEAD:
        return 0, ", new workers are starting"
    if state.stuck_since is not None:
        return 0, ", but idle workers take none"
    step = share_of_missing(lack, seen.mine, seen.others)
    return step, "" if step else ", other hosts add workers first"


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
    """Whether this pool removes a worker because the others have room for its work."""
    if not _has_been_patient(state, now):
        return False
    if seen.mine.busy >= seen.mine.count or (wait or 0.0) > target / 2:
        return False
    if seen.count == 1:
        return now - state.active_at >= QUIET
    return removes_one(seen.count - max(1, state.fitting), seen.mine, seen.others)


def _is_hopeless(seen: Observation, state: State, now: float) -> bool:
    """Whether this pool removes a worker although jobs wait, because idle ones take no jobs."""
    if state.stuck_since is None or now - state.stuck_since < HOPELESS:
        return False
    return seen.mine.count - seen.mine.busy > 1 and _has_been_patient(state, now)


def _has_been_patient(state: State, now: float) -> bool:
    return now - state.rose_at >= state.patience and now - state.fell_at >= state.patience / 3


def _need(lack: int, seen: Observation, state: State) -> int:
    """How many workers this pool could use, however slowly it may add them."""
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
