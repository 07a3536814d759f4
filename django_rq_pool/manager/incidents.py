"""Incidents: what workers report, logged when it is new and kept for the status report.

Rule of the room: an operator reads each cause once, however many workers meet it. What is done
about it is the plan's business.
"""

from __future__ import annotations

import logging
import re
from enum import Enum

from ..ipc.reports import MAX_MODULES, Event, Report
from ..text import unvaried

logger = logging.getLogger("django_rq_pool")


class Incident(Enum):
    """What can be wrong with a queue group; the value is what the log says before the cause."""

    BOOT = "workers fail to boot: "
    CRASH = "workers crash: "
    REDIS = ""
    """The workers say themselves how Redis is in trouble."""


_OVER = {
    Incident.BOOT: "workers boot again",
    Incident.CRASH: "workers have stopped crashing",
    Incident.REDIS: "Redis is back",
}

CALM = 300.0
"""Seconds without a crash after which workers have stopped crashing: more than a group that crashes
all the time ever waits between two forks."""


_COMMAND = re.compile(r"'[a-z|]+' command")
"""What a server calls the command that a user may not run. Workers do not all meet the same."""


class Incidents:
    """The incidents of a pool."""

    def __init__(self) -> None:
        self._crashed_at: dict[str, float] = {}
        self._causes: dict[tuple[str, Incident], str] = {}
        self._told: dict[tuple[str, Incident], set[str]] = {}
        self._imported: dict[str, None] = {}

    @property
    def imported(self) -> list[str]:
        """The modules that jobs have imported and the manager has not."""
        return list(self._imported)

    def of(self, group: str, now: float) -> list[str]:
        """The incidents of a queue group that last, a line for each.

        Args:
            group: the queue group.
            now: the manager's monotonic clock, seconds.
        """
        self._calm_down(group, now)
        return [
            f"{incident.value}{cause}"
            for (affected, incident), cause in self._causes.items()
            if affected == group
        ]

    def handle(self, group: str, report: Report, now: float) -> None:
        """Takes in what a worker of a queue group reports.

        Args:
            group: the queue group.
            report: what the worker reports.
            now: the manager's monotonic clock, seconds.
        """
        if report.event is Event.READY:
            self.end(group, Incident.REDIS)
            self.end(group, Incident.BOOT)
        elif report.event is Event.BOOT_FAILED:
            self.begin(group, Incident.BOOT, report.text)
        elif report.event is Event.CRASHED:
            self._calm_down(group, now)
            self._crashed_at[group] = now
            self.begin(group, Incident.CRASH, report.text)
        elif report.event is Event.REDIS_LOST:
            self.begin(group, Incident.REDIS, report.text)
        elif report.event is Event.IMPORTED:
            self._note_imports(group, report.text.split())
        else:
            self.end(group, Incident.REDIS)

    def begin(self, group: str, incident: Incident, text: str) -> None:
        """Logs an incident, with the whole text unless the same cause has been logged since it
        began.

        Args:
            group: the queue group.
            incident: what is wrong.
            text: why; two causes are told apart by the last line of a traceback.
        """
        cause = text.strip().rpartition("\n")[2]
        told = self._told.setdefault((group, incident), set())
        self._causes[group, incident] = cause
        if _kind(cause) not in told:
            told.add(_kind(cause))
            logger.error("group %s: %s%s", group, incident.value, text.strip())
        elif incident is not Incident.REDIS:
            logger.error("group %s: %sagain %s", group, incident.value, cause)

    def end(self, group: str, incident: Incident) -> None:
        """Logs that an incident is over, if it has been logged."""
        self._told.pop((group, incident), None)
        if self._causes.pop((group, incident), None) is not None:
            logger.info("group %s: %s", group, _OVER[incident])

    def _calm_down(self, group: str, now: float) -> None:
        """Ends crashes that are long ago. A worker that is ready says nothing about them: each one
        that crashed was."""
        if now - self._crashed_at.get(group, now) > CALM:
            self.end(group, Incident.CRASH)

    def _note_imports(self, group: str, modules: list[str]) -> None:
        """Names each module that jobs import once, and no more of them than anybody would read."""
        new = [each for each in modules if each not in self._imported]
        new = new[: MAX_MODULES - len(self._imported)]
        if new:
            self._imported.update(dict.fromkeys(new))
            logger.info(
                "jobs of %s import modules that the manager has not imported: %s; to import them "
                "once for all jobs, add your own to RQ_POOL_PRELOAD",
                group,
                ", ".join(new),
            )


def _kind(cause: str) -> str:
    """A cause without what varies from worker to worker."""
    return unvaried(_COMMAND.sub("command", cause))
