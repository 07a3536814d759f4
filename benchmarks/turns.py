"""Turns: prints the seconds that a turn of the manager's loop takes with so many workers.

    python benchmarks/turns.py WORKERS

Its workers do nothing but wait for their manager's end, so that what is measured is the manager
alone.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import statistics
import sys
import time

from django.conf import settings

from django_rq_pool.config.groups import Counts, parse_counts
from django_rq_pool.config.identity import Identity
from django_rq_pool.ipc.assignment import Assignment, EntryPoints
from django_rq_pool.ipc.identity_record import IdentityRecord
from django_rq_pool.ipc.reports import Event
from django_rq_pool.manager.loop import Manager
from django_rq_pool.manager.parts import ManagerOptions, Parts
from django_rq_pool.manager.spawner import Spawner, SpawnOptions
from django_rq_pool.manager.status_notifier import StatusNotifier
from django_rq_pool.planning import phases
from django_rq_pool.swap.release import OutgoingPool
from django_rq_pool.swap.takeover import NoTakeover
from django_rq_pool.system import signals
from django_rq_pool.system.launch import Launch
from django_rq_pool.system.sd_notify import Notifier

TURNS = 200


def worker(assignment: Assignment) -> int:
    signals.unblock()
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    assignment.reports.send(Event.READY)
    os.read(assignment.lifeline.fileno(), 1)
    return 0


def turn(manager: Manager) -> float:
    """Has the manager turn once; SIGCHLD wakes it, and it finds nothing to do."""
    os.kill(os.getpid(), signal.SIGCHLD)
    began = time.perf_counter()
    manager._turn()
    return time.perf_counter() - began


def nothing(*arguments: object) -> int:
    return 0


def make_manager(counts: Counts) -> Manager:
    inbox = signals.SignalInbox(phases.OTHER_SIGNALS)
    spawner = Spawner(
        SpawnOptions("turns"),
        EntryPoints(worker, recovery=nothing, autoscaling=nothing, start_hook=nothing),
        reopen_logs=nothing,
        release_inherited=nothing,
    )
    status = StatusNotifier("turns", Launch(), Notifier({}))
    record = IdentityRecord(Identity("turns", None, "turns", {}), ())
    parts = Parts(inbox, spawner, status, OutgoingPool(record), NoTakeover())
    return Manager(ManagerOptions("turns"), counts, parts)


def main() -> None:
    logging.disable()
    settings.configure()
    workers = int(sys.argv[1])
    counts = parse_counts(
        {"high": workers}, source="turns", environment=None, queues={"high": "a server"}
    )
    manager = make_manager(counts)
    roster = manager._children.roster
    while sum(record.ready_at is not None for record in roster.workers()) < workers:
        turn(manager)
    print(json.dumps(statistics.median(turn(manager) for _ in range(TURNS))))
    manager._spawner.close()  # the workers leave


if __name__ == "__main__":
    main()
