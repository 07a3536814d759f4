"""Abandoned: which started jobs RQ's clean-up must not call abandoned.

Rule of the room: a job that a member has begun is settled by that worker, or by whoever recovers
it, by its own group's rules. RQ judges by the time of the last heartbeat and the clock of this
host, which may have been set, and fails or retries what it calls abandoned. Read against RQ 3.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from redis import Redis
from rq.registry import StartedJobRegistry
from rq.utils import current_timestamp

from .keys import BEGUN_KEY, MEMBERS_KEY

_SPARED_SECONDS = 90
"""Seconds for which RQ's clean-up takes a job that is spared for running; as after a heartbeat."""


def spare_held(redis: Redis, queues: Iterable[str]) -> None:
    """Has RQ's next clean-up leave alone what the workers of all pools have begun.

    Args:
        redis: a client of the queues' server.
        queues: their names.
    """
    now = current_timestamp()
    keys = [StartedJobRegistry(queue, connection=redis).key for queue in queues]
    with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.zrangebyscore(key, 0, now)
        expired = dict(zip(keys, pipeline.execute()))
    if not any(expired.values()):
        return
    held = _begun_by_members(redis)
    with redis.pipeline() as pipeline:
        for key, entries in expired.items():
            for entry in held.intersection(entries):
                pipeline.zadd(key, {entry: now + _SPARED_SECONDS}, xx=True)
        pipeline.execute()


def _begun_by_members(redis: Redis) -> set[bytes]:
    names = [json.loads(record)["name"] for record in redis.hvals(MEMBERS_KEY)]
    with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hkeys(BEGUN_KEY % name)
        return set().union(*pipeline.execute())
