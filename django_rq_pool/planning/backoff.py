"""Backoff: how long a queue group waits before its next fork after failures.

Rule of the room: pure arithmetic on a frozen record; the time and the chance come in as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
JITTER = 0.2
"""A delay varies by this share to either side, so that hosts do not fork in step."""

QUICK = 1.0
"""A worker that crashes within this many seconds of being ready died quickly."""
FREE_QUICK_DEATHS = 5
"""So many quick deaths in a row are replaced at once: one crash must not cost a second."""


@dataclass(frozen=True)
class Backoff:
    """The failures of one queue group that have not been made good.

    Attributes:
        boot_failures: workers in a row that died before they were ready, failed forks included.
        quick_deaths: workers in a row that crashed within `QUICK` seconds of being ready.
        failed_at: when the latest of them was counted. Times are the manager's monotonic clock.
        not_before: no fork before this time.
    """

    boot_failures: int = 0
    quick_deaths: int = 0
    failed_at: float = float("-inf")
    not_before: float = float("-inf")

    @property
    def keeps_dying(self) -> bool:
        """Whether more workers in a row have crashed than are replaced at once."""
        return self.quick_deaths > FREE_QUICK_DEATHS

    def boot_failed(self, forked_at: float, now: float, chance: float) -> Backoff:
        """After a worker died before it was ready, or could not be forked.

        Args:
            forked_at: when it was forked. Workers forked together fail together: that is one
                failure, not one for each.
            now: the time.
            chance: a random number from 0 to 1.
        """
        if forked_at < self.failed_at:
            return self
        failures = self.boot_failures + 1
        until = now + _delay(failures, chance)
        return replace(self, boot_failures=failures, failed_at=now, not_before=until)

    def became_ready(self) -> Backoff:
        """After a worker said that it listens: booting works again."""
        return replace(self, boot_failures=0)

    def died_quickly(self, forked_at: float, now: float, chance: float) -> Backoff:
        """After a crash within `QUICK` seconds of being ready. Arguments as for `boot_failed`."""
        if forked_at < self.failed_at:
            return self
        deaths = self.quick_deaths + 1
        beyond = deaths - FREE_QUICK_DEATHS
        until = now + _delay(beyond, chance) if beyond > 0 else self.not_before
        return replace(self, quick_deaths=deaths, failed_at=now, not_before=until)

    def lived_well(self) -> Backoff:
        """After a worker that had lived longer than `QUICK`, or left as it should."""
        return replace(self, quick_deaths=0)


def _delay(failures: int, chance: float) -> float:
    # The exponent is bounded so that a group which fails for months does not overflow a float.
    delay = min(FIRST_DELAY * 2.0 ** min(failures - 1, 16), LONGEST_DELAY)
    return delay * (1 - JITTER + 2 * JITTER * chance)
