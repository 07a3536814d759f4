"""The grammar of the counts: what it means, and what it says about what it refuses."""

from __future__ import annotations

import math
from collections import OrderedDict, UserDict
from decimal import Decimal
from types import MappingProxyType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_rq_pool.config.groups import Counts, QueueGroup, parse_counts
from django_rq_pool.config.options import BOUNDS, MAX_TOTAL, OPTION_NAMES, Bounds, GroupOptions
from django_rq_pool.config.problems import CountsError, Kind, Problem

HERE, THERE = {"URL": "redis://here"}, {"URL": "redis://there"}
QUEUES = {"high": HERE, "default": HERE, "low": HERE}
TWO_SERVERS = {**QUEUES, "elsewhere": THERE}
SOURCE = "counts.yml"


def parse(mapping, environment=None, queues=QUEUES, *, required=False) -> Counts:
    return parse_counts(
        mapping, source=SOURCE, environment=environment, queues=queues, required=required
    )


def groups(mapping, environment=None, queues=QUEUES) -> dict[str, QueueGroup]:
    parsed = parse(mapping, environment, queues).groups
    by_name = {group.name: group for group in parsed}
    assert len(by_name) == len(parsed)
    return by_name


def counts(mapping, environment=None, queues=QUEUES) -> dict[str, int]:
    return {name: group.workers for name, group in groups(mapping, environment, queues).items()}


def problems(mapping, environment=None, queues=QUEUES, **more) -> tuple[Problem, ...]:
    with pytest.raises(CountsError) as caught:
        parse(mapping, environment, queues, **more)
    return caught.value.problems


def only_problem(mapping, environment=None, queues=QUEUES, **more) -> Problem:
    found = problems(mapping, environment, queues, **more)
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]


def assert_says(problem: Problem, kind: Kind, *words: str) -> None:
    assert problem.kind is kind
    assert problem.hint
    for word in (SOURCE, *words):
        assert word in str(problem)


# Counts and names


def test_an_integer_is_the_count_of_a_group():
    assert parse({"high": 2, "low": 0}) == Counts(
        (QueueGroup("high", ("high",), 2), QueueGroup("low", ("low",), 0))
    )


def test_groups_keep_the_order_in_which_they_are_written():
    assert list(counts({"low": 1, "high": 1, "default": 1})) == ["low", "high", "default"]


def test_commas_separate_queues_in_priority_order():
    assert groups({"low,high": 1})["low,high"].queues == ("low", "high")


def test_spaces_around_names_do_not_matter():
    assert groups({"  high ,\tdefault ": 3}) == {
        "high,default": QueueGroup("high,default", ("high", "default"), 3)
    }


def test_the_same_queues_in_another_order_are_another_group():
    assert counts({"high,low": 1, "low,high": 2}) == {"high,low": 1, "low,high": 2}


def test_a_space_inside_a_queue_name_belongs_to_it():
    queues = {"big ones": HERE}
    assert groups({" big ones ": 1}, queues=queues)["big ones"].queues == ("big ones",)


@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict, MappingProxyType])
def test_any_mapping_will_do(kind):
    assert counts(kind({"high": kind({"workers": 2})})) == {"high": 2}


def test_a_star_is_every_queue_in_the_order_of_rq_queues():
    assert groups({"*": 1}) == {"*": QueueGroup("*", ("high", "default", "low"), 1)}


@pytest.mark.parametrize(
    ("name", "queues"),
    [
        ("low,*", ("low", "high", "default")),
        ("*,high", ("default", "low", "high")),
        ("low , * , high", ("low", "default", "high")),
    ],
)
def test_a_star_among_names_is_every_queue_that_is_not_named(name, queues):
    group = groups({name: 2})[name.replace(" ", "")]
    assert group.queues == queues
    assert group.workers == 2


def test_groups_may_be_on_different_connections():
    parsed = groups({"high,low": 1, "elsewhere": 1}, queues=TWO_SERVERS)
    assert parsed["elsewhere"].queues == ("elsewhere",)


# Options


def test_a_mapping_with_workers_is_a_group_with_options():
    group = groups({"high": {"workers": 2, "max_jobs": 500, "with_scheduler": True}})["high"]
    assert group.workers == 2
    assert group.options == GroupOptions(max_jobs=500, with_scheduler=True)
    assert group.options.given() == {"max_jobs": 500, "with_scheduler": True}


