"""Peers: the pools on several hosts that move their counts for one group, and how they share.

Rule of the room: every pool sees the same queue and works out the same answer for all of them, each
from the figures that the others show; so ten hosts do not each do what one should.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..config.options import Bounds

SMALL_STEP = 2
"""A pool adds so many workers at once at most, or as many as it has, if that is more."""


@dataclass(frozen=True)
class Peer:
    """One pool's part in a group, as it last showed itself.

    Attributes:
        name: its name, in an order that all of its peers share.
        count: how many workers it gives the group.
        busy: how many of its workers run a job.
        bounds: between which it may move its count.
        coming: how many of its workers were added so lately that nobody sees yet what they do.
        run_time: how long a job takes that it runs, in seconds, or None while it knows of none.
        stuck: whether it has idle workers while jobs wait, so that it would add none.
    """

    name: str
    count: int
    busy: int
    bounds: Bounds
    coming: int = 0
    run_time: float | None = None
    stuck: bool = False


def part_of(missing: int, mine: Peer, others: Collection[Peer]) -> int:
    """How many of the missing workers this pool adds.

    Those that are coming to other pools are not missing any more. Each of the rest goes to the pool
    that has the fewest by then, so that hosts become equal, and one that is new comes first. What a
    pool does not add, because it is stuck or at its limit, the others do.
    """
    counts = {pool: pool.count for pool in (mine, *others) if pool is mine or not pool.stuck}
    most = {pool: min(pool.bounds.max, pool.count + max(SMALL_STEP, pool.count)) for pool in counts}
    for _ in range(missing - sum(pool.coming for pool in others)):
        takers = [pool for pool in counts if counts[pool] < most[pool]]
        if not takers:
            break
        counts[min(takers, key=lambda pool: (counts[pool], pool.name))] += 1
    return counts[mine] - mine.count


def lets_go(surplus: int, mine: Peer, others: Collection[Peer]) -> bool:
    """Whether this pool is among those that let a worker go, when there are so many too many.

    Each lets one go at a time; those with the most workers come first, and one without an idle
    worker not at all.
    """
    able = (
        pool for pool in (mine, *others) if pool.count > pool.bounds.min and pool.count > pool.busy
    )
    return mine in sorted(able, key=lambda pool: (-pool.count, pool.name))[: max(0, surplus)]
