"""Each option of RQ's workers has its answer in the documentation, and the answer holds."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import django.conf.global_settings
import django_rq
import pytest
from rq import Queue, Worker

from django_rq_pool.config.classes import import_problems, make_worker
from django_rq_pool.config.groups import QueueGroup
from django_rq_pool.config.options import OPTION_NAMES, WORKER_ARGUMENTS, GroupOptions
from django_rq_pool.management.commands.rqpool import Command
from documentation import DOCS
from pool_jobs import note_killed

sys.path[:0] = [str(DOCS / "_ext")]

import rq_options  # noqa: E402
from rq_options import ANSWERS, Answer, Option  # noqa: E402

DJANGO_RQ = "\n".join(path.read_text() for path in Path(django_rq.__file__).parent.glob("*.py"))


def commands_options() -> set[str]:
    parser = Command().create_parser("manage.py", "rqpool")
    return {spelling for action in parser._actions for spelling in action.option_strings}


def worker_of(worker_class: type, **options: object) -> Worker:
    group = QueueGroup("high", ("high",), 1, GroupOptions(**options))
    worker: Worker = make_worker(
        worker_class, group, "high.1", django_rq.get_connection("high"), works=False
    )
    return worker


def test_every_option_of_the_installed_rq_and_django_rq_has_an_answer():
    rows = rq_options.rows(rq_options.installed())
    assert len(rows) == len(ANSWERS)
    assert all(all(row) for row in rows)


def test_an_option_that_rq_adds_has_no_answer_yet():
    added = Option("fly", "--fly", "rq worker")
    with pytest.raises(LookupError, match="no answer to --fly of rq worker"):
        rq_options.rows([*rq_options.installed(), added])


def test_an_option_that_rq_removes_has_none_any_more():
    left = [option for option in rq_options.installed() if option.key != "burst"]
    with pytest.raises(LookupError, match="no such options: burst"):
        rq_options.rows(left)


@pytest.mark.parametrize("key", ANSWERS)
def test_what_an_answer_names_is_there(key):
    answer = ANSWERS[key]
    assert answer != Answer()
    assert not answer.group or answer.group in OPTION_NAMES
    assert not answer.command or answer.command in commands_options()
    if answer.setting:
        name, _, entry = answer.setting.partition("[")
        assert hasattr(django.conf.global_settings, name) or f"'{name}'" in DJANGO_RQ
        entry = entry.rpartition("['")[2].strip("[]'")
        assert f"'{entry}'" in DJANGO_RQ or not entry


# What the options of a group do in RQ's worker class


GIVEN = {
    "worker_ttl": 77,
    "default_result_ttl": -1,
    "log_job_description": False,
    "job_monitoring_interval": 7,
    "maintenance_interval": 70,
    "work_horse_killed_handler": "pool_jobs.note_killed",
    "disable_default_exception_handler": True,
}
PLACES = {"work_horse_killed_handler": "_work_horse_killed_handler"}
BY_OTHER_WAYS = {"job_class", "queue_class", "serializer"}


def test_each_argument_of_rqs_worker_class_that_a_group_has_is_given_to_it():
    arguments = set(inspect.signature(Worker.__init__).parameters)
    assert set(GIVEN) == set(WORKER_ARGUMENTS)
    assert set(WORKER_ARGUMENTS) | BY_OTHER_WAYS == arguments.intersection(OPTION_NAMES)


@pytest.mark.parametrize("option", WORKER_ARGUMENTS)
def test_an_option_of_a_group_is_an_argument_of_its_worker(option):
    found = getattr(worker_of(Worker, **{option: GIVEN[option]}), PLACES.get(option, option))
    assert found == (note_killed if option in PLACES else GIVEN[option])


def test_what_a_group_does_not_say_is_rqs_own_choice():
    ours = worker_of(Worker)
    theirs = Worker(ours.queues, connection=ours.connection, prepare_for_work=False)
    for option in WORKER_ARGUMENTS:
        place = PLACES.get(option, option)
        assert getattr(ours, place) == getattr(theirs, place)


class TakesLittle(Worker):
    """A class of a project whose constructor has not grown with RQ's."""

    def __init__(
        self,
        queues: list[Queue],
        name: str,
        connection: object,
        exception_handlers: object,
        job_class: type,
        queue_class: type,
        serializer: object,
        prepare_for_work: bool,
    ) -> None:
        super().__init__(
            queues, name=name, connection=connection, prepare_for_work=prepare_for_work
        )


def test_a_worker_class_gets_no_argument_that_its_group_does_not_give():
    assert worker_of(TakesLittle).name == "high.1"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("pool_jobs.no_such_handler", "no_such_handler"),
        ("no_such_module.handler", "No module named 'no_such_module'"),
        ("pool_jobs.THE_CAUSE", "cannot be called"),
    ],
)
def test_a_handler_that_cannot_be_used_is_a_problem_that_says_why(given, reason):
    group = QueueGroup("high", ("high",), 1, GroupOptions(work_horse_killed_handler=given))
    [problem] = import_problems(group, "counts.yml")
    assert f"the work_horse_killed_handler {given!r} cannot be used" in problem.text
    assert reason in problem.text
    assert "takes four arguments" in problem.hint
