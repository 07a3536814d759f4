"""Queue groups: the one grammar of the counts, parsed and validated.

Rule of the room: a mapping comes in, queue groups or sentences that say what is wrong come out.
Nothing is imported, read or connected here; what RQ_QUEUES holds is passed in.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .options import OPTION_NAMES, VALIDATORS, WORKERS, GroupOptions, is_whole
from .problems import CountsError, Kind, Problem

EVERY_QUEUE = "*"


@dataclass(frozen=True)
class QueueGroup:
    """Queues served together.

    Attributes:
        name: as the counts write it, without spaces (``high,default``, ``*``); its identity.
        queues: the queue names in priority order, with ``*`` expanded.
        workers: the count, how many workers the group shall have.
        options: everything else.
    """

    name: str
    queues: tuple[str, ...]
    workers: int
    options: GroupOptions = GroupOptions()


@dataclass(frozen=True)
class Counts:
    """The outcome of parsing: the queue groups wanted, and warnings that did not prevent them."""

    groups: tuple[QueueGroup, ...]
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """One key of the mapping as written: a count (None when left out) and the options given."""

    names: tuple[str, ...]
    workers: int | None
    options: dict[str, Any]


_Section = dict[str, _Entry]


def parse_counts(
    mapping: object, *, source: str, environment: str | None, queues: Mapping[str, object]
) -> Counts:
    """Turns a mapping of counts into queue groups.

    Args:
        mapping: what a loader returned; anything may come.
        source: the file or setting it came from, for the messages.
        environment: the section that overrides the root, or None.
        queues: every queue of ``RQ_QUEUES`` in its order, each with a value that is equal for
            queues on the same Redis connection.

    Raises:
        CountsError: with every problem found.
    """
    return _Parser(source, queues).parse(mapping, environment)


class _Parser:
    """Collects problems while it reads, so that a user mends the whole file in one go."""

    def __init__(self, source: str, queues: Mapping[str, object]) -> None:
        self.source = source
        self.queues = queues
        self.problems: list[Problem] = []

    def parse(self, mapping: object, environment: str | None) -> Counts:
        if not isinstance(mapping, Mapping):
            raise CountsError(
                Problem(
                    Kind.SOURCE,
                    f"{self.source}: {_short(mapping)} is not a mapping.",
                    "Write one line for each queue group: names, a colon, a count.",
                )
            )
        root: dict[object, object] = {}
        environments: dict[str, _Section] = {}
        for key, value in mapping.items():
            if isinstance(value, Mapping) and WORKERS not in value and isinstance(key, str):
                name = key.strip()
                if name in environments:
                    self.complain(
                        Kind.SOURCE,
                        f"{self.source}: {key!r}",
                        "this environment is given twice.",
                        "Put both together.",
                    )
                environments[name] = self.environment(key, value)
            else:
                root[key] = value
        chosen = self.section(root, self.source)
        warnings: list[Problem] = []
        if environment is not None and environment in environments:
            chosen = _override(chosen, environments[environment])
        elif environment is not None and environments:
            warnings.append(
                Problem(
                    Kind.UNKNOWN_ENVIRONMENT,
                    f"{self.source}: there is no environment {environment!r}.",
                    f"It has {_listed(environments)}; only the counts outside them are used.",
                )
            )
        groups = [self.group(name, entry) for name, entry in chosen.items()]
        if self.problems:
            raise CountsError(*self.problems)
        if not any(group is not None and group.workers for group in groups):
            warnings.append(
                Problem(
                    Kind.EMPTY_POOL,
                    f"{self.source}: no queue group has a worker, the pool is empty.",
                    "Give at least one queue group a count above 0.",
                )
            )
        return Counts(tuple(group for group in groups if group is not None), tuple(warnings))

    def complain(self, kind: Kind, where: str, text: str, hint: str) -> None:
        self.problems.append(Problem(kind, f"{where}: {text}", hint))

    def environment(self, key: str, value: Mapping[object, object]) -> _Section:
        where = f"{self.source}: {key!r}"
        options = [each for each in value if each in VALIDATORS or self.is_mistyped_workers(each)]
        if options:
            self.complain(
                Kind.COUNT,
                where,
                f"it has options ({_listed(options)}) and no {WORKERS!r}.",
                f"Add {WORKERS!r} to make it a queue group; without, it is an environment.",
            )
            return {}
        return self.section(value, where)

    def is_mistyped_workers(self, word: object) -> bool:
        return (
            isinstance(word, str)
            and word not in self.queues
            and bool(difflib.get_close_matches(word, [WORKERS], cutoff=0.75))
        )

    def section(self, mapping: Mapping[Any, object], where: str) -> _Section:
        section: _Section = {}
        for key, value in mapping.items():
            here = f"{where}: {_short(key)}"
            names = self.names(key, here)
            if names is None:
                continue
            name = ",".join(names)
            if name in section:
                self.complain(
                    Kind.QUEUE_NAME, here, "this queue group is given twice.", "Keep one of them."
                )
                continue
            entry = self.entry(names, value, here)
            if entry is not None:
                section[name] = entry
        return section

    def names(self, key: object, where: str) -> tuple[str, ...] | None:
        if not isinstance(key, str):
            self.complain(
                Kind.QUEUE_NAME,
                where,
                "a queue group is named by text.",
                "Write the queue names in quotes, with commas between them.",
            )
            return None
        names = tuple(name.strip() for name in key.split(","))
        if not all(names):
            self.complain(
                Kind.QUEUE_NAME,
                where,
                "a queue name is empty.",
                "Write the queue names with one comma between two of them.",
            )
            return None
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            self.complain(
                Kind.QUEUE_NAME,
                where,
                f"the group names {_listed(repeated)} more than once.",
                "Name each queue of a group once, the most important first.",
            )
            return None
        return names

    def entry(self, names: tuple[str, ...], value: object, where: str) -> _Entry | None:
        if not isinstance(value, Mapping):
            return _Entry(names, value, {}) if self.is_count(value, where) else None  # type: ignore[arg-type]
        fine = True
        options: dict[str, Any] = {}
        for option, given in value.items():
            if option == WORKERS:
                fine = self.is_count(given, f"{where}: {WORKERS!r}") and fine
            elif option in VALIDATORS:
                required = VALIDATORS[option](given)
                if required is None:
                    options[option] = given
                else:
                    fine = False
                    self.complain(
                        Kind.OPTION_VALUE,
                        f"{where}: {option!r}",
                        f"{_short(given)} cannot be used.",
                        f"It must be {required}.",
                    )
            else:
                fine = False
                self.complain(
                    Kind.OPTION_NAME,
                    where,
                    f"{_short(option)} is not an option.",
                    _nearest(option, OPTION_NAMES, "Options"),
                )
        return _Entry(names, value.get(WORKERS), options) if fine else None

    def is_count(self, value: object, where: str) -> bool:
        if is_whole(value) and value >= 0:  # type: ignore[operator]
            return True
        self.complain(
            Kind.COUNT,
            where,
            f"{_short(value)} is not a count.",
            "A count is a whole number, 0 or more, without quotes.",
        )
        return False

    def group(self, name: str, entry: _Entry) -> QueueGroup | None:
        where = f"{self.source}: {name!r}"
        if entry.workers is None:
            self.complain(
                Kind.COUNT,
                where,
                f"it has no {WORKERS!r}, and no count outside the environment.",
                f"Add {WORKERS!r} with the number of workers.",
            )
            return None
        unknown = [
            queue for queue in entry.names if queue != EVERY_QUEUE and queue not in self.queues
        ]
        if unknown:
            self.complain(
                Kind.UNKNOWN_QUEUE,
                where,
                f"RQ_QUEUES has no queue {_listed(unknown)}.",
                f"It has {_listed(self.queues)}." if self.queues else "It is empty.",
            )
            return None
        queues = self.expand(entry.names)
        if not queues:
            self.complain(
                Kind.UNKNOWN_QUEUE,
                where,
                "RQ_QUEUES has no queue.",
                "Define the queues there, as django-rq's documentation says.",
            )
            return None
        strangers = [q for q in queues if self.queues[q] != self.queues[queues[0]]]
        if strangers:
            self.complain(
                Kind.SEVERAL_SERVERS,
                where,
                f"{_listed(strangers)} is on another Redis connection than {queues[0]!r}.",
                "Make a queue group for each Redis connection.",
            )
            return None
        return QueueGroup(name, queues, entry.workers, GroupOptions(**entry.options))

    def expand(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Puts every queue that the group does not name itself in the place of ``*``."""
        others = [queue for queue in self.queues if queue not in names]
        expanded: list[str] = []
        for name in names:
            expanded += others if name == EVERY_QUEUE else [name]
        return tuple(expanded)


def _override(root: _Section, overrides: _Section) -> _Section:
    """An environment changes what it names and keeps the rest, options included."""
    merged = dict(root)
    for name, entry in overrides.items():
        below = root.get(name)
        if below is not None:
            entry = replace(
                entry,
                workers=below.workers if entry.workers is None else entry.workers,
                options={**below.options, **entry.options},
            )
        merged[name] = entry
    return merged


def _short(value: object) -> str:
    try:
        return reprlib.repr(value)
    except Exception:  # repr() is the value's own code; and an integer can be too long to print
        return f"a value of type {type(value).__name__}"


def _listed(names: object) -> str:
    return ", ".join(repr(name) for name in names)  # type: ignore[attr-defined]


def _nearest(word: object, known: tuple[str, ...], what: str) -> str:
    close = difflib.get_close_matches(word, known, n=1) if isinstance(word, str) else []
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return f"{guess}{what} are {', '.join(known)}."
