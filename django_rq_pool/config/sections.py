"""Sections: tells the queue groups of the counts from their environments, and reads both.

Rule of the room: what a mapping says by itself. What it comes to is found out in `groups`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..text import listed, short
from .entries import BOUNDS_EXAMPLE, Entry, EntryReader
from .options import BOUNDS, MAX_TOTAL, VALIDATORS, WORKERS
from .problems import Complaints, Kind

EVERY_QUEUE = "*"
"""Stands for every queue of ``RQ_QUEUES`` that the group does not name itself."""


@dataclass(frozen=True)
class Section:
    """The root of the counts, or an environment, as written.

    Attributes:
        entries: the queue groups, by name.
        places: where each of them is written, for the messages.
        max_total: the section's ``max_total``, or None.
        limited_at: where that is written.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    max_total: int | None = None
    limited_at: str = ""

    def over(self, below: Section) -> Section:
        """Applies this environment to the root: what it names is replaced, the rest stays.

        Args:
            below: the root.
        """
        entries = dict(below.entries)
        for name, entry in self.entries.items():
            entries[name] = entry.over(entries[name]) if name in entries else entry
        limit = below if self.max_total is None else self
        places = {**below.places, **self.places}
        return Section(entries, places, limit.max_total, limit.limited_at)


class SectionReader:
    """Reads the sections of a mapping.

    Args:
        source: the file or setting that it came from, for the messages.
        queues: every queue of ``RQ_QUEUES``.
        complaints: gets a problem for everything that cannot be read.
    """

    def __init__(self, source: str, queues: Mapping[str, object], complaints: Complaints) -> None:
        self._source = source
        self._queues = queues
        self._complain = complaints.add
        self._reader = EntryReader(complaints)

    def read(self, mapping: Mapping[Any, Any]) -> tuple[Section, dict[str, Section]]:
        """Reads all of it, the environments that nobody has asked for included.

        Args:
            mapping: the counts.

        Returns:
            The root, and the environments by name.
        """
        root: dict[object, object] = {}
        environments: dict[str, Section] = {}
        for key, value in mapping.items():
            if not self._is_environment(key, value):
                root[key] = value
                continue
            name = key.strip()
            if name in environments:
                where = f"{self._source}: {key!r}"
                text = "this environment is given twice."
                self._complain(Kind.SOURCE, where, text, "Merge the two.")
            environments[name] = self._environment(key, value)
        return self._section(root, self._source), environments

    def _is_environment(self, key: Any, value: Any) -> bool:
        return (
            isinstance(value, Mapping)
            and WORKERS not in value
            and isinstance(key, str)
            and not self._is_max_total(key)
        )

    def _is_max_total(self, key: object) -> bool:
        return isinstance(key, str) and key.strip() == MAX_TOTAL and MAX_TOTAL not in self._queues

    def _environment(self, key: str, value: Mapping[object, object]) -> Section:
        where = f"{self._source}: {key!r}"
        options = [each for each in value if each in VALIDATORS or self._is_mistyped_workers(each)]
        bounds = [each for each in value if each in BOUNDS and each not in self._queues]
        strangers = [each for each in value if not self._may_be_in_an_environment(each)]
        if options or bounds:
            self._complain(
                Kind.COUNT,
                where,
                f"it has {'options' if options else 'bounds'} ({listed(options or bounds)}) "
                f"but no {WORKERS!r}.",
                f"Add {WORKERS!r} to make it a queue group. Without it, it is an environment."
                if options
                else f"Write them as {BOUNDS_EXAMPLE}.",
            )
            return Section()
        if self._names_queues(key) and (strangers or not value):
            self._complain(
                Kind.COUNT,
                where,
                f"it is a queue group with {listed(map(short, strangers), quoted=False)}"
                f" but no {WORKERS!r}."
                if strangers
                else f"it is a queue group without {WORKERS!r}.",
                f"Write {{{WORKERS}: 1}} for one worker.",
            )
            return Section()
        return self._section(value, where)

    def _names_queues(self, key: object) -> bool:
        """Whether a key would be a queue group whose queues there are."""
        return isinstance(key, str) and all(
            name.strip() in self._queues or name.strip() == EVERY_QUEUE for name in key.split(",")
        )

    def _may_be_in_an_environment(self, key: object) -> bool:
        return self._names_queues(key) or self._is_max_total(key)

    def _is_mistyped_workers(self, word: object) -> bool:
        return (
            isinstance(word, str)
            and word not in self._queues
            and bool(difflib.get_close_matches(word, [WORKERS], cutoff=0.75))
        )

    def _section(self, mapping: Mapping[Any, object], where: str) -> Section:
        entries: dict[str, Entry] = {}
        places: dict[str, str] = {}
        max_total, limited_at = None, ""
        for key, value in mapping.items():
            here = f"{where}: {short(key)}"
            if self._is_max_total(key):
                max_total = self._reader.limit(value, here)
                limited_at = f"{where}: {MAX_TOTAL!r}"
                continue
            names = self._reader.names(key, here)
            if names is None:
                continue
            name = ",".join(names)
            if name in entries:
                text = "this queue group is given twice."
                self._complain(Kind.QUEUE_NAME, here, text, "Keep one of them.")
                continue
            entry = self._reader.entry(names, value, here)
            if entry is not None:
                entries[name] = entry
                places[name] = f"{where}: {name!r}"
        return Section(entries, places, max_total, limited_at)
