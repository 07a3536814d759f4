"""Demand: what is known of the work that waits for a group, and of how much of it is too much.

Rule of the room: an observation and what was remembered go in, what is remembered now and how many
workers are missing come out. What to do about it is decided in `scaling`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import mean, median

from .peers import Peer

LEAD = 2.0
"""Seconds until the workers of a decision take jobs and that can be seen: so far ahead a queue that
grows is foreseen."""

FULL = 0.8
"""Workers that are busy for more than this share of their time are none too many. Between that load
and the one at which jobs wait too long nothing changes: without this band a load near a boundary
would move the count back and forth."""

MEMORY = 60.0
"""Seconds over which the load is averaged; where jobs are long, as many as `MEMORY_JOBS` of them
take, up to `LONGEST_MEMORY`."""
MEMORY_JOBS = 5
LONGEST_MEMORY = 900.0

PATIENCE = 15.0
"""Seconds after a rise before a worker is let go, to begin with."""

_RUN_TIME_JOBS = 20
"""Jobs over which the run time is averaged."""
_SHORTEST = 0.001
"""Seconds that a job takes at least, so that there is something to divide by."""


@dataclass(frozen=True)
class Observation:
    """What was seen of a group at one moment.

    Attributes:
        oldest: age of the job that has waited longest, in seconds; 0 if none waits.
        waiting: jobs that wait on the group's queues.
        running: jobs of these queues that run, on any host and in any group.
        live: workers that are registered on these queues, on any host and in any group.
        ended: jobs of this pool's workers of the group that ended since the observation before.
        run_seconds: how long these had run, all together.
        mine: this pool.
        others: the pools on other hosts that move their counts for this group too.
    """

    oldest: float
    waiting: int
    running: int
    live: int
    ended: int
    run_seconds: float
    mine: Peer
    others: tuple[Peer, ...] = ()

    @property
    def count(self) -> int:
        """How many workers all the pools give the group."""
        return self.mine.count + sum(pool.count for pool in self.others)

    @property
    def busy(self) -> int:
        """How many of all the pools' workers run a job."""
        return self.mine.busy + sum(pool.busy for pool in self.others)

    @property
    def most(self) -> int:
        """How many workers all the pools may give the group."""
        return self.mine.bounds.max + sum(pool.bounds.max for pool in self.others)

    @property
    def served(self) -> bool:
        """Whether anybody serves the queues, or will in a moment."""
        return self.live > 0 or self.count > 0

    @property
    def at_work(self) -> int:
        """How many workers the queues have, at least 1. One that serves other queues too counts
        while it runs a job of these."""
        return max(1, min(max(self.running, self.busy), self.live))


@dataclass(frozen=True)
class State:
    """What is remembered of a group from one decision to the next. Times are monotonic seconds.

    Attributes:
        seen_at: when it was last observed, or None.
        waiting: how many jobs waited then.
        busy: how many of this pool's workers were busy then.
        growths: by how many jobs a second the queues grew, at the last three observations.
        run_time: mean run time of a job in seconds, or None while none is known.
        demand: how many workers of all the pools there was work for, averaged over the target.
        load: the same, averaged over a longer time.
        rose_at: when this pool last added workers.
        rose_by: and how many.
        fell_at: when it last let one go.
        patience: seconds after a rise before it lets one go.
        active_at: when it last saw a job.
        stuck_since: since when its idle workers have taken none of the jobs that wait, or None.
    """

    seen_at: float | None = None
    waiting: int = 0
    busy: int = 0
    growths: tuple[float, float, float] = (0.0, 0.0, 0.0)
    run_time: float | None = None
    demand: float = 0.0
    load: float = 0.0
    rose_at: float = -math.inf
    rose_by: int = 0
    fell_at: float = -math.inf
    patience: float = PATIENCE
    active_at: float = -math.inf
    stuck_since: float | None = None

    @property
    def growth(self) -> float:
        """By how many jobs a second the queues grow; the median, for one burst is no growth."""
        return median(self.growths)

    @property
    def fitting(self) -> int:
        """How many workers the work of late keeps busy without filling them."""
        return math.ceil(max(self.demand, self.load) / FULL)


