"""Configuration: Django's settings, the environment and the command's options put together.

Rule of the room: the one place that reads settings; it opens no connection.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django_rq.connection_utils import filter_connection_params
from django_rq.jobs import get_job_class
from django_rq.queues import get_commit_mode, get_queue_class
from django_rq.workers import get_exception_handlers, get_worker_class
from rq.serializers import resolve_serializer

from . import loaders
from .groups import CountsError, Kind, Problem, QueueGroup, parse_counts
from .phases import StopRules, TermPolicy
from .worker import unfit

TERM_TIMEOUT = 4.0
"""Seconds that a job has to clean up under TERM_CHILD; resque-pool's default."""

ENVIRONMENT_VARIABLES = ("RQ_POOL_ENV", "DJANGO_ENV")


@dataclass(frozen=True)
class Configuration:
    """A pool that can be started.

    Attributes:
        name: the name of the pool.
        source: where the counts came from.
        environment: the environment asked for, or None.
        groups: the queue groups wanted.
        warnings: what is odd about the counts and does not prevent them.
        rules: how the pool stops.
    """

    name: str
    source: str
    environment: str | None
    groups: tuple[QueueGroup, ...]
    warnings: tuple[Problem, ...]
    rules: StopRules = StopRules()


def configure(
    *,
    counts: Mapping[str, object] | None = None,
    command_line: Sequence[str] = (),
    config: str | None = None,
    environment: str | None = None,
    name: str | None = None,
    term: TermPolicy = TermPolicy.IMMEDIATE,
) -> Configuration:
    """Finds the counts, parses them and checks that what they name can be imported.

    Args:
        counts: stands in for the setting ``RQ_POOL``, and comes before everything else.
        command_line, config: see `loaders.find_source`.
        environment: see `find_environment`.
        name: the name of the pool, else the project's.
        term: what TERM means.

    Raises:
        CountsError: with every problem found.
    """
    environment = find_environment(environment)
    if counts is not None:
        source = loaders.Source("counts", lambda environment: counts)
    else:
        setting = getattr(settings, loaders.SETTING, None)
        source = loaders.find_source(setting, command_line=command_line, config=config)
    queues = queue_connections()
    parsed = parse_counts(
        source.load(environment), source=source.name, environment=environment, queues=queues
    )
    problems = [problem for group in parsed.groups for problem in _imports(group, source.name)]
    if problems:
        raise CountsError(*problems)
    return Configuration(
        name or project_name(),
        source.name,
        environment,
        parsed.groups,
        (*parsed.warnings, *_dyno_warnings(term)),
        StopRules(term, term_child_timeout()),
    )


def find_environment(asked: str | None) -> str | None:
    """The environment: the one asked for, else ``RQ_POOL_ENV``, else ``DJANGO_ENV``, else None."""
    given = (os.environ.get(variable) for variable in ENVIRONMENT_VARIABLES)
    return asked or next(filter(None, given), None)


def term_child_timeout() -> float | None:
    """``RQ_TERM_TIMEOUT`` (seconds, 4 when it is not set) if ``TERM_CHILD`` is set, else None.

    Raises:
        CountsError: the timeout is not a number above 0.
    """
    if not os.environ.get("TERM_CHILD"):
        return None
    given = os.environ.get("RQ_TERM_TIMEOUT", str(TERM_TIMEOUT))
    try:
        timeout = float(given)
    except ValueError:
        timeout = -1.0
    if not 0 < timeout < float("inf"):
        raise CountsError(
            Problem(
                Kind.SOURCE,
                f"RQ_TERM_TIMEOUT: {given!r} is no time.",
                "Give a number of seconds above 0.",
            )
        )
    return timeout


def _dyno_warnings(term: TermPolicy) -> Iterator[Problem]:
    if os.environ.get("DYNO") and not os.environ.get("TERM_CHILD") and term is TermPolicy.IMMEDIATE:
        yield Problem(
            Kind.DYNO,
            "TERM_CHILD: it is not set, and this is a Heroku dyno: a restart ends running jobs.",
            "Set TERM_CHILD=1 to let them clean up, or start with --term-graceful-wait.",
        )


def project_name() -> str:
    """The project's name: the first part of the settings module's.

    Not the current directory's, which changes with each release where deploys make a new one.
    """
    module = str(getattr(settings, "SETTINGS_MODULE", None) or "django")
    return module.partition(".")[0]


def preload_modules() -> Sequence[str]:
    """The setting ``RQ_POOL_PRELOAD``: modules to import before the first fork."""
    modules: object = getattr(settings, "RQ_POOL_PRELOAD", ())
    if isinstance(modules, str) or not isinstance(modules, Sequence):
        raise CountsError(
            Problem(
                Kind.SOURCE,
                f"RQ_POOL_PRELOAD: {modules!r} is not a list.",
                "Give a list of dotted module names.",
            )
        )
    return modules


def queue_connections() -> dict[str, object]:
    """Every queue of ``RQ_QUEUES``, in its order, with the parameters of its Redis connection.

    Raises:
        CountsError: the setting is missing or not a mapping of mappings.
    """
    queues = getattr(settings, "RQ_QUEUES", None)
    if isinstance(queues, Mapping) and all(isinstance(q, Mapping) for q in queues.values()):
        return {name: filter_connection_params(dict(params)) for name, params in queues.items()}
    raise CountsError(
        Problem(
            Kind.SOURCE,
            "RQ_QUEUES: the setting is missing or not a mapping of mappings.",
            "Define your queues there, as django-rq's documentation says.",
        )
    )


def _imports(group: QueueGroup, source: str) -> Iterator[Problem]:
    """What the group's workers would import at boot, imported now: a bad name stops the start."""
    options = group.options
    where = f"{source}: {group.name!r}"

    def attempt(option: str, importer: object, *arguments: object) -> Iterator[Problem]:
        try:
            importer(*arguments)  # type: ignore[operator]
        except (ImportError, AttributeError, ValueError, ImproperlyConfigured) as error:
            yield Problem(
                Kind.IMPORT,
                f"{where}: the {option} cannot be used: {error}.",
                "Give the dotted path of one that can be imported.",
            )

    def check_worker_class() -> None:
        problem = unfit(get_worker_class(options.worker_class))
        if problem is not None:
            raise ValueError(problem.rstrip("."))

    def check_queue_classes() -> None:
        classes = {
            get_queue_class(dict(settings.RQ_QUEUES[queue]), options.queue_class)
            for queue in group.queues
        }
        if len(classes) > 1:
            raise ValueError("the queues of a group must be of one class")

    yield from attempt("worker_class", check_worker_class)
    yield from attempt("job_class", get_job_class, options.job_class)
    yield from attempt("queue_class", check_queue_classes)
    yield from attempt("serializer", resolve_serializer, options.serializer)
    yield from attempt("exception handler of RQ_EXCEPTION_HANDLERS", get_exception_handlers)
    yield from attempt("commit mode of RQ", get_commit_mode)
