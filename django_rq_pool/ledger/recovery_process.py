"""The recovery process: a short-lived process that accounts for one dead worker.

Rule of the room: it is forked by the manager, which must never wait for Redis; it knows the dead
worker's assignment, waits for its horse if that lives on, and leaves when all is settled.
"""

from __future__ import annotations

import logging

from rq import Worker
from setproctitle import setproctitle

from ..config.redis_clients import UNREACHABLE
from ..ipc.assignment import DeadWorker
from ..system import processes
from ..worker.main import build_worker
from ..worker.manager_link import ManagerLink
from ..worker.pooled_worker import PooledWorker
from . import settle

logger = logging.getLogger("django_rq_pool")

_HEARTBEAT = 30.0
"""Seconds between two heartbeats for a horse that outlives its worker, as in RQ."""

_OVERDUE = 60.0
"""Seconds that a horse may run beyond its job's time limit before it is ended, as in RQ."""


def run_recovery(dead_worker: DeadWorker) -> int:
    """Lives a recovery process's life, in the process forked for it.

    Returns:
        0 when the worker has been accounted for, by this process or another; 1 when the pool
        stopped while Redis was away: the next pool of this name will do it.
    """
    link = ManagerLink(dead_worker.assignment)
    name = dead_worker.assignment.name
    setproctitle(f"rqpool-recovery[{dead_worker.assignment.pool}]: recovering {name}")
    locked = False
    while link.await_redis():
        try:
            worker = build_worker(
                dead_worker.assignment.group,
                name,
                alive=False,
                worker_class=None if dead_worker.ready else Worker,
            )
            worker.attach(link)
            locked = locked or settle.lock(worker.connection, name)
            if not locked:
                return 0
            settle.unregister(worker)
            _guard(worker, dead_worker.horse_pid)
            settle.account_for(worker, dead_worker.assignment.pool, dead_worker.cause)
            return 0
        except UNREACHABLE as error:
            logger.warning("accounting for worker %s: %s", name, error)
    logger.error("worker %s is not accounted for: Redis is away; the next pool will do it", name)
    return 1


def _guard(worker: PooledWorker, horse_pid: int) -> None:
    """Keeps the job of a horse that outlived its worker from being called abandoned."""
    if not horse_pid:
        return
    began = processes.monotonic()
    settle.keep_alive(worker, int(_HEARTBEAT + _OVERDUE))
    while not processes.wait_for_end(horse_pid, _HEARTBEAT):
        settle.keep_alive(worker, int(_HEARTBEAT + _OVERDUE))
    logger.debug("horse %d ended after %.1f s", horse_pid, processes.monotonic() - began)