def test_a_group_without_options_has_given_none():
    assert groups({"high": {"workers": 1}})["high"].options.given() == {}


def killed(job, pid, status, usage):
    """A handler for work horses."""


class Dumper:
    dumps = staticmethod(repr)
    loads = staticmethod(len)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("worker_class", "shop.workers.Worker"),
        ("worker_class", dict),
        ("job_class", "shop.jobs.Job"),
        ("queue_class", "shop.queues.Queue"),
        ("serializer", "json"),
        ("serializer", Dumper),
        ("max_jobs", 1),
        ("max_idle_time", 60),
        ("worker_ttl", 420),
        ("dequeue_strategy", "default"),
        ("dequeue_strategy", "round_robin"),
        ("dequeue_strategy", "random"),
        ("with_scheduler", False),
        ("with_scheduler", True),
        ("interrupted", "fail"),
        ("interrupted", "requeue"),
        ("interrupted_limit", 1),
        ("default_result_ttl", -1),
        ("default_result_ttl", 0),
        ("default_result_ttl", 500),
        ("log_job_description", False),
        ("job_monitoring_interval", 1),
        ("maintenance_interval", 600),
        ("work_horse_killed_handler", "shop.jobs.killed"),
        ("work_horse_killed_handler", killed),
        ("disable_default_exception_handler", True),
    ],
)
def test_an_option_takes_a_value_of_its_kind(option, value):
    options = groups({"high": {"workers": 1, option: value}})["high"].options
    assert getattr(options, option) is value


