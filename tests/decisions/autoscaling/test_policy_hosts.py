"""The autoscaling on several hosts, watched in a small world."""

from __future__ import annotations

import math

from django_rq_pool.config.options import Bounds
from simulation import LOOK, SCENARIOS, Job, World, counts, late_share, longest_wait, stream

TARGET = 5.0


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
