"""Clients: what makes a worker's, and a horse's, connections to Redis cheap.

Rule of the room: the server hears what it would hear anyway, or less; nothing that a project has
set for its connections is changed.
"""

from __future__ import annotations

from typing import Any

from django_rq.connection_utils import get_connection
from django_rq.queues import get_queues
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError, TimeoutError
from redis.retry import Retry

from .groups import QueueGroup

try:
    from redis.driver_info import DriverInfo
except ImportError:  # redis-py before 7.2, which looks its version up only when it is imported
    _DRIVER = None
else:
    _DRIVER = DriverInfo()

REDIS_RETRY = 0.5
"""Seconds between two tries to reach a Redis server that is away."""

UNREACHABLE = (ConnectionError, TimeoutError)
"""What redis-py raises when the server cannot be reached."""

_DRIVER_OPTIONS = ("driver_info", "lib_name", "lib_version")


def client(group: QueueGroup) -> Redis:
    """A new client of a group's server, as the settings say, not connected yet.

    It is told what redis-py calls itself: for each connection of a client that was made from a URL
    redis-py would look its own version up in the metadata of the installed packages, which takes
    3 ms and touches 700 pages.
    """
    redis = get_connection(group.queues[0])
    options = _connection_options(redis)
    if _DRIVER is not None and not any(name in options for name in _DRIVER_OPTIONS):
        options["driver_info"] = _DRIVER
    return redis


def probe(group: QueueGroup) -> Redis:
    """A client for asking whether a group's Redis is there; it answers at once, without retries."""
    redis = client(group)
    redis.set_retry(Retry(NoBackoff(), 0))
    return redis


def keep_driver_quiet(redis: Redis) -> None:
    """Has new connections of a client not tell the server what redis-py calls itself.

    For a horse: those are two round trips for each job, and its connection is gone before anybody
    could look it up.
    """
    options = _connection_options(redis)
    if _DRIVER is not None and options.get("driver_info") is _DRIVER:
        options["driver_info"] = None


def rehearse(group: QueueGroup) -> None:
    """Does in the manager, before it forks, what each worker does first, as far as no server is
    needed for it.

    What is kept from the first time that something is done, in redis-py and in the interpreter, is
    in the image then: some 0.5 MB less for each worker.
    """
    redis = client(group)
    get_queues(*group.queues, connection=redis)
    redis.connection_pool.make_connection().pack_command("HSET", "key", "field", "value")
    with redis.pipeline() as pipeline:
        pipeline.hset("key", mapping={"field": "value"})
        pipeline.expire("key", 1)
    redis.pubsub().close()
    redis.close()


def _connection_options(redis: Redis) -> dict[str, Any]:
    """What a client's new connections are made with; of no effect for a class of unknown kind."""
    pool = redis.connection_pool
    known = issubclass(pool.connection_class, AbstractConnection)
    return pool.connection_kwargs if known else {}
