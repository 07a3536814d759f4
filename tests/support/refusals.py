"""Refusals: a server that refuses writes, each time for another reason, until the block ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis


@contextlib.contextmanager
def full(admin: redis.Redis) -> Iterator[None]:
    """It has no memory left."""
    admin.config_set("maxmemory", 1)
    yield
    admin.config_set("maxmemory", 0)


@contextlib.contextmanager
def without_replicas(admin: redis.Redis) -> Iterator[None]:
    """It has fewer replicas than it needs to write."""
    admin.config_set("min-replicas-to-write", 1)
    yield
    admin.config_set("min-replicas-to-write", 0)


@contextlib.contextmanager
def replica(admin: redis.Redis) -> Iterator[None]:
    """It is the replica of a server that is not there."""
    admin.replicaof("127.0.0.1", 1)
    yield
    admin.replicaof("NO", "ONE")
