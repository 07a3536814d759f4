"""Hot swap: once this pool is ready, the older pools of its name leave gracefully.

Rule of the room: an older pool is told to leave only when this one can do its work, and is watched
until it has gone; nothing of it is ever killed.
"""

from __future__ import annotations

import logging
import signal

from . import others, processes

logger = logging.getLogger("django_rq_pool")

LOOK_AGAIN = 1.0
"""Seconds between two looks at an older pool where the system does not tell of a process's end."""


class Succession:
    """This pool in the place of older ones.

    Args:
        name: the name of the pool.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._leaving: list[others.Other] = []
        self.due: float | None = None
        """When to look again, though nothing happened."""

    def begin(self) -> None:
        """Asks every older pool to leave when its workers have finished their jobs."""
        for other in others.find_older(self._name):
            if other.send(signal.SIGQUIT):
                logger.info("pool %s of manager %d is asked to leave", self._name, other.pid)
                self._leaving.append(other)
            else:
                other.close()
        self.look()

    def filenos(self) -> list[int]:
        """What the manager waits on: descriptors that are readable when an older pool has gone."""
        return [fd for other in self._leaving if (fd := other.fileno()) is not None]

    def look(self) -> None:
        """Looks who has gone."""
        for other in [other for other in self._leaving if other.is_gone()]:
            logger.info("pool %s of manager %d has gone", self._name, other.pid)
            self._leaving.remove(other)
            other.close()
        blind = len(self._leaving) > len(self.filenos())
        self.due = processes.monotonic() + LOOK_AGAIN if blind else None

    def close(self) -> None:
        """Lets go of those that are still leaving; they finish on their own."""
        for other in self._leaving:
            other.close()
        self._leaving.clear()
