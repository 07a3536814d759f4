"""Handover: how many workers two pools may have while one takes over from the other.

Rule of the room: arithmetic on counts. For each queue group, the new pool and the older ones
together have at most one worker more than the larger of their counts, and never fewer that are
ready.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..config.groups import Counts

Workers = Mapping[str, int]
"""How many workers, by the name of the queue group."""


def starting_counts(wanted: Counts, have: Workers) -> Counts:
    """The counts with which a pool begins that takes over from another.

    A group with bounds begins with the number of workers that it has in the older pool, within its
    bounds and the pool's limit. Otherwise a deploy under load would begin with the minimum.

    Args:
        wanted: the new pool's counts as they were loaded.
        have: what the older pool has.
    """
    room = sum(have.values())
    if wanted.max_total is not None:
        room = wanted.max_total - sum(group.workers for group in wanted.groups)
    groups = []
    for group in wanted.groups:
        if group.bounds is not None:
            there = min(have.get(group.name, 0), group.bounds.max)
            more = max(0, min(there - group.workers, room))
            room -= more
            groups.append(replace(group, workers=group.workers + more))
        else:
            groups.append(group)
    return replace(wanted, groups=tuple(groups))


def ceilings(wanted: Workers, have: Sequence[Workers]) -> dict[str, int]:
    """The most workers that all pools may have together in each group of the new one.

    Args:
        wanted: the new pool's counts.
        have: what each older pool has when the handover begins.
    """
    return {
        group: max(count, sum(pool.get(group, 0) for pool in have)) + 1
        for group, count in wanted.items()
    }


def allowance(ceiling: int, have: Sequence[int]) -> int:
    """How many workers of a group the new pool may have now.

    Args:
        ceiling: see `ceilings`.
        have: what each older pool has now, workers that are leaving included.
    """
    return max(0, ceiling - sum(have))


def keeps(
    ceiling: Workers, ready: Workers, have: Sequence[Workers], *, whole: bool
) -> list[dict[str, int]]:
    """How many workers of each group each older pool may keep.

    Args:
        ceiling: for each group of the new pool; see `ceilings`.
        ready: how many workers of the new pool are ready.
        have: what each older pool has now, the oldest pool first.
        whole: whether every worker of the new pool is ready; groups that it does not have are
            given up then, and not before.

    Returns:
        In the order of the pools; a group that is left out is not limited, so one whose workers
        have all left is still named. The oldest pool gives up its workers first.
    """
    given: list[dict[str, int]] = [{} for _ in have]
    for group in {*ceiling, *(group for pool in have for group in pool)}:
        if whole:
            left = 0
        elif group in ceiling:
            left = max(0, ceiling[group] - 1 - ready.get(group, 0))
        else:
            continue
        for keep, pool in zip(reversed(given), reversed(have)):
            keep[group] = min(pool.get(group, 0), left)
            left -= keep[group]
    return given
