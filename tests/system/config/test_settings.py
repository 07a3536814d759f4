"""Settings, the environment and options put together into a pool that can be started."""

from __future__ import annotations

from pathlib import Path

import django_rq.settings
import pytest
from django.test import override_settings
from rq import Queue, SimpleWorker, SpawnWorker

from django_rq_pool.config import loaders, settings
from django_rq_pool.config.groups import QueueGroup
from django_rq_pool.config.problems import CountsError, Kind, Problem
from django_rq_pool.config.stop_policy import StopRules, TermPolicy

pytestmark = pytest.mark.usefixtures("folder")

URL = "redis://localhost/0"


def problems(**options) -> tuple[Problem, ...]:
    with pytest.raises(CountsError) as caught:
        settings.configure(**options)
    return caught.value.problems


def only_problem(**options) -> Problem:
    found = problems(**options)
    assert len(found) == 1, [str(problem) for problem in found]
    return found[0]


# The environment


@pytest.mark.parametrize(
    ("asked", "rq_pool_env", "django_env", "environment"),
    [
        ("asked", "first", "second", "asked"),
        (None, "first", "second", "first"),
        (None, None, "second", "second"),
        ("", "first", "second", "first"),
        (None, "", "second", "second"),
        (None, "", "", None),
        (None, None, None, None),
    ],
)
def test_the_environment_is_the_first_that_is_given(
    monkeypatch, asked, rq_pool_env, django_env, environment
):
    for variable, value in (("RQ_POOL_ENV", rq_pool_env), ("DJANGO_ENV", django_env)):
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert settings.find_environment(asked) == environment


def test_the_environment_reaches_loader_and_parser(monkeypatch):
    monkeypatch.setenv("RQ_POOL_ENV", "production")
    asked = []

    def loader(environment):
        asked.append(environment)
        return {"high": 1, "production": {"high": 2}}

    with override_settings(RQ_POOL=loader):
        configuration = settings.configure(allow_empty=True)
    assert asked == ["production"]
    assert configuration.environment == "production"
    assert configuration.counts.groups == (QueueGroup("high", ("high",), 2),)


SECTIONS = {"high": 1, "production": {"high": 2}}


def test_an_environment_that_was_asked_for_by_name_has_to_be_there(monkeypatch):
    assert only_problem(counts=SECTIONS, environment="prod").kind is Kind.NO_ENVIRONMENT
    monkeypatch.setenv("RQ_POOL_ENV", "prod")
    assert only_problem(counts=SECTIONS).kind is Kind.NO_ENVIRONMENT


def test_an_environment_that_other_tools_have_too_may_mean_the_counts_outside(monkeypatch):
    monkeypatch.setenv("DJANGO_ENV", "development")
    configuration = settings.configure(counts=SECTIONS)
    assert configuration.counts.groups == (QueueGroup("high", ("high",), 1),)
    (warning,) = configuration.warnings
    assert warning.kind is Kind.UNKNOWN_ENVIRONMENT


# Names that look like ours


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("RQ_POOL_PRELOADS", "Did you mean RQ_POOL_PRELOAD?"),
        ("RQ_POOL_LODER_TIMEOUT", "Did you mean RQ_POOL_LOADER_TIMEOUT?"),
        ("RQ_POOLS", "Did you mean RQ_POOL?"),
        ("RQPOOL", "Did you mean RQ_POOL?"),
        ("RQ_POOL_QQQQQQQQQ", "Settings are RQ_POOL,"),
        ("RQ_POOL_ENV", "it is an environment variable"),
    ],
)
def test_a_setting_that_nobody_reads_is_told_with_the_nearest(name, words):
    with override_settings(**{name: {}}):
        (warning,) = settings.configure(counts={"high": 1}).warnings
    assert warning.kind is Kind.MISSPELT
    assert str(warning).startswith(f"{name}: ")
    assert words in str(warning)


def test_a_misspelt_setting_is_told_beside_what_is_wrong_without_it():
    with override_settings(RQ_POOLS={"high": 1}):
        assert [each.kind for each in problems()] == [Kind.NO_COUNTS, Kind.MISSPELT]