@pytest.mark.parametrize(
    ("option", "value", "right"),
    [
        *(
            (option, value, "whole number, 1 or more")
            for option in (
                "max_jobs",
                "max_idle_time",
                "worker_ttl",
                "interrupted_limit",
                "job_monitoring_interval",
                "maintenance_interval",
            )
            for value in (0, -1, 1.5, True, "10", None)
        ),
        *(
            (option, value, "true or false")
            for option in (
                "with_scheduler",
                "log_job_description",
                "disable_default_exception_handler",
            )
            for value in (1, 0, "yes", None)
        ),
        *(
            ("default_result_ttl", value, "0 or more, or -1 for ever")
            for value in (-2, 1.5, True, "500", None)
        ),
        *(
            ("work_horse_killed_handler", value, "a dotted path or a function")
            for value in ("", 7, None, dict, ["a.b"])
        ),
        *(
            ("dequeue_strategy", value, "default, round_robin, random")
            for value in ("fifo", None, 1, ["random"])
        ),
        *(("interrupted", value, "fail, requeue") for value in ("retry", None, True, ["requeue"])),
        *(
            (option, value, "dotted path")
            for option in ("worker_class", "job_class", "queue_class", "serializer")
            for value in ("", 7, None, ["a.b"])
        ),
        *(
            ("target_latency", value, "number of seconds above 0")
            for value in (0, -1, 0.0, math.inf, math.nan, True, "5", None)
        ),
    ],
)
def test_a_bad_value_of_an_option_is_refused_with_what_would_be_right(option, value, right):
    problem = only_problem({"high": {"workers": 1, option: value}})
    assert_says(problem, Kind.OPTION_VALUE, "'high'", repr(option), repr(value), right)


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [
        ("max_job", "max_jobs"),
        ("max-jobs", "max_jobs"),
        ("worker_clas", "worker_class"),
        ("with_schedular", "with_scheduler"),
        ("strategy", "dequeue_strategy"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_known_one(typo, nearest):
    problem = only_problem({"high": {"workers": 1, typo: 1}})
    assert_says(problem, Kind.OPTION_NAME, "'high'", repr(typo), f"Did you mean {nearest!r}?")


@pytest.mark.parametrize("name", ["zebra", 5, None, ("max_jobs",)])
def test_an_option_that_resembles_none_is_refused_with_the_list_of_all(name):
    problem = only_problem({"high": {"workers": 1, name: 1}})
    assert_says(problem, Kind.OPTION_NAME, repr(name), *OPTION_NAMES)
    assert "Did you mean" not in str(problem)


def test_options_without_workers_are_refused():
    problem = only_problem({"high": {"max_jobs": 5, "worker_ttl": 60}, "low": 1})
    assert_says(problem, Kind.COUNT, "'high'", "'max_jobs', 'worker_ttl'", "Add 'workers'")


def test_a_mistyped_workers_is_refused_instead_of_dropping_the_group():
    only_problem({"high": {"wrokers": 2}, "low": 1})


# Environments

SHARED = {
    "high": {"workers": 1, "max_jobs": 500, "worker_ttl": 60},
    "low": 2,
    "production": {
        "high": 4,
        "low": {"workers": 8, "max_idle_time": 9},
        "default": 3,
    },
    "careful": {
        "high": {"max_jobs": 10},
        "low": {"max_jobs": 1},
    },
    "off": {"high": 0},
}


def test_without_an_environment_the_root_counts():
    assert counts(SHARED) == {"high": 1, "low": 2}


def test_an_environment_overrides_what_it_names_and_adds_what_is_new():
    assert counts(SHARED, "production") == {"high": 4, "low": 8, "default": 3}


def test_an_integer_in_an_environment_keeps_the_options_of_the_root():
    assert groups(SHARED, "production")["high"].options == GroupOptions(max_jobs=500, worker_ttl=60)


def test_a_mapping_in_an_environment_merges_with_the_options_of_the_root():
    careful = groups(SHARED, "careful")
    assert careful["high"] == QueueGroup(
        "high", ("high",), 1, GroupOptions(max_jobs=10, worker_ttl=60)
    )
    assert careful["low"] == QueueGroup("low", ("low",), 2, GroupOptions(max_jobs=1))


def test_an_environment_can_turn_a_group_off_and_leave_the_rest():
    assert counts(SHARED, "off") == {"high": 0, "low": 2}


def test_an_environment_finds_its_groups_in_the_root_whatever_the_spaces():
    mapping = {"high, low": {"workers": 1, "max_jobs": 5}, "production": {" high,low ": 2}}
    assert groups(mapping, "production") == {
        "high,low": QueueGroup("high,low", ("high", "low"), 2, GroupOptions(max_jobs=5))
    }


def test_spaces_around_the_name_of_an_environment_do_not_matter():
    assert counts({"high": 1, " production ": {"high": 2}}, "production") == {"high": 2}


def test_the_same_environment_twice_by_spaces_is_refused():
    only_problem({"production": {"high": 1}, "production ": {"low": 1}}, "production")


def test_an_empty_environment_changes_nothing():
    assert counts({"high": 1, "production": {}}, "production") == {"high": 1}


def test_an_environment_may_be_all_there_is():
    assert counts({"production": {"high": 2}}, "production") == {"high": 2}


def test_a_group_that_only_an_environment_has_needs_a_count():
    problem = only_problem({"high": 1, "production": {"low": {"max_jobs": 5}}}, "production")
    assert_says(problem, Kind.COUNT, "'low'", "'workers'", "environment")


def test_a_problem_in_an_environment_is_told_whichever_is_asked_for():
    mapping = {"high": 1, "production": {"high": -1}, "staging": {}}
    for environment in (None, "staging", "production"):
        assert_says(only_problem(mapping, environment), Kind.COUNT, "'production'", "'high'", "-1")


def test_an_unknown_environment_is_a_warning_that_names_those_there_are():
    parsed = parse(SHARED, "prodution")
    assert {group.name: group.workers for group in parsed.groups} == {"high": 1, "low": 2}
    (warning,) = parsed.warnings
    assert_says(warning, Kind.UNKNOWN_ENVIRONMENT, "'prodution'", "'production', 'careful', 'off'")


def test_an_unknown_environment_is_no_warning_where_there_are_none():
    assert parse({"high": 1}, "production").warnings == ()


def test_a_known_environment_is_no_warning():
    assert parse(SHARED, "production").warnings == ()
    assert parse(SHARED, "production", required=True).warnings == ()


def test_an_environment_that_was_asked_for_by_name_has_to_be_there():
    problem = only_problem(SHARED, "prodution", required=True)
    assert_says(problem, Kind.NO_ENVIRONMENT, "'prodution'", "'production', 'careful', 'off'")


def test_counts_without_environments_hold_in_every_environment():
    assert parse({"high": 1}, "production", required=True).warnings == ()


@pytest.mark.parametrize("environment", [None, "staging"])
@pytest.mark.parametrize(
    ("wrong", "kind", "words"),
    [
        ({"hgih": 1}, Kind.UNKNOWN_QUEUE, "'hgih'"),
        ({"high,elsewhere": 1}, Kind.SEVERAL_SERVERS, "'elsewhere'"),
        ({"low": {"max_jobs": 5}}, Kind.COUNT, "'workers'"),
        ({"high": 3, "max_total": 2}, Kind.COUNT, "'max_total'"),
    ],
)
def test_what_is_wrong_in_another_environment_is_known_and_prevents_no_start(
    environment, wrong, kind, words
):
    mapping = {"high": 1, "production": wrong, "staging": {"high": 2}}
    (warning,) = parse(mapping, environment, TWO_SERVERS).warnings
    assert_says(warning, kind, "'production'", words)
    assert warning.kind.is_error


def test_a_mistake_outside_of_environments_is_told_once_however_many_there_are():
    only_problem({"hgih": 1, "production": {"high": 1}, "staging": {"high": 2}})


def test_what_is_wrong_here_and_elsewhere_is_told_together():
    here, elsewhere = problems({"hgih": 1, "production": {"lwo": 1}})
    assert_says(here, Kind.UNKNOWN_QUEUE, "'hgih'")
    assert_says(elsewhere, Kind.UNKNOWN_QUEUE, "'production'", "'lwo'")


@pytest.mark.parametrize("environment", [None, "high"])
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("high", {"count": 2}, "'count'"),
        ("high,low", {"count": 2}, "'count'"),
        ("*", {"count": 2}, "'count'"),
        ("high", {"high": 1, "size": 2}, "'size'"),
        ("high", {5: 5}, "5"),
        ("high", {}, "without 'workers'"),
    ],
)
def test_a_queue_whose_count_is_called_otherwise_is_no_environment(environment, key, value, words):
    problem = only_problem({"low,default": 1, key: value}, environment)
    assert_says(problem, Kind.COUNT, repr(key), words, "{workers: 1}")


