"""Recovery: finds workers that are gone, and takes over what they left in Redis.

Rule of the room: whoever holds a worker's lock recovers it, and nobody else. A registered worker is
alive; one that is a member and not registered has been lost. What appears later in a list of a
worker that has left is put back.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError
from rq.exceptions import NoSuchJobError
from rq.utils import as_text
from rq.utils import now as utc_now

from ..config.redis_clients import UNREACHABLE
from . import schedulers
from .keys import (
    BEGUN_KEY,
    IN_FLIGHT_KEY,
    LEFT_KEY,
    MEMBERS_KEY,
    RECOVERY_LOCK_KEY,
    SUSPECTS_KEY,
    SWEPT_KEY,
)
from .members import Member, leave, member_of, unregister
from .scripts import FREE_LOCK, TAKE_LOCK
from .settle import Settler

logger = logging.getLogger("django_rq_pool")

LOCK_SECONDS = 300
"""Seconds for which a lock holds without a sign of life of its holder."""

SWEEP_SECONDS = 30
"""Seconds between two looks of a pool at what lost workers have left."""

SUSPECT_SECONDS = 60
"""Seconds until a member that is not registered counts as lost; longer than the time between two
heartbeats of a worker with a job."""

_LEFT_SECONDS = 60
"""Seconds for which a worker that has left is remembered; longer than any command that it may have
sent waits at the server."""


def takes_turn(redis: Redis, pool: str) -> bool:
    """Whether the caller is the one of its pool that has to look for lost workers now.

    Args:
        redis: a client of the pool's server.
        pool: its name.
    """
    return bool(redis.set(SWEPT_KEY % pool, 1, nx=True, ex=SWEEP_SECONDS - 1))


def lost_members(redis: Redis, pool: str) -> list[Member]:
    """The workers that are gone and have not been recovered, of whichever pool.

    Their registration has expired: their host vanished, or the manager was killed with them. A
    worker that lives and could not reach Redis for a while looks the same until its next heartbeat.
    So a worker is suspected first, and counts as lost after `SUSPECT_SECONDS`. One of another pool
    counts as lost after twice that time: its own pool knows better how to tell its project.

    Args:
        redis: a client of their server.
        pool: the name of the caller's pool.
    """
    keys = [as_text(key) for key in redis.hkeys(MEMBERS_KEY)]
    # One question for all of them, which is all that it takes while nobody is missing.
    if not keys or (redis.exists(*keys) == len(keys) and not redis.exists(SUSPECTS_KEY)):
        return []
    with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.exists(key)
        pipeline.hgetall(SUSPECTS_KEY)
        pipeline.time()
        *registered, suspected, (now, _) = pipeline.execute()
    since = {as_text(key): int(seen) for key, seen in suspected.items()}
    missing = [key for key, there in zip(keys, registered) if not there]
    with redis.pipeline(transaction=False) as pipeline:
        for key in missing:
            pipeline.hsetnx(SUSPECTS_KEY, key, now)
        for key in since.keys() - set(missing):
            pipeline.hdel(SUSPECTS_KEY, key)
        pipeline.execute()
    lost = [key for key in missing if now - since.get(key, now) >= SUSPECT_SECONDS]
    return [
        member
        for member in _read(redis, lost)
        if member.pool == pool or now - since[member.key] >= 2 * SUSPECT_SECONDS
    ]


def _read(redis: Redis, keys: list[str]) -> Iterator[Member]:
    for key in keys:
        record = redis.hget(MEMBERS_KEY, key)
        if record is None:
            continue  # somebody has just recovered it
        try:
            yield member_of(key, record)
        except (ValueError, KeyError, TypeError):
            logger.exception("the record of the lost worker %s cannot be read", key)
            redis.hdel(MEMBERS_KEY, key)


def sweep_left(redis: Redis) -> None:
    """Puts back, or settles, what has come into the lists of workers after they left.

    Args:
        redis: a client of their server.
    """
    left = redis.hgetall(LEFT_KEY)
    if not left:
        return
    now, _ = redis.time()
    with redis.pipeline(transaction=False) as pipeline:
        for key, value in left.items():
            pipeline.exists(*_places(value))
            pipeline.hexists(MEMBERS_KEY, key)
        answers = pipeline.execute()
    for (key, value), (found, is_back) in zip(left.items(), zip(answers[::2], answers[1::2])):
        if is_back:
            continue
        since, record = json.loads(value)
        if found:
            member = member_of(as_text(key), record)
            with surviving(member):
                Settler(redis, member).settle_all(f"Worker {member.name} had left.")
        if now - since > _LEFT_SECONDS:
            redis.hdel(LEFT_KEY, key)


def _places(value: str | bytes) -> list[str]:
    """The keys at which a worker that has left may hold a job."""
    data = json.loads(json.loads(value)[1])
    name = data["name"]
    return [BEGUN_KEY % name, *(IN_FLIGHT_KEY % (name, key) for key in data["queue_keys"])]


@contextlib.contextmanager
def surviving(member: Member) -> Iterator[None]:
    """While a worker looks after another one: what cannot be done for that one, for example because
    a class of its project raises, must not end the worker that looks, nor its running job."""
    try:
        yield
    except UNREACHABLE:
        raise
    except Exception:
        logger.exception("what worker %s has left cannot be settled now", member.name)


class Recovery:
    """The recovery of one worker that is gone.

    Args:
        settler: settles that worker's jobs.
        token: proves that the lock is this recovery's. One that was cut off and is done again, by
            another process, has the same.
    """

    def __init__(self, settler: Settler, token: str) -> None:
        self._settler = settler
        self._redis = settler.redis
        self._member = settler.member
        self._token = token
        self._lock_key = RECOVERY_LOCK_KEY % settler.member.name

    def lock(self) -> bool:
        """Makes this process the one that recovers the worker; False when another is. To be
        repeated within `LOCK_SECONDS`."""
        take = self._redis.register_script(TAKE_LOCK)
        return bool(take(keys=[self._lock_key], args=[self._token, LOCK_SECONDS]))

    def unregister(self) -> None:
        """Removes the worker's registration, and ends what it may still have under way. The lock
        must be held."""
        unregister(self._redis, self._member)
        # Others can schedule at once.
        schedulers.release(self._redis, self._member.name, self._member.group.queues)
        self._end_connections()

    def _end_connections(self) -> None:
        """Ends the worker's connections at the server. One behind a network that has fallen silent
        goes on there: it would move the next job to the list of a worker that is gone."""
        try:
            for client in self._redis.client_list():
                if client.get("name") == self._member.name:
                    self._redis.client_kill_filter(_id=client["id"])
        except ResponseError as error:
            # Whatever it moves is found by `sweep_left`.
            logger.debug("the connections of worker %s: %s", self._member.name, error)

    def keep_alive(self, seconds: int) -> None:
        """Sends the heartbeats of the jobs that a dead worker's work horse still runs, so that no
        clean-up calls them abandoned. To be repeated within so many seconds."""
        self.lock()
        held = self._settler.held
        for begun in held.begun():
            execution = begun.execution
            try:
                job = self._settler.job_of(execution)
            except NoSuchJobError:
                continue
            with self._redis.pipeline() as pipeline:
                execution.heartbeat(job.started_job_registry, seconds, pipeline)
                job.heartbeat(utc_now(), seconds, pipeline=pipeline, xx=True)
                pipeline.expire(held.executions_key, seconds)
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
            unregister(self._redis, self._member, pipeline)
            pipeline.delete(self._settler.held.executions_key)
            leave(self._redis, self._member, pipeline)
            self.unlock(pipeline)
            pipeline.execute()

    def unlock(self, pipeline: Any = None) -> None:
        """Lets another process recover the worker.

        Args:
            pipeline: where the command goes; None has it carried out at once.
        """
        free = self._redis.register_script(FREE_LOCK)
        free(keys=[self._lock_key], args=[self._token], client=pipeline)
