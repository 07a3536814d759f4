"""One decision at a time, and what holds for every history of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from django_rq_pool.autoscaling.demand import LEAD, PATIENCE, Observation, State
from django_rq_pool.autoscaling.peers import SMALL_STEP, Peer
from django_rq_pool.autoscaling.policy import HOPELESS, LONGEST_PATIENCE, decide
from django_rq_pool.config.options import Bounds

TARGET = 5.0


# What holds for every history


AGES = st.floats(0, 1e6)
SMALL = st.integers(0, 40)
BOUNDS = st.builds(
    lambda low, more: Bounds(low, low + more), st.integers(0, 10), st.integers(1, 20)
)
PEERS = st.builds(Peer, st.sampled_from("bcdefg"), SMALL, SMALL, BOUNDS, st.integers(0, 5))


@st.composite
def observations(draw: st.DrawFn, bounds: Bounds) -> Observation:
    waiting = draw(st.integers(0, 10**6) | st.integers(0, 20))
    ended = draw(st.integers(0, 10**4) | st.just(0))
    count = draw(st.integers(bounds.min, bounds.max) | SMALL)
    others = draw(st.lists(PEERS, max_size=4, unique_by=lambda peer: peer.name))
    return Observation(
        oldest=draw(AGES) if waiting else 0.0,
        waiting=waiting,
        running=draw(SMALL),
        live=draw(SMALL),
        ended=ended,
        run_seconds=draw(AGES) if ended else 0.0,
        mine=Peer("a", count, draw(SMALL), bounds),
        others=tuple(others),
    )


@st.composite
def histories(draw: st.DrawFn) -> tuple[float, list[Observation], State, float]:
    """A target, observations, and the state and the time after the first of them."""
    bounds = draw(BOUNDS)
    target = draw(st.floats(0.1, 600))
    seen = draw(st.lists(observations(bounds), min_size=1, max_size=6))
    state, now = State(), 0.0
    for each in seen[:-1]:
        now += draw(st.floats(0.01, 100))
        state, _ = decide(target, each, state, now)
    return target, seen, state, now + draw(st.floats(0, 300))


@settings(max_examples=2 * settings.default.max_examples)
@given(histories())
def test_a_count_is_always_within_its_bounds_and_moves_by_bounded_steps(history):
    target, seen, state, now = history
    mine = seen[-1].mine
    after, decision = decide(target, seen[-1], state, now)
    assert mine.bounds.min <= decision.count <= mine.bounds.max
    assert mine.bounds.min <= decision.need <= mine.bounds.max
    if mine.bounds.min <= mine.count <= mine.bounds.max:
        assert mine.count - 1 <= decision.count
        assert decision.count <= mine.count + max(SMALL_STEP, mine.count)
        if decision.count < mine.count:
            assert decision.count >= mine.busy
        if decision.count > mine.count:
            assert seen[-1].waiting >= decision.count - mine.count
    assert PATIENCE <= after.patience <= LONGEST_PATIENCE
    assert decision.why
    assert str(decision).startswith(f"{decision.count} of {mine.bounds.min}..{mine.bounds.max}, ")


@settings(max_examples=2 * settings.default.max_examples)
@given(histories(), st.integers(0, 10**6), st.floats(0, 1e6))
def test_more_jobs_or_older_ones_never_mean_fewer_workers(history, more, older):
    target, seen, state, now = history
    # Where jobs have not been taken for long, being late is what makes workers go.
    assume(state.stuck_since is None or now - state.stuck_since < HOPELESS)
    less = seen[-1]
    worse = replace(less, waiting=less.waiting + more)
    if worse.waiting:
        worse = replace(worse, oldest=less.oldest + older)
    counts = [decide(target, each, state, now)[1].count for each in (less, worse)]
    assert counts[0] <= counts[1]


@given(histories())
def test_the_number_of_peers_that_add_makes_no_pool_add_more_than_alone(history):
    target, seen, state, now = history
    alone = decide(target, replace(seen[-1], others=()), state, now)[1]
    shared = decide(target, seen[-1], state, now)[1]
    if not seen[-1].others:
        assert shared == alone
    busy = all(peer.busy >= peer.count for peer in seen[-1].others)
    if alone.count > seen[-1].mine.count and busy and seen[-1].live and seen[-1].running >= 40:
        assert shared.count <= alone.count


# Single decisions


PLAIN = Bounds(1, 10)


def observe(
    count: int = 4,
    busy: int = 4,
    bounds: Bounds = PLAIN,
    others: tuple[Peer, ...] = (),
    **fields,
) -> Observation:
    plain = {"oldest": 0.0, "waiting": 0, "running": busy, "live": count}
    work = {"ended": 0, "run_seconds": 0.0}
    return Observation(
        **{**plain, **work, **fields}, mine=Peer("a", count, busy, bounds), others=others
    )


KNOWN = State(seen_at=100.0, busy=4, run_time=1.0, demand=4.0, load=4.0)
"""Of a group that has been fully busy with jobs of one second."""


@pytest.mark.parametrize(
    ("seen", "state", "text"),
    [
        (observe(), KNOWN, "4 of 1..10, in time"),
        (observe(waiting=9, oldest=7.24), KNOWN, "6 of 1..10, oldest job 7.2 s > 5 s"),
        (observe(waiting=30, oldest=2.0), KNOWN, "8 of 1..10, 30 jobs wait, expected 7.5 s > 5 s"),
        (
            observe(10, 10, waiting=90, oldest=9.0),
            KNOWN,
            "10 of 1..10, oldest job 9.0 s > 5 s, at its maximum",
        ),
        (
            observe(4, 3, waiting=9, oldest=9.0),
            replace(KNOWN, busy=3),
            "4 of 1..10, oldest job 9.0 s > 5 s, but idle workers take none",
        ),
        (
            observe(waiting=9, oldest=9.0),
            replace(KNOWN, rose_at=100.0),
            "4 of 1..10, oldest job 9.0 s > 5 s, new workers are starting",
        ),
        (
            observe(waiting=9, oldest=9.0, others=(Peer("b", 1, 1, Bounds(1, 10)),)),
            KNOWN,
            "4 of 1..10, oldest job 9.0 s > 5 s, other hosts add workers first",
        ),
        (
            observe(waiting=9, oldest=9.0),
            replace(KNOWN, waiting=30, growths=(-20.0, -20.0, -20.0)),
            "4 of 1..10, oldest job 9.0 s, but the queue gets shorter",
        ),
        (
            observe(4, 1),
            replace(KNOWN, demand=1.0, load=1.24),
            "3 of 1..10, recent load of 1.2 workers",
        ),
        (
            observe(1, 0, Bounds(0, 10)),
            replace(KNOWN, busy=0, active_at=60.0),
            "0 of 0..10, no job for 41 s",
        ),
        (observe(0, 0, Bounds(0, 9), waiting=1), replace(KNOWN, busy=0), "1 of 0..9, 1 job waits"),
        (observe(0, 0, Bounds(0, 9), waiting=7), State(), "2 of 0..9, 7 jobs wait"),
        (observe(12, 12), KNOWN, "10 of 1..10, moved into its bounds"),
        (observe(0, 0), KNOWN, "1 of 1..10, moved into its bounds"),
    ],
)
def test_the_reason_says_what_was_seen(seen, state, text):
    assert str(decide(TARGET, seen, state, 101.0)[1]) == text


def test_a_worker_is_not_let_go_when_the_others_would_be_too_full():
    for load, count in ((2.4, 3), (2.5, 4)):
        # At the same moment, so that nothing of the load is forgotten.
        state = replace(KNOWN, busy=0, demand=0.0, load=load, seen_at=101.0)
        assert decide(TARGET, observe(4, 0), state, 101.0)[1].count == count


def test_where_jobs_wait_that_nobody_takes_one_idle_worker_stays_to_show_when_it_ends():
    since = replace(KNOWN, waiting=3, stuck_since=100.0 - HOPELESS)
    for count, busy, then in ((8, 0, 7), (8, 6, 7), (8, 7, 8), (2, 0, 1), (1, 0, 1)):
        state = replace(since, busy=busy)
        seen = observe(count, busy, Bounds(0, 10), waiting=3, oldest=99.0)
        assert decide(TARGET, seen, state, 101.0)[1].count == then
        sooner = replace(state, stuck_since=99.0)
        assert decide(TARGET, seen, sooner, 101.0)[1].count == count


def test_a_rise_is_followed_by_no_fall_for_a_while():
    state = replace(KNOWN, demand=0.0, load=0.0, rose_at=100.0)
    for now, count in ((100.0 + PATIENCE - 0.1, 4), (100.0 + PATIENCE, 3)):
        assert decide(TARGET, observe(4, 0), state, now)[1].count == count


def test_a_rise_soon_after_a_fall_makes_the_pool_more_patient():
    seen = observe(waiting=30, oldest=6.0)
    regretted = replace(KNOWN, fell_at=90.0)
    assert decide(TARGET, seen, regretted, 101.0)[0].patience == 2 * PATIENCE
    assert decide(TARGET, seen, KNOWN, 101.0)[0].patience == PATIENCE
    at_most = replace(regretted, patience=LONGEST_PATIENCE)
    assert decide(TARGET, seen, at_most, 101.0)[0].patience == LONGEST_PATIENCE


def test_a_fall_long_after_a_rise_makes_it_less_patient():
    state = replace(KNOWN, demand=0.0, load=0.0, patience=4 * PATIENCE, rose_at=-1000.0)
    assert decide(TARGET, observe(4, 0), state, 101.0)[0].patience == 2 * PATIENCE


def test_workers_that_are_on_their_way_are_shown_for_as_long_as_they_may_be():
    state, decision = decide(TARGET, observe(waiting=30, oldest=6.0), KNOWN, 101.0)
    assert decision.coming == decision.count - 4 > 0
    seen = observe(decision.count, 4, waiting=30, oldest=6.5)
    state, later = decide(TARGET, seen, state, 102.0)
    assert later.coming == decision.coming
    assert decide(TARGET, seen, state, 101.0 + LEAD)[1].coming in (0, SMALL_STEP)


def test_the_run_time_is_learnt_and_one_odd_job_hardly_changes_it():
    state, _ = decide(TARGET, observe(ended=10, run_seconds=20.0), State(), 1.0)
    assert state.run_time == 2.0
    state, _ = decide(TARGET, observe(ended=1, run_seconds=100.0), state, 2.0)
    assert 2.0 < state.run_time < 8.0


def test_a_single_burst_is_no_growth():
    state = State()
    for now, waiting in enumerate((0, 0, 0, 500, 500)):
        state, _ = decide(TARGET, observe(waiting=waiting), state, float(now))
        assert state.growth == 0.0
    for now, waiting in enumerate((600, 700, 800), start=5):
        state, _ = decide(TARGET, observe(waiting=waiting), state, float(now))
    assert state.growth == 100.0


def test_time_that_stands_still_or_jumps_does_no_harm():
    state, _ = decide(TARGET, observe(waiting=3), State(), 10.0)
    same, _ = decide(TARGET, observe(waiting=9), state, 10.0)
    assert same.growths == state.growths
    after, decision = decide(TARGET, observe(), state, 1e9)
    assert decision.count >= 1
    assert all(map(math.isfinite, (after.load, after.demand, after.growth)))
