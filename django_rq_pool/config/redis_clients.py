"""Redis clients: the pool's own connections to Redis, made from the project's settings.

Rule of the room: what belongs to the project is read and never changed, nor connected. Options that
the project has set for its connections hold for the pool's, except where they would have a command
repeated or a dead connection go unnoticed.
"""

from __future__ import annotations

import copy
import functools
import socket
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django_rq.connection_utils import get_connection
from django_rq.queues import get_queues
from redis import Redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, Connection, ConnectionPool
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool
from rq.defaults import RQ_KEY_PREFIX

from .groups import QueueGroup
from .pool_redis import COMMAND_TIMEOUT, PoolRedis
from .redis_errors import UNAVAILABLE as UNAVAILABLE  # who waits
from .redis_errors import UNREACHABLE as UNREACHABLE  # who waits for a client knows its errors
from .server_options import wrong_option
from .stop_aware import StopAware, stop_aware_class

try:
    from redis.driver_info import DriverInfo
except ImportError:  # redis-py before 7.2 looks its version up once, when it is imported
    _DRIVER = None
else:
    _DRIVER = DriverInfo()

REDIS_RETRY = 0.5
"""Seconds between two attempts to reach a Redis server that cannot be reached."""

PROBE_KEY = RQ_KEY_PREFIX + ":pool:probe"
"""Written by whoever waits for Redis, to see whether it accepts writes. It goes after 60 s."""

_DRIVER_OPTIONS = ("driver_info", "lib_name", "lib_version")

_POOLS_OWN_OPTIONS = (
    "connection_pool",
    "himport_registry",
    "maint_notifications_pool_handler",
    "oss_cluster_maint_notifications_handler",
    "orig_host_address",
    "orig_socket_timeout",
    "orig_socket_connect_timeout",
)
"""Options of connections that redis-py's connection pool adds itself and that point back to it."""

_UNLIMITED = 2**31
"""As many connections as redis-py allowed before it had a limit. A worker needs one for each of its
queues. If it could not get one it would ask for jobs all the time instead."""

_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPALIVE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}
"""After how many seconds without a packet the system asks whether the other side is still there,
how often it asks again and how many times: a dead connection is known after 11 seconds. macOS calls
the first one ``TCP_KEEPALIVE``."""

_USER_TIMEOUT = {"TCP_USER_TIMEOUT": 10_000}
"""The same for a connection on which something has been sent, in milliseconds. Linux only."""


def client(group: QueueGroup, stop_aware: StopAware | None = None) -> Redis:
    """A new Redis client for a group's queues, made from the settings and not connected yet.

    It has its own connections, also where the settings name a cache of the project. It repeats
    nothing by itself, and notices within seconds that a connection is dead: see `PoolRedis`.

    It gets redis-py's ``driver_info`` if the settings have none. Otherwise redis-py looks up its
    own version in the metadata of the installed packages for each connection of a client that was
    made from a URL. That takes 3 ms and touches 700 pages of memory.

    Args:
        group: the queue group; all of its queues have the same Redis connection.
        stop_aware: how the process waits for the server, if a stop may end that.
    """
    return _own_client(get_connection(group.queues[0]), stop_aware)


def assemble(group: QueueGroup) -> None:
    """Makes a client and its connection objects, which connect to nothing, to see whether the
    settings allow that.

    Args:
        group: the queue group.

    Raises:
        Exception: whatever is wrong with an option of the connection.
    """
    wrong = wrong_option(settings.RQ_QUEUES[group.queues[0]])
    if wrong is not None:
        raise ValueError(wrong)
    pool = client(group).connection_pool
    pool.make_connection()
    if isinstance(pool, SentinelConnectionPool):
        for each in pool.sentinel_manager.sentinels:
            each.connection_pool.make_connection()


class Probe:
    """Asks whether a group's server accepts writes, each time on a new connection.

    A PING is not enough: a server that is full, or a replica, answers it.

    Args:
        group: the queue group.
        stop_aware: how the process waits for the server, if a stop may end that.
    """

    def __init__(self, group: QueueGroup, stop_aware: StopAware | None = None) -> None:
        self._redis = client(group, stop_aware)

    def check(self) -> None:
        """Writes `PROBE_KEY`.

        Raises:
            Refused: the server refuses to write for now; the text is the server's.
            ConnectionError, TimeoutError: it cannot be reached.
            ResponseError: it will never write that key, for example because the user may not.
        """
        try:
            self._redis.set(PROBE_KEY, 1, ex=60)
        finally:
            self._redis.connection_pool.disconnect()  # no connection more for each worker


def probe(group: QueueGroup, stop_aware: StopAware | None = None) -> Probe:
    """A new probe of a group's server.

    Args:
        group: the queue group.
        stop_aware: how the process waits for the server, if a stop may end that.
    """
    return Probe(group, stop_aware)


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


