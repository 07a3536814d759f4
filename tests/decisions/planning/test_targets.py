"""What is wanted of each group as counts are loaded and scaled."""

from __future__ import annotations

from dataclasses import replace

from django_rq_pool.config.groups import Counts, QueueGroup
from django_rq_pool.config.options import Bounds, GroupOptions
from django_rq_pool.planning.plan import Wanted
from django_rq_pool.planning.targets import Targets

HIGH = QueueGroup("high", ("high",), 2)
LOW = QueueGroup("low", ("low",), 1)
SCALED = QueueGroup("scaled", ("a", "b"), 1, bounds=Bounds(1, 5))


def test_what_is_wanted_is_what_the_counts_say():
    targets = Targets(Counts((HIGH, LOW)))
    assert targets.wanted({}) == [Wanted("high", 2, 0), Wanted("low", 1, 0)]
    assert str(targets) == "high=2, low=1"
    assert str(Targets(Counts(()))) == "empty"


def test_a_group_may_be_kept_below_its_count_and_never_above():
    targets = Targets(Counts((HIGH, LOW)))
    assert targets.wanted({"high": 1, "low": 7}) == [Wanted("high", 1, 0), Wanted("low", 1, 0)]


def test_the_same_counts_are_nothing_new():
    targets = Targets(Counts((HIGH, LOW)))
    assert not targets.adopt(Counts((HIGH, LOW)))
    assert targets.adopt(Counts((HIGH,)))
    assert targets.wanted({}) == [Wanted("high", 2, 0)]


def test_another_count_is_no_other_generation_but_other_options_or_queues_are():
    targets = Targets(Counts((HIGH,)))
    targets.adopt(Counts((replace(HIGH, workers=7),)))
    assert targets.wanted({}) == [Wanted("high", 7, 0)]
    targets.adopt(Counts((replace(HIGH, options=GroupOptions(max_jobs=1)),)))
    assert targets.generation("high") == 1
    targets.adopt(Counts((replace(HIGH, queues=("high", "low")),)))
    assert targets.generation("high") == 2


def test_a_reload_begins_another_generation_of_every_group():
    targets = Targets(Counts((HIGH, LOW)))
    targets.renew()
    assert targets.wanted({}) == [Wanted("high", 2, 1), Wanted("low", 1, 1)]


def test_only_groups_with_bounds_are_scaled_and_those_that_change_are_named():
    targets = Targets(Counts((HIGH, SCALED)))
    assert targets.scale({"scaled": 3, "high": 9, "gone": 1}, {"scaled": "why"}) == ["scaled"]
    assert targets.wanted({}) == [Wanted("high", 2, 0), Wanted("scaled", 3, 0)]
    assert targets.reasons == {"scaled": "why"}
    assert targets.scale({"scaled": 3}, {}) == []
    assert [group.workers for group in targets.bounded()] == [3]


def test_loading_the_counts_again_keeps_a_scaled_group_where_it_is_within_its_bounds():
    targets = Targets(Counts((SCALED,)))
    targets.scale({"scaled": 4}, {})
    assert not targets.adopt(Counts((SCALED,)))
    targets.adopt(Counts((replace(SCALED, bounds=Bounds(1, 2)),)))
    assert targets.wanted({}) == [Wanted("scaled", 2, 0)]
    targets.adopt(Counts((replace(SCALED, workers=3, bounds=Bounds(3, 9)),)))
    assert targets.wanted({}) == [Wanted("scaled", 3, 0)]
