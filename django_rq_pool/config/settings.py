"""Settings: combines Django's settings, environment variables and the command's options.

Rule of the room: it reads the settings of this package, and opens no connection itself (a loader
of the project may).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from django.conf import settings
from django_rq.connection_utils import filter_connection_params

from ..system import signals
from ..text import short
from . import declared, loaders
from .classes import clean_up_seconds, import_problems, override_warnings
from .groups import Counts, parse_counts
from .identity import unusable_name
from .problems import CountsError, Kind, Problem
from .project import project_name
from .spelling import misspelt
from .stop_policy import StopRules, TermPolicy


@dataclass(frozen=True)
class Configuration:
    """The checked configuration of a pool.

    Attributes:
        name: the name of the pool.
        source: where the counts come from.
        environment: the name of the requested environment, or None.
        requires_environment: whether counts that have environments must have that one.
        counts: the queue groups.
        warnings: problems that do not prevent a start.
        stop_rules: how the pool stops.
        preload: dotted names of modules to import before the first fork.
        preload_exclude: names of apps and modules that are not imported then.
        tracks_imports: whether to log which modules jobs import, so that they can be preloaded.
        immortal: whether to make the classes, functions and modules of the image immortal, so
            that workers do not copy their memory pages.
        huge_pages: whether to keep the image in huge pages, where the system can.
    """

    name: str
    source: loaders.Source
    environment: str | None
    requires_environment: bool
    counts: Counts
    warnings: tuple[Problem, ...]
    stop_rules: StopRules
    preload: tuple[str, ...]
    preload_exclude: tuple[str, ...]
    tracks_imports: bool
    immortal: bool
    huge_pages: bool


def configure(
    *,
    counts: object = None,
    command_line: Sequence[str] = (),
    config: str | None = None,
    environment: str | None = None,
    name: str | None = None,
    term: TermPolicy = TermPolicy.IMMEDIATE,
    call_loader: bool = True,
    allow_empty: bool = False,
) -> Configuration:
    """Finds the counts, parses them and checks that what they name can be imported.

    Args:
        counts: counts in any form that the setting ``RQ_POOL`` takes. They take precedence over
            every other source.
        command_line: see `loaders.find_source`.
        config: see `loaders.find_source`.
        environment: the requested environment; None: see `find_environment`.
        name: the name of the pool. None: ``RQ_POOL_NAME``, then the name of the project.
        term: what TERM does.
        call_loader: whether to call a loader of the project. False: such a configuration has no
            counts.
        allow_empty: whether a pool may have no queue group, because a later reload or its loader
            will give it some.

    Raises:
        CountsError: with every problem found, warnings included. Its ``__cause__`` is the exception
            of a loader.
    """
    requires_environment = is_required(environment)
    environment = find_environment(environment)
    problems: list[Problem] = []
    cause: BaseException | None = None
    source, loaded = loaders.NOTHING, Counts(())
    try:
        source = find_source(counts, command_line, config)
        if call_loader or not source.dynamic:
            loaded = load(source, environment, requires_environment=requires_environment)
    except CountsError as error:
        problems += error.problems
        cause = error.__cause__
    problems += filter(None, (setting.problem() for setting in declared.SETTINGS))
    term_child = None
    try:
        term_child = term_child_timeout()
    except CountsError as error:
        problems += error.problems
    if name and (wanted := unusable_name(name)) is not None:
        problems.append(
            Problem(Kind.SOURCE, f"--name: {short(name)} is not {wanted}.", f"Give {wanted}.")
        )
    rules = StopRules(term, term_child)
    warnings = [_if_empty(problem, allow_empty) for problem in loaded.warnings]
    problems += (each for each in warnings if each.kind is Kind.NO_COUNTS)
    warnings = [each for each in warnings if each.kind is not Kind.NO_COUNTS]
    warnings += (*_synchronous(loaded), *misspelt(), *_dyno_warnings(rules, loaded))
    if problems:
        raise CountsError(*problems, *warnings) from cause
    return Configuration(
        name or declared.NAME.value() or project_name(),
        source,
        environment,
        requires_environment,
        loaded,
        tuple(warnings),
        rules,
        tuple(declared.PRELOAD.value()),
        tuple(declared.PRELOAD_EXCLUDE.value()),
        tracks_imports=declared.LEARN_PRELOAD.value(),
        immortal=declared.IMMORTAL.value(),
        huge_pages=declared.HUGE_PAGES.value(),
    )


def find_source(
    counts: object = None, command_line: Sequence[str] = (), config: str | None = None
) -> loaders.Source:
    """Finds where the counts come from.

    Args:
        counts: see `configure`.
        command_line: see `loaders.find_source`.
        config: see `loaders.find_source`.

    Raises:
        CountsError: they have another form, or a dotted path cannot be imported.
    """
    if counts is not None:
        return loaders.source_of(counts, "counts")
    setting = declared.COUNTS.value()
    return loaders.find_source(setting, command_line=command_line, config=config)


def load(
    source: loaders.Source, environment: str | None, *, requires_environment: bool = False
) -> Counts:
    """Loads the counts, parses them and checks that what they name can be imported.

    Args:
        source: where the counts come from.
        environment: the name of the environment that overrides the root, or None.
        requires_environment: whether counts that have environments must have that one.

    Raises:
        CountsError: with every problem found. Its ``__cause__`` is the exception of a loader.
    """
    limit = declared.LOADER_TIMEOUT.usable()
    with signals.time_limit(
        limit, f"the loader took longer than {limit:g} s (RQ_POOL_LOADER_TIMEOUT)"
    ):
        mapping = source.load(environment)
    counts = parse_counts(
        mapping,
        source=source.name,
        environment=environment,
        queues=queue_connections(),
        required=requires_environment,
    )
    problems = [
        problem for group in counts.groups for problem in import_problems(group, source.name)
    ]
    if problems:
        raise CountsError(*problems)
    return replace(counts, warnings=(*counts.warnings, *override_warnings(counts.groups)))


def problems_elsewhere(configuration: Configuration) -> tuple[Problem, ...]:
    """Checks that what the environments name that were not asked for can be imported. A start does
    not: it would import code that this pool has no use for.

    Args:
        configuration: the checked configuration.
    """
    found = (
        problem
        for group in configuration.counts.elsewhere
        for problem in import_problems(group, configuration.source.name)
    )
    return tuple(dict.fromkeys(found))


def find_environment(asked: str | None) -> str | None:
    """The name of the environment, or None if nothing names one.

    Args:
        asked: the requested one. None: ``RQ_POOL_ENV``, then ``DJANGO_ENV``.
    """
    given = (each.value() for each in (declared.POOL_ENVIRONMENT, declared.PROJECT_ENVIRONMENT))
    return asked or next(filter(None, given), None)


def is_required(asked: str | None) -> bool:
    """Whether an environment was asked for by a name that is meant for the pool alone.

    ``DJANGO_ENV`` is not: other tools read it too, and projects set it to names for which they want
    the counts outside of environments.

    Args:
        asked: see `find_environment`.
    """
    return bool(asked or declared.POOL_ENVIRONMENT.value())


def term_child_timeout() -> float | None:
    """The seconds that a job has to clean up under TERM_CHILD.

    Returns:
        ``RQ_TERM_TIMEOUT`` or 4.0 if ``TERM_CHILD`` is set, else None.

    Raises:
        CountsError: ``RQ_TERM_TIMEOUT`` is not a number of seconds above 0.
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
                f"RQ_TERM_TIMEOUT: {given!r} is not a number of seconds.",
                "Give a number above 0.",
            )
        )
    return timeout


