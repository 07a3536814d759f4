"""The pool's clients of servers that a test may spoil."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import django_rq.settings
import pytest
import redis

from django_rq_pool.config import redis_clients
from django_rq_pool.config.groups import QueueGroup
from django_rq_pool.config.pool_redis import PoolRedis

SHORT = 0.5
"""A socket timeout of the project, so that a silent server is waited for no longer."""

Freeze = Callable[[], contextlib.AbstractContextManager[None]]


@pytest.fixture
def make_client(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PoolRedis]:
    """Makes the pool's client of a queue with the given settings."""

    def make(**settings: Any) -> PoolRedis:
        monkeypatch.setitem(django_rq.settings.QUEUES, "high", settings)
        made = redis_clients.client(QueueGroup("high", ("high",), 0))
        assert isinstance(made, PoolRedis)
        return made

    return make


@pytest.fixture
def client(make_client: Callable[..., PoolRedis], own_server: Any) -> PoolRedis:
    """The pool's client of a server of the test's own."""
    return make_client(URL=own_server.url)


@pytest.fixture
def short() -> float:
    """The socket timeout of the hasty client, in seconds."""
    return SHORT


@pytest.fixture
def hasty(make_client: Callable[..., PoolRedis], own_server: Any) -> PoolRedis:
    """One that does not wait for long, and that the project wants to repeat what fails."""
    return make_client(URL=f"{own_server.url}?socket_timeout={SHORT}&retry_on_timeout=yes")


@pytest.fixture
def admin(own_server: Any) -> redis.Redis:
    """The test's own client of that server."""
    return redis.Redis.from_url(own_server.url)


@pytest.fixture
def frozen(own_server: Any) -> Freeze:
    """Stops the process of that server inside a block: it is silent, and its socket open."""

    @contextlib.contextmanager
    def freeze() -> Iterator[None]:
        process = own_server._server._process.pid
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    return freeze
