"""Queue groups: parses and validates the counts.

Rule of the room: a mapping goes in, queue groups or problems come out. It imports no class, reads
no file or setting and opens no connection; the content of ``RQ_QUEUES`` is an argument.
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
"""Stands for every queue of ``RQ_QUEUES`` that the group does not name itself."""


@dataclass(frozen=True)
class QueueGroup:
    """Queues that the same workers serve.

    Attributes:
        name: as the counts write it, without spaces, such as ``high,default`` or ``*``. It
            identifies the group.
        queues: the queue names in priority order, with ``*`` expanded.
        workers: the count, that is how many workers the group shall have. A group with bounds
            starts with it.
        options: the options of the group.
        bounds: the range of the count of a scaled group, or None if the count is fixed.
    """

    name: str
    queues: tuple[str, ...]
    workers: int
    options: GroupOptions = GroupOptions()
    bounds: Bounds | None = None


@dataclass(frozen=True)
class Counts:
    """The parsed counts.

    Attributes:
        groups: the queue groups.
        warnings: problems that do not prevent a start.
        max_total: the most workers that all groups may have together, or None for no limit.
    """

    groups: tuple[QueueGroup, ...]
    warnings: tuple[Problem, ...] = ()
    max_total: int | None = None

    @property
    def bounded(self) -> tuple[QueueGroup, ...]:
        """The groups with bounds, which are scaled."""
        return tuple(group for group in self.groups if group.bounds is not None)


@dataclass
class _Section:
    """The root of the counts, or an environment, as written.

    Attributes:
        entries: the queue groups, by name.
        max_total: the section's ``max_total``, or None.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    max_total: int | None = None

    def over(self, below: _Section) -> _Section:
        """Applies this environment to the root: what it names is replaced, the rest stays."""
        entries = dict(below.entries)
        for name, entry in self.entries.items():
            entries[name] = entry.over(entries[name]) if name in entries else entry
        return _Section(entries, below.max_total if self.max_total is None else self.max_total)


def parse_counts(
    mapping: object, *, source: str, environment: str | None, queues: Mapping[str, object]
) -> Counts:
    """Converts a mapping of counts to queue groups.

    Args:
        mapping: what a loader returned, which may have any type.
        source: the file or setting that it came from, for the messages.
        environment: the name of the environment that overrides the root, or None.
        queues: every queue of ``RQ_QUEUES`` in its order. Two queues have equal values if they use
            the same Redis connection.

    Returns:
        The queue groups in the order of the counts, and the warnings.

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
                    "Write one line for each queue group: its queues, a colon, its count.",
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
                        "Merge the two.",
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
                    f"It has {listed(environments)}. Only the counts outside of them are used.",
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
                    f"{self.source}: no queue group has a worker, so the pool is empty.",
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
                f"but no {WORKERS!r}.",
                f"Add {WORKERS!r} to make it a queue group. Without it, it is an environment."
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
                f"it has no {WORKERS!r}, and no count outside of the environment.",
                f"Add {WORKERS!r} with the number of workers.",
            )
            return None
        if not self.reader.target_has_bounds(entry, where):
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
        """Expands ``*``. Returns None if a queue is unknown or uses another Redis connection."""
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
        elsewhere = [q for q in queues if self.queues[q] != self.queues[queues[0]]]
        if elsewhere:
            self.complain(
                Kind.SEVERAL_SERVERS,
                where,
                f"{listed(elsewhere)} uses another Redis connection than {queues[0]!r}.",
                "Make a queue group for each Redis connection.",
            )
            return None
        return queues

    def expand(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Replaces ``*`` with every queue that the group does not name itself."""
        others = [queue for queue in self.queues if queue not in names]
        expanded: list[str] = []
        for name in names:
            expanded += others if name == EVERY_QUEUE else [name]
        return tuple(expanded)

    def check_total(self, most: int | None, groups: Iterable[QueueGroup]) -> None:
        """Checks that ``max_total`` leaves room for the fixed counts and the minima."""
        least = sum(group.workers for group in groups)
        if most is not None and most < least:
            self.complain(
                Kind.COUNT,
                f"{self.source}: {MAX_TOTAL!r}",
                f"{short(most)} is less than the {short(least)} workers of all counts and minima.",
                f"Raise {MAX_TOTAL!r}, or lower counts or minima.",
            )
