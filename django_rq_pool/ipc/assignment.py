"""Assignment: all that the manager hands to a process that it forks.

Rule of the room: data, and the names of workers. It keeps the manager free of RQ, and the worker
free of the manager.
"""

from __future__ import annotations

import secrets
import socket
import string
from collections.abc import Callable
from dataclasses import dataclass

from ..config.groups import Counts, QueueGroup
from ..config.stop_policy import StopRules
from .counts_channel import CountsChannel
from .lifeline import Lifeline
from .reports import Reports
from .scoreboard import Slot


@dataclass(frozen=True)
class Assignment:
    """One worker's part in the pool.

    Attributes:
        pool: the name of the pool.
        group: the queue group to serve.
        number: its place in the group, from 1.
        name: its name in Redis.
        burst: leave when the queues are empty.
        paused: take no job until CONT.
        stop_rules: what signals mean to it.
        slot: where it shows what it is doing.
        reports: where it tells the manager what happens to it.
        lifeline: ends when the manager does.
        reopen_logs: reopens the log files of the process it is called in.
        tracks_imports: report to the manager what jobs import.
    """

    pool: str
    group: QueueGroup
    number: int
    name: str
    burst: bool
    paused: bool
    stop_rules: StopRules
    slot: Slot
    reports: Reports
    lifeline: Lifeline
    reopen_logs: Callable[[], object]
    tracks_imports: bool


@dataclass(frozen=True)
class DeadWorker:
    """A worker that died, and may have left jobs that are not settled.

    Attributes:
        assignment: what the manager had handed to it.
        horse_pid: its work horse if that is still alive, or 0.
        cause: how the worker ended, as a sentence for the records of its jobs.
        ready: whether it had been ready. One that had not has no job, and perhaps a class that
            cannot be built.
        token: with it, each recovery process of the worker holds the same lock.
        failures: how many recovery processes of the worker have failed.
    """

    assignment: Assignment
    horse_pid: int
    cause: str
    ready: bool
    token: str
    failures: int = 0


RECOVERED = 83
"""Exit status of a recovery process that has finished. It is not 0, because a callback of the
project that runs in the process may end it with that."""

HOOK_FINISHED = 84
"""Exit status of a process whose ``before_start`` hook has returned. It is not 0, because a hook
may end the process with that."""

RunWorker = Callable[[Assignment], int]
"""Runs a worker in the process that was forked for it, and returns the exit code. Signals are
blocked when it is called."""

RunRecovery = Callable[[DeadWorker], int]
"""Recovers a dead worker's jobs, in the same way, and returns `RECOVERED` when it has."""

RunAutoscaling = Callable[[CountsChannel, Lifeline, Counts, bool], int]
"""Loads the counts and measures, in the same way. Arguments: the channel to the manager, the
lifeline, the counts that hold now, and whether to load the counts at once."""


RunStartHook = Callable[[str, int, Lifeline, Reports], int]
"""Runs a ``before_start`` hook, in the same way, and returns `HOOK_FINISHED` after it has returned.
Arguments: the name of the pool, the number of the hook from 0, the lifeline, and where to report a
failure."""


@dataclass(frozen=True)
class EntryPoints:
    """What the forked processes of a pool do."""

    worker: RunWorker
    recovery: RunRecovery
    autoscaling: RunAutoscaling
    start_hook: RunStartHook


_NAME_CHARACTERS = string.ascii_letters + string.digits + "_-,.:@+*"


def worker_name(pool: str, group: str, number: int) -> str:
    """A readable name that no other worker has, on any host, at any time.

    Redis refuses white space and control characters in the name of a client, and the URLs of a
    dashboard refuse a slash. So each character of that kind becomes an underscore.

    Args:
        pool: the name of the pool.
        group: the name of the queue group.
        number: the worker's place in the group, from 1.
    """
    readable = f"{pool}.{socket.gethostname()}.{group}.{number}-{secrets.token_hex(4)}"
    return "".join(char if char in _NAME_CHARACTERS else "_" for char in readable)
