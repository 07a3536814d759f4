"""Farewell: what a manager that leaves says of those who stay behind.

Rule of the room: words only. What is left is left on purpose, or cannot be helped by this manager.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ..ipc.assignment import Assignment
from ..planning.roster import Roster
from ..text import listed

logger = logging.getLogger("django_rq_pool")


def log_left(roster: Roster, assignments: Mapping[int, Assignment]) -> None:
    """Logs which workers still run a job, which nobody has recovered, and which processes of jobs
    could not be killed.

    Args:
        roster: the processes that the pool has.
        assignments: what each live worker was handed, by its pid.
    """
    busy = [
        f"{pid} (job {assignment.slot.job_id})"
        for pid, assignment in assignments.items()
        if assignment.slot.busy
    ]
    if busy:
        names = listed(busy, quoted=False)
        logger.info("workers that finish their job and then leave: %s", names)
    for name in roster.unrecovered:
        log_unrecovered(name)
    left = roster.left_behind
    if left is not None and left.pids:
        pids = ", ".join(map(str, left.pids))
        logger.warning("processes of jobs could not be killed: %s", pids)


def log_unrecovered(name: str) -> None:
    """Logs that a dead worker is left to another pool.

    Args:
        name: its name in Redis.
    """
    logger.warning("worker %s is not recovered; the next pool does it", name)