def learn(state: State, seen: Observation, target: float, now: float) -> State:
    """What an observation adds to what is remembered.

    Args:
        state: what was remembered.
        seen: the observation.
        target: how long a job may wait, in seconds.
        now: the time of the observation.
    """
    run_time = state.run_time
    known = [pool.run_time for pool in seen.others if pool.run_time is not None]
    if run_time is None and known:
        run_time = mean(known)  # a host without a worker must not judge by its own jobs alone
    if seen.ended:
        took = max(seen.run_seconds / seen.ended, _SHORTEST)
        keep = 0.0 if run_time is None else (1 - 1 / _RUN_TIME_JOBS) ** seen.ended
        run_time = keep * (run_time or 0.0) + (1 - keep) * took
    begun = max(0, seen.ended + seen.mine.busy - state.busy)
    stuck = seen.waiting > 0 and seen.mine.busy < seen.mine.count and not begun
    work = float(seen.busy)
    if not stuck:
        # Where jobs are shorter than the target, one worker is enough for several that wait.
        share = 1.0 if run_time is None else min(1.0, run_time / target)
        work = min(work + seen.waiting * share, max(work, seen.most))
    growths, demand, load = state.growths, work, work
    if state.seen_at is not None:
        past = max(0.0, now - state.seen_at)
        if past:
            growths = (*growths[1:], (seen.waiting - state.waiting) / past)
        memory = min(max(MEMORY, MEMORY_JOBS * (run_time or 0.0)), LONGEST_MEMORY)
        demand = _average(state.demand, work, past, target)
        load = _average(state.load, work, past, memory)
    active = seen.waiting or seen.mine.busy or begun or state.seen_at is None
    since = now if state.stuck_since is None else state.stuck_since
    return replace(
        state,
        seen_at=now,
        waiting=seen.waiting,
        busy=seen.mine.busy,
        growths=growths,
        run_time=run_time,
        demand=demand,
        load=load,
        active_at=now if active else state.active_at,
        stuck_since=since if stuck else None,
    )


def _average(before: float, now: float, past: float, span: float) -> float:
    """A moving average over about ``span`` seconds, when ``past`` seconds have gone by."""
    keep = math.exp(-past / span)
    return keep * before + (1 - keep) * now


def expected_wait(seen: Observation, state: State) -> float | None:
    """How long a job will wait that comes in `LEAD` seconds, or None while no run time is known."""
    if state.run_time is None:
        return None
    ahead = seen.waiting + max(0.0, state.growth) * LEAD if seen.waiting else 0.0
    return ahead * state.run_time / seen.at_work


def missing(seen: Observation, state: State, target: float, wait: float | None) -> int:
    """How many workers all the pools lack; 0 while jobs are in time and will be.

    By Little's law, so many jobs a second keep ``run time`` times as many workers busy. Jobs must
    be done by the queue's growth a second faster, to stop it, and faster still to be rid, within
    the target, of those that wait too many.

    Args:
        seen: the observation.
        state: what is known with it.
        target: how long a job may wait, in seconds.
        wait: how long one is expected to wait.
    """
    in_time = seen.served and seen.oldest <= target
    if not seen.waiting or (in_time and (wait is None or wait <= target)):
        return 0
    if state.run_time is None:
        return seen.waiting
    # With half of the target to spare, so many may wait. Where a job is late though fewer do, the
    # run time has been no good guess.
    may_wait = seen.at_work * target / 2 / state.run_time if in_time else 0.0
    faster = state.growth + (seen.waiting - may_wait) / target
    if faster <= 0:
        return 0
    # More workers than jobs would have nothing to do.
    return min(max(1, math.ceil(faster * state.run_time)), seen.waiting)