@pytest.mark.parametrize(
    ("name", "nearest"), [("RQ_POOL_ENVV", "RQ_POOL_ENV"), ("RQPOOL_CONFIG", "RQ_POOL_CONFIG")]
)
def test_a_variable_that_nobody_reads_is_told_with_the_nearest(monkeypatch, name, nearest):
    monkeypatch.setenv(name, "production")
    (warning,) = settings.configure(counts={"high": 1}).warnings
    assert warning.kind is Kind.MISSPELT
    assert warning.hint == f"Did you mean {nearest}?"


@pytest.mark.parametrize(
    "name", ["RQ_POOL_PRELOAD", "RQ_POOL_SERVICE_HOST", "RQ_POOL_PORT_6379_TCP", "RQ_QUEUES"]
)
def test_variables_of_others_are_theirs(monkeypatch, name):
    monkeypatch.setenv(name, "x")
    assert settings.configure(counts={"high": 1}).warnings == ()


@pytest.mark.parametrize(
    "name", ["RQ", "RQ_QUEUES", "RQ_EXCEPTION_HANDLERS", "RQ_SHOW_ADMIN_LINK", "RQ_API_TOKEN"]
)
def test_settings_of_django_rq_are_known(name):
    with override_settings(**({} if name == "RQ_QUEUES" else {name: {}})):
        assert settings.configure(counts={"high": 1}).warnings == ()


# Names


def test_a_pool_is_called_after_the_project():
    assert settings.configure(counts={"high": 1}).name == "shop"
    assert settings.configure(counts={"high": 1}).name == "shop"


def test_the_setting_names_it_unless_a_name_is_asked_for():
    with override_settings(RQ_POOL_NAME="corner shop"):
        assert settings.configure(counts={"high": 1}).name == "corner shop"
        assert settings.configure(counts={"high": 1}, name="").name == "corner shop"
        assert settings.configure(counts={"high": 1}, name="other").name == "other"


@pytest.mark.parametrize("name", ["", "a]b", "a\nb", "x" * 101, 5, ["shop"]])
def test_a_name_that_cannot_be_part_of_a_title_is_refused_wherever_it_is_said(name):
    wanted = "a name of 1 to 100 printable characters without ']'"
    with override_settings(RQ_POOL_NAME=name):
        problem = only_problem(counts={"high": 1})
    assert problem.kind is Kind.SOURCE
    assert problem.text.startswith("RQ_POOL_NAME: ")
    assert problem.text.endswith(f" is not {wanted}.")
    if name and isinstance(name, str):
        assert only_problem(counts={"high": 1}, name=name).text.startswith("--name: ")


def test_a_pool_is_called_as_it_is_told():
    assert settings.configure(counts={"high": 1}, name="corner").name == "corner"


# Sources


def test_counts_given_in_a_program_come_before_everything_else(monkeypatch):
    Path("rqpool.yml").write_text("high: 7")
    monkeypatch.setenv("RQ_POOL_CONFIG", "rqpool.yml")
    with override_settings(RQ_POOL={"high": 8}):
        configuration = settings.configure(counts={"low": 1})
    assert [group.name for group in configuration.counts.groups] == ["low"]


def test_empty_counts_given_in_a_program_are_counts():
    with override_settings(RQ_POOL={"high": 8}):
        assert settings.configure(counts={}, allow_empty=True).counts.groups == ()


def test_the_setting_is_read():
    with override_settings(RQ_POOL={"high": 8}):
        configuration = settings.configure(allow_empty=True)
    assert configuration.source.name == "RQ_POOL"
    assert configuration.counts.groups == (QueueGroup("high", ("high",), 8),)


def test_command_line_and_file_come_before_the_setting():
    Path("own.yml").write_text("high: 7")
    with override_settings(RQ_POOL={"high": 8}):
        assert settings.configure(config="own.yml").counts.groups[0].workers == 7
        assert (
            settings.configure(config="own.yml", command_line=["high=6"]).counts.groups[0].workers
            == 6
        )


