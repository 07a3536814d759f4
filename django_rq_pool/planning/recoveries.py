"""Recoveries: when a dead worker gets another recovery process, after one that has failed.

Rule of the room: arithmetic on frozen records. The time and the random number are arguments. A
recovery is finished when its process has said so by its exit status; else it is still to be done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .backoff import delay

RETRY_DELAY = 0.5
"""Seconds from the first failure of a recovery to the next try."""
RETRY_GROWTH = 1.05
"""Each further failure makes the delay longer by this factor, up to the longest delay of a group.
So a worker is recovered within two seconds of the end of a fault that lasted half a minute, and a
fault that lasts for hours costs two forks a minute."""


@dataclass(frozen=True)
class UnrecoveredWorker:
    """A dead worker that has no recovery process. Times are monotonic seconds.

    Attributes:
        name: its name in Redis.
        failures: how many of its recovery processes have failed, or could not be forked.
        failed_at: when the latest of them has.
        not_before: the earliest time of the next one.
        cut_off: Redis did not answer the worker when it left, without a job. A pool that leaves
            too does not try: its processes would wait for the same server, a few at a time.
    """

    name: str
    failures: int = 0
    failed_at: float = float("-inf")
    not_before: float = float("-inf")
    cut_off: bool = False

    def failed(self, now: float, chance: float) -> UnrecoveredWorker:
        """Counts a recovery process that has failed, or could not be forked.

        Args:
            now: the time, in monotonic seconds.
            chance: a random number from 0 to 1, for the jitter.
        """
        failures = self.failures + 1
        wait = delay(failures, chance, first=RETRY_DELAY, growth=RETRY_GROWTH)
        return replace(self, failures=failures, failed_at=now, not_before=now + wait)

    def due(self, *, last_try: bool) -> float:
        """When to fork the next recovery process, in monotonic seconds.

        Args:
            last_try: the pool is about to leave, and does not wait for long any more.
        """
        return min(self.not_before, self.failed_at + RETRY_DELAY) if last_try else self.not_before


@dataclass(frozen=True)
class RecoveryProcess:
    """A process that settles the job of a dead worker.

    Attributes:
        pid: its process id.
        name: the name of the dead worker in Redis.
        failures: how many recovery processes of this worker have failed before.
        guards: the pid of the orphaned work horse that it waits for, or 0. It waits until the job
            ends.
        asked_at: when it was asked to give up if Redis cannot be reached, in monotonic seconds; or
            None.
        killed: whether the manager has killed it.
    """

    pid: int
    name: str
    failures: int = 0
    guards: int = 0
    asked_at: float | None = None
    killed: bool = False

    def failed(self, now: float, chance: float) -> UnrecoveredWorker | None:
        """The worker that is still to be recovered, after this process has failed.

        Args:
            now: see `UnrecoveredWorker.failed`.
            chance: see `UnrecoveredWorker.failed`.

        Returns:
            None if the process had been asked to give up, because the pool leaves.
        """
        if self.asked_at is not None:
            return None
        return UnrecoveredWorker(self.name, self.failures).failed(now, chance)
