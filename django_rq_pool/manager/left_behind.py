"""Left behind: finds and kills what jobs have left running, at the end of an immediate stop.

Rule of the room: whoever was there before the pool, or has begun a session of its own, is spared.
"""

from __future__ import annotations

import logging
import os

from ..planning.left_behind import LeftBehind
from ..system import families, processes

logger = logging.getLogger("django_rq_pool")


class LeftBehindKiller:
    """Made before the first fork, in the process that has the pool."""

    def __init__(self) -> None:
        self._spared = families.descendants(os.getpid())

    def kill(self, before: LeftBehind | None) -> LeftBehind:
        """Kills what there is, all workers being gone.

        Args:
            before: what was found at the look before, if there was one.

        Returns:
            What was found now.
        """
        spared = {*self._spared}
        for each in self._spared:
            spared.update(families.descendants(each.pid))
        found = [each for each in families.descendants(os.getpid()) if each not in spared]
        alive = [each for each in found if families.is_alive(each)]
        families.kill(alive)
        pids = tuple(each.pid for each in alive)
        now = processes.monotonic()
        if before is None:
            if pids:
                logger.info("killing what jobs have left running: %s", ", ".join(map(str, pids)))
            return LeftBehind(pids, now, now)
        return LeftBehind(pids, before.since, now)
