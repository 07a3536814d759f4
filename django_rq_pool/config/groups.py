"""Queue groups: the one grammar of the counts, parsed and validated.

Rule of the room: a mapping comes in, queue groups or sentences that say what is wrong come out.
Nothing is imported, read or connected here; what RQ_QUEUES holds is passed in.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..text import listed, short
from .entries import BOUNDS_EXAMPLE, Entry, EntryReader
from .options import BOUNDS, MAX_TOTAL, VALIDATORS, WORKERS, Bounds, GroupOptions
from .problems import Complaints, CountsError, Kind, Problem

EVERY_QUEUE = "*"


@dataclass(frozen=True)
class QueueGroup:
    """Queues served together.

    Attributes:
        name: as the counts write it, without spaces (``high,default``, ``*``); its identity.
        queues: the queue names in priority order, with ``*`` expanded.
        workers: the count, how many workers the group shall have; to begin with, if it has bounds.
        options: everything else.
        bounds: between which counts the group is scaled, or None for one whose count is fixed.
    """

    name: str
    queues: tuple[str, ...]
    workers: int
    options: GroupOptions = GroupOptions()
    bounds: Bounds | None = None


@dataclass(frozen=True)
class Counts:
    """The outcome of parsing.

    Attributes:
        groups: the queue groups wanted.
        warnings: what is odd about them and did not prevent them.
        max_total: the most workers that they may have together, or None.
    """

    groups: tuple[QueueGroup, ...]
    warnings: tuple[Problem, ...] = ()
    max_total: int | None = None

    @property
    def bounded(self) -> tuple[QueueGroup, ...]:
        """The groups whose count has bounds."""
        return tuple(group for group in self.groups if group.bounds is not None)


@dataclass
class _Section:
    """The root or an environment as written, and the most workers that it allows, if it says so."""

    entries: dict[str, Entry] = field(default_factory=dict)
    max_total: int | None = None

    def over(self, below: _Section) -> _Section:
        """What this environment makes of the root: it changes what it names and keeps the rest."""
        entries = dict(below.entries)
        for name, entry in self.entries.items():
            entries[name] = entry.over(entries[name]) if name in entries else entry
        return _Section(entries, below.max_total if self.max_total is None else self.max_total)


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
    def __init__(self, source: str, queues: Mapping[str, object]) -> None:
        self.source = source
        self.queues = queues
        self.complaints = Complaints()
        self.complain = self.complaints.add
        self.reader = EntryReader(self.complaints)

    def parse(self, mapping: object, environment: str | None) -> Counts:
        if not isinstance(mapping, Mapping):
            raise CountsError(
                Problem(
                    Kind.SOURCE,
                    f"{self.source}: {short(mapping)} is not a mapping.",
                    "Write one line for each queue group: names, a colon, a count.",
                )
            )
        root: dict[object, object] = {}
        environments: dict[str, _Section] = {}
        for key, value in mapping.items():
            if self.is_environment(key, value):
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
            chosen = environments[environment].over(chosen)
        elif environment is not None and environments:
            warnings.append(
                Problem(
                    Kind.UNKNOWN_ENVIRONMENT,
                    f"{self.source}: there is no environment {environment!r}.",
                    f"It has {listed(environments)}; only the counts outside them are used.",
                )
            )
        found = [self.group(name, entry) for name, entry in chosen.entries.items()]
        groups = tuple(group for group in found if group is not None)
        self.check_total(chosen.max_total, groups)
        if self.complaints.problems:
            raise CountsError(*self.complaints.problems)
        if not any(group.workers or group.bounds for group in groups):
            warnings.append(
                Problem(
                    Kind.EMPTY_POOL,
                    f"{self.source}: no queue group has a worker, the pool is empty.",
                    "Give at least one queue group a count above 0.",
                )
            )
        return Counts(groups, tuple(warnings), chosen.max_total)

    def is_environment(self, key: Any, value: Any) -> bool:
        return (
            isinstance(value, Mapping)
            and WORKERS not in value
            and isinstance(key, str)
            and not self.is_max_total(key)
        )

    def is_max_total(self, key: object) -> bool:
        return isinstance(key, str) and key.strip() == MAX_TOTAL and MAX_TOTAL not in self.queues

    def environment(self, key: str, value: Mapping[object, object]) -> _Section:
        where = f"{self.source}: {key!r}"
        options = [each for each in value if each in VALIDATORS or self.is_mistyped_workers(each)]
        bounds = [each for each in value if each in BOUNDS and each not in self.queues]
        if options or bounds:
            self.complain(
                Kind.COUNT,
                where,
                f"it has {'options' if options else 'bounds'} ({listed(options or bounds)}) "
                f"and no {WORKERS!r}.",
                f"Add {WORKERS!r} to make it a queue group; without, it is an environment."
                if options
                else f"Write them as {BOUNDS_EXAMPLE}.",
            )
            return _Section()
        return self.section(value, where)

    def is_mistyped_workers(self, word: object) -> bool:
        return (
            isinstance(word, str)
            and word not in self.queues
            and bool(difflib.get_close_matches(word, [WORKERS], cutoff=0.75))
        )

    def section(self, mapping: Mapping[Any, object], where: str) -> _Section:
        section = _Section()
        for key, value in mapping.items():
            here = f"{where}: {short(key)}"
            if self.is_max_total(key):
                section.max_total = self.reader.limit(value, here)
                continue
            names = self.reader.names(key, here)
            if names is None:
                continue
            name = ",".join(names)
            if name in section.entries:
                self.complain(
                    Kind.QUEUE_NAME, here, "this queue group is given twice.", "Keep one of them."
                )
                continue
            entry = self.reader.entry(names, value, here)
            if entry is not None:
                section.entries[name] = entry
        return section

    def group(self, name: str, entry: Entry) -> QueueGroup | None:
        where = f"{self.source}: {name!r}"
        if entry.workers is None:
            self.complain(
                Kind.COUNT,
                where,
                f"it has no {WORKERS!r}, and no count outside the environment.",
                f"Add {WORKERS!r} with the number of workers.",
            )
            return None
        if not self.reader.aims_right(entry, where):
            return None
        queues = self.known_queues(entry.names, where)
        if queues is None:
            return None
        bounds = entry.workers if isinstance(entry.workers, Bounds) else None
        return QueueGroup(
            name,
            queues,
            entry.workers if isinstance(entry.workers, int) else entry.workers.min,
            GroupOptions(**entry.options),
            bounds,
        )

    def known_queues(self, names: tuple[str, ...], where: str) -> tuple[str, ...] | None:
        """The queues of a group with ``*`` expanded, or None if they cannot be served together."""
        unknown = [queue for queue in names if queue != EVERY_QUEUE and queue not in self.queues]
        if unknown:
            self.complain(
                Kind.UNKNOWN_QUEUE,
                where,
                f"RQ_QUEUES has no queue {listed(unknown)}.",
                f"It has {listed(self.queues)}." if self.queues else "It is empty.",
            )
            return None
        queues = self.expand(names)
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
                f"{listed(strangers)} is on another Redis connection than {queues[0]!r}.",
                "Make a queue group for each Redis connection.",
            )
            return None
        return queues

    def expand(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Puts every queue that the group does not name itself in the place of ``*``."""
        others = [queue for queue in self.queues if queue not in names]
        expanded: list[str] = []
        for name in names:
            expanded += others if name == EVERY_QUEUE else [name]
        return tuple(expanded)

    def check_total(self, most: int | None, groups: Iterable[QueueGroup]) -> None:
        """Complains of a limit that leaves no room for fixed counts and minima."""
        least = sum(group.workers for group in groups)
        if most is not None and most < least:
            self.complain(
                Kind.COUNT,
                f"{self.source}: {MAX_TOTAL!r}",
                f"{short(most)} are less than the {short(least)} workers that the counts ask for "
                "at least.",
                f"Raise {MAX_TOTAL!r}, or lower counts and minima.",
            )
