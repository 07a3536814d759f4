"""Configuration: Django's settings, the environment and the command's options put together.

Rule of the room: the one place that reads settings; it opens no connection, whatever a project's
loader may do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from django.conf import settings
from django_rq.connection_utils import filter_connection_params

from ..system import signals
from . import loaders
from .classes import import_problems
from .groups import Counts, parse_counts
from .problems import CountsError, Kind, Problem
from .stop_policy import StopRules, TermPolicy

TERM_TIMEOUT = 4.0
"""Seconds that a job has to clean up under TERM_CHILD; resque-pool's default."""

LOADER_TIMEOUT = 5.0
"""Seconds that a loader may take, unless ``RQ_POOL_LOADER_TIMEOUT`` says otherwise."""

_LEARN = "RQ_POOL_LEARN_PRELOAD"
_IMMORTAL = "RQ_POOL_IMMORTAL"
_SWITCHES = {_LEARN: False, _IMMORTAL: True}
"""Settings that are True or False, and which of it they are when they are not set."""

ENVIRONMENT_VARIABLES = ("RQ_POOL_ENV", "DJANGO_ENV")


@dataclass(frozen=True)
class Configuration:
    """A pool that can be started.

    Attributes:
        name: the name of the pool.
        source: where the counts come from.
        environment: the environment asked for, or None.
        counts: the queue groups wanted.
        warnings: what is odd and does not prevent a start.
        stop_rules: how the pool stops.
        preload: modules to import before the first fork.
        learns: tell which modules jobs import that could be preloaded.
        immortal: make the definitions in the image immortal.
    """

    name: str
    source: loaders.Source
    environment: str | None
    counts: Counts
    warnings: tuple[Problem, ...]
    stop_rules: StopRules
    preload: tuple[str, ...]
    tracks_imports: bool
    immortal: bool


def configure(
    *,
    counts: object = None,
    command_line: Sequence[str] = (),
    config: str | None = None,
    environment: str | None = None,
    name: str | None = None,
    term: TermPolicy = TermPolicy.IMMEDIATE,
    call_loader: bool = True,
) -> Configuration:
    """Finds the counts, parses them and checks that what they name can be imported.

    Args:
        counts: stands in for the setting ``RQ_POOL``, of which it has the forms, and comes before
            everything else.
        command_line, config: see `loaders.find_source`.
        environment: see `find_environment`.
        name: the name of the pool, else the project's.
        term: what TERM means.
        call_loader: whether a loader of the project's own is called; there are no counts else.

    Raises:
        CountsError: with every problem found. What a loader raised is its cause.
    """
    environment = find_environment(environment)
    problems: list[Problem] = []
    cause: BaseException | None = None
    source, loaded = loaders.NOTHING, Counts(())
    try:
        source = _source(counts, command_line, config)
        if call_loader or not source.dynamic:
            loaded = load(source, environment)
    except CountsError as error:
        problems += error.problems
        cause = error.__cause__
    preload = getattr(settings, "RQ_POOL_PRELOAD", ())
    if not isinstance(preload, (list, tuple)):
        problems.append(
            Problem(
                Kind.SOURCE,
                f"RQ_POOL_PRELOAD: {preload!r} is not a list.",
                "Give a list of dotted module names.",
            )
        )
    switches = {setting: getattr(settings, setting, usual) for setting, usual in _SWITCHES.items()}
    problems += [
        Problem(
            Kind.SOURCE, f"{setting}: {given!r} is neither True nor False.", "Give one of them."
        )
        for setting, given in switches.items()
        if not isinstance(given, bool)
    ]
    term_child = None
    try:
        term_child = term_child_timeout()
    except CountsError as error:
        problems += error.problems
    name = name or project_name()
    if not name.isprintable() or "]" in name:
        problems.append(
            Problem(
                Kind.SOURCE,
                f"--name: {name!r} cannot be told in a process's title.",
                "Leave out ']' and what is not printed.",
            )
        )
    if problems:
        raise CountsError(*problems) from cause
    return Configuration(
        name,
        source,
        environment,
        loaded,
        (*loaded.warnings, *_dyno_warnings(term)),
        StopRules(term, term_child),
        tuple(preload),
        tracks_imports=switches[_LEARN],
        immortal=switches[_IMMORTAL],
    )


def _source(counts: object, command_line: Sequence[str], config: str | None) -> loaders.Source:
    if counts is not None:
        return loaders.source_of(counts, "counts")
    setting = getattr(settings, loaders.SETTING, None)
    return loaders.find_source(setting, command_line=command_line, config=config)


def load(source: loaders.Source, environment: str | None) -> Counts:
    """Loads the counts, parses them and checks that what they name can be imported.

    Args:
        source: where they come from.
        environment: the section that overrides the others, or None.

    Raises:
        CountsError: with every problem found. What a loader raised is its cause.
    """
    limit = loader_timeout()
    with signals.time_limit(
        limit, f"the loader took longer than {limit:g} s (RQ_POOL_LOADER_TIMEOUT)"
    ):
        mapping = source.load(environment)
    counts = parse_counts(
        mapping, source=source.name, environment=environment, queues=queue_connections()
    )
    problems = [
        problem for group in counts.groups for problem in import_problems(group, source.name)
    ]
    if problems:
        raise CountsError(*problems)
    return counts


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


def loader_timeout() -> float:
    """``RQ_POOL_LOADER_TIMEOUT`` in seconds, 5 when it is not set.

    Raises:
        CountsError: it is not a number above 0.
    """
    given = getattr(settings, "RQ_POOL_LOADER_TIMEOUT", LOADER_TIMEOUT)
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not (number and 0 < given < float("inf")):
        raise CountsError(
            Problem(
                Kind.SOURCE,
                f"RQ_POOL_LOADER_TIMEOUT: {given!r} is no time.",
                "Give a number of seconds above 0.",
            )
        )
    return float(given)


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
