"""Idle: what a contender costs while nothing happens.

All contenders are idle side by side in the same minutes, each on a server of its own, so that the
window can be long: an idle RQ worker does something every 405 s (a heartbeat, a new blocking
command) and every 600 s (maintenance), and a shorter window sees none of it. The first seconds
after the workers have become ready are not in it. CPU is read from each process's own clock;
wake-ups are the context switches of all threads; commands are what the server counted; connections
those open at the end. ``manager`` is the first command of a contender that has a manager.
"""

from __future__ import annotations

import time

import trees
from figures import Measure, Numbers
from life import Life

SETTLE = 3.0
"""Seconds between ready and the begin of the window."""

MEASURES = (
    Measure("idle_manager_cpu", "idle: CPU of the manager", "s/s"),
    Measure("idle_cpu", "idle: CPU of all processes", "s/s"),
    Measure("idle_wake_ups", "idle: wake-ups, all processes", "/s"),
    Measure("idle_commands", "idle: Redis commands", "/s"),
    Measure("idle_commands_each", "idle: Redis commands per worker", "/s"),
    Measure("connections", "Redis connections per worker", ""),
)


class Vigil:
    """What one contender has used so far, to be compared at the end of the window."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._pids = life.tree.living()
        self._began = time.monotonic()
        self._before = self._look()

    def _look(self) -> tuple[float, float, int, int]:
        return (
            trees.own_cpu(self._life.manager),
            sum(map(trees.own_cpu, self._pids)),
            trees.wake_ups(self._pids),
            self._life.server.count().commands,
        )

    def end(self) -> Numbers:
        seconds = time.monotonic() - self._began
        manager, cpu, wake_ups, commands = (
            (after - before) / seconds for before, after in zip(self._before, self._look())
        )
        return {
            "idle_manager_cpu": manager if self._life.contender.replaces else None,
            "idle_cpu": cpu,
            "idle_wake_ups": wake_ups,
            "idle_commands": commands,
            "idle_commands_each": commands / self._life.workers,
            "connections": self._life.server.count().connections / self._life.workers,
        }
