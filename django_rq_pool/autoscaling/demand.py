"""Demand: estimates how much work waits for a group, and how many workers it lacks.

Rule of the room: an observation and the last state go in, the new state and the number of missing
workers come out. `policy` decides what to do about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import mean, median

from .peers import Peer

LEAD = 2.0
"""Seconds from a decision until its workers take jobs and that can be measured. The growth of a
queue is extrapolated by as many seconds."""

FULL = 0.8
"""No worker is removed if the others would then be busy for more than this share of their time. A
load between this one and the one at which jobs wait too long changes nothing. Without this band, a
load near a boundary would move the count up and down."""

MEMORY = 60.0
"""Seconds over which the load is averaged. If jobs are long, it is the time of `MEMORY_JOBS` jobs,
at most `LONGEST_MEMORY` seconds."""
MEMORY_JOBS = 5
"""See `MEMORY`."""
LONGEST_MEMORY = 900.0
"""See `MEMORY`."""

PATIENCE = 15.0
"""The shortest patience: seconds between adding workers and removing one."""

_RUN_TIME_JOBS = 20
"""The number of jobs over which the run time is averaged."""
_SHORTEST = 0.001
"""The shortest run time of a job, in seconds, to avoid a division by zero."""


@dataclass(frozen=True)
class Observation:
    """What was measured of a group at one moment.

    Attributes:
        oldest: how long the oldest waiting job has waited, in seconds; 0 if none waits.
        waiting: how many jobs wait on the group's queues.
        running: how many jobs of these queues run, on any host and in any group.
        live: how many workers are registered on these queues, on any host and in any group.
        ended: how many jobs this pool's workers of the group have ended since the last
            observation.
        run_seconds: the sum of the run times of these jobs, in seconds.
        mine: the figures of this pool.
        others: the figures of pools of the same name on other hosts that scale this group too.
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
        """How many workers all pools together give the group."""
        return self.mine.count + sum(pool.count for pool in self.others)

    @property
    def busy(self) -> int:
        """How many workers of all pools run a job."""
        return self.mine.busy + sum(pool.busy for pool in self.others)

    @property
    def most(self) -> int:
        """How many workers all pools together may give the group."""
        return self.mine.bounds.max + sum(pool.bounds.max for pool in self.others)

    @property
    def served(self) -> bool:
        """Whether workers serve the queues, or soon will."""
        return self.live > 0 or self.count > 0

    @property
    def at_work(self) -> int:
        """How many workers work on the queues, at least 1.

        A worker that also serves other queues counts only while it runs a job of these.
        """
        return max(1, min(max(self.running, self.busy), self.live))


@dataclass(frozen=True)
class State:
    """What is kept about a group from one decision to the next. Times are monotonic seconds.

    Attributes:
        seen_at: when it was last observed, or None.
        waiting: how many jobs waited then.
        busy: how many of this pool's workers were busy then.
        growths: the growth of the queues in jobs per second, at the last three observations.
        run_time: the mean run time of a job, in seconds, or None if it is unknown.
        demand: for how many workers of all pools there was work, averaged over the target.
        load: the same, averaged over a longer time, see `MEMORY`.
        rose_at: when this pool last added workers.
        rose_by: how many it added then.
        fell_at: when it last removed one.
        patience: seconds between adding workers and removing one.
        active_at: when it last saw a job.
        stuck_since: since when its idle workers have taken none of the waiting jobs, or None.
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
        """The growth of the queues in jobs per second; the median, so that one burst is ignored."""
        return median(self.growths)

    @property
    def fitting(self) -> int:
        """How many workers the recent work keeps busy, each for at most the share `FULL`."""
        return math.ceil(max(self.demand, self.load) / FULL)


def learn(state: State, seen: Observation, target: float, now: float) -> State:
    """Adds an observation to the state.

    Args:
        state: the state before.
        seen: the observation.
        target: how long a job may wait, in seconds.
        now: the time of the observation, in monotonic seconds.

    Returns:
        The new state.
    """
    run_time = state.run_time
    known = [pool.run_time for pool in seen.others if pool.run_time is not None]
    if run_time is None and known:
        run_time = mean(known)  # a host that has run no job yet uses what the others know
    if seen.ended:
        took = max(seen.run_seconds / seen.ended, _SHORTEST)
        keep = 0.0 if run_time is None else (1 - 1 / _RUN_TIME_JOBS) ** seen.ended
        run_time = keep * (run_time or 0.0) + (1 - keep) * took
    begun = max(0, seen.ended + seen.mine.busy - state.busy)
    stuck = seen.waiting > 0 and seen.mine.busy < seen.mine.count and not begun
    work = float(seen.busy)
    if not stuck:
        # If jobs are shorter than the target, one worker is enough for several waiting jobs.
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
    """An exponential moving average over ``span`` seconds, ``past`` seconds after the last one."""
    keep = math.exp(-past / span)
    return keep * before + (1 - keep) * now


def expected_wait(seen: Observation, state: State) -> float | None:
    """Estimates how long a job will wait that comes in `LEAD` seconds.

    Args:
        seen: the observation.
        state: the state after it.

    Returns:
        Seconds, or None if no run time is known.
    """
    if state.run_time is None:
        return None
    ahead = seen.waiting + max(0.0, state.growth) * LEAD if seen.waiting else 0.0
    return ahead * state.run_time / seen.at_work


def missing(seen: Observation, state: State, target: float, wait: float | None) -> int:
    """How many workers all pools together lack; 0 while jobs are in time and will be.

    By Little's law, ``n`` jobs per second with a run time of ``t`` seconds keep ``n * t`` workers
    busy. To stop the growth of the queue, as many more jobs per second must be done as it grows.
    To work off the jobs that wait too long, within the target, it must be more still.

    Args:
        seen: the observation.
        state: the state after it.
        target: how long a job may wait, in seconds.
        wait: how long a job is expected to wait, in seconds, or None; see `expected_wait`.
    """
    in_time = seen.served and seen.oldest <= target
    if not seen.waiting or (in_time and (wait is None or wait <= target)):
        return 0
    if state.run_time is None:
        return seen.waiting
    # This many jobs may wait, so that half of the target is spare. If a job is late although fewer
    # wait, the run time was a bad estimate.
    may_wait = seen.at_work * target / 2 / state.run_time if in_time else 0.0
    faster = state.growth + (seen.waiting - may_wait) / target
    if faster <= 0:
        return 0
    # More workers than jobs would have nothing to do.
    return min(max(1, math.ceil(faster * state.run_time)), seen.waiting)
