"""Recovery: finds workers that are gone, and takes over what they left in Redis.

Rule of the room: whoever holds a worker's lock recovers it, and nobody else. A registered worker is
alive; one that is a member of its pool and not registered has been lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from rq.defaults import RQ_KEY_PREFIX
from rq.exceptions import NoSuchJobError
from rq.utils import as_text
from rq.utils import now as utc_now
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from .keys import MEMBERS_KEY, RECOVERY_LOCK_KEY, SUSPECTS_KEY
from .settle import Settler

LOCK_SECONDS = 300
"""Seconds for which a lock holds without a sign of life of its holder."""

SUSPECT_SECONDS = 60
"""Seconds until a member that is not registered counts as lost; longer than the time between two
heartbeats of a worker with a job."""

_WORKER_KEY = RQ_KEY_PREFIX + ":worker:%s"


def join(redis: Redis, pool: str, worker: str, group: str) -> None:
    """Makes a worker a member of its pool, so that another host knows whom to recover."""
    redis.hset(MEMBERS_KEY % pool, worker, group)


def leave(redis: Redis, pool: str, worker: str) -> None:
    """Takes a worker that leaves nothing behind off the members of its pool."""
    redis.hdel(MEMBERS_KEY % pool, worker)


def unregister(redis: Redis, worker: str, queues: Sequence[str], pipeline: Any = None) -> None:
    """Removes a worker's registration with RQ, and keeps what is known of its jobs.

    Args:
        redis: a client of the worker's server.
        worker: its name.
        queues: the names of its queues.
        pipeline: where the commands go; None has them carried out at once.
    """
    key = _WORKER_KEY % worker
    commands = redis.pipeline() if pipeline is None else pipeline
    commands.srem(REDIS_WORKER_KEYS, key)
    for queue in queues:
        commands.srem(WORKERS_BY_QUEUE_KEY % queue, key)
    commands.delete(key)
    if pipeline is None:
        commands.execute()


def lost_members(redis: Redis, pool: str) -> tuple[list[str], bool]:
    """The workers of a pool that are gone and have not been recovered.

    Their registration has expired: their host vanished, or the manager was killed with them. A
    worker that lives and could not reach Redis for a while looks the same until its next heartbeat.
    So a worker is suspected first, and counts as lost after `SUSPECT_SECONDS`.

    Args:
        redis: a client of the pool's server.
        pool: its name.

    Returns:
        The names of the lost workers, and whether others are suspected.
    """
    names = [as_text(name) for name in redis.hkeys(MEMBERS_KEY % pool)]
    suspects_key = SUSPECTS_KEY % pool
    keys = [_WORKER_KEY % name for name in names]
    # One question for all of them, which is all that it takes while nobody is missing.
    if not names or (redis.exists(*keys) == len(keys) and not redis.exists(suspects_key)):
        return [], False
    with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.exists(key)
        pipeline.hgetall(suspects_key)
        pipeline.time()
        *registered, suspected, (now, _) = pipeline.execute()
    since = {as_text(name): int(seen) for name, seen in suspected.items()}
    missing = [name for name, there in zip(names, registered) if not there]
    lost = [name for name in missing if now - since.get(name, now) >= SUSPECT_SECONDS]
    with redis.pipeline(transaction=False) as pipeline:
        for name in missing:
            pipeline.hsetnx(suspects_key, name, now)
        for name in since.keys() - set(missing):
            pipeline.hdel(suspects_key, name)
        pipeline.execute()
    return lost, len(missing) > len(lost)


class Recovery:
    """The recovery of one worker that is gone.

    Args:
        settler: settles that worker's jobs.
        pool: the name of its pool.
        queues: the names of its queues.
    """

    def __init__(self, settler: Settler, pool: str, queues: Sequence[str]) -> None:
        self._settler = settler
        self._redis = settler.redis
        self._worker = settler.worker
        self._pool = pool
        self._queues = queues

    def lock(self) -> bool:
        """Makes this process the one that recovers the worker; False when another is."""
        key = RECOVERY_LOCK_KEY % self._worker
        return bool(self._redis.set(key, 1, nx=True, ex=LOCK_SECONDS))

    def unregister(self) -> None:
        """Removes the worker's registration. The lock must be held."""
        unregister(self._redis, self._worker, self._queues)

    def keep_alive(self, seconds: int) -> None:
        """Sends the heartbeats of the jobs that a dead worker's work horse still runs, so that no
        clean-up calls them abandoned. To be repeated within so many seconds."""
        held = self._settler.held
        for execution in held.executions():
            try:
                job = self._settler.job_of(execution)
            except NoSuchJobError:
                continue
            with self._redis.pipeline() as pipeline:
                execution.heartbeat(job.started_job_registry, seconds, pipeline)
                job.heartbeat(utc_now(), seconds, pipeline=pipeline, xx=True)
                pipeline.expire(held.executions_key, seconds)
                pipeline.expire(RECOVERY_LOCK_KEY % self._worker, LOCK_SECONDS)
                pipeline.execute()

    def finish(self, cause: str) -> None:
        """Settles all that the worker left, and forgets it. The lock must be held, and none of its
        work horses may be alive.

        Args:
            cause: how the worker ended, as a sentence for the records of its jobs.
        """
        self._settler.settle_all(cause)
        with self._redis.pipeline() as pipeline:
            # Its work horse may have written to the worker's hash again.
            unregister(self._redis, self._worker, self._queues, pipeline)
            pipeline.delete(self._settler.held.executions_key)
            pipeline.hdel(MEMBERS_KEY % self._pool, self._worker)
            pipeline.hdel(SUSPECTS_KEY % self._pool, self._worker)
            pipeline.delete(RECOVERY_LOCK_KEY % self._worker)
            pipeline.execute()
