"""Actions: what a plan may have the manager do.

Rule of the room: data only. `plan` makes them, and the manager's `children` carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass

from .boots import EndBoot
from .left_behind import KillLeftBehind
from .roster import Stop


@dataclass(frozen=True)
class Fork:
    """Fork a worker.

    Attributes:
        group: the name of its queue group.
        number: its number in the group, from 1.
    """

    group: str
    number: int


@dataclass(frozen=True)
class StopWorker:
    """Ask a worker to stop, or kill it.

    Attributes:
        pid: the worker.
        stop: how.
    """

    pid: int
    stop: Stop


@dataclass(frozen=True)
class KillHorse:
    """Kill a work horse whose worker is dead.

    Attributes:
        pid: the work horse.
    """

    pid: int


@dataclass(frozen=True)
class Recover:
    """Fork a recovery process for a dead worker.

    Attributes:
        name: the worker's name in Redis.
    """

    name: str


@dataclass(frozen=True)
class StopRecovery:
    """Ask a recovery process to give up if Redis cannot be reached, or kill it.

    Attributes:
        pid: the recovery process.
        stop: ``GRACEFUL`` asks, ``KILL`` kills.
    """

    pid: int
    stop: Stop


Action = Fork | StopWorker | EndBoot | KillHorse | Recover | StopRecovery | KillLeftBehind
"""Whatever the manager can be told to do."""
