"""The assignment: all that the manager hands to a process that it forks.

Rule of the room: data, and the names of workers. It is what keeps the manager free of RQ and the
worker free of the manager.
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
        learns: tell the manager what jobs import.
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
    """A worker that died with something unsettled, perhaps.

    Attributes:
        assignment: what it had been handed.
        horse_pid: its horse if that lives on, or 0.
        cause: how it ended, for the record of its jobs.
        ready: whether it had been ready; one that had not has no job, and a class that cannot be
            built perhaps.
    """

    assignment: Assignment
    horse_pid: int
    cause: str
    ready: bool


RunWorker = Callable[[Assignment], int]
"""Lives a worker's life in its own process and returns its exit code. Signals are blocked when it
is called."""

RunRecovery = Callable[[DeadWorker], int]
"""Accounts for a dead worker, likewise."""

RunAutoscaling = Callable[[CountsChannel, Lifeline, Counts, bool], int]
"""Loads the counts and measures, likewise. The counts are those that hold when it is called; last
comes whether it loads them anew at once."""


@dataclass(frozen=True)
class EntryPoints:
    """What the processes do that a manager forks."""

    worker: RunWorker
    recovery: RunRecovery
    autoscaling: RunAutoscaling


_NAME_CHARACTERS = string.ascii_letters + string.digits + "_-,.:@+*"


def worker_name(pool: str, group: str, number: int) -> str:
    """A name that people can read and no other worker has, on any host, before or after.

    Redis refuses white space and control characters in the name of a client, and a dashboard's
    addresses a slash, so whatever else a queue is called by becomes an underscore.
    """
    readable = f"{pool}.{socket.gethostname()}.{group}.{number}-{secrets.token_hex(4)}"
    return "".join(char if char in _NAME_CHARACTERS else "_" for char in readable)
