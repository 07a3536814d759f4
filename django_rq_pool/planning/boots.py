"""Boots: which workers hang in their boot and are ended.

Rule of the room: the time of a boot is what the manager has watched of it, without what the worker
has waited for a processor: where hundreds start at once, each is slow and none hangs. A worker that
waits for Redis is alive, and has all the time that it needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .roster import Roster, WorkerRecord
from .watch_clock import LOOK_AGAIN

SHOW_TIME = 1.0
"""Seconds that a worker has to show where it hangs, before it is killed. It takes milliseconds."""

_SHORTEST_WAIT = 0.001
"""Seconds that are too few to wait for."""


@dataclass(frozen=True)
class EndBoot:
    """End a worker that was not ready in time.

    Attributes:
        pid: the worker.
        kill: False: it shall show where it hangs. True: it is killed.
    """

    pid: int
    kill: bool


def end_boots(records: Iterable[WorkerRecord], roster: Roster) -> tuple[list[EndBoot], float]:
    """Decides which workers have had their time.

    Args:
        records: the workers that shall stay.
        roster: the processes that the pool has, and the clock of their boots.

    Returns:
        What to do, and after how many seconds to look again; infinite: no need.
    """
    actions, look_again = [], float("inf")
    for record in records:
        if record.ready_at is not None or record.awaits_redis or record.killed:
            continue
        left = record.boot_timeout + record.cpu_wait
        left -= roster.clock.seconds - record.boot_began
        if record.overdue:
            left += SHOW_TIME
        if left < _SHORTEST_WAIT:
            actions.append(EndBoot(record.pid, kill=record.overdue))
            left = SHOW_TIME
        look_again = min(look_again, left, LOOK_AGAIN)
    return actions, look_again
