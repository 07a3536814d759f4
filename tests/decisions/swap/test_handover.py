"""Worker by worker: never more than one too many, never one too few."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from django_rq_pool.config.groups import Counts, QueueGroup
from django_rq_pool.config.options import Bounds
from django_rq_pool.swap.handover import allowance, ceilings, keeps, starting_counts

GROUPS = ["high", "low", "default"]
COUNTS = st.dictionaries(st.sampled_from(GROUPS), st.integers(0, 5), max_size=3)


def scaled(name: str, least: int, most: int) -> QueueGroup:
    return QueueGroup(name, (name,), least, bounds=Bounds(least, most))


def starting_count(*groups: QueueGroup, have: dict[str, int], max_total: int | None = None):
    counts = Counts(groups, max_total=max_total)
    return [group.workers for group in starting_counts(counts, have).groups]


def test_a_group_that_is_scaled_begins_where_it_is_in_the_older_pool():
    assert starting_count(scaled("a", 1, 9), scaled("b", 0, 9), have={"a": 4, "b": 2}) == [4, 2]


def test_a_fixed_count_and_a_group_that_the_older_pool_lacks_begin_as_they_were_loaded():
    assert starting_count(QueueGroup("a", ("a",), 2), scaled("b", 1, 9), have={"a": 5}) == [2, 1]


def test_what_is_starting_count_keeps_to_the_new_bounds_and_the_new_limit():
    assert starting_count(scaled("a", 3, 5), scaled("b", 2, 4), have={"a": 9, "b": 1}) == [5, 2]
    groups = (scaled("a", 1, 9), QueueGroup("b", ("b",), 2), scaled("c", 1, 9))
    assert starting_count(*groups, have={"a": 4, "c": 9}, max_total=8) == [4, 2, 2]


def test_the_ceiling_is_one_more_than_the_larger_of_both_counts():
    assert ceilings({"a": 2, "b": 3, "c": 1}, [{"a": 4}, {"a": 1, "b": 1}]) == {
        "a": 6,
        "b": 4,
        "c": 2,
    }


def test_a_new_pool_may_have_what_the_older_ones_leave_room_for():
    assert allowance(5, [3, 1]) == 1
    assert allowance(5, [0]) == 5
    assert allowance(5, [4, 4]) == 0


def test_the_oldest_pool_gives_up_its_workers_first():
    assert keeps({"a": 5}, {"a": 2}, [{"a": 2}, {"a": 2}], whole=False) == [{"a": 0}, {"a": 2}]


def test_groups_that_the_new_pool_lacks_are_given_up_when_it_is_whole():
    assert keeps({}, {}, [{"old": 2}], whole=False) == [{}]
    assert keeps({}, {}, [{"old": 2}], whole=True) == [{"old": 0}]


@given(wanted=COUNTS, older=st.lists(COUNTS, max_size=3), seed=st.integers(0, 2**32))
def test_a_handover_ends_with_the_new_pool_alone_and_keeps_to_its_bounds(wanted, older, seed):
    chance = random.Random(seed)
    have = [{group: count for group, count in pool.items() if count} for pool in older]
    allowed_to_keep = [dict(pool) for pool in older]
    new = dict.fromkeys(wanted, 0)
    ready = dict.fromkeys(wanted, 0)
    ceiling = ceilings(wanted, have)
    before = {group: sum(pool.get(group, 0) for pool in older) for group in wanted}

    def whole() -> bool:
        return all(ready[group] >= count for group, count in wanted.items())

    for _ in range(500):
        if whole() and not any(sum(pool.values()) for pool in have):
            break
        for group in wanted:
            room = allowance(ceiling[group], [pool.get(group, 0) for pool in have])
            if new[group] < min(wanted[group], room):
                new[group] += 1
            elif ready[group] < new[group] and chance.random() < 0.5:
                ready[group] += 1
            together = new[group] + sum(pool.get(group, 0) for pool in have)
            assert together <= max(wanted[group], before[group]) + 1
            able = ready[group] + sum(pool.get(group, 0) for pool in have)
            assert able >= min(wanted[group], before[group])
        if all(ready[group] or not count for group, count in wanted.items()):
            allowed_to_keep = keeps(ceiling, ready, have, whole=whole())
        for pool, counts, keep in zip(have, older, allowed_to_keep):
            for group, count in counts.items():
                has = pool.pop(group, 0)
                may_have = min(count, keep.get(group, count))
                if has > may_have and chance.random() < 0.5:  # one leaves when its job is done
                    has -= 1
                elif has < may_have:
                    has += 1
                if has:
                    pool[group] = has
    assert whole()
    assert not any(sum(pool.values()) for pool in have)
