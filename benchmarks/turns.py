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

from django_rq_pool import phases, unix_signals
from django_rq_pool.assignment import Assignment, Lives
from django_rq_pool.groups import Counts, parse_counts
from django_rq_pool.herald import Herald
from django_rq_pool.launch import Launch
from django_rq_pool.manager import Manager
from django_rq_pool.notify import Notifier
from django_rq_pool.nursery import Nursery
from django_rq_pool.phases import StopRules
from django_rq_pool.plan import Habits
from django_rq_pool.reports import Event
from django_rq_pool.stepline import GivesWay

TURNS = 200


def worker(assignment: Assignment) -> int:
    unix_signals.unblock()
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
    rules = StopRules()
    inbox = unix_signals.SignalInbox(phases.OTHER_SIGNALS)
    nursery = Nursery(
        "turns",
        inbox,
        Lives(worker, accountant=nothing, surveyor=nothing),
        rules=rules,
        burst=False,
        single_process_group=False,
        learns=False,
        reopen_logs=nothing,
        let_go=nothing,
    )
    return Manager(
        "turns",
        counts,
        nursery,
        inbox,
        Herald("turns", Launch(), Notifier({}), aim=None),
        GivesWay(),
        rules=rules,
        habits=Habits(),
        watches_counts=False,
        is_daemon=False,
        succession=None,
        reopen_logs=nothing,
    )


def main() -> None:
    logging.disable()
    settings.configure()
    workers = int(sys.argv[1])
    counts = parse_counts(
        {"high": workers}, source="turns", environment=None, queues={"high": "a server"}
    )
    manager = make_manager(counts)
    roster = manager._crew.roster
    while sum(record.ready_at is not None for record in roster.workers()) < workers:
        turn(manager)
    print(json.dumps(statistics.median(turn(manager) for _ in range(TURNS))))
    manager._nursery.close()  # the workers leave


if __name__ == "__main__":
    main()
