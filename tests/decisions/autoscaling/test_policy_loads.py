"""The autoscaling, watched in a small world: how fast it follows a load."""

from __future__ import annotations

import math

import pytest

from django_rq_pool.autoscaling.demand import LEAD
from django_rq_pool.autoscaling.policy import HOPELESS, LONGEST_PATIENCE, QUIET
from django_rq_pool.config.options import Bounds
from simulation import (
    BOOT,
    LOOK,
    SCENARIOS,
    Job,
    World,
    counts,
    falls,
    late_share,
    longest_wait,
    rises,
    stream,
)

TARGET = 5.0


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