def release_inherited(redis: Redis) -> None:
    """Closes a forked process's copies of the connections of its parent's client.

    redis-py does not use them after a fork. But while they are open the server does not notice that
    the parent is gone, and goes on sending to it.

    Args:
        redis: the client.
    """
    for kept in ("_available_connections", "_in_use_connections", "_connections"):
        for connection in tuple(getattr(redis.connection_pool, kept, ())):
            connection.disconnect()


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


def _own_client(theirs: Redis, stop_aware: StopAware | None) -> PoolRedis:
    """A client of the pool with the class and the connection options of a client of the project."""
    pool = _own_pool(theirs.connection_pool, stop_aware)
    own = _own_class(type(theirs))(connection_pool=pool)
    own.auto_close_connection_pool = True
    return own


@functools.cache
def _own_class(theirs: type[Redis]) -> type[PoolRedis]:
    if theirs is Redis:
        return PoolRedis
    return type(f"Pool{theirs.__name__}", (PoolRedis, theirs), {})


def _own_pool(theirs: ConnectionPool, stop_aware: StopAware | None) -> ConnectionPool:
    """An unlimited connection pool with the options of another.

    A ``BlockingConnectionPool`` has a worker wait for a connection that it holds itself.
    """
    options = _own_options(theirs)
    if stop_aware is not None:
        options["connection_class"] = stop_aware_class(options["connection_class"], stop_aware)
    if not isinstance(theirs, SentinelConnectionPool):
        return ConnectionPool(**options)
    return SentinelConnectionPool(
        theirs.service_name,
        _own_sentinel(theirs.sentinel_manager, stop_aware),
        is_master=theirs.is_master,
        check_connection=theirs.check_connection,
        **options,
    )


def _own_sentinel(theirs: Sentinel, stop_aware: StopAware | None) -> Sentinel:
    """A Sentinel manager with its own clients: the other's would repeat each question ten times."""
    own = copy.copy(theirs)
    own.sentinels = [_own_client(each, stop_aware) for each in theirs.sentinels]
    return own


def _own_options(theirs: ConnectionPool) -> dict[str, Any]:
    """The arguments for a connection pool, made from those of another."""
    kind = theirs.connection_class
    options = {
        name: value
        for name, value in theirs.connection_kwargs.items()
        if name not in _POOLS_OWN_OPTIONS
    }
    if issubclass(kind, AbstractConnection):
        options.update(
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
            retry_on_timeout=False,
            socket_timeout=_at_most(COMMAND_TIMEOUT, options.get("socket_timeout")),
            socket_connect_timeout=_at_most(COMMAND_TIMEOUT, options.get("socket_connect_timeout")),
        )
        if _DRIVER is not None and not any(name in options for name in _DRIVER_OPTIONS):
            options["driver_info"] = _DRIVER
    if issubclass(kind, Connection):
        options["socket_keepalive"] = True
        options["socket_keepalive_options"] = _keepalive(options.get("socket_keepalive_options"))
    announced = options.get("maint_notifications_config")
    if hasattr(theirs, "maint_notifications_enabled") and not _asked_for(announced):
        # redis-py 7 asks each server for them, and then uses connections on which an old answer is
        # still due.
        from redis.maint_notifications import MaintNotificationsConfig

        options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
    return {"connection_class": kind, "max_connections": _UNLIMITED, **options}


def _asked_for(announced: Any) -> bool:
    """Whether the project has turned on the notifications of a server's maintenance itself."""
    return getattr(announced, "enabled", None) is True


def _at_most(limit: float, theirs: float | None) -> float:
    return min(limit, theirs) if theirs else limit


def _keepalive(theirs: object) -> dict[int, int | bytes]:
    """The options of the system for connections; the smaller value where the project has one."""
    own: dict[int, int | bytes] = dict(_supported_options())
    for option, value in theirs.items() if isinstance(theirs, Mapping) else ():
        usual = own.get(option)
        smaller = isinstance(usual, int) and isinstance(value, int) and usual < value
        own[option] = usual if smaller else value  # type: ignore[assignment]
    return own


@functools.cache
def _supported_options() -> Mapping[int, int]:
    """The options that this system has: an unknown one would let every connection fail."""
    supported = {}
    with socket.socket() as tried:
        for name, value in {**_KEEPALIVE, **_USER_TIMEOUT}.items():
            option = getattr(socket, name, None)
            if option is None:
                continue
            try:
                tried.setsockopt(socket.IPPROTO_TCP, option, value)
            except OSError:
                continue
            supported[option] = value
    return supported


def _connection_options(redis: Redis) -> dict[str, Any]:
    """The options of a client's new connections.

    For a connection class that is not redis-py's it is an empty dict, and changing it has no
    effect.
    """
    pool = redis.connection_pool
    known = issubclass(pool.connection_class, AbstractConnection)
    return pool.connection_kwargs if known else {}
