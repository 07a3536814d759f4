"""Watch clock: a clock that stands still while nobody looks.

Rule of the room: arithmetic on a frozen record. While the manager stands still, because it or the
machine was stopped, its workers may have stood still too: that time is not held against them.
"""

from __future__ import annotations

from dataclasses import dataclass

LOOK_AGAIN = 1.0
"""Seconds until the manager looks again, while it measures with this clock."""
LONGEST_LOOK = 2.0
"""Seconds between two looks that count at most."""


@dataclass(frozen=True)
class WatchClock:
    """The clock.

    Attributes:
        seconds: what it shows.
        looked_at: when it was looked at last, in monotonic seconds.
    """

    seconds: float = 0.0
    looked_at: float = float("-inf")

    def look(self, now: float) -> WatchClock:
        """The clock after another look.

        Args:
            now: the time, in monotonic seconds.
        """
        passed = min(max(0.0, now - self.looked_at), LONGEST_LOOK)
        return WatchClock(self.seconds + passed, now)
