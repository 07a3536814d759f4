"""Entries: what stands behind one key of the counts, read by itself.

Rule of the room: a key and a value come in, an entry or a complaint comes out. What other entries
and RQ_QUEUES have to say to it is the business of `groups`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..text import listed, nearest, short
from .options import (
    BOUNDS,
    OPTION_NAMES,
    TARGET_LATENCY,
    VALIDATORS,
    WORKERS,
    Bounds,
    all_ready,
    positive,
)
from .problems import Complaints, Kind

A_COUNT = "A count is a whole number, 0 or more, without quotes."
BOUNDS_EXAMPLE = f"{WORKERS}: {{{BOUNDS[0]}: 1, {BOUNDS[1]}: 10}}"


@dataclass(frozen=True)
class Entry:
    """One queue group as written.

    Attributes:
        names: the queue names, ``*`` included.
        workers: the count, or the bounds between which it moves, or None when left out.
        options: those given, by name.
    """

    names: tuple[str, ...]
    workers: int | Bounds | None
    options: dict[str, Any]

    def over(self, below: Entry) -> Entry:
        """What this entry of an environment makes of the root's: it changes what it names and keeps
        the rest. A fixed count leaves no latency to aim at."""
        options = {**below.options, **self.options}
        if isinstance(self.workers, int) and TARGET_LATENCY not in self.options:
            options.pop(TARGET_LATENCY, None)
        workers = below.workers if self.workers is None else self.workers
        return Entry(self.names, workers, options)


class EntryReader:
    """Reads entries and complains of what it cannot read."""

    def __init__(self, complaints: Complaints) -> None:
        self._complain = complaints.add

    def names(self, key: object, where: str) -> tuple[str, ...] | None:
        """The queue names of a key, or None when it has none that can be used."""
        if not isinstance(key, str):
            self._complain(
                Kind.QUEUE_NAME,
                where,
                "a queue group is named by text.",
                "Write the queue names in quotes, with commas between them.",
            )
            return None
        names = tuple(name.strip() for name in key.split(","))
        if not all(names):
            self._complain(
                Kind.QUEUE_NAME,
                where,
                "a queue name is empty.",
                "Write the queue names with one comma between two of them.",
            )
            return None
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            self._complain(
                Kind.QUEUE_NAME,
                where,
                f"the group names {listed(repeated)} more than once.",
                "Name each queue of a group once, the most important first.",
            )
            return None
        return names

    def entry(self, names: tuple[str, ...], value: object, where: str) -> Entry | None:
        """The entry of these names, or None when its value cannot be used."""
        if not isinstance(value, Mapping):
            count = self._count(value, where)
            return None if count is None else Entry(names, count, {})
        fine = True
        workers: int | Bounds | None = None
        options: dict[str, Any] = {}
        for option, given in value.items():
            if option == WORKERS:
                workers = self._workers(given, f"{where}: {WORKERS!r}")
                fine = fine and workers is not None
            elif option in VALIDATORS:
                fine = self._has(VALIDATORS[option](given), given, f"{where}: {option!r}") and fine
                options[option] = given
            else:
                fine = False
                self._complain(
                    Kind.OPTION_NAME,
                    where,
                    f"{short(option)} is not an option.",
                    f"Bounds belong to the count: {BOUNDS_EXAMPLE}."
                    if option in BOUNDS
                    else nearest(option, OPTION_NAMES, "Options"),
                )
        entry = Entry(names, workers, options)
        return entry if fine and self.aims_right(entry, where) else None

    def aims_right(self, entry: Entry, where: str) -> bool:
        """Whether an entry with a latency to aim at has a count that can move."""
        if TARGET_LATENCY not in entry.options or not isinstance(entry.workers, int):
            return True
        self._complain(
            Kind.OPTION_VALUE,
            f"{where}: {TARGET_LATENCY!r}",
            f"{short(entry.workers)} workers are a fixed count, which no latency changes.",
            f"Give bounds, such as {BOUNDS_EXAMPLE}, or leave {TARGET_LATENCY!r} out.",
        )
        return False

    def limit(self, value: object, where: str) -> int | None:
        """The most workers of the pool, or None when the value is no such number."""
        return value if self._has(positive(value), value, where) else None  # type: ignore[return-value]

    def _has(self, required: str | None, value: object, where: str) -> bool:
        """Complains of a value unless nothing else is required."""
        if required is not None:
            self._complain(
                Kind.OPTION_VALUE,
                where,
                f"{short(value)} cannot be used.",
                f"It must be {required}.",
            )
        return required is None

    def _workers(self, value: object, where: str) -> int | Bounds | None:
        return (
            self._bounds(value, where) if isinstance(value, Mapping) else self._count(value, where)
        )

    def _count(self, value: object, where: str) -> int | None:
        if all_ready(value) and value >= 0:  # type: ignore[operator]
            return value  # type: ignore[return-value]
        self._complain(Kind.COUNT, where, f"{short(value)} is not a count.", A_COUNT)
        return None

    def _bounds(self, value: Mapping[object, object], where: str) -> Bounds | None:
        strange = [word for word in value if word not in BOUNDS]
        for word in strange:
            self._complain(
                Kind.COUNT, where, f"{short(word)} is not a bound.", nearest(word, BOUNDS, "Bounds")
            )
        missing = [bound for bound in BOUNDS if bound not in value]
        if missing and not strange:
            self._complain(
                Kind.COUNT,
                where,
                f"it has no {listed(missing)}.",
                f"Give both bounds, such as {BOUNDS_EXAMPLE}.",
            )
        counts = {
            bound: self._count(value[bound], f"{where}: {bound!r}")
            for bound in BOUNDS
            if bound in value
        }
        least, most = (counts.get(bound) for bound in BOUNDS)
        if strange or least is None or most is None:
            return None
        if least > most or most == 0:
            self._complain(
                Kind.COUNT,
                where,
                f"no count lies between {short(least)} and {short(most)}."
                if most
                else f"a group whose {BOUNDS[1]!r} is 0 never has a worker.",
                f"{BOUNDS[1]!r} must be 1 or more, and no less than {BOUNDS[0]!r}.",
            )
            return None
        return Bounds(least, most)
