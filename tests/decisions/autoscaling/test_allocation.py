"""What the groups of a pool get when they ask for more than it may have."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from django_rq_pool.autoscaling.allocation import Request, allocate
from django_rq_pool.autoscaling.policy import Decision
from django_rq_pool.config.options import Bounds


def request(count: int, need: int | None = None, held: int = 0, least: int = 0) -> Request:
    wanted = max(count, need or 0)
    decision = Decision(count, Bounds(least, max(wanted, 1)), need or count, 0, None, False, "late")
    return Request(decision, held)


def shares(room: int, **requests: Request) -> dict[str, int]:
    return {name: decision.count for name, decision in allocate(requests, room).items()}


def test_where_there_is_enough_everybody_gets_what_was_decided():
    requests = {"high": request(4), "low": request(6)}
    assert allocate(requests, 10) == {name: each.decision for name, each in requests.items()}


def test_minima_come_first_whatever_others_need():
    assert shares(6, high=request(50, held=3), low=request(3, least=3)) == {"high": 3, "low": 3}


def test_the_rest_is_shared_by_need():
    assert shares(9, high=request(20, 20), low=request(10, 10)) == {"high": 6, "low": 3}


def test_the_need_counts_and_not_how_fast_a_group_may_take():
    # low has just begun to need workers: it may add two now, and needs as many as high.
    assert shares(10, high=request(9, 10, held=9), low=request(3, 10, held=1)) == {
        "high": 7,
        "low": 1,
    }


def test_equal_needs_do_not_pass_workers_to_and_fro():
    for held in (4, 5, 6):
        requests = {"high": request(10, held=held), "low": request(10, held=10 - held)}
        assert shares(10, **requests) == {"high": held, "low": 10 - held}


def test_a_need_that_is_much_greater_moves_workers():
    assert shares(10, high=request(10, 10, held=9), low=request(8, 10, held=1)) == {
        "high": 6,
        "low": 1,
    }


def test_nothing_is_given_out_that_somebody_still_has():
    waiting = {"high": request(6, 6, held=9), "low": request(4, 6, held=1)}
    assert shares(10, **waiting) == {"high": 6, "low": 1}
    left = {"high": request(6, 6, held=7), "low": request(4, 6, held=1)}
    assert shares(10, **left) == {"high": 6, "low": 3}


def test_even_where_all_could_have_what_was_decided_those_who_leave_count_until_they_have_left():
    assert shares(10, high=request(2, held=9), low=request(5, held=1)) == {"high": 2, "low": 1}


def test_the_reason_says_that_the_pool_may_have_no_more():
    decision = allocate({"high": request(9)}, 4)["high"]
    assert str(decision) == "4 of 0..9, late, limited by max_total"


def test_workers_that_were_not_granted_are_not_shown_as_coming():
    decision = replace(request(8).decision, coming=4)
    assert allocate({"high": Request(decision, 4)}, 6)["high"].coming == 2
    assert allocate({"high": Request(decision, 4)}, 4)["high"].coming == 0


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Request]:
    made = {}
    for name in draw(st.lists(st.sampled_from("abcde"), unique=True, min_size=1)):
        least = draw(st.integers(0, 5))
        most = least + draw(st.integers(1, 20))
        between = st.integers(least, most)
        decision = Decision(
            draw(between), Bounds(least, most), draw(between), 0, None, False, "because"
        )
        made[name] = Request(decision, draw(st.integers(0, 25)))
    return made


def least(made: dict[str, Request]) -> int:
    return sum(each.least for each in made.values())


@settings(max_examples=4 * settings.default.max_examples)
@given(made=requests(), more=st.integers(0, 60))
def test_the_sum_stays_within_the_limit_and_nobody_gets_more_than_was_decided(made, more):
    room = least(made) + more
    given_out = allocate(made, room)
    assert given_out.keys() == made.keys()
    assert sum(decision.count for decision in given_out.values()) <= room
    for name, decision in given_out.items():
        assert made[name].least <= decision.count <= made[name].decision.count


@settings(max_examples=4 * settings.default.max_examples)
@given(made=requests(), more=st.integers(0, 60))
def test_live_workers_do_not_exceed_the_limit_because_of_it(made, more):
    room = least(made) + more
    given_out = allocate(made, room)
    floor = sum(max(each.held, each.least) for each in made.values())
    then = sum(max(made[name].held, decision.count) for name, decision in given_out.items())
    assert then <= max(room, floor)


@given(made=requests(), more=st.integers(0, 60))
def test_a_greater_limit_takes_from_nobody(made, more):
    made = {name: replace(each, held=0) for name, each in made.items()}
    room = least(made) + more
    before, after = allocate(made, room), allocate(made, room + 1)
    assert all(before[name].count <= after[name].count for name in made)


@given(made=requests(), more=st.integers(0, 60))
def test_what_has_been_shared_stays_so(made, more):
    room = least(made) + more
    first = allocate(made, room)
    settled = {name: replace(made[name], held=first[name].count) for name in made}
    second = allocate(settled, room)
    again = {name: replace(made[name], held=second[name].count) for name in made}
    assert allocate(again, room) == second


@given(made=requests(), more=st.integers(0, 60), extra=st.integers(1, 10))
def test_a_greater_need_never_gets_less(made, more, extra):
    made = {name: replace(each, held=0) for name, each in made.items()}
    room = least(made) + more
    name = min(made)
    decision = made[name].decision
    needier = replace(decision, need=decision.need + extra)
    before = allocate(made, room)[name].count
    assert allocate({**made, name: Request(needier, 0)}, room)[name].count >= before