def test_an_environment_may_have_the_name_of_a_queue():
    mapping = {"high": 1, "low": {"high": 2, "max_total": 5}}
    assert counts(mapping) == {"high": 1}
    assert counts(mapping, "low") == {"high": 2}


# Bounds


def test_a_count_may_have_bounds_and_begins_at_the_lower_one():
    assert groups({"high": {"workers": {"min": 2, "max": 10}, "max_jobs": 5}, "low": 3}) == {
        "high": QueueGroup("high", ("high",), 2, GroupOptions(max_jobs=5), Bounds(2, 10)),
        "low": QueueGroup("low", ("low",), 3),
    }


@pytest.mark.parametrize(("least", "most"), [(0, 1), (0, 9), (4, 4)])
def test_bounds_may_begin_at_zero_and_may_be_equal(least, most):
    group = groups({"high": {"workers": {"max": most, "min": least}}})["high"]
    assert (group.workers, group.bounds) == (least, Bounds(least, most))


def test_bounds_are_written_as_a_range():
    assert str(Bounds(1, 10)) == "1..10"


@pytest.mark.parametrize("latency", [1, 0.5, 3600])
def test_a_group_with_bounds_has_a_latency_to_aim_at(latency):
    scaled = {"workers": {"min": 1, "max": 2}}
    assert groups({"high": scaled})["high"].options.target_latency == 5
    group = groups({"high": {**scaled, "target_latency": latency}})["high"]
    assert group.options.given() == {"target_latency": latency}


def test_a_latency_without_bounds_is_refused():
    problem = only_problem({"high": {"workers": 3, "target_latency": 2}})
    assert_says(problem, Kind.OPTION_VALUE, "'high'", "'target_latency'", "3 workers", "max: 10")


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({}, ["'min', 'max'", "{min: 1, max: 10}"]),
        ({"min": 1}, ["'max'", "{min: 1, max: 10}"]),
        ({"max": 1}, ["'min'", "{min: 1, max: 10}"]),
        ({"min": 1, "max": 2, "maxx": 3}, ["'maxx'", "Did you mean 'max'?"]),
        ({"min": 1, "maximum": 2}, ["'maximum'", "Bounds are min, max."]),
        ({"min": 1, "max": 2, None: 3}, ["None", "Bounds are min, max."]),
        ({"min": 5, "max": 2}, ["between 5 and 2", "not less than 'min'"]),
        ({"min": 0, "max": 0}, ["'max' is 0", "1 or more"]),
        ({"min": 0, "max": "4"}, ["'max': '4' is not a count", "whole number"]),
        ({"min": -1, "max": 4}, ["'min': -1 is not a count", "whole number"]),
        ({"min": True, "max": 4}, ["'min': True is not a count", "whole number"]),
        ({"min": 0.5, "max": 4}, ["'min': 0.5 is not a count", "whole number"]),
    ],
)
def test_bounds_that_are_none_are_refused_with_what_would_be_right(bounds, words):
    problem = only_problem({"high": {"workers": bounds}, "low": 1})
    assert_says(problem, Kind.COUNT, "'high'", "'workers'", *words)


