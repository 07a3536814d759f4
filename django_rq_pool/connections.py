"""Connections: let go of what Django holds open before a fork, and connect again after it.

Rule of the room: a socket belongs to one process. Only what exists is closed, and only what the
manager had open is opened; everything else stays as lazy as Django has it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.redis import RedisCache
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .text import in_a_line

logger = logging.getLogger("django_rq_pool")


def close_connections() -> tuple[str, ...]:
    """Closes every database connection of this thread, their pools too, and every cache.

    Returns:
        The aliases of the databases that were open.
    """
    opened = []
    for connection in connections.all(initialized_only=True):
        has_pool = _has_pool(connection)
        if connection.connection is not None or has_pool:
            opened.append(connection.alias)
            _close(f"database {connection.alias!r}", connection.close)
        if has_pool:
            # close() has only given the connection back, whose socket is still open.
            _close_pool(connection)
    _close_caches()
    return tuple(opened)


def _has_pool(connection: BaseDatabaseWrapper) -> bool:
    """Whether there is a pool for it: psycopg's, or Oracle's, where the key is a tuple. To ask
    Django for a pool would make one."""
    return any(
        connection.alias in (pool if isinstance(pool, tuple) else (pool,))
        for pool in getattr(connection, "_connection_pools", ())
    )


def _close_pool(connection: Any) -> None:
    _close(f"the pool of database {connection.alias!r}", connection.close_pool)


def _close_caches() -> None:
    for alias in caches:
        cache = getattr(caches._connections, alias, None)  # type: ignore[attr-defined]
        if cache is None:
            continue  # it was never used, and caches[alias] would make it
        what = f"cache {alias!r}"
        _close(what, cache.close)
        if not isinstance(cache, RedisCache):
            del caches[alias]  # what close() has left open may go with the object
        elif "_cache" in vars(cache):
            # Its close() does nothing, and to drop it leaves its sockets to the garbage collector.
            for pool in cache._cache._pools.values():  # type: ignore[attr-defined]
                _close(what, pool.disconnect)


def _close(what: str, close: Callable[[], object]) -> None:
    """What is broken may fail to close; it is gone all the same, and its owner must live on."""
    try:
        close()
    except Exception as error:
        logger.warning("%s: an error while it was closed: %s", what, in_a_line(error))


def renew_connections() -> None:
    """Does between two jobs in one process what Django does between two requests.

    A connection that is broken or older than ``CONN_MAX_AGE`` is closed, and caches do whatever
    they do then. Otherwise every job after a restart of the database would fail.
    """
    for connection in connections.all(initialized_only=True):
        _close(f"database {connection.alias!r}", connection.close_if_unusable_or_obsolete)
    for cache in caches.all(initialized_only=True):
        _close("cache", cache.close)


class ManagerConnections:
    """What the manager has had open, which it must not take into a fork."""

    def __init__(self) -> None:
        self._aliases: dict[str, None] = {}  # in their order, each once

    def close(self) -> None:
        """Lets go of everything and remembers which databases it was. Called before each fork: it
        takes some microseconds when nothing is open."""
        self._aliases.update(dict.fromkeys(close_connections()))

    def reopen(self, worker: str) -> None:
        """Connects this process to the databases that the manager had open at any ``close``.

        One that cannot be reached is reported: a job that needs it will try again.

        Args:
            worker: the name of the worker, for the report.
        """
        for alias in self._aliases:
            try:
                _open(connections[alias])
            except Exception as error:  # a project's backend may raise anything
                logger.warning(
                    "worker %s: database %r cannot be reached: %s; jobs will try again",
                    worker,
                    alias,
                    in_a_line(error),
                )
                _close(f"database {alias!r}", connections[alias].close)
                if _has_pool(connections[alias]):  # its threads would go on trying
                    _close_pool(connections[alias])


def _open(connection: Any) -> None:
    if connection.vendor == "postgresql" and connection.pool is not None:
        # The pool would try for half a minute, and not say what is wrong.
        connection.Database.connect(**connection.get_connection_params()).close()
    connection.ensure_connection()


manager_connections = ManagerConnections()
"""This process's. The worker's copy knows what the manager had open when it was forked."""
