"""Loaders: where the counts come from.

Rule of the room: a loader is called with the environment and returns a mapping; what the mapping
means is the business of `groups`. Which loader it is gets decided here, by one order of precedence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from django.utils.module_loading import import_string

from . import declared
from .problems import CountsError, Kind, Problem

Loader = Callable[["str | None"], object]
"""Called with the environment's name or None; returns a mapping of counts. It may have a method
``reset()``, which makes it forget what it keeps from one call to the next."""

Reset = Callable[[], object]

FILES = ("rqpool.yml", "config/rqpool.yml")
"""Where a YAML file is looked for, from the current directory, when nothing names one."""

SETTING = declared.COUNTS.name


def _nothing_to_reset() -> None:
    """The reset of a loader that keeps nothing."""


@dataclass(frozen=True)
class Source:
    """A loader, and what the pool has to know about it.

    Attributes:
        name: what messages call it.
        load: returns the counts. What a user's loader raises comes out as a `CountsError` whose
            ``__cause__`` it is.
        dynamic: whether the counts may change by themselves, so that they are loaded again about
            once a second; else they are loaded again when the pool is told to (HUP).
        reset: called before the counts are loaded because the pool was told to. Raises as ``load``.
    """

    name: str
    load: Loader
    dynamic: bool = False
    reset: Reset = _nothing_to_reset


NOTHING = Source(f"no {SETTING}, {' or '.join(FILES)}", lambda environment: {})
"""The source when there is none."""


def find_source(
    setting: object, *, command_line: Sequence[str] = (), config: str | None = None
) -> Source:
    """Chooses where the counts come from; the first of these that is given.

    Args:
        setting: the setting ``RQ_POOL``, or None: a mapping, the path of a YAML file, a callable
            or its dotted path.
        command_line: counts as ``high,default=4``; they come first.
        config: a YAML file named by ``--config``, which comes second; third comes one named by
            ``RQ_POOL_CONFIG`` in the process's environment, then ``setting``, then `FILES`.

    Raises:
        CountsError: the counts on the command line, or the setting, are of no known kind.
    """
    if command_line:
        counts = _from_command_line(command_line)
        return Source("command line", lambda environment: counts)
    named = config or declared.CONFIG_FILE.value()
    if named:
        return _yaml_source(named)
    if setting is not None:
        return source_of(setting)
    for name in FILES:
        if Path(name).exists():
            return _yaml_source(name)
    return NOTHING


def _from_command_line(words: Sequence[str]) -> dict[str, object]:
    counts: dict[str, object] = {}
    for word in words:
        names, equals, number = word.rpartition("=")
        if not equals:
            raise CountsError(
                Problem(
                    Kind.COUNT,
                    f"command line: {word!r} has no count.",
                    f"Write {word.partition(':')[0]}=1 for one worker.",
                )
            )
        if names in counts:
            raise CountsError(
                Problem(
                    Kind.QUEUE_NAME,
                    f"command line: {names!r}: this queue group is given twice.",
                    "Keep one of them.",
                )
            )
        try:
            counts[names] = int(number)
        except ValueError:
            counts[names] = number  # the parser says what a count is
    return counts


def source_of(given: object, name: str = SETTING) -> Source:
    """The source that a setting, or an argument of the same meaning, stands for.

    Args:
        given: a mapping, the path of a YAML file, a callable or its dotted path.
        name: what it is called where it was given, for the messages.

    Raises:
        CountsError: it is of no known kind.
    """
    if isinstance(given, Mapping):
        return Source(name, lambda environment: given)
    if isinstance(given, os.PathLike):
        return _yaml_source(os.fspath(given))
    if isinstance(given, str):
        if os.sep in given or given.endswith((".yml", ".yaml")):
            return _yaml_source(given)
        return _callable_source(f"{name} = {given!r}", _import(given, name))
    return _callable_source(name, given)


def _import(path: str, name: str) -> object:
    try:
        return import_string(path)
    except (Exception, SystemExit) as error:  # a module may raise anything when it is imported
        raise CountsError(
            Problem(
                Kind.IMPORT,
                f"{name}: {path!r} cannot be imported: {type(error).__name__}: {error}.",
                "Give a mapping, the path of a YAML file, or the dotted path of a callable.",
            )
        ) from error


_CALL = "It is called with the environment's name, or None, and must return a mapping of counts."


def _callable_source(name: str, loader: object) -> Source:
    if not callable(loader):
        raise CountsError(
            Problem(
                Kind.SOURCE,
                f"{name}: a {type(loader).__name__} holds no counts.",
                "Give a mapping, the path of a YAML file, or a callable.",
            )
        )
    reset = getattr(loader, "reset", _nothing_to_reset)
    if not callable(reset):
        raise CountsError(
            Problem(
                Kind.SOURCE,
                f"{name}: the loader's reset is a {type(reset).__name__} and cannot be called.",
                "Make it a method without arguments, or call it something else.",
            )
        )

    def guarded(what: str, right: str, call: Callable[..., object], *arguments: object) -> object:
        try:
            return call(*arguments)
        except (Exception, SystemExit) as error:  # a library may leave when it is not content
            raise CountsError(
                Problem(
                    Kind.SOURCE, f"{name}: {what} raised {type(error).__name__}: {error}.", right
                )
            ) from error

    return Source(
        name,
        partial(guarded, "the loader", _CALL, loader),
        dynamic=True,
        reset=partial(
            guarded, "the loader's reset()", "It must take no argument and return.", reset
        ),
    )


def _yaml_source(path: str) -> Source:
    from .yaml_file import read_yaml  # PyYAML costs a start 10 ms: only who uses it pays for it

    return Source(path, lambda environment: read_yaml(path, environment))
