"""Schedulers: what the scheduler process of a worker holds in Redis.

Rule of the room: a scheduler has the name of its worker, and its locks have that name as their
value. So whoever recovers a worker knows which locks were its scheduler's. Read against RQ 3.0.
"""

from __future__ import annotations

from collections.abc import Sequence

from redis import Redis
from rq.scheduler import SCHEDULER_KEY_TEMPLATE, RQScheduler
from rq.scripts import release_lock


def lock_keys(queues: Sequence[str]) -> list[str]:
    """The keys of RQ's scheduler locks of some queues. Each expires a minute after the last
    heartbeat of the scheduler that holds it."""
    return [RQScheduler.get_locking_key(queue) for queue in queues]


def release(redis: Redis, worker: str, queues: Sequence[str]) -> None:
    """Releases what a worker's scheduler has not released itself, for others wait for it.

    A scheduler process that is still alive may do no harm meanwhile: it enqueues a job only while
    the lock is its own.

    Args:
        redis: a client of the worker's server.
        worker: the worker's name.
        queues: the names of its queues.

    Raises:
        redis.exceptions.RedisError: the server has not done all of it.
    """
    for key in lock_keys(queues):
        release_lock(redis, key, worker)
    redis.delete(SCHEDULER_KEY_TEMPLATE % worker)
