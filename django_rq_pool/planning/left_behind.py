"""Left behind: what the jobs of a pool have left running when an immediate stop has ended the pool.

Rule of the room: the manager looks, kills and looks again; here is when, and for how long.
"""

from __future__ import annotations

from dataclasses import dataclass

_LOOK = 0.05
"""Seconds between two looks."""


@dataclass(frozen=True)
class LeftBehind:
    """What was found. Times are monotonic seconds.

    Attributes:
        pids: the processes that were alive at the latest look, and have been killed.
        since: when it was first looked for them.
        looked_at: when it was last looked for them.
    """

    pids: tuple[int, ...]
    since: float
    looked_at: float

    def due(self, grace: float) -> float | None:
        """When to look again; None when nothing is left, or what is left cannot be killed.

        Args:
            grace: seconds that killed processes have to end.
        """
        if not self.pids or self.looked_at >= self.since + grace:
            return None
        return self.looked_at + _LOOK


@dataclass(frozen=True)
class KillLeftBehind:
    """An action of the plan: kill what there is, and note it."""
