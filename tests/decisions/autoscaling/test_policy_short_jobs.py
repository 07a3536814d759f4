"""The autoscaling, watched in a small world: how still it is with short jobs."""

from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import settings

from django_rq_pool.config.options import Bounds
from simulation import World, at_random, late_share, stream

SEEDS = range(settings.default.max_examples // 50)
"""Worlds of chance: one, or more of them where the profile is thorough."""


@pytest.mark.parametrize("takes", [0.05, 0.2])
@pytest.mark.parametrize("load", [0.8, 1.0, 2.4, 3.0, 3.2, 4.0, 6.5])
def test_a_steady_load_of_short_jobs_changes_the_count_less_than_once_a_minute(takes, load):
    # 0.8, 2.4 and so on fill 1, 3 and so on workers as far as they may be filled: a boundary.
    changes = []
    for seed in SEEDS:
        jobs = stream(lambda time: load, takes, 420, at_random(seed))
        world = World(jobs, Bounds(1, 20)).run(420)
        assert late_share(world) == 0
        changes.append(len([change for change in world.changes if change.time >= 120]))
    assert fmean(changes) <= 4
