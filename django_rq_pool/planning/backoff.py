"""Backoff: how long a queue group waits after failures before its next fork.

Rule of the room: arithmetic on a frozen record. The time and the random number are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_DELAY = 1.0
"""Seconds to wait after the first failure. Each further failure doubles the delay."""
LONGEST_DELAY = 30.0
"""The longest delay, in seconds, without the jitter."""
JITTER = 0.2
"""A delay is up to this share shorter or longer, so that several hosts do not fork in step."""

QUICK = 1.0
"""A crash within this many seconds after a worker became ready is a quick death."""
FREE_QUICK_DEATHS = 5
"""This many quick deaths in a row cause no delay, because a single crash is no reason to wait."""


@dataclass(frozen=True)
class Backoff:
    """The recent failures of one queue group. Times are monotonic seconds.

    Attributes:
        boot_failures: how many workers in a row died before they were ready, or could not be
            forked.
        quick_deaths: how many workers in a row crashed within `QUICK` seconds of being ready.
        failed_at: when the latest failure was counted.
        not_before: the earliest time of the next fork.
    """

    boot_failures: int = 0
    quick_deaths: int = 0
    failed_at: float = float("-inf")
    not_before: float = float("-inf")

    @property
    def keeps_dying(self) -> bool:
        """Whether there were more quick deaths in a row than cause no delay."""
        return self.quick_deaths > FREE_QUICK_DEATHS

    def boot_failed(self, forked_at: float, now: float, chance: float) -> Backoff:
        """Counts a worker that died before it was ready, or could not be forked.

        Args:
            forked_at: when the worker was forked, in monotonic seconds. Workers that were forked
                before the latest failure are not counted: they failed for the same reason.
            now: the time, in monotonic seconds.
            chance: a random number from 0 to 1, for the jitter.

        Returns:
            The new backoff.
        """
        if forked_at < self.failed_at:
            return self
        failures = self.boot_failures + 1
        until = now + delay(failures, chance)
        return replace(self, boot_failures=failures, failed_at=now, not_before=until)

    def became_ready(self) -> Backoff:
        """Forgets the boot failures, because a worker became ready."""
        return replace(self, boot_failures=0)

    def died_quickly(self, forked_at: float, now: float, chance: float) -> Backoff:
        """Counts a worker that crashed within `QUICK` seconds of being ready.

        Args:
            forked_at: see `boot_failed`.
            now: see `boot_failed`.
            chance: see `boot_failed`.

        Returns:
            The new backoff.
        """
        if forked_at < self.failed_at:
            return self
        deaths = self.quick_deaths + 1
        beyond = deaths - FREE_QUICK_DEATHS
        until = now + delay(beyond, chance) if beyond > 0 else self.not_before
        return replace(self, quick_deaths=deaths, failed_at=now, not_before=until)

    def ended_well(self) -> Backoff:
        """Forgets the quick deaths, because a worker lived longer than `QUICK` or left normally."""
        return replace(self, quick_deaths=0)


def delay(
    failures: int, chance: float, *, first: float = FIRST_DELAY, growth: float = 2.0
) -> float:
    """How long to wait after some failures in a row.

    Args:
        failures: how many, at least 1.
        chance: a random number from 0 to 1, for the jitter.
        first: seconds to wait after the first one.
        growth: how many times as long each further failure makes the wait.

    Returns:
        Seconds, at most `LONGEST_DELAY` and the jitter.
    """
    # The exponent is limited, so that months of failures do not overflow a float.
    seconds = min(first * growth ** min(failures - 1, 99), LONGEST_DELAY)
    return seconds * (1 - JITTER + 2 * JITTER * chance)
