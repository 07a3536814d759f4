"""Connections: closes Django's database and cache connections before a fork, reopens them after.

Rule of the room: a socket belongs to one process. Only connections that exist are closed, and only
those that the manager had open are reopened. Django opens all others when they are first used.
"""

from __future__ import annotations

import logging
import select
from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.redis import RedisCache
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .text import in_a_line

logger = logging.getLogger("django_rq_pool")


def close_connections() -> tuple[str, ...]:
    """Closes every database connection of this thread, every connection pool and every cache.

    Returns:
        The aliases of the databases that were open, in Django's order.
    """
    opened = []
    for connection in connections.all(initialized_only=True):
        has_pool = _has_pool(connection)
        if connection.connection is not None or has_pool:
            opened.append(connection.alias)
            _close(f"database {connection.alias!r}", connection.close)
        if has_pool:
            # close() has only returned the connection to its pool: the socket is still open.
            _close_pool(connection)
    _close_caches()
    return tuple(opened)


def in_transaction() -> str | None:
    """The alias of a database of this thread that is in a transaction, or None."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None and connection.in_atomic_block:
            return connection.alias
    return None


def _has_pool(connection: BaseDatabaseWrapper) -> bool:
    """Whether the connection has a pool, psycopg's or Oracle's (where the key is a tuple).

    It reads Django's private table, because ``connection.pool`` would create a pool.
    """
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
            continue  # it was never used, and caches[alias] would create it
        what = f"cache {alias!r}"
        _close(what, cache.close)
        if not isinstance(cache, RedisCache):
            del caches[alias]  # this may close what close() has left open
        elif "_cache" in vars(cache):
            # Its close() does nothing, and deleting it leaves its sockets to the garbage collector.
            for pool in cache._cache._pools.values():  # type: ignore[attr-defined]
                _close(what, pool.disconnect)


def _close(what: str, close: Callable[[], object]) -> None:
    """Calls ``close`` and logs an error. A broken connection must not end the process."""
    try:
        close()
    except Exception as error:
        logger.warning("%s: closing failed: %s", what, in_a_line(error))


def renew_connections() -> None:
    """Does between two jobs of one process what Django does between two requests, and more.

    It closes database connections that are broken or older than ``CONN_MAX_AGE``, and calls
    ``close()`` of each cache. Otherwise every job after a restart of the database would fail.

    Django takes a connection for broken when an error has occurred on it: one job fails for each
    connection, and each of a pool is one. Here a connection that the server has closed is found
    without an error, and without a question to the server, because it is readable.
    """
    for connection in connections.all(initialized_only=True):
        if _is_readable(connection.connection):
            connection.errors_occurred = True  # so that Django tries it
        _close(f"database {connection.alias!r}", connection.close_if_unusable_or_obsolete)
        _close(f"the pool of database {connection.alias!r}", partial(_renew_pool, connection))
    for cache in caches.all(initialized_only=True):
        _close("cache", cache.close)


def _renew_pool(connection: Any) -> None:
    """Replaces what is broken in psycopg's pool of a database.

    Oracle's needs no help: it looks in the same way whether a connection is readable, before it
    gives it out (python-oracledb), or asks the server (Oracle's client library).
    """
    pool = getattr(connection, "_connection_pools", {}).get(connection.alias)
    if pool is None:
        return
    if pool.get_stats().get("connections_errors"):
        # It waits longer and longer between two attempts. A new one begins at once.
        connection.close_pool()
    elif any(_is_readable(each) for each in list(getattr(pool, "_pool", ()))):
        pool.check()


def _is_readable(connection: Any) -> bool:
    """Whether an idle connection to a server has something to read: the server has closed it, or
    has sent what nobody asked for. It is a system call and no question to the server.

    Args:
        connection: the driver's, or None. One that has no descriptor is never readable.
    """
    try:
        descriptor = connection.fileno()
    except AttributeError:
        return False
    except Exception:  # the driver's own: it is closed
        return True
    poll = select.poll()  # unlike select, it allows descriptors above 1023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class ManagerConnections:
    """The manager's database connections: closed before each fork, reopened in each worker."""

    def __init__(self) -> None:
        self._aliases: dict[str, None] = {}  # an ordered set

    def close(self) -> None:
        """Closes every connection and remembers which databases were open.

        The manager calls it before each fork. It takes some microseconds when nothing is open.
        """
        self._aliases.update(dict.fromkeys(close_connections()))

    def reopen(self, worker: str) -> None:
        """Connects this process to every database that was open at any earlier ``close``.

        A database that cannot be reached is logged as a warning. A job that needs it connects
        again by itself.

        Args:
            worker: the name of the worker, for the log.
        """
        for alias in self._aliases:
            try:
                _open(connections[alias])
            except Exception as error:  # a project's backend may raise anything
                logger.warning(
                    "worker %s: database %r cannot be reached: %s. Jobs will connect again.",
                    worker,
                    alias,
                    in_a_line(error),
                )
                _close(f"database {alias!r}", connections[alias].close)
                if _has_pool(connections[alias]):  # its threads would keep trying to connect
                    _close_pool(connections[alias])


def _open(connection: Any) -> None:
    if connection.vendor == "postgresql" and connection.pool is not None:
        # The pool would try for 30 s and then not say what is wrong.
        connection.Database.connect(**connection.get_connection_params()).close()
    connection.ensure_connection()


manager_connections = ManagerConnections()
"""The one of this process. A worker inherits the manager's, so it knows what to reopen."""