def test_no_counts_anywhere_are_an_error():
    problem = only_problem()
    assert problem.kind is Kind.NO_COUNTS
    assert loaders.SETTING in problem.text
    assert "rqpool.yml" in problem.text


@pytest.mark.parametrize(
    "counts", [{}, {"production": {"high": 1}}, lambda environment: {}, "empty.yml"]
)
def test_counts_without_a_queue_group_are_an_error_unless_they_are_allowed(counts):
    Path("empty.yml").touch()
    assert only_problem(counts=counts).kind is Kind.NO_COUNTS
    configuration = settings.configure(counts=counts, allow_empty=True)
    assert configuration.counts.groups == ()
    (warning,) = configuration.warnings
    assert warning.kind is Kind.EMPTY_POOL


def test_groups_that_have_no_worker_now_are_counts():
    (warning,) = settings.configure(counts=lambda environment: {"high": 0}).warnings
    assert warning.kind is Kind.EMPTY_POOL


def test_problems_name_their_source():
    Path("own.yml").write_text("high: -1")
    assert only_problem(config="own.yml").text.startswith("own.yml: 'high': ")
    assert only_problem(command_line=["high=-1"]).text.startswith("command line: 'high': ")
    assert only_problem(counts={"high": -1}).text.startswith("counts: 'high': ")


# Queues


def test_a_served_queue_whose_jobs_never_reach_a_worker_is_a_warning():
    queues = {"a": {"URL": URL, "ASYNC": False}, "b": {"URL": URL, "ASYNC": True}}
    with override_settings(RQ_QUEUES=queues):
        (warning,) = settings.configure(counts={"a,b": 1}).warnings
        assert settings.configure(counts={"b": 1}).warnings == ()
    assert warning.kind is Kind.SYNCHRONOUS
    assert "'a'" in warning.text


def test_a_star_is_every_queue_of_the_settings_in_their_order():
    with override_settings(RQ_QUEUES={"b": {"URL": URL}, "a": {"URL": URL}}):
        (group,) = settings.configure(counts={"*": 1}).counts.groups
    assert group.queues == ("b", "a")


def test_only_the_connection_tells_servers_apart():
    queues = {"a": {"URL": URL, "DEFAULT_TIMEOUT": 5}, "b": {"URL": URL, "ASYNC": True}}
    with override_settings(RQ_QUEUES=queues):
        (group,) = settings.configure(counts={"a,b": 1}).counts.groups
    assert group.queues == ("a", "b")


@pytest.mark.parametrize(
    "other", [{"URL": "redis://elsewhere/0"}, {"URL": "redis://localhost/1"}, {"URL": URL, "DB": 3}]
)
def test_queues_on_other_servers_or_databases_cannot_share_a_group(other):
    with override_settings(RQ_QUEUES={"a": {"URL": URL}, "b": other}):
        assert only_problem(counts={"a,b": 1}).kind is Kind.SEVERAL_SERVERS


@pytest.mark.parametrize("value", [None, [], "redis://localhost", {"a": URL}, {"a": None}])
def test_queues_that_are_no_mapping_of_mappings_are_refused(value):
    with override_settings(RQ_QUEUES=value):
        problem = only_problem(counts={"a": 1})
    assert problem.kind is Kind.SOURCE
    assert "RQ_QUEUES" in problem.text


def test_missing_queues_are_refused():
    with override_settings():
        from django.conf import settings

        del settings.RQ_QUEUES
        problem = only_problem(counts={"a": 1})
    assert problem.kind is Kind.SOURCE
    assert "missing" in problem.text


# What is imported

