"""RQ options: what to write with rqpool for each option of RQ's workers and django-rq's commands.

Rule of the room: the options are read from the installed RQ and django-rq. One without an answer
here is an error, and so is an answer to an option that nobody has.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import click
from django.core.management.base import BaseCommand
from rq import Worker
from rq.cli import workers as rq_commands


@dataclass(frozen=True)
class Answer:
    """What to write with rqpool. At least one of the first four says it, or a sentence why not.

    Attributes:
        group: the option of a queue group that does the same.
        command: the option of ``rqpool`` that does.
        setting: the setting of django-rq, or Django, that does.
        text: a sentence more, or what to do instead.
    """

    group: str = ""
    command: str = ""
    setting: str = ""
    text: str = ""

    def as_rst(self) -> str:
        """The cell of the table."""
        named = [
            f"group option ``{self.group}``" if self.group else "",
            f"``rqpool {self.command}``" if self.command else "",
            f"setting ``{self.setting}``" if self.setting else "",
        ]
        first = ", or ".join(each for each in named if each)
        return " ".join(each for each in (f"{first}." if first else "", self.text) if each)


ANSWERS: dict[str, Answer] = {
    "queues": Answer(
        text="The name of a queue group: ``high,default`` are two queues, the first one first."
    ),
    "num_workers": Answer(group="workers", text="On the command line: ``high,default=4``."),
    "burst": Answer(command="--burst"),
    "name": Answer(command="--name", text="It names the pool; each worker's name begins with it."),
    "pid": Answer(command="--pidfile", text="It has the manager's pid, and is locked."),
    "worker_class": Answer(group="worker_class", setting="RQ['WORKER_CLASS']"),
    "job_class": Answer(group="job_class", setting="RQ['JOB_CLASS']"),
    "queue_class": Answer(group="queue_class", setting="RQ['QUEUE_CLASS']"),
    "serializer": Answer(group="serializer", setting="RQ_QUEUES[…]['SERIALIZER']"),
    "worker_ttl": Answer(group="worker_ttl"),
    "default_worker_ttl": Answer(group="worker_ttl", text="RQ has deprecated this name."),
    "default_result_ttl": Answer(group="default_result_ttl"),
    "max_jobs": Answer(group="max_jobs", text="The worker is replaced then."),
    "max_idle_time": Answer(group="max_idle_time", text="The worker is replaced then."),
    "with_scheduler": Answer(group="with_scheduler"),
    "dequeue_strategy": Answer(group="dequeue_strategy"),
    "maintenance_interval": Answer(
        group="maintenance_interval", text="One worker cleans for all of its group."
    ),
    "job_monitoring_interval": Answer(group="job_monitoring_interval"),
    "log_job_description": Answer(group="log_job_description"),
    "work_horse_killed_handler": Answer(group="work_horse_killed_handler"),
    "disable_default_exception_handler": Answer(group="disable_default_exception_handler"),
    "exception_handlers": Answer(setting="RQ_EXCEPTION_HANDLERS", text="It holds for every group."),
    "connection": Answer(setting="RQ_QUEUES", text="Each group has connections of its own."),
    "url": Answer(setting="RQ_QUEUES[…]['URL']"),
    "connection_class": Answer(
        setting="RQ_QUEUES[…]['USE_REDIS_CACHE']",
        text="django-rq has no such setting of its own: the client is ``redis.Redis``, or that of "
        "a cache.",
    ),
    "config": Answer(
        text="A module of settings for ``rq``; here Django's are read. rqpool's own ``--config`` "
        "names a file of counts."
    ),
    "path": Answer(
        command="--pythonpath", text="The project's folder is on the path as in every command."
    ),
    "logging_level": Answer(command="--verbosity", setting="LOGGING"),
    "verbose": Answer(command="--verbosity", text="2 shows more."),
    "quiet": Answer(command="--verbosity", text="0 shows warnings and errors only."),
    "log_format": Answer(setting="LOGGING", text="It has formatters; the pool keeps them."),
    "date_format": Answer(setting="LOGGING", text="It has formatters; the pool keeps them."),
    "prepare_for_work": Answer(
        text="Not an option of a worker that works: RQ uses it to look at another one."
    ),
}
"""By the option's name in RQ's worker class, or else on the command line."""

ALIASES = {
    "args": "queues",
    "results_ttl": "default_result_ttl",
    "disable_job_desc_logging": "log_job_description",
    "exception_handler": "exception_handlers",
}
"""Names of command line options that RQ's worker class calls otherwise."""


@dataclass(frozen=True)
class Option:
    """One option of RQ or django-rq.

    Attributes:
        key: its key in `ANSWERS`.
        spelling: how it is written.
        place: the command or the function that has it.
    """

    key: str
    spelling: str
    place: str


def installed() -> list[Option]:
    """Every option that the installed RQ and django-rq have for those who run workers."""
    return [
        *_of_django("rqworker"),
        *_of_django("rqworker-pool"),
        *_of_click(rq_commands.worker, "rq worker"),
        *_of_click(rq_commands.worker_pool, "rq worker-pool"),
        *_of_function(Worker.__init__, "Worker()"),
        *_of_function(Worker.work, "Worker.work()"),
    ]


def _of_django(name: str) -> Iterator[Option]:
    command = importlib.import_module(f"django_rq.management.commands.{name}").Command()
    djangos = {each.dest for each in BaseCommand().create_parser("manage.py", name)._actions}
    for action in command.create_parser("manage.py", name)._actions:
        if action.dest not in djangos:
            spelling = action.option_strings[-1] if action.option_strings else "queues"
            yield _option(action.dest, spelling, name)


def _of_click(command: click.Command, place: str) -> Iterator[Option]:
    for each in command.params:
        is_option = isinstance(each, click.Option)
        spelling = max(each.opts, key=len) if is_option else "queues"
        yield _option(str(each.name), spelling, place)


def _of_function(function: object, place: str) -> Iterator[Option]:
    for name in inspect.signature(function).parameters:  # type: ignore[arg-type]
        if name != "self":
            yield _option(name, name, place)


def _option(name: str, spelling: str, place: str) -> Option:
    return Option(ALIASES.get(name, name), spelling, place)


def rows(options: Iterable[Option]) -> tuple[tuple[str, ...], ...]:
    """The rows of the table: how an option is spelled, whose it is, and the answer.

    Args:
        options: those of RQ and django-rq.

    Raises:
        LookupError: an option has no answer, or an answer no option.
    """
    found: dict[str, list[Option]] = {key: [] for key in ANSWERS}
    for option in options:
        if option.key not in found:
            raise LookupError(f"no answer to {option.spelling} of {option.place}")
        found[option.key].append(option)
    unasked = [key for key, those in found.items() if not those]
    if unasked:
        raise LookupError(f"RQ and django-rq have no such options: {', '.join(unasked)}")
    return tuple(
        (
            ", ".join(f"``{each}``" for each in dict.fromkeys(o.spelling for o in those)),
            ", ".join(f"``{each}``" for each in dict.fromkeys(o.place for o in those)),
            _capital(ANSWERS[key].as_rst()),
        )
        for key, those in found.items()
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
