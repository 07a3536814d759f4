"""Entries: reads one key of the counts and its value.

Rule of the room: a key and a value go in, an entry or a problem comes out. What depends on other
entries or on ``RQ_QUEUES`` is checked in `groups`.
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
)
from .problems import Complaints, Kind
from .validators import is_whole_number, positive

A_COUNT = "A count is a whole number, 0 or more, without quotes."
BOUNDS_EXAMPLE = f"{WORKERS}: {{{BOUNDS[0]}: 1, {BOUNDS[1]}: 10}}"


@dataclass(frozen=True)
class Entry:
    """One queue group as the counts write it.

    Attributes:
        names: the queue names in priority order; ``*`` is not expanded.
        workers: the count, or the bounds of a scaled group, or None if the entry has neither.
        options: the values of the options that the entry gives, by name.
    """

    names: tuple[str, ...]
    workers: int | Bounds | None
    options: dict[str, Any]

    def over(self, below: Entry) -> Entry:
        """Applies this entry of an environment to the entry of the same group in the root.

        What this entry gives replaces what the root gives; the rest stays. A fixed count also
        removes the root's ``target_latency``, which has no effect on it.

        Args:
            below: the entry of the root.
        """
        options = {**below.options, **self.options}
        if isinstance(self.workers, int) and TARGET_LATENCY not in self.options:
            options.pop(TARGET_LATENCY, None)
        workers = below.workers if self.workers is None else self.workers
        return Entry(self.names, workers, options)


class EntryReader:
    """Reads entries.

    Args:
        complaints: gets a problem for everything that cannot be read.
    """

    def __init__(self, complaints: Complaints) -> None:
        self._complain = complaints.add

    def names(self, key: object, where: str) -> tuple[str, ...] | None:
        """Splits a key into its queue names.

        Args:
            key: the key as loaded, which may have any type.
            where: the place, for a problem.

        Returns:
            The names in priority order, or None if the key cannot be used.
        """
        if not isinstance(key, str):
            self._complain(
                Kind.QUEUE_NAME,
                where,
                "the name of a queue group must be text.",
                "Write the queue names in quotes, with commas between them.",
            )
            return None
        names = tuple(name.strip() for name in key.split(","))
        if not all(names):
            self._complain(
                Kind.QUEUE_NAME,
                where,
                "a queue name is empty.",
                "Separate two queue names with one comma.",
            )
            return None
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            self._complain(
                Kind.QUEUE_NAME,
                where,
                f"the group names {listed(repeated)} more than once.",
                "Name each queue once, the most important first.",
            )
            return None
        return names

    def entry(self, names: tuple[str, ...], value: object, where: str) -> Entry | None:
        """Reads the value of a key.

        Args:
            names: the queue names of the key.
            value: a count, or a mapping with ``workers`` and options.
            where: the place, for a problem.

        Returns:
            The entry, or None if the value cannot be used.
        """
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
        return entry if fine and self.target_has_bounds(entry, where) else None

    def target_has_bounds(self, entry: Entry, where: str) -> bool:
        """Checks that an entry with ``target_latency`` has bounds, so that its count can change.

        Args:
            entry: the entry.
            where: the place, for a problem.

        Returns:
            False if it has a fixed count; the problem has been added.
        """
        if TARGET_LATENCY not in entry.options or not isinstance(entry.workers, int):
            return True
        self._complain(
            Kind.OPTION_VALUE,
            f"{where}: {TARGET_LATENCY!r}",
            f"it has no effect on a fixed count ({short(entry.workers)} workers).",
            f"Give bounds, such as {BOUNDS_EXAMPLE}, or leave {TARGET_LATENCY!r} out.",
        )
        return False

    def limit(self, value: object, where: str) -> int | None:
        """Reads the value of ``max_total``.

        Args:
            value: the value as loaded.
            where: the place, for a problem.

        Returns:
            The most workers that the pool may have, or None if the value cannot be used.
        """
        return value if self._has(positive(value), value, where) else None  # type: ignore[return-value]

    def _has(self, required: str | None, value: object, where: str) -> bool:
        """Adds a problem if ``required``, which a validator returned, is not None."""
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
        if is_whole_number(value) and value >= 0:  # type: ignore[operator]
            return value  # type: ignore[return-value]
        self._complain(Kind.COUNT, where, f"{short(value)} is not a count.", A_COUNT)
        return None

    def _bounds(self, value: Mapping[object, object], where: str) -> Bounds | None:
        unknown = [word for word in value if word not in BOUNDS]
        for word in unknown:
            self._complain(
                Kind.COUNT, where, f"{short(word)} is not a bound.", nearest(word, BOUNDS, "Bounds")
            )
        missing = [bound for bound in BOUNDS if bound not in value]
        if missing and not unknown:
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
        if unknown or least is None or most is None:
            return None
        if least > most or most == 0:
            self._complain(
                Kind.COUNT,
                where,
                f"no count is between {short(least)} and {short(most)}."
                if most
                else f"a group whose {BOUNDS[1]!r} is 0 never has a worker.",
                f"{BOUNDS[1]!r} must be 1 or more, and not less than {BOUNDS[0]!r}.",
            )
            return None
        return Bounds(least, most)