WRONG = [
    ("worker_class", "no.such.Worker", "no.such"),
    ("worker_class", "shop.tasks.Nobody", "Nobody"),
    ("worker_class", "Worker", "Worker"),
    ("worker_class", "rq.Queue", "not an RQ worker class"),
    ("worker_class", "shop.tasks.ship", "not an RQ worker class"),
    ("worker_class", "rq.SpawnWorker", "SpawnWorker"),
    ("worker_class", SpawnWorker, "SpawnWorker"),
    ("worker_class", Queue, "not an RQ worker class"),
    ("job_class", "no.such.Job", "no.such"),
    ("queue_class", "no.such.Queue", "no.such"),
    ("serializer", "no.such.Serializer", "no.such"),
]


@pytest.mark.parametrize(("option", "value", "words"), WRONG)
def test_a_class_that_cannot_be_used_stops_the_start(option, value, words):
    problem = only_problem(counts={"high": {"workers": 1, option: value}})
    assert problem.kind is Kind.IMPORT
    assert "'high'" in problem.text
    assert option in problem.text
    assert words in problem.text
    assert "dotted path" in problem.hint


def test_a_serializer_that_is_none_stops_the_start():
    problem = only_problem(counts={"high": {"workers": 1, "serializer": "shop.tasks.ship"}})
    assert problem.kind is Kind.IMPORT
    assert "serializer" in problem.text


@pytest.mark.parametrize("option", ["job_class", "queue_class"])
def test_a_path_that_leads_to_no_such_class_stops_the_start(option):
    problem = only_problem(counts={"high": {"workers": 1, option: "shop.tasks.ship"}})
    assert problem.kind is Kind.IMPORT
    assert option in problem.text


@pytest.mark.parametrize("option", ["worker_class", "job_class", "queue_class", "serializer"])
def test_a_module_that_breaks_when_it_is_imported_stops_the_start_in_words(folder, option):
    (folder / "breaks.py").write_text("\n1 / 0")
    problem = only_problem(counts={"high": {"workers": 1, option: "breaks.Thing"}})
    assert problem.kind is Kind.IMPORT
    assert option in problem.text
    assert problem.text.endswith("ZeroDivisionError: division by zero (breaks.py:2).")


def test_a_module_that_misses_another_is_told_with_the_name_of_that(folder):
    (folder / "needy.py").write_text("import module_that_is_not_there")
    problem = only_problem(counts={"high": {"workers": 1, "worker_class": "needy.Worker"}})
    assert "module_that_is_not_there" in problem.text


def test_classes_that_can_be_used_are_accepted():
    counts = {
        "high": {
            "workers": 1,
            "worker_class": "rq.worker.RoundRobinWorker",
            "job_class": "rq.job.Job",
            "queue_class": "django_rq.queues.DjangoRQ",
            "serializer": "json",
        },
        "low": {"workers": 1, "worker_class": SimpleWorker},
    }
    first, second = settings.configure(counts=counts).counts.groups
    assert first.options.worker_class == "rq.worker.RoundRobinWorker"
    assert second.options.worker_class is SimpleWorker


def test_every_group_is_told_what_it_cannot_import():
    counts = {name: {"workers": 1, "worker_class": f"no.{name}"} for name in ("high", "low")}
    first, second = problems(counts=counts)
    assert "'high'" in first.text
    assert "'low'" in second.text


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"WORKER_CLASS": "no.such.Worker"}, "worker_class"),
        ({"WORKER_CLASS": "rq.Queue"}, "not an RQ worker class"),
        ({"WORKER_CLASS": "rq.SpawnWorker"}, "SpawnWorker"),
        ({"JOB_CLASS": "no.such.Job"}, "job_class"),
        ({"QUEUE_CLASS": "no.such.Queue"}, "queue_class"),
        ({"COMMIT_MODE": "sometimes"}, "COMMIT_MODE"),
    ],
)
def test_the_classes_of_django_rqs_settings_are_looked_at_too(setting, words):
    with override_settings(RQ=setting):
        problem = only_problem(counts={"high": 1})
    assert problem.kind is Kind.IMPORT
    assert words in problem.text


def test_a_groups_own_worker_class_comes_before_that_of_the_settings():
    with override_settings(RQ={"WORKER_CLASS": "no.such.Worker"}):
        settings.configure(counts={"high": {"workers": 1, "worker_class": "rq.Worker"}})


