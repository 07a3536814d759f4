"""The autoscaling, watched in a small world: how still it is with longer jobs."""

from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import settings

from django_rq_pool.config.options import Bounds
from simulation import World, at_random, late_share, stream

SEEDS = range(settings.default.max_examples // 50)
"""Worlds of chance: one, or more of them where the profile is thorough."""


@pytest.mark.parametrize("takes", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("load", [0.8, 3.0, 4.0])
def test_a_steady_load_of_longer_jobs_changes_the_count_less_than_twice_a_minute(takes, load):
    shares, changes = [], []
    for seed in SEEDS:
        jobs = stream(lambda time: load, takes, 720, at_random(seed))
        world = World(jobs, Bounds(1, 20)).run(720)
        shares.append(late_share(world))
        changes.append(len([change for change in world.changes if change.time >= 120]))
    # Jobs that come by chance come together now and then: it holds for the average.
    assert fmean(shares) <= 0.1
    assert fmean(changes) <= 16


def test_an_even_load_that_a_count_fits_exactly_needs_no_change():
    for load in (1.0, 2.0, 4.0):
        world = World(stream(lambda time, load=load: load, 0.5, 600), Bounds(1, 10)).run(600)
        assert len([change for change in world.changes if change.time >= 60]) <= 2
