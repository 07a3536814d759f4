"""Loaders: where the counts come from.

Rule of the room: a loader is called with the environment and returns a mapping; what the mapping
means is the business of `groups`. Which loader it is gets decided here, by one order of precedence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from django.utils.module_loading import import_string

from .problems import CountsError, Kind, Problem

Loader = Callable[["str | None"], object]
"""Called with the environment's name or None; returns a mapping of counts."""

FILES = ("rqpool.yml", "config/rqpool.yml")
"""Where a YAML file is looked for, from the current directory, when nothing names one."""

SETTING = "RQ_POOL"


@dataclass(frozen=True)
class Source:
    """A loader, and what messages call it.

    Attributes:
        dynamic: whether to call it about once a second; else it is called again on HUP only.
        reset: makes the loader forget what it remembers, on HUP.
    """

    name: str
    load: Loader
    dynamic: bool = False
    reset: Callable[[], object] = lambda: None


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
    named = config or os.environ.get("RQ_POOL_CONFIG")
    if named:
        return _yaml_source(named)
    if setting is not None:
        return _from_setting(setting)
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
                    f"Write {word}=1 for one worker.",
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


def _from_setting(setting: object) -> Source:
    if isinstance(setting, Mapping):
        return Source(SETTING, lambda environment: setting)
    if isinstance(setting, os.PathLike):
        return _yaml_source(os.fspath(setting))
    if isinstance(setting, str):
        if os.sep in setting or setting.endswith((".yml", ".yaml")):
            return _yaml_source(setting)
        return _callable_source(f"{SETTING} = {setting!r}", _import(setting))
    return _callable_source(SETTING, setting)


def _import(path: str) -> object:
    try:
        return import_string(path)
    except Exception as error:  # a module may raise anything when it is imported
        raise CountsError(
            Problem(
                Kind.IMPORT,
                f"{SETTING}: {path!r} cannot be imported: {type(error).__name__}: {error}.",
                "Give a mapping, the path of a YAML file, or the dotted path of a callable.",
            )
        ) from error


def _callable_source(name: str, loader: object) -> Source:
    if not callable(loader):
        raise CountsError(
            Problem(
                Kind.SOURCE,
                f"{name}: a {type(loader).__name__} holds no counts.",
                "Give a mapping, the path of a YAML file, or a callable.",
            )
        )

    def load(environment: str | None) -> object:
        try:
            return loader(environment)
        except Exception as error:
            raise CountsError(
                Problem(
                    Kind.SOURCE,
                    f"{name}: the loader raised {type(error).__name__}: {error}.",
                    "It must return a mapping of counts.",
                )
            ) from error

    return Source(name, load)


def _yaml_source(path: str) -> Source:
    return Source(path, lambda environment: read_yaml(path))


def read_yaml(path: str) -> object:
    """Reads a YAML file of counts.

    Returns:
        What the file holds; an empty mapping for an empty file.

    Raises:
        CountsError: the file is missing, cannot be read, is not YAML, or has a key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _unusable(path, "there is no such file.", "Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(
            path, f"it cannot be read: {error}.", "It must be a text file that this user may read."
        ) from error
    try:
        data = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506  # a SafeLoader
    except Exception as error:  # beside its own errors PyYAML lets those of bad values through
        reason = " ".join(str(error).split())
        raise _unusable(
            path, f"it is not YAML: {reason}.", "Write one line for each queue group: names: count."
        ) from error
    return {} if data is None else data


def _unusable(path: str, text: str, hint: str) -> CountsError:
    return CountsError(Problem(Kind.SOURCE, f"{path}: {text}", hint))


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys and says nothing; here it is an error."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._checked: set[yaml.MappingNode] = set()  # a merged mapping is flattened again

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Looks at the keys before those of a merge (``<<``) come among them, where one that the
        mapping overrides is no repetition."""
        self._check_keys(node)
        super().flatten_mapping(node)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        if node in self._checked:
            return
        self._checked.add(node)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
