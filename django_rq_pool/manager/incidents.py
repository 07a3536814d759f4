"""News: what workers report, told to the log when it is new and kept for whoever asks.

Rule of the room: a report comes in; the crew learns who is ready, people learn what is wrong and
what could be preloaded. What is done about it is the plan's business.
"""

from __future__ import annotations

import logging

from ..ipc.reports import MAX_MODULES, Event, Report
from .children import Children
from .troubles import Trouble, Troubles

logger = logging.getLogger("django_rq_pool")


class News:
    """
    Args:
        crew: those who report.
    """

    def __init__(self, children: Children) -> None:
        self._children = children
        self._troubles = Troubles()
        self._imported: dict[str, None] = {}

    @property
    def imported(self) -> list[str]:
        """The modules that jobs have imported and the manager has not."""
        return list(self._imported)

    def troubles_of(self, group: str) -> list[str]:
        """What a queue group suffers from now, a line for each."""
        return self._troubles.of(group)

    def handle(self, report: Report) -> None:
        """Takes in what a worker says; one that is not on the roster any more is not heard."""
        record = self._children.roster.get(report.pid)
        if record is None:
            return
        group = record.group
        if report.event is Event.READY:
            self._children.mark_ready(record)
            self._troubles.end(group, Trouble.REDIS)
            self._troubles.end(group, Trouble.BOOT)
        elif report.event is Event.BOOT_FAILED:
            self._troubles.tell(group, Trouble.BOOT, report.text)
        elif report.event is Event.REDIS_LOST:
            self._troubles.tell(group, Trouble.REDIS, report.text)
        elif report.event is Event.IMPORTED:
            self._learn(group, report.text.split())
        else:
            self._troubles.end(group, Trouble.REDIS)

    def _learn(self, group: str, modules: list[str]) -> None:
        """Names what jobs import, once, and no more than anybody would read."""
        fresh = [each for each in modules if each not in self._imported]
        fresh = fresh[: MAX_MODULES - len(self._imported)]
        if fresh:
            self._imported.update(dict.fromkeys(fresh))
            logger.info(
                "jobs of %s import what the manager has not imported: %s; to do it once for all "
                "of them, add what is yours to RQ_POOL_PRELOAD",
                group,
                ", ".join(fresh),
            )
