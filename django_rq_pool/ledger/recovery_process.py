"""Recovery process: a short-lived process that recovers what one dead worker left.

Rule of the room: the manager forks it, because the manager must never wait for Redis. It waits for
the worker's work horse if that is still alive, and leaves when everything is settled.
"""

from __future__ import annotations

import logging

from django_rq.queues import get_queues
from setproctitle import setproctitle

from ..config.groups import QueueGroup
from ..config.redis_clients import REDIS_RETRY, UNREACHABLE, client, probe
from ..ipc.assignment import DeadWorker
from ..ipc.stop_listener import StopListener
from ..system import processes
from .failure_notice import FailureNotice
from .recovery import Recovery
from .settle import JobClasses, Settler

logger = logging.getLogger("django_rq_pool")

_HEARTBEAT = 30.0
"""Seconds between two heartbeats for a work horse that outlives its worker, as in RQ."""

_OVERDUE = 60.0
"""Seconds that a work horse may run beyond its job's time limit before it is ended, as in RQ."""


def run_recovery(dead: DeadWorker) -> int:
    """Recovers a dead worker, in the process forked for that.

    Args:
        dead: the worker, and how it ended.

    Returns:
        0 when the worker has been recovered, by this process or another; 1 when the pool stopped
        while Redis was away: the next pool of this name recovers it.
    """
    assignment = dead.assignment
    name = assignment.name
    listener = StopListener(assignment.lifeline)
    setproctitle(f"rqpool-recovery[{assignment.pool}]: recovering {name}")
    locked = False
    recovery: Recovery | None = None
    while _await_redis(assignment.group, listener):
        try:
            recovery = recovery or _recovery(dead)
            locked = locked or recovery.lock()
            if not locked:
                return 0
            recovery.unregister()
            _guard(recovery, dead.horse_pid)
            recovery.finish(dead.cause)
            return 0
        except UNREACHABLE as error:
            logger.warning("recovery of worker %s: %s", name, error)
    logger.error("worker %s is not recovered: Redis is away; the next pool does it", name)
    return 1


def _await_redis(group: QueueGroup, listener: StopListener) -> bool:
    """Waits until Redis answers; False when the process was asked to leave before."""
    redis = probe(group)
    while True:
        try:
            redis.ping()
            return True
        except UNREACHABLE:
            if listener.stopping or listener.wait(REDIS_RETRY):
                return False
        finally:
            redis.connection_pool.disconnect()


def _guard(recovery: Recovery, horse_pid: int) -> None:
    """Keeps the job of a work horse that outlived its worker from being called abandoned."""
    if not horse_pid:
        return
    began = processes.monotonic()
    recovery.keep_alive(int(_HEARTBEAT + _OVERDUE))
    while not processes.wait_for_end(horse_pid, _HEARTBEAT):
        recovery.keep_alive(int(_HEARTBEAT + _OVERDUE))
    logger.debug("horse %d ended after %.1f s", horse_pid, processes.monotonic() - began)


def _recovery(dead: DeadWorker) -> Recovery:
    group, name = dead.assignment.group, dead.assignment.name
    options = group.options
    redis = client(group)
    queues = get_queues(
        *group.queues,
        connection=redis,
        job_class=options.job_class,
        queue_class=options.queue_class,
    )
    classes = JobClasses(
        queues[0].job_class, type(queues[0]), options.serializer or queues[0].serializer
    )
    # A worker that has never been ready has had no job, and perhaps a class that cannot be built.
    notice = FailureNotice(group, name) if dead.ready else None
    settler = Settler(redis, name, options, classes, notice)
    return Recovery(settler, dead.assignment.pool, group.queues)
