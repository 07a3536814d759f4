"""Sweep: finds workers that are gone, of whichever pool, and what has come to them since.

Rule of the room: a registered worker is alive; one that is a member and not registered has been
lost. What appears later in a list of a worker that has left is put back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
from collections.abc import Iterator

from django.conf import settings
from redis import Redis
from redis.exceptions import RedisError
from rq.utils import as_text

from ..config.redis_clients import UNREACHABLE
from .failure_notice import FailureNotice
from .keys import BEGUN_KEY, IN_FLIGHT_KEY, LEFT_KEY, MEMBERS_KEY, SUSPECTS_KEY, SWEPT_KEY
from .members import Member, member_of
from .recovery import Recovery
from .settle import Settler

logger = logging.getLogger("django_rq_pool")

SWEEP_SECONDS = 30
"""Seconds between two looks of a pool at what lost workers have left."""

_SUSPECT_SECONDS = 60
"""Seconds until a member that is not registered counts as lost; longer than the time between two
heartbeats of a worker with a job."""

_LEFT_SECONDS = 60
"""Seconds for which a worker that has left is remembered; longer than any command that it may have
sent waits at the server."""


def sweep(redis: Redis, pool: str) -> None:
    """Recovers the workers that are gone, if the caller is the one of its pool whose turn it is.

    Args:
        redis: a client of the server.
        pool: the name of the caller's pool.
    """
    if not redis.set(SWEPT_KEY % pool, 1, nx=True, ex=SWEEP_SECONDS - 1):
        return
    for member in lost_members(redis, pool):
        with _surviving(member):
            _recover(redis, member)
    sweep_left(redis)


def _recover(redis: Redis, member: Member) -> None:
    # In another project a function of that name may be another one. One that has the same queues at
    # the same server is the same, or could run that job too.
    is_ours = set(member.group.queues) <= set(settings.RQ_QUEUES)
    notice = FailureNotice(member.group, member.name) if is_ours else None
    lost = Recovery(Settler(redis, member, notice), secrets.token_hex(8))
    if not lost.lock():
        return
    logger.warning("worker %s was lost; recovering its jobs", member.name)
    try:
        lost.unregister()
        lost.finish(f"Worker {member.name} was lost with its host.")
    except BaseException:
        with contextlib.suppress(RedisError):  # then the lock ends by itself
            lost.unlock()
        raise


def lost_members(redis: Redis, pool: str) -> list[Member]:
    """The workers that are gone and have not been recovered, of whichever pool.

    Their registration has expired: their host vanished, or the manager was killed with them. A
    worker that lives and could not reach Redis for a while looks the same until its next heartbeat.
    So a worker is suspected first, and counts as lost after `_SUSPECT_SECONDS`. One of another pool
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
    lost = [key for key in missing if now - since.get(key, now) >= _SUSPECT_SECONDS]
    return [
        member
        for member in _read(redis, lost)
        if member.pool == pool or now - since[member.key] >= 2 * _SUSPECT_SECONDS
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
            with _surviving(member):
                Settler(redis, member).settle_all(f"Worker {member.name} had left.")
        if now - since > _LEFT_SECONDS:
            redis.hdel(LEFT_KEY, key)


def _places(value: str | bytes) -> list[str]:
    """The keys at which a worker that has left may hold a job."""
    data = json.loads(json.loads(value)[1])
    name = data["name"]
    return [BEGUN_KEY % name, *(IN_FLIGHT_KEY % (name, key) for key in data["queue_keys"])]


@contextlib.contextmanager
def _surviving(member: Member) -> Iterator[None]:
    """While a worker looks after another one: what cannot be done for that one, for example because
    a class of its project raises, must not end the worker that looks, nor its running job."""
    try:
        yield
    except UNREACHABLE:
        raise
    except Exception:
        logger.exception("what worker %s has left cannot be settled now", member.name)