def _if_empty(problem: Problem, allow_empty: bool) -> Problem:
    """Makes counts without a queue group a warning where they are allowed."""
    if problem.kind is Kind.NO_COUNTS and allow_empty:
        return Problem(Kind.EMPTY_POOL, problem.text, "The pool has no worker until there is one.")
    return problem


def _synchronous(counts: Counts) -> Iterator[Problem]:
    served = dict.fromkeys(queue for group in counts.groups for queue in group.queues)
    for queue in served:
        if not settings.RQ_QUEUES[queue].get("ASYNC", True):
            yield Problem(
                Kind.SYNCHRONOUS,
                f"RQ_QUEUES: {queue!r}: 'ASYNC' is off, so its jobs run in the process that "
                "enqueues them.",
                "Leave 'ASYNC' out to have the workers run them.",
            )


def _dyno_warnings(rules: StopRules, counts: Counts) -> Iterator[Problem]:
    if not declared.DYNO.value() or rules.term is not TermPolicy.IMMEDIATE:
        return
    cuts_short = any(clean_up_seconds(group, rules) is None for group in counts.groups)
    if cuts_short or (not counts.groups and rules.term_child is None):
        yield Problem(
            Kind.DYNO,
            "TERM_CHILD: it is not set. When Heroku restarts this dyno, running jobs end at once.",
            "Set TERM_CHILD=1 so that jobs can clean up, or use --term-graceful-wait.",
        )


def queue_connections() -> dict[str, object]:
    """Every queue of ``RQ_QUEUES`` and the parameters of its Redis connection.

    Returns:
        The parameters by queue name, in the order of the setting.

    Raises:
        CountsError: the setting is missing, or is not a mapping of mappings.
    """
    queues = getattr(settings, "RQ_QUEUES", None)
    if isinstance(queues, Mapping) and all(isinstance(q, Mapping) for q in queues.values()):
        return {name: filter_connection_params(dict(params)) for name, params in queues.items()}
    raise CountsError(
        Problem(
            Kind.SOURCE,
            "RQ_QUEUES: the setting is missing or not a mapping of mappings.",
            "Define the queues there, as django-rq's documentation says.",
        )
    )
