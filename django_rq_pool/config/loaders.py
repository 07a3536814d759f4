"""Loaders: decides where the counts come from.

Rule of the room: a loader takes the environment's name and returns a mapping, which `groups`
parses. The order of precedence of all sources is here and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from django.utils.module_loading import import_string

from ..system.signals import Stopped
from . import declared
from .problems import CountsError, Kind, Problem
from .tracebacks import raised_at

Loader = Callable[["str | None"], object]
"""Takes the environment's name or None, and returns a mapping of counts. It may have a method
``reset()``, which clears what it caches between two calls."""

Reset = Callable[[], object]
"""The ``reset()`` of a loader."""

FILES = ("rqpool.yml", "config/rqpool.yml")
"""The YAML files to try, relative to the current directory, if nothing names another source."""

SETTING = declared.COUNTS.name


def _nothing_to_reset() -> None:
    """The reset of a loader without a ``reset()``."""


@dataclass(frozen=True)
class Source:
    """A loader and its properties.

    Attributes:
        name: what messages call it.
        load: takes the environment's name or None, and returns the counts. If a loader of the
            project raises, it raises a `CountsError` with that exception as ``__cause__``.
        dynamic: True: the counts may change at any time, so they are loaded about once a second.
            False: they are loaded at the start and at each reload (HUP).
        reset: called before a reload. Raises like ``load``.
    """

    name: str
    load: Loader
    dynamic: bool = False
    reset: Reset = _nothing_to_reset


NOTHING = Source(f"no {SETTING}, {' or '.join(FILES)}", lambda environment: {})
"""The source that stands for no source: it has no counts."""


def find_source(
    setting: object, *, command_line: Sequence[str] = (), config: str | None = None
) -> Source:
    """Finds where the counts come from.

    The first of these sources is used: ``command_line``, ``config``, the environment variable
    ``RQ_POOL_CONFIG``, ``setting``, and the files of `FILES`.

    Args:
        setting: the setting ``RQ_POOL``: a mapping, the path of a YAML file, a callable or its
            dotted path. None if it is not set.
        command_line: counts of the form ``high,default=4``.
        config: the path of a YAML file, from ``--config``.

    Returns:
        The source; `NOTHING` if there is none.

    Raises:
        CountsError: the counts on the command line, or the setting, have another form.
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
            counts[names] = number  # the parser reports it
    return counts


def source_of(given: object, name: str = SETTING) -> Source:
    """Makes a source from the value of the setting, or from an argument of the same form.

    Args:
        given: a mapping, the path of a YAML file, a callable or its dotted path.
        name: the name of the setting or argument, for the messages.

    Raises:
        CountsError: it has another form, or a dotted path cannot be imported.
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
    except Stopped:
        raise
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise CountsError(
            Problem(
                Kind.IMPORT,
                f"{name}: {path!r} cannot be imported: {type(error).__name__}: "
                f"{error}{raised_at(error)}.",
                "Give a mapping, the path of a YAML file, or the dotted path of a callable.",
            )
        ) from error


_CALL = "It is called with the environment's name, or None, and must return a mapping of counts."


def _callable_source(name: str, loader: object) -> Source:
    if not callable(loader):
        raise CountsError(
            Problem(
                Kind.SOURCE,
                f"{name}: a value of type {type(loader).__name__} is not a source of counts.",
                "Give a mapping, the path of a YAML file, or a callable.",
            )
        )
    reset = getattr(loader, "reset", _nothing_to_reset)
    if not callable(reset):
        raise CountsError(
            Problem(
                Kind.SOURCE,
                f"{name}: the loader's reset is a {type(reset).__name__}, which cannot be called.",
                "Make it a method without arguments, or rename it.",
            )
        )

    def guarded(what: str, right: str, call: Callable[..., object], *arguments: object) -> object:
        try:
            return call(*arguments)
        except Stopped:
            raise
        except (Exception, SystemExit) as error:  # some libraries call sys.exit() on an error
            raise CountsError(
                Problem(
                    Kind.SOURCE,
                    f"{name}: {what} raised {type(error).__name__}: {error}{raised_at(error)}.",
                    right,
                )
            ) from error

    return Source(
        name,
        partial(guarded, "the loader", _CALL, loader),
        dynamic=True,
        reset=partial(guarded, "the loader's reset()", "It is called without arguments.", reset),
    )


def _yaml_source(path: str) -> Source:
    from .yaml_file import read_yaml  # importing PyYAML takes 10 ms, so only who uses it does

    return Source(path, lambda environment: read_yaml(path, environment))