def test_exception_handlers_that_cannot_be_imported_stop_the_start(monkeypatch):
    monkeypatch.setattr(django_rq.settings, "EXCEPTION_HANDLERS", ["no.such.handler"])
    problem = only_problem(counts={"high": 1})
    assert problem.kind is Kind.IMPORT
    assert "no.such.handler" in problem.text


def test_the_queues_of_a_group_must_be_of_one_class(folder):
    (folder / "own_queues.py").write_text("from rq import Queue\nclass Own(Queue): pass\n")
    queues = {"a": {"URL": URL}, "b": {"URL": URL, "QUEUE_CLASS": "own_queues.Own"}}
    with override_settings(RQ_QUEUES=queues):
        problem = only_problem(counts={"a,b": 1})
        settings.configure(counts={"a": 1, "b": 1})
        settings.configure(counts={"a,b": {"workers": 1, "queue_class": "rq.Queue"}})
    assert problem.kind is Kind.IMPORT
    assert "'a,b'" in problem.text
    assert "one class" in problem.text


# How it stops


def test_without_being_told_a_pool_stops_immediately_on_term():
    assert settings.configure(counts={"high": 1}).stop_rules == StopRules(
        TermPolicy.IMMEDIATE, None
    )


@pytest.mark.parametrize("policy", list(TermPolicy))
def test_what_term_means_can_be_chosen(policy):
    assert settings.configure(counts={"high": 1}, term=policy).stop_rules.term is policy


@pytest.mark.parametrize(("given", "seconds"), [(None, 4.0), ("2.5", 2.5), ("30", 30.0)])
def test_term_child_gives_jobs_some_seconds(monkeypatch, given, seconds):
    monkeypatch.setenv("TERM_CHILD", "1")
    if given is not None:
        monkeypatch.setenv("RQ_TERM_TIMEOUT", given)
    assert settings.configure(counts={"high": 1}).stop_rules.term_child == seconds


@pytest.mark.parametrize("given", ["", "soon", "0", "-1", "nan", "inf"])
def test_seconds_that_are_none_are_refused_where_they_count(monkeypatch, given):
    monkeypatch.setenv("RQ_TERM_TIMEOUT", given)
    assert settings.configure(counts={"high": 1}).stop_rules.term_child is None
    monkeypatch.setenv("TERM_CHILD", "1")
    problem = only_problem(counts={"high": 1})
    assert problem.kind is Kind.SOURCE
    assert "RQ_TERM_TIMEOUT" in problem.text
    assert repr(given) in problem.text


def test_a_dyno_whose_restarts_would_end_jobs_is_a_warning(monkeypatch):
    monkeypatch.setenv("DYNO", "worker.1")
    (warning,) = settings.configure(counts={"high": 1}).warnings
    assert "TERM_CHILD" in warning.text
    assert settings.configure(counts={"high": 1}, term=TermPolicy.GRACEFUL_WAIT).warnings == ()
    monkeypatch.setenv("TERM_CHILD", "1")
    assert settings.configure(counts={"high": 1}).warnings == ()


# Preloading


def test_nothing_more_is_preloaded_unless_it_is_said():
    assert settings.configure(counts={"high": 1}).preload == ()


@pytest.mark.parametrize("modules", [["shop.tasks"], ("shop.tasks", "shop.models"), []])
def test_modules_to_preload_come_as_a_list(modules):
    with override_settings(RQ_POOL_PRELOAD=modules):
        assert settings.configure(counts={"high": 1}).preload == tuple(modules)


@pytest.mark.parametrize("modules", ["shop.tasks", None, 5, {"shop.tasks": 1}])
def test_modules_to_preload_that_are_no_list_are_refused(modules):
    with override_settings(RQ_POOL_PRELOAD=modules), pytest.raises(CountsError) as caught:
        settings.configure(counts={"high": 1})
    (problem,) = caught.value.problems
    assert "RQ_POOL_PRELOAD" in problem.text
    assert repr(modules) in problem.text
