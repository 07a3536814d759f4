"""Delays: how long each queue group waits with its next fork, and after what.

Rule of the room: bookkeeping and a line in the log; how long is decided by `planning.backoff`.
"""

from __future__ import annotations

import logging
import random

from ..planning.backoff import Backoff

logger = logging.getLogger("django_rq_pool")


class Delays:
    """The delays of a pool. Times are monotonic seconds.

    Attributes:
        backoffs: the failures of each group that has any, by its name.
        causes: after what a group waited the last time, by its name: ``SIGSEGV``.
    """

    def __init__(self) -> None:
        self.backoffs: dict[str, Backoff] = {}
        self.causes: dict[str, str] = {}

    def of(self, group: str) -> Backoff:
        """The failures of a group."""
        return self.backoffs.get(group, Backoff())

    def fails_to_boot(self) -> bool:
        """Whether a worker of any group died before it was ready, and none has become ready
        since."""
        return any(backoff.boot_failures for backoff in self.backoffs.values())

    def boot_failed(self, group: str, forked_at: float, now: float, cause: str) -> None:
        """Counts a worker that could not be forked, or was never ready.

        Args:
            group: the name of its group.
            forked_at: when it was forked.
            now: the time.
            cause: why, for the log.
        """
        backoff = self.of(group).boot_failed(forked_at, now, random.random())
        self.backoffs[group] = backoff
        self._log(group, cause, backoff.not_before - now)

    def died_quickly(self, group: str, forked_at: float, now: float, cause: str) -> None:
        """Counts a worker that crashed soon after it was ready. The arguments are those of
        `boot_failed`."""
        backoff = self.of(group).died_quickly(forked_at, now, random.random())
        self.backoffs[group] = backoff
        if backoff.not_before > now:
            self._log(group, cause, backoff.not_before - now)

    def became_ready(self, group: str) -> None:
        """Notes that a worker of a group is ready."""
        self.backoffs[group] = self.of(group).became_ready()

    def ended_well(self, group: str) -> None:
        """Notes that a worker of a group lived long, or left as it should."""
        self.backoffs[group] = self.of(group).ended_well()

    def _log(self, group: str, cause: str, delay: float) -> None:
        self.causes[group] = cause
        logger.warning("group %s: %s; next fork in %.1f s", group, cause, delay)
