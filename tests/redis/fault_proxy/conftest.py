"""Clients of the fault proxy, which stands before the real server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fault_proxy import FaultProxy
from harness import DEADLINE, eventually

Connect = Callable[..., redis.Redis]


@pytest.fixture
def proxy(server) -> Iterator[FaultProxy]:
    with FaultProxy(server.connection_url) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: FaultProxy) -> Iterator[Connect]:
    """Makes clients of the proxy that repeat nothing."""
    clients: list[redis.Redis] = []

    def connect(url: str = "", **options: object) -> redis.Redis:
        options = {"socket_timeout": DEADLINE, "retry": Retry(NoBackoff(), 0), **options}
        clients.append(redis.Redis.from_url(url or proxy.url, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


class Blocked:
    """A BLPOP in a thread."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self.answer: object = None
        self.thread = threading.Thread(target=self._pop, args=(client, key))
        self.thread.start()

    def _pop(self, client: redis.Redis, key: str) -> None:
        try:
            self.answer = client.blpop([key], 0)
        except redis.ConnectionError as error:
            self.answer = error

    def wait(self) -> object:
        self.thread.join(DEADLINE)
        assert not self.thread.is_alive()
        return self.answer


@pytest.fixture
def block(valkey: redis.Redis) -> Callable[[redis.Redis, str], Blocked]:
    """Has a client wait for an entry of a list, and waits until the server knows of it."""

    def block(client: redis.Redis, key: str) -> Blocked:
        before = valkey.info("clients")["blocked_clients"]
        blocked = Blocked(client, key)
        eventually(lambda: valkey.info("clients")["blocked_clients"] == before + 1)
        return blocked

    return block
