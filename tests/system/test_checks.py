"""``manage.py check`` tells what ``rqpool`` would refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.checks.messages import ERROR, WARNING
from django.core.management import call_command
from django.core.management.base import CommandError, SystemCheckError
from django.test import override_settings

pytestmark = pytest.mark.usefixtures("folder")


def check(**settings) -> list[CheckMessage]:
    with override_settings(**settings):
        return [
            message for message in run_checks(tags=["rq"]) if "django_rq_pool" in str(message.id)
        ]


def only_message(**settings) -> CheckMessage:
    found = check(**settings)
    assert len(found) == 1, found
    return found[0]


def test_good_counts_pass():
    assert check(RQ_POOL={"high,default": 2, "elsewhere": 1}) == []


def test_a_project_without_counts_passes_for_the_command_line_may_give_them():
    assert check() == []


def test_the_check_belongs_to_all_checks():
    with override_settings(RQ_POOL={"high": -1}):
        assert "django_rq_pool.E003" in [message.id for message in run_checks()]


@pytest.mark.parametrize(
    ("counts", "number", "words"),
    [
        (["high"], "E001", "RQ_POOL"),
        ("no/such.yml", "E001", "no such file"),
        ({"high,,low": 1}, "E002", "empty"),
        ({"high": "1"}, "E003", "'1'"),
        ({"high": {"workers": 1, "max_job": 1}}, "E004", "'max_job'"),
        ({"high": {"workers": 1, "max_jobs": 0}}, "E005", "'max_jobs'"),
        ({"hihg": 1}, "E006", "'hihg'"),
        ({"high,elsewhere": 1}, "E007", "'elsewhere'"),
        ({"high": {"workers": 1, "worker_class": "no.such"}}, "E008", "worker_class"),
        ({"high": {"workers": 1, "worker_class": "rq.SpawnWorker"}}, "E008", "SpawnWorker"),
        ("no.such.loader", "E008", "'no.such.loader'"),
    ],
)
def test_what_cannot_be_used_is_an_error_with_number_and_hint(counts, number, words):
    message = only_message(RQ_POOL=counts)
    assert message.id == f"django_rq_pool.{number}"
    assert message.level == ERROR
    assert words in message.msg
    assert message.hint


def test_an_empty_pool_is_a_warning():
    message = only_message(RQ_POOL={"high": 0})
    assert (message.id, message.level) == ("django_rq_pool.W001", WARNING)
    assert message.hint


@pytest.mark.parametrize(
    ("variable", "number", "level"),
    [("RQ_POOL_ENV", "E010", ERROR), ("DJANGO_ENV", "W002", WARNING)],
)
def test_an_unknown_environment_is_an_error_if_it_was_meant(monkeypatch, variable, number, level):
    monkeypatch.setenv(variable, "prod")
    message = only_message(RQ_POOL={"high": 1, "production": {"high": 2}})
    assert (message.id, message.level) == (f"django_rq_pool.{number}", level)
    assert "'prod'" in message.msg
    assert "'production'" in message.hint


@pytest.mark.parametrize("counts", [{}, "empty.yml"])
def test_counts_without_a_queue_group_are_an_error(counts):
    Path("empty.yml").touch()
    message = only_message(RQ_POOL=counts)
    assert (message.id, message.level) == ("django_rq_pool.E009", ERROR)


def test_what_is_wrong_in_an_environment_that_was_not_asked_for_is_an_error():
    message = only_message(RQ_POOL={"high": 1, "production": {"hihg": 2}})
    assert (message.id, message.level) == ("django_rq_pool.E006", ERROR)
    assert "'production': 'hihg'" in message.msg


def test_a_wrong_class_in_an_environment_that_was_not_asked_for_is_an_error():
    wrong = {"workers": 1, "worker_class": "no.such.Worker"}
    counts = {"high": 1, "production": {"high": wrong}, "staging": {"high": wrong}}
    message = only_message(RQ_POOL=counts)
    assert (message.id, message.level) == ("django_rq_pool.E008", ERROR)
    assert "'no.such.Worker'" in message.msg


def test_a_misspelt_setting_is_a_warning_also_without_counts():
    message = only_message(RQ_POOL_PRELOADS=["shop.tasks"])
    assert (message.id, message.level) == ("django_rq_pool.W010", WARNING)


def test_every_problem_is_a_message():
    found = check(RQ_POOL={"high": -1, "low,low": 1, "hihg": 1})
    assert sorted(message.id for message in found) == [
        "django_rq_pool.E002",
        "django_rq_pool.E003",
        "django_rq_pool.E006",
    ]


def test_a_file_that_would_be_found_is_checked():
    Path("rqpool.yml").write_text("hihg: 1")
    message = only_message()
    assert message.id == "django_rq_pool.E006"
    assert message.msg.startswith("rqpool.yml: ")


def test_the_classes_of_django_rqs_settings_are_checked():
    message = only_message(RQ_POOL={"high": 1}, RQ={"WORKER_CLASS": "no.such.Worker"})
    assert message.id == "django_rq_pool.E008"
    assert "no.such" in message.msg
    assert message.hint == "Give the dotted path of one that can be imported and used."


def test_what_is_no_dotted_path_is_not_asked_for_one():
    message = only_message(RQ_POOL={"high": 1}, RQ={"COMMIT_MODE": "sometimes"})
    assert message.id == "django_rq_pool.E008"
    assert message.hint == "Correct the setting; django-rq's documentation lists its values."


def test_modules_to_preload_are_checked():
    message = only_message(RQ_POOL={"high": 1}, RQ_POOL_PRELOAD="shop.tasks")
    assert message.id == "django_rq_pool.E001"
    assert "RQ_POOL_PRELOAD" in message.msg


@pytest.mark.parametrize(
    "setting", ["RQ_POOL_LEARN_PRELOAD", "RQ_POOL_IMMORTAL", "RQ_POOL_HUGE_PAGES"]
)
def test_what_is_neither_true_nor_false_is_refused(setting):
    message = only_message(RQ_POOL={"high": 1}, **{setting: "no"})
    assert message.id == "django_rq_pool.E001"
    assert message.msg == f"{setting}: 'no' is not true or false."


def test_counts_and_preload_are_told_together():
    assert len(check(RQ_POOL={"high": -1}, RQ_POOL_PRELOAD="shop.tasks")) == 2


def test_the_check_and_the_command_say_the_same():
    with override_settings(RQ_POOL={"high": -1, "hihg": 1}):
        with pytest.raises(CommandError) as caught:
            call_command("rqpool", check=True)
        messages = check(RQ_POOL={"high": -1, "hihg": 1})
    assert str(caught.value).splitlines() == [f"{each.msg} {each.hint}" for each in messages]


def test_manage_py_check_fails_with_the_sentence():
    with override_settings(RQ_POOL={"hihg": 1}), pytest.raises(SystemCheckError) as caught:
        call_command("check", tags=["rq"])
    assert "'hihg'" in str(caught.value)
    assert "django_rq_pool.E006" in str(caught.value)


def test_a_loader_of_the_projects_own_is_not_called():
    # It may ask a database that `manage.py migrate`, which runs the checks, has yet to make.
    def load(environment):
        raise AssertionError("called")

    assert check(RQ_POOL=load) == []
