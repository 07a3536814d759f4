"""Configuration: Django's settings, the environment and the command's options put together.

Rule of the room: the one place that reads settings; it opens no connection, whatever a project's
loader may do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from django.conf import settings
from django_rq.connection_utils import filter_connection_params

from ..system import signals
from . import declared, loaders
from .classes import import_problems
from .groups import Counts, parse_counts
from .problems import CountsError, Kind, Problem
from .stop_policy import StopRules, TermPolicy


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
    preload = declared.PRELOAD.value()
    if not isinstance(preload, (list, tuple)):
        problems.append(
            Problem(
                Kind.SOURCE,
                f"RQ_POOL_PRELOAD: {preload!r} is not a list.",
                "Give a list of dotted module names.",
            )
        )
    tracks_imports, immortal = declared.LEARN_PRELOAD.value(), declared.IMMORTAL.value()
    problems += [
        Problem(
            Kind.SOURCE,
            f"{setting.name}: {given!r} is neither True nor False.",
            "Give one of them.",
        )
        for setting, given in (
            (declared.LEARN_PRELOAD, tracks_imports),
            (declared.IMMORTAL, immortal),
        )
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
        tracks_imports=tracks_imports,
        immortal=immortal,
    )


def _source(counts: object, command_line: Sequence[str], config: str | None) -> loaders.Source:
    if counts is not None:
        return loaders.source_of(counts, "counts")
    setting = declared.COUNTS.value()
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
    given = (each.value() for each in (declared.POOL_ENVIRONMENT, declared.PROJECT_ENVIRONMENT))
    return asked or next(filter(None, given), None)


def term_child_timeout() -> float | None:
    """``RQ_TERM_TIMEOUT`` (seconds, 4 when it is not set) if ``TERM_CHILD`` is set, else None.

    Raises:
        CountsError: the timeout is not a number above 0.
    """
    if not declared.TERM_CHILD.value():
        return None
    given = declared.TERM_TIMEOUT.value() or ""
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
    given = declared.LOADER_TIMEOUT.value()
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
    cuts_short = term is TermPolicy.IMMEDIATE and not declared.TERM_CHILD.value()
    if declared.DYNO.value() and cuts_short:
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