def test_bounds_outside_the_count_are_refused_with_their_place():
    root = only_problem({"high": {"min": 1, "max": 10}, "low": 1})
    assert_says(root, Kind.COUNT, "'high'", "'min', 'max'", "workers: {min: 1, max: 10}")
    group = only_problem({"high": {"workers": 2, "max": 10}})
    assert_says(group, Kind.OPTION_NAME, "'high'", "'max'", "workers: {min: 1, max: 10}")
    inside = problems({"high": 1, "production": {"high": {"min": 1, "max": 10}}})
    assert [problem.kind for problem in inside] == [Kind.OPTION_NAME] * 2


def test_queues_may_be_called_as_bounds_are():
    queues = {"min": HERE, "max": HERE, "high": HERE}
    mapping = {"min": 1, "production": {"max": 2}}
    assert counts(mapping, "production", queues) == {"min": 1, "max": 2}


SCALED = {
    "high": {"workers": {"min": 1, "max": 10}, "target_latency": 2, "max_jobs": 7},
    "low": 2,
    "max_total": 12,
    "big": {"high": {"workers": {"min": 4, "max": 40}}, "max_total": 60},
    "fixed": {"high": 3},
    "fixed too": {"high": {"workers": 3}},
    "patient": {"high": {"target_latency": 60}},
    "scaled": {"low": {"workers": {"min": 0, "max": 5}, "target_latency": 9}},
}


def test_an_environment_can_change_the_bounds_and_keeps_the_options():
    assert groups(SCALED, "big")["high"] == QueueGroup(
        "high", ("high",), 4, GroupOptions(target_latency=2, max_jobs=7), Bounds(4, 40)
    )


@pytest.mark.parametrize("environment", ["fixed", "fixed too"])
def test_a_count_in_an_environment_turns_the_scaling_off_and_keeps_the_other_options(environment):
    assert groups(SCALED, environment)["high"] == QueueGroup(
        "high", ("high",), 3, GroupOptions(max_jobs=7)
    )


def test_an_environment_can_change_the_latency_alone():
    group = groups(SCALED, "patient")["high"]
    assert (group.bounds, group.options.target_latency) == (Bounds(1, 10), 60)


def test_an_environment_can_turn_the_scaling_on():
    group = groups(SCALED, "scaled")["low"]
    assert (group.workers, group.bounds, group.options.target_latency) == (0, Bounds(0, 5), 9)


def test_a_latency_in_an_environment_needs_bounds_in_the_root():
    mapping = {"high": 2, "production": {"high": {"target_latency": 2}}}
    assert_says(only_problem(mapping, "production"), Kind.OPTION_VALUE, "'high'", "2 workers")
    assert counts(mapping) == {"high": 2}


def test_a_latency_beside_a_fixed_count_is_refused_in_any_environment():
    mapping = {
        "high": {"workers": {"min": 1, "max": 2}},
        "production": {"high": {"workers": 2, "target_latency": 2}},
    }
    for environment in (None, "production"):
        assert_says(only_problem(mapping, environment), Kind.OPTION_VALUE, "'production'", "'high'")


def test_a_pool_that_can_grow_is_not_empty():
    assert parse({"high": {"workers": {"min": 0, "max": 1}}}).warnings == ()


# The most workers of the pool


def test_the_pool_has_no_limit_unless_it_is_said():
    assert parse({"high": 1}).max_total is None


