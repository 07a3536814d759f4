"""Connections: let go of what Django holds open, before a fork and again after it.

Rule of the room: only connections that exist are touched; none is opened here.
"""

from __future__ import annotations

import contextlib

from django.core.cache import caches
from django.db import connections


def close_connections() -> None:
    """Closes every database connection, psycopg's pools too, and every cache.

    A socket that two processes use mixes their conversations. Django's ``close()`` hands a pooled
    connection back to its pool, whose sockets stay open, so the pool is closed as well. A cache
    object is dropped: what its client has open goes with it, and the next use makes a new one.
    """
    for connection in connections.all(initialized_only=True):
        connection.close()
        close_pool = getattr(connection, "close_pool", None)  # PostgreSQL's alone has pools
        if close_pool is not None:
            close_pool()
    caches.close_all()
    for alias in caches:
        with contextlib.suppress(AttributeError):  # this one was never used
            del caches[alias]
