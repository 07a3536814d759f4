"""The targets: which workers the pool is to have now, and why.

Rule of the room: counts come in as they were loaded or scaled, what is wanted of each group comes
out. A group that is served otherwise than before begins another generation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from ..config.groups import Counts, QueueGroup
from .plan import Wanted


class Targets:
    """
    Args:
        counts: those of the start.

    Attributes:
        counts: those that were loaded last.
        reasons: why the count of a group with bounds is what it is, by its name.
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
        """The group of a name, with the count that is wanted now."""
        return self._groups[name]

    def generation(self, name: str) -> int:
        return self._generations[name]

    def bounded(self) -> list[QueueGroup]:
        """The groups whose counts have bounds."""
        return [group for group in self._groups.values() if group.bounds is not None]

    def wanted(self, keep: Mapping[str, int]) -> list[Wanted]:
        """What is wanted of each group.

        Args:
            keep: how many workers a group may keep at most; one that is not here is not limited.
        """
        return [
            Wanted(name, min(group.workers, keep.get(name, group.workers)), self._generations[name])
            for name, group in self._groups.items()
        ]

    def adopt(self, counts: Counts) -> bool:
        """Wants what was loaded from now on. A group with bounds begins with the count that it has.

        Returns:
            Whether that is anything new.
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
        """Gives groups with bounds other counts.

        Args:
            workers: the count of each group that was measured.
            reasons: why.

        Returns:
            The groups whose count is another now.
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
        """Begins another generation of every group."""
        for name in self._groups:
            self._generations[name] += 1
