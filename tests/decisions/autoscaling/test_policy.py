"""The autoscaling, watched in a small world: how fast it follows a load, and how still it is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from django_rq_pool.autoscaling.demand import LEAD, PATIENCE, Observation, State
from django_rq_pool.autoscaling.peers import SMALL_STEP, Peer
from django_rq_pool.autoscaling.policy import HOPELESS, LONGEST_PATIENCE, QUIET, decide
from django_rq_pool.config.options import Bounds
from simulation import BOOT, LOOK, SCENARIOS, Change, Job, World, at_random, stream

TARGET = 5.0


def rises(world: World) -> list[Change]:
    return [change for change in world.changes if change.after > change.before]


def falls(world: World) -> list[Change]:
    return [change for change in world.changes if change.after < change.before]


def longest_wait(world: World) -> float:
    return max(wait for _, wait in world.waits)


def late_share(world: World) -> float:
    return sum(wait > world.target for _, wait in world.waits) / len(world.waits)


def counts(world: World, since: float, until: float) -> list[int]:
    return [sample.count for sample in world.samples if since <= sample.time < until]


# Loads


def test_a_step_is_followed_before_a_job_is_late():
    world = SCENARIOS["step"].run()
    assert longest_wait(world) <= TARGET
    assert min(counts(world, 20, 120)) >= 8  # ten seconds after the step
    assert max(counts(world, 0, 240)) <= 12
    assert len(world.changes) <= 16
    assert max(change.time for change in rises(world)) < 20
    assert max(counts(world, 235, 240)) <= 2


def test_a_ramp_is_followed_before_a_job_is_late():
    world = SCENARIOS["ramp"].run()
    load = SCENARIOS["ramp"].load
    assert longest_wait(world) <= TARGET
    assert all(sample.count <= 2 * load(sample.time) + 2 for sample in world.samples[:195])
    assert len(rises(world)) <= 6
    assert len(falls(world)) <= 16


def test_a_burst_takes_the_pool_to_its_maximum_and_back_without_a_second_rise():
    world = SCENARIOS["burst"].run()
    assert [(change.before, change.after) for change in rises(world)] == [(1, 3), (3, 6), (6, 10)]
    assert rises(world)[-1].time <= 15
    assert longest_wait(world) <= 14  # a thousand jobs keep ten workers busy for ten seconds
    assert [change.after for change in falls(world)] == list(range(9, 0, -1))
    assert counts(world, 149, 151) == [1]


def test_a_sawtooth_is_learnt():
    world = SCENARIOS["sawtooth"].run()
    assert longest_wait(world) <= TARGET
    first, later = world.changes, [c for c in world.changes if c.time >= 300]
    assert len(first) <= 24
    assert len(later) <= 6  # in five periods


def test_long_jobs_get_a_worker_each_and_keep_it():
    world = World([Job(10.0, 30.0)] * 8, Bounds(1, 10)).run(39)
    assert longest_wait(world) <= TARGET + 3 * LEAD  # nothing is known of the first job's run time
    assert max(counts(world, 0, 39)) == 8
    assert falls(world) == []


def test_long_jobs_that_come_by_chance_hardly_wait():
    world = SCENARIOS["long jobs"].run()
    assert longest_wait(world) <= TARGET + 2 * LOOK
    assert late_share(world) <= 0.06
    assert len(world.changes) <= 40  # in half an hour, in which 90 jobs come


def test_jobs_that_never_end_take_the_pool_to_its_maximum_where_it_stays():
    world = SCENARIOS["stuck"].run()
    assert [change.after for change in world.changes] == [3, 6, 10]
    assert counts(world, 20, 300) == [10] * 280


def test_jobs_that_nobody_may_take_add_no_worker_and_leave_one_idle_in_the_end():
    world = SCENARIOS["suspended"].run()
    before = counts(world, 49, 51)[0]
    assert counts(world, 50, 50 + HOPELESS) == [before] * int(HOPELESS)
    assert [change.after for change in world.changes if 50 <= change.time < 150] == list(
        range(before - 1, 0, -1)
    )
    suspended = SCENARIOS["suspended"].world().run(149)
    assert "idle workers take none" in str(suspended.hosts[0].decision)
    assert [change for change in rises(world) if 150 <= change.time < 155]


def test_workers_that_do_not_boot_are_not_joined_by_more():
    world = World(stream(lambda time: 2.0, 0.5, 100), Bounds(1, 10), boot=math.inf).run(100)
    assert world.changes == []
    asleep = World(stream(lambda time: 2.0, 0.5, 100), Bounds(0, 10), boot=math.inf).run(100)
    assert len(rises(asleep)) == 1
    assert counts(asleep, 90, 100) == [1] * 10


@pytest.mark.parametrize("takes", [0.05, 0.2])
@pytest.mark.parametrize("load", [0.8, 1.0, 2.4, 3.0, 3.2, 4.0, 6.5])
def test_a_steady_load_of_short_jobs_changes_nothing(takes, load):
    # 0.8, 2.4 and so on fill 1, 3 and so on workers as far as they may be filled: a boundary.
    for seed in range(2):
        jobs = stream(lambda time: load, takes, 720, at_random(seed))
        world = World(jobs, Bounds(1, 20)).run(720)
        assert late_share(world) == 0
        assert len([change for change in world.changes if change.time >= 120]) <= 8


@pytest.mark.parametrize("takes", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("load", [0.8, 3.0, 4.0])
def test_a_steady_load_of_longer_jobs_changes_the_count_less_than_twice_a_minute(takes, load):
    for seed in range(2):
        jobs = stream(lambda time: load, takes, 720, at_random(seed))
        world = World(jobs, Bounds(1, 20)).run(720)
        assert late_share(world) <= 0.1
        assert len([change for change in world.changes if change.time >= 120]) <= 16


def test_an_even_load_that_a_count_fits_exactly_needs_no_change():
    for load in (1.0, 2.0, 4.0):
        world = World(stream(lambda time, load=load: load, 0.5, 600), Bounds(1, 10)).run(600)
        assert len([change for change in world.changes if change.time >= 60]) <= 2


# From zero and back


def test_the_first_job_wakes_a_worker_within_two_seconds():
    world = SCENARIOS["from zero"].run()
    first = next(wait for came, wait in world.waits if came == 10.0)
    assert first <= LOOK + BOOT
    assert (world.changes[0].before, world.changes[0].after) == (0, 1)
    assert "1 job waits" in world.changes[0].why


def test_the_last_worker_leaves_when_no_job_has_come_for_a_while():
    world = World([Job(10.0, 0.1)], Bounds(0, 5)).run(60)
    assert [change.after for change in world.changes] == [1, 0]
    assert QUIET <= world.changes[1].time - 10.0 <= QUIET + 3 * LOOK
    assert "no job for" in world.changes[1].why


def test_one_job_wakes_one_worker():
    world = World([Job(10.0, 20.0)], Bounds(0, 5)).run(30)
    assert max(counts(world, 0, 30)) == 1


def test_a_worker_that_is_always_missed_again_is_kept_for_longer():
    jobs = [Job(10.0 + 40 * n, 0.1) for n in range(45)]
    world = World(jobs, Bounds(0, 5)).run(1800)
    for before, after in zip(falls(world)[4:], falls(world)[5:]):
        assert after.time - before.time >= LONGEST_PATIENCE


def test_a_burst_that_meets_no_worker_is_cleared():
    world = SCENARIOS["from zero"].run()
    assert longest_wait(world) <= 12
    assert counts(world, 199, 201) == [0]


# Several hosts


def test_ten_hosts_together_follow_a_load_as_one_would():
    world = SCENARIOS["ten hosts"].run()
    assert longest_wait(world) <= TARGET + LOOK
    assert min(counts(world, 40, 120)) >= 28  # of a load of 30
    assert max(counts(world, 0, 300)) <= 40
    by_host = [host.count for host in World.run(SCENARIOS["ten hosts"].world(), 110).hosts]
    assert max(by_host) - min(by_host) <= 4


def test_ten_hosts_wake_one_worker_for_one_job():
    world = World([Job(10.0, 3.0)], Bounds(0, 10), hosts=10).run(60)
    assert [(change.before, change.after) for change in world.changes] == [(0, 1), (1, 0)]


def test_ten_hosts_add_no_more_than_is_missing():
    # A load of 11 needs one worker more than the ten that there are, or two.
    load = stream(lambda time: 11.0, 0.5, 300)
    world = World(load, Bounds(1, 10), hosts=10).run(300)
    assert late_share(world) == 0
    assert max(counts(world, 0, 300)) <= 16


def test_ten_hosts_let_go_one_after_another_what_none_needs():
    world = SCENARIOS["ten hosts"].run()
    assert min(counts(world, 120, 300)) == 10
    for before, after in zip(world.samples, world.samples[1:]):
        assert before.count - after.count <= 3  # in a second


def test_a_host_that_comes_later_without_a_worker_takes_its_part():
    load = stream(lambda time: 12.0 if time < 60 else 30.0, 0.5, 200)
    world = World(load, Bounds(0, 20), hosts=2).run(50)
    late = world.join(50.3)
    world.run(180)
    assert late.count > 0
    assert longest_wait(world) <= TARGET
    assert sum(host.count for host in world.hosts) <= 40


def test_a_host_whose_workers_do_not_boot_does_not_keep_the_others_from_adding():
    world = World(stream(lambda time: 6.0, 10.0, 200), Bounds(1, 10), hosts=2)
    broken = world.hosts[0]
    broken.workers[0].ready_at = math.inf
    world.run(120)
    assert broken.count <= 3
    assert world.hosts[1].count >= 6
    assert not world.waiting


# What holds for every history


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_busy_worker_is_ever_asked_to_leave(name):
    world = SCENARIOS[name].world()
    until = SCENARIOS[name].until
    while world.now < until:
        world.run(min(until, world.now + 0.5))
        for host in world.hosts:
            assert not [w for w in host.workers if w.leaving and w.job is not None]


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_arrivals_give_the_same_history(name):
    assert SCENARIOS[name].run().changes == SCENARIOS[name].run().changes


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


@settings(max_examples=200)
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


@settings(max_examples=200)
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
            "10 of 1..10, oldest job 9.0 s > 5 s, and more are not allowed",
        ),
        (
            observe(4, 3, waiting=9, oldest=9.0),
            replace(KNOWN, busy=3),
            "4 of 1..10, oldest job 9.0 s > 5 s, but idle workers take none",
        ),
        (
            observe(waiting=9, oldest=9.0),
            replace(KNOWN, rose_at=100.0),
            "4 of 1..10, oldest job 9.0 s > 5 s, and new workers are on their way",
        ),
        (
            observe(waiting=9, oldest=9.0, others=(Peer("b", 1, 1, Bounds(1, 10)),)),
            KNOWN,
            "4 of 1..10, oldest job 9.0 s > 5 s, and other hosts come first",
        ),
        (
            observe(waiting=9, oldest=9.0),
            replace(KNOWN, waiting=30, growths=(-20.0, -20.0, -20.0)),
            "4 of 1..10, oldest job 9.0 s, but the queue shortens",
        ),
        (observe(4, 1), replace(KNOWN, demand=1.0, load=1.24), "3 of 1..10, work for 1.2 lately"),
        (
            observe(1, 0, Bounds(0, 10)),
            replace(KNOWN, busy=0, active_at=60.0),
            "0 of 0..10, no job for 41 s",
        ),
        (observe(0, 0, Bounds(0, 9), waiting=1), replace(KNOWN, busy=0), "1 of 0..9, 1 job waits"),
        (observe(0, 0, Bounds(0, 9), waiting=7), State(), "2 of 0..9, 7 jobs wait"),
        (observe(12, 12), KNOWN, "10 of 1..10, by its bounds"),
        (observe(0, 0), KNOWN, "1 of 1..10, by its bounds"),
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
