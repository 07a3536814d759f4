"""Targets: how many workers of which generation each queue group shall have, and why.

Rule of the room: counts that were loaded or scaled go in, what is wanted of each group comes out.
A group whose queues or options change begins a new generation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from ..config.groups import Counts, QueueGroup
from .plan import Wanted


class Targets:
    """The targets of a pool.

    Args:
        counts: the counts at the start.

    Attributes:
        counts: the counts that were loaded last.
        reasons: why each scaled group has its count, by group name.
    """

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.reasons: Mapping[str, str] = {}
        self._groups = {group.name: group for group in counts.groups}
        self._generations: Counter[str] = Counter()

    def __str__(self) -> str:
        counts = (
            f"{group.name}={group.workers}" + (f" of {group.bounds}" if group.bounds else "")
            for group in self._groups.values()
        )
        return ", ".join(counts) or "empty"

    def group(self, name: str) -> QueueGroup:
        """A queue group, with the count that is wanted now.

        Args:
            name: its name.

        Raises:
            KeyError: there is no such group.
        """
        return self._groups[name]

    def generation(self, name: str) -> int:
        """The generation that a group's workers shall have.

        Args:
            name: the name of the group.
        """
        return self._generations[name]

    def bounded(self) -> list[QueueGroup]:
        """The groups with bounds, which are scaled."""
        return [group for group in self._groups.values() if group.bounds is not None]

    def wanted(self, keep: Mapping[str, int]) -> list[Wanted]:
        """What each group shall have.

        Args:
            keep: the most workers that a group may keep, by name. A group that is missing here has
                no such limit.
        """
        return [
            Wanted(name, min(group.workers, keep.get(name, group.workers)), self._generations[name])
            for name, group in self._groups.items()
        ]

    def adopt(self, counts: Counts) -> bool:
        """Sets new counts. A scaled group keeps its count, within its bounds.

        Args:
            counts: the counts as loaded.

        Returns:
            Whether anything has changed.
        """
        before = self._groups
        self.counts = counts
        self._groups = {group.name: group for group in counts.groups}
        for name, group in self._groups.items():
            known = before.get(name, group)
            if (known.queues, known.options) != (group.queues, group.options):
                self._generations[name] += 1
            if group.bounds is not None:
                workers = min(max(known.workers, group.bounds.min), group.bounds.max)
                self._groups[name] = replace(group, workers=workers)
        return before != self._groups

    def scale(self, workers: Mapping[str, int], reasons: Mapping[str, str]) -> list[str]:
        """Sets the counts of scaled groups.

        Args:
            workers: the new count of each group that was measured, by name.
            reasons: why each has its count, by name.

        Returns:
            The names of the groups whose count has changed.
        """
        self.reasons = reasons
        changed = []
        for group in self.bounded():
            count = workers.get(group.name, group.workers)
            if count != group.workers:
                self._groups[group.name] = replace(group, workers=count)
                changed.append(group.name)
        return changed

    def renew(self) -> None:
        """Begins a new generation of every group, so that every worker is replaced."""
        for name in self._groups:
            self._generations[name] += 1
