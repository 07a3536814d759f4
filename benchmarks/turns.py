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

from django_rq_pool import unix_signals
from django_rq_pool.assignment import Assignment
from django_rq_pool.groups import parse_counts
from django_rq_pool.manager import Manager
from django_rq_pool.phases import StopRules
from django_rq_pool.reports import Event

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


def main() -> None:
    logging.disable()
    workers = int(sys.argv[1])
    groups = parse_counts(
        {"high": workers}, source="turns", environment=None, queues={"high": "a server"}
    ).groups
    manager = Manager("turns", groups, worker, lambda casualty: 0, rules=StopRules())
    while sum(record.ready_at is not None for record in manager.roster.workers()) < workers:
        turn(manager)
    print(json.dumps(statistics.median(turn(manager) for _ in range(TURNS))))
    manager._nursery.close()  # the workers leave


if __name__ == "__main__":
    main()
