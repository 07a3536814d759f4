"""Peers: how pools of one name on several hosts share the scaling of a group.

Rule of the room: every pool sees the same queues and the figures of all others, and computes the
same result for all of them. So ten hosts do not each add the workers that one shall add.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..config.options import Bounds

SMALL_STEP = 2
"""A pool adds at most this many workers at once, or as many as it has, if that is more."""


@dataclass(frozen=True)
class Peer:
    """The figures of one pool for a group, as it last published them.

    Attributes:
        name: the identity of the pool. All peers sort by it.
        count: how many workers it gives the group.
        busy: how many of its workers run a job.
        bounds: the range of its count.
        coming: how many of its workers were added so recently that their effect is not measurable.
        run_time: the mean run time of its jobs, in seconds, or None if it is unknown.
        stuck: whether its idle workers take none of the waiting jobs, so that it adds no workers.
    """

    name: str
    count: int
    busy: int
    bounds: Bounds
    coming: int = 0
    run_time: float | None = None
    stuck: bool = False


def share_of_missing(missing: int, mine: Peer, others: Collection[Peer]) -> int:
    """How many of the missing workers this pool adds.

    Workers that other pools have just added are not missing any more. Each other worker goes to
    the pool that has the fewest workers by then, so that all hosts get equally many. If a pool is
    stuck or at its limit, the other pools add its share.

    Args:
        missing: how many workers all the pools lack.
        mine: this pool.
        others: the other pools.
    """
    counts = {pool: pool.count for pool in (mine, *others) if pool is mine or not pool.stuck}
    most = {pool: min(pool.bounds.max, pool.count + max(SMALL_STEP, pool.count)) for pool in counts}
    for _ in range(missing - sum(pool.coming for pool in others)):
        takers = [pool for pool in counts if counts[pool] < most[pool]]
        if not takers:
            break
        counts[min(takers, key=lambda pool: (counts[pool], pool.name))] += 1
    return counts[mine] - mine.count


def removes_one(surplus: int, mine: Peer, others: Collection[Peer]) -> bool:
    """Whether this pool is one of those that remove a worker.

    Each pool removes one worker at a time. Pools with the most workers come first. A pool at its
    minimum, or without an idle worker, removes none.

    Args:
        surplus: how many workers all the pools have too many.
        mine: this pool.
        others: the other pools.
    """
    able = (
        pool for pool in (mine, *others) if pool.count > pool.bounds.min and pool.count > pool.busy
    )
    return mine in sorted(able, key=lambda pool: (-pool.count, pool.name))[: max(0, surplus)]
