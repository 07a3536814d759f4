"""Redis clients: cheap connections to Redis for workers and work horses.

Rule of the room: the server gets the commands that it would get anyway, or fewer. Options that the
project has set for its connections stay.
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
except ImportError:  # redis-py before 7.2 looks its version up once, when it is imported
    _DRIVER = None
else:
    _DRIVER = DriverInfo()

REDIS_RETRY = 0.5
"""Seconds between two attempts to reach a Redis server that cannot be reached."""

UNREACHABLE = (ConnectionError, TimeoutError)
"""The exceptions of redis-py for a server that cannot be reached."""

_DRIVER_OPTIONS = ("driver_info", "lib_name", "lib_version")


def client(group: QueueGroup) -> Redis:
    """A new Redis client for a group's queues, made from the settings and not connected yet.

    It gets redis-py's ``driver_info`` if the settings have none. Otherwise redis-py looks up its
    own version in the metadata of the installed packages for each connection of a client that was
    made from a URL. That takes 3 ms and touches 700 pages of memory.

    Args:
        group: the queue group; all of its queues have the same Redis connection.
    """
    redis = get_connection(group.queues[0])
    options = _connection_options(redis)
    if _DRIVER is not None and not any(name in options for name in _DRIVER_OPTIONS):
        options["driver_info"] = _DRIVER
    return redis


def probe(group: QueueGroup) -> Redis:
    """A new client that fails at once, without retries, if the server cannot be reached.

    Args:
        group: the queue group.
    """
    redis = client(group)
    redis.set_retry(Retry(NoBackoff(), 0))
    return redis


def keep_driver_quiet(redis: Redis) -> None:
    """Stops new connections of a client from sending redis-py's name and version to the server.

    A work horse uses it. It saves two round trips for each job, and the horse's connection is too
    short for anyone to look that up.

    Args:
        redis: a client that `client` has made.
    """
    options = _connection_options(redis)
    if _DRIVER is not None and options.get("driver_info") is _DRIVER:
        options["driver_info"] = None


def rehearse(group: QueueGroup) -> None:
    """Runs in the manager, before it forks, the first steps of a worker that need no server.

    redis-py and the interpreter keep caches from these steps. Workers then share them with the
    manager, which saves about 0.5 MB for each worker.

    Args:
        group: the queue group.
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
    """The options of a client's new connections.

    For a connection class that is not redis-py's it is an empty dict, and changing it has no
    effect.
    """
    pool = redis.connection_pool
    known = issubclass(pool.connection_class, AbstractConnection)
    return pool.connection_kwargs if known else {}