@pytest.mark.parametrize(
    ("environment", "most"), [(None, 12), ("big", 60), ("fixed", 12), ("nowhere", 12)]
)
def test_the_root_limits_the_pool_and_an_environment_may_limit_it_otherwise(environment, most):
    assert parse(SCALED, environment).max_total == most


def test_an_environment_alone_may_limit_the_pool():
    mapping = {"high": 1, "production": {"max_total": 5}}
    assert parse(mapping).max_total is None
    assert parse(mapping, "production").max_total == 5


def test_spaces_around_the_limit_do_not_matter():
    assert parse({"high": 1, " max_total ": 5}).max_total == 5


@pytest.mark.parametrize("value", [0, -1, 2.0, "9", True, None, {"high": 1}, {}, [3]])
@pytest.mark.parametrize("environment", [False, True])
def test_a_limit_that_is_none_is_refused(value, environment):
    limited = {"max_total": value}
    mapping = {"high": 1, "production": limited} if environment else {"high": 1, **limited}
    problem = only_problem(mapping)
    assert_says(problem, Kind.OPTION_VALUE, "'max_total'", repr(value), "whole number, 1 or more")


def test_a_queue_of_that_name_has_the_word():
    queues = {**QUEUES, "max_total": HERE}
    assert counts({"high": 1, "max_total": 3}, queues=queues) == {"high": 1, "max_total": 3}
    assert parse({"high": 1, "max_total": 3}, queues=queues).max_total is None


def test_a_limit_leaves_room_for_counts_and_minima():
    mapping = {"high": {"workers": {"min": 3, "max": 9}}, "low": 2}
    assert parse({**mapping, "max_total": 5}).max_total == 5
    problem = only_problem({**mapping, "max_total": 4})
    assert_says(problem, Kind.COUNT, "'max_total'", "4 is less than the 5 workers", "Raise")


def test_the_environment_that_is_asked_for_has_to_fit_its_limit():
    mapping = {"high": 1, "max_total": 3, "production": {"high": 9}}
    assert parse(mapping).max_total == 3
    assert_says(only_problem(mapping, "production"), Kind.COUNT, "'max_total'", "9 workers")


# What is refused


@pytest.mark.parametrize("value", [None, 5, "high=1", ["high"], {"high"}, b"high: 1"])
def test_what_is_not_a_mapping_is_refused(value):
    assert_says(only_problem(value), Kind.SOURCE, repr(value), "not a mapping", "colon")


BAD_COUNTS = [-1, 1.0, 2.5, math.nan, math.inf, True, False, "4", "", None, [2], b"1", Decimal(1)]


@pytest.mark.parametrize("value", BAD_COUNTS)
def test_what_is_not_a_whole_number_is_refused_as_a_count(value):
    problem = only_problem({"high": value, "low": 1})
    assert_says(problem, Kind.COUNT, "'high'", repr(value), "whole number, 0 or more")


@pytest.mark.parametrize("value", BAD_COUNTS)
def test_what_is_not_a_whole_number_is_refused_as_workers(value):
    problem = only_problem({"high": {"workers": value}, "low": 1})
    assert_says(problem, Kind.COUNT, "'high'", "'workers'", repr(value), "whole number, 0 or more")


@pytest.mark.parametrize("key", [1, None, True, 1.5, b"high", ("high", "low")])
@pytest.mark.parametrize("value", [1, {"workers": 1}, {"high": 1}])
def test_a_key_that_is_not_text_is_refused(key, value):
    assert_says(only_problem({key: value, "low": 1}), Kind.QUEUE_NAME, repr(key), "quotes")


@pytest.mark.parametrize("name", ["", " ", ",", "high,", ",high", "high,,low", "high, ,low"])
def test_an_empty_queue_name_is_refused(name):
    assert_says(only_problem({name: 1}), Kind.QUEUE_NAME, repr(name), "empty", "comma")


@pytest.mark.parametrize(
    ("name", "repeated"),
    [("high,high", "'high'"), ("high,low, high", "'high'"), ("*,high,*", "'*'")],
)
def test_a_queue_named_twice_in_a_group_is_refused(name, repeated):
    assert_says(only_problem({name: 1}), Kind.QUEUE_NAME, repr(name), repeated, "once")


def test_the_same_group_twice_by_spaces_is_refused():
    problem = only_problem({"high,low": 1, "high, low": 2})
    assert_says(problem, Kind.QUEUE_NAME, "'high, low'", "twice", "Keep one")


