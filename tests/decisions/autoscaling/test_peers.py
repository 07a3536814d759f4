"""How pools on several hosts share what all of them see."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from django_rq_pool.autoscaling.peers import SMALL_STEP, Peer, removes_one, share_of_missing
from django_rq_pool.config.options import Bounds

WIDE = Bounds(0, 100)


def pools(*counts: int, bounds: Bounds = WIDE, **more) -> list[Peer]:
    return [
        Peer(name, count, more.get("busy", count), bounds)
        for name, count in zip("abcdefghij", counts)
    ]


def parts(missing: int, peers: list[Peer]) -> list[int]:
    """What each pool adds, each reckoning by itself."""
    return [share_of_missing(missing, peer, [p for p in peers if p is not peer]) for peer in peers]


def leavers(surplus: int, peers: list[Peer]) -> list[bool]:
    return [removes_one(surplus, peer, [p for p in peers if p is not peer]) for peer in peers]


def test_a_pool_alone_adds_what_is_missing_up_to_twice_what_it_has():
    assert parts(3, pools(4)) == [3]
    assert parts(9, pools(4)) == [4]
    assert parts(9, pools(0)) == [SMALL_STEP]


def test_ten_pools_add_one_worker_between_them_when_one_is_missing():
    assert parts(1, pools(*[1] * 10)) == [1] + [0] * 9


def test_the_pools_with_the_fewest_add_first():
    assert parts(3, pools(5, 2, 4)) == [0, 2, 1]
    assert parts(4, pools(5, 3, 4)) == [1, 2, 1]


def test_a_pool_that_is_new_comes_first_and_leaves_what_it_cannot_add_at_once():
    assert parts(1, pools(4, 4, 0)) == [0, 0, 1]
    assert parts(5, pools(4, 4, 0)) == [2, 1, 2]


def test_a_pool_at_its_limit_leaves_its_part_to_the_others():
    first, second = pools(3, 5)
    assert parts(4, [replace(first, bounds=Bounds(0, 4)), second]) == [1, 3]


def test_a_pool_that_is_stuck_leaves_its_part_to_the_others():
    first, second = pools(1, 5)
    stuck = replace(first, stuck=True)
    assert share_of_missing(2, second, [stuck]) == 2
    assert share_of_missing(2, second, [first]) == 0


def test_what_is_coming_to_others_is_not_missing_any_more():
    first, second = pools(3, 3)
    coming = replace(second, count=5, coming=2)
    assert share_of_missing(2, first, [coming]) == 0
    assert share_of_missing(3, first, [coming]) == 1


def test_the_pools_with_the_most_let_go_first_and_one_worker_each():
    assert leavers(1, pools(3, 5, 4, busy=0)) == [False, True, False]
    assert leavers(2, pools(3, 5, 4, busy=0)) == [False, True, True]
    assert leavers(9, pools(3, 5, 4, busy=0)) == [True, True, True]


def test_nobody_lets_go_without_a_surplus():
    for surplus in (0, -3):
        assert leavers(surplus, pools(3, 5, busy=0)) == [False, False]


def test_who_has_no_idle_worker_or_is_at_the_minimum_lets_none_go():
    full, able, least = pools(5, 4, 3, busy=0)
    full, least = replace(full, busy=5), replace(least, bounds=Bounds(3, 9))
    assert leavers(9, [full, able, least]) == [False, True, False]


PEERS = st.lists(
    st.builds(
        lambda count, room, busy: (count, room, busy),
        st.integers(0, 20),
        st.integers(0, 20),
        st.integers(0, 20),
    ),
    min_size=1,
    max_size=10,
)


def made(figures) -> list[Peer]:
    return [
        Peer(name, count, busy, Bounds(0, count + room))
        for name, (count, room, busy) in zip("abcdefghij", figures)
    ]


@given(missing=st.integers(0, 200), figures=PEERS)
def test_together_they_add_what_is_missing_or_all_that_they_can(missing, figures):
    peers = made(figures)
    added = parts(missing, peers)
    can = [min(room, max(SMALL_STEP, count)) for count, room, _ in figures]
    assert sum(added) == min(missing, sum(can))
    assert all(0 <= part <= most for part, most in zip(added, can))


@given(missing=st.integers(0, 200), figures=PEERS)
def test_more_missing_is_never_less_for_anybody(missing, figures):
    peers = made(figures)
    assert all(a <= b for a, b in zip(parts(missing, peers), parts(missing + 1, peers)))


@given(surplus=st.integers(-5, 20), figures=PEERS)
def test_no_more_let_go_than_are_too_many(surplus, figures):
    peers = made(figures)
    gone = leavers(surplus, peers)
    able = sum(peer.count > max(peer.busy, peer.bounds.min) for peer in peers)
    assert sum(gone) == max(0, min(surplus, able))
