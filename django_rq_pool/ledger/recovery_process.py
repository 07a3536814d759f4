"""Recovery process: a short-lived process that recovers what one dead worker left.

Rule of the room: the manager forks it, because the manager must never wait for Redis. It waits for
the worker's work horse if that is still alive, and leaves when everything is settled.
"""

from __future__ import annotations

import logging

from redis.exceptions import ResponseError
from setproctitle import setproctitle

from ..config.redis_clients import REDIS_RETRY, UNREACHABLE, Probe, client, probe
from ..config.stop_aware import StopAware
from ..ipc.assignment import RECOVERED, DeadWorker
from ..ipc.stop_listener import StopListener
from ..system import processes
from .failure_notice import FailureNotice
from .members import member_of_group
from .recovery import Recovery
from .settle import Settler

logger = logging.getLogger("django_rq_pool")

_HEARTBEAT = 30.0
"""Seconds between two heartbeats for a work horse that outlives its worker, as in RQ."""

_OVERDUE = 60.0
"""Seconds that a work horse may run beyond its job's time limit before it is ended, as in RQ."""


def run_recovery(dead: DeadWorker) -> int:
    """Recovers a dead worker, in the process forked for that.

    It waits for Redis where that is away, and for another process that recovers the worker. If
    anything else fails, the manager forks another one.

    Args:
        dead: the worker, and how it ended.

    Returns:
        `RECOVERED` when the worker has been recovered, by this process or another; 1 when that has
        failed, or the process was asked to leave before. The log says why.
    """
    name = dead.assignment.name
    listener = StopListener(dead.assignment.lifeline)
    setproctitle(f"rqpool-recovery[{dead.assignment.pool}]: recovering {name}")
    try:
        return _run(dead, listener)
    except ResponseError as error:
        logger.error("recovery of worker %s: Redis refuses it: %s", name, error)
    except BaseException as error:  # a project's class may raise anything, SystemExit included
        # The manager tries again and again, and an operator reads the whole only once.
        logger.error("recovery of worker %s: %r", name, error, exc_info=not dead.failures)
    return 1


def _run(dead: DeadWorker, listener: StopListener) -> int:
    name = dead.assignment.name
    recovery: Recovery | None = None
    taken, told = False, ""
    stop_aware = StopAware(listener.wait_for, listener.is_stopping, listener.interruptible)
    server = probe(dead.assignment.group, stop_aware)
    while _await_redis(name, server, listener):
        try:
            recovery = recovery or _recovery(dead, stop_aware)
            taken = not recovery.lock()
            if not taken:
                recovery.unregister()
                _guard(recovery, dead.horse_pid)
                recovery.finish(dead.cause)
                return RECOVERED
        except UNREACHABLE as error:
            if str(error) != told:
                told = str(error)
                logger.warning("recovery of worker %s: %s; trying until Redis is back", name, error)
        # Whoever has taken the lock may die: then it ends by itself, and there is more to do.
        if listener.stopping or listener.wait(REDIS_RETRY):
            break
    if taken:
        return RECOVERED
    logger.warning("recovery of worker %s: Redis is away, and the pool leaves", name)
    return 1


def _await_redis(name: str, server: Probe, listener: StopListener) -> bool:
    """Waits until Redis accepts writes; False when the process was asked to leave before."""
    told = False
    while True:
        try:
            server.check()
            return True
        except UNREACHABLE as error:
            if not told:
                told = True
                logger.warning("recovery of worker %s waits for Redis: %s", name, error)
            if listener.stopping or listener.wait(REDIS_RETRY):
                return False


def _guard(recovery: Recovery, horse_pid: int) -> None:
    """Keeps the job of a work horse that outlived its worker from being called abandoned."""
    if not horse_pid:
        return
    began = processes.monotonic()
    recovery.keep_alive(int(_HEARTBEAT + _OVERDUE))
    while not processes.wait_for_end(horse_pid, _HEARTBEAT):
        recovery.keep_alive(int(_HEARTBEAT + _OVERDUE))
    logger.debug("horse %d ended after %.1f s", horse_pid, processes.monotonic() - began)


def _recovery(dead: DeadWorker, stop_aware: StopAware) -> Recovery:
    group, name = dead.assignment.group, dead.assignment.name
    redis = client(group, stop_aware)
    member = member_of_group(name, dead.assignment.pool, group, redis)
    # A worker that has never been ready has had no job, and perhaps a class that cannot be built.
    notice = FailureNotice(group, name) if dead.ready else None
    return Recovery(Settler(redis, member, notice), dead.token)