def test_the_same_group_twice_in_an_environment_is_refused():
    problem = only_problem({"high": 1, "production": {"low": 1, " low": 2}})
    assert_says(problem, Kind.QUEUE_NAME, "'production'", "' low'", "twice")


def test_an_unknown_queue_is_refused_with_those_there_are():
    problem = only_problem({"high,hihg,lwo": 1})
    assert_says(
        problem, Kind.UNKNOWN_QUEUE, "'high,hihg,lwo'", "'hihg', 'lwo'", "'high', 'default', 'low'"
    )


def test_an_unknown_queue_is_refused_when_there_are_none_at_all():
    assert_says(only_problem({"high": 1}, queues={}), Kind.UNKNOWN_QUEUE, "'high'", "empty")


def test_an_unknown_queue_is_refused_even_at_a_count_of_zero():
    assert only_problem({"hihg": 0}).kind is Kind.UNKNOWN_QUEUE


def test_a_star_is_refused_when_there_are_no_queues():
    assert_says(only_problem({"*": 1}, queues={}), Kind.UNKNOWN_QUEUE, "'*'", "RQ_QUEUES")


@pytest.mark.parametrize(
    ("name", "stranger", "first"),
    [
        ("high,elsewhere", "'elsewhere'", "'high'"),
        ("elsewhere,low", "'low'", "'elsewhere'"),
        ("*", "'elsewhere'", "'high'"),
    ],
)
def test_a_group_over_several_servers_is_refused(name, stranger, first):
    problem = only_problem({name: 1}, queues=TWO_SERVERS)
    assert_says(problem, Kind.SEVERAL_SERVERS, repr(name), stranger, first, "each Redis connection")


def test_a_mapping_inside_an_environments_environment_is_refused():
    problem = only_problem({"high": 1, "production": {"high": {"low": 2}}})
    assert_says(problem, Kind.OPTION_NAME, "'production'", "'high'", "'low'")


def test_all_problems_are_told_together():
    found = problems(
        {
            "high": -1,
            "low,low": 1,
            "default": {"workers": "2", "max_jobs": 0, "max_job": 1},
            "nowhere": 1,
            "high,elsewhere": 1,
            "production": {"low": None},
            None: 1,
        },
        "production",
        TWO_SERVERS,
    )
    assert sorted(problem.kind for problem in found) == sorted(
        [
            Kind.COUNT,  # high
            Kind.QUEUE_NAME,  # low,low
            Kind.COUNT,  # default: workers
            Kind.OPTION_VALUE,
            Kind.OPTION_NAME,
            Kind.UNKNOWN_QUEUE,
            Kind.SEVERAL_SERVERS,
            Kind.COUNT,  # production: low
            Kind.QUEUE_NAME,  # None
        ]
    )


def test_the_error_reads_as_one_line_for_each_problem():
    with pytest.raises(CountsError) as caught:
        parse({"high": -1, "low": None})
    lines = str(caught.value).splitlines()
    assert lines == [str(problem) for problem in caught.value.problems]
    assert len(lines) == 2


# What is odd and not refused


@pytest.mark.parametrize("mapping", [{}, {"max_total": 3}])
def test_counts_without_a_queue_group_are_an_error_that_prevents_no_reload(mapping):
    (warning,) = parse(mapping).warnings
    assert_says(warning, Kind.NO_COUNTS, "no queue group", "rqpool high=1")
    assert warning.kind.is_error


def test_counts_in_environments_only_need_one_to_be_asked_for():
    (warning,) = parse({"production": {"high": 1}}).warnings
    assert_says(warning, Kind.NO_COUNTS, "outside of environments", "--environment", "'production'")


@pytest.mark.parametrize(("workers", "warns"), [(1000, False), (1001, True), (10**9, True)])
def test_a_thousand_workers_are_a_lot(workers, warns):
    warnings = parse({"high": workers, "low": 1}).warnings
    assert [each.kind for each in warnings] == [Kind.MANY_WORKERS] * warns
    bounds = {"high": {"workers": {"min": 1, "max": workers}}}
    assert [each.kind for each in parse(bounds).warnings] == [Kind.MANY_WORKERS] * warns


@pytest.mark.parametrize("mapping", [{"high": 0}, {"high": {"workers": 0}, "low": 0}])
def test_a_pool_without_a_worker_is_a_warning(mapping):
    (warning,) = parse(mapping).warnings
    assert_says(warning, Kind.EMPTY_POOL, "empty", "above 0")


def test_a_pool_with_one_worker_is_no_warning():
    assert parse({"high": 0, "low": 1}).warnings == ()


# Anything at all


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.dates()
    | st.builds(Unspeakable)
)
NAMES = ["high", "low", "elsewhere", "*", "high,low", " high", "low,*", "prod", "", ","]
WORDS = st.sampled_from([*NAMES, *OPTION_NAMES, *BOUNDS, MAX_TOTAL])
KEYS = WORDS | SCALARS | st.tuples(st.integers(0, 2)) | st.frozensets(st.text(max_size=2))
ONE_UP = st.integers(1, 9)
ANYTHING = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
SENSIBLE_COUNTS = (
    st.integers(0, 9)
    | st.fixed_dictionaries(
        {"workers": st.integers(0, 9)},
        optional={"max_jobs": st.integers(1, 9), "with_scheduler": st.booleans()},
    )
    | st.fixed_dictionaries(
        {"workers": st.builds(lambda a, b: {"min": a, "max": a + b}, st.integers(0, 9), ONE_UP)},
        optional={"target_latency": st.floats(0.1, 1e6) | ONE_UP},
    )
)
SENSIBLE = st.dictionaries(
    st.sampled_from(["high", "low", " high,low", "low , high", "*", "low,*", "default"]),
    SENSIBLE_COUNTS,
    max_size=5,
)


def assert_sound(parsed: Counts, queues) -> None:
    names = [group.name for group in parsed.groups]
    assert len(names) == len(set(names))
    for group in parsed.groups:
        assert type(group.workers) is int
        assert group.workers >= 0
        assert group.queues
        assert set(group.queues) <= set(queues)
        assert len(group.queues) == len(set(group.queues))
        assert len({repr(queues[queue]) for queue in group.queues}) == 1
        assert group.name == ",".join(name.strip() for name in group.name.split(","))
        assert isinstance(group.options, GroupOptions)
        if group.bounds is not None:
            assert group.workers == group.bounds.min <= group.bounds.max
            assert group.bounds.max >= 1
    assert parsed.max_total is None or parsed.max_total >= sum(g.workers for g in parsed.groups)
    assert bool(parsed.groups) is (Kind.NO_COUNTS not in {each.kind for each in parsed.warnings})


@settings(max_examples=3 * settings.default.max_examples)
@given(
    mapping=st.dictionaries(KEYS, ANYTHING, max_size=5) | ANYTHING,
    environment=st.none() | st.sampled_from(["prod", "high"]) | st.text(max_size=3),
)
@example(mapping={math.nan: {"workers": math.nan}}, environment=None)
@example(mapping={"high": {"workers": 1, (): {}, b"": set()}}, environment="high")
def test_nothing_whatever_raises_anything_but_a_counts_error(mapping, environment):
    try:
        parsed = parse(mapping, environment, TWO_SERVERS)
    except CountsError as error:
        found = error.problems
    else:
        assert_sound(parsed, TWO_SERVERS)
        return
    assert found
    for problem in found:
        assert SOURCE in problem.text
        assert problem.hint


@given(root=SENSIBLE, overrides=SENSIBLE, environment=st.sampled_from([None, "prod"]))
def test_what_the_grammar_allows_is_accepted_and_overridden(root, overrides, environment):
    parsed = parse({**root, "prod": overrides}, environment)
    assert_sound(parsed, QUEUES)
    wanted = {**root, **overrides} if environment else root
    assert {group.name: group.workers for group in parsed.groups} == {
        name.replace(" ", ""): least(value) for name, value in wanted.items()
    }


def least(value) -> int:
    workers = value["workers"] if isinstance(value, dict) else value
    return workers["min"] if isinstance(workers, dict) else workers


@pytest.mark.parametrize(
    "mapping",
    [
        {"high": -(16**4000)},
        {16**4000: 1},
        {"high": 16**4000, "max_total": 1},
        {"high": {"workers": {"min": 16**4000, "max": 1}}},
    ],
)
def test_an_integer_too_long_to_print_is_refused_like_any_other(mapping):
    only_problem(mapping)
