"""Which trouble the errors of a real server are taken for."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest
import redis

from django_rq_pool.config import redis_clients
from django_rq_pool.config.groups import QueueGroup
from django_rq_pool.config.redis_errors import Trouble, described, trouble


def error_of(monkeypatch: pytest.MonkeyPatch, url: str) -> Exception:
    """What a client of the pool raises."""
    queues = {"high": {"URL": url}}
    monkeypatch.setattr("django_rq.settings.QUEUES", queues)
    client = redis_clients.client(QueueGroup("high", ("high",), 1))
    with pytest.raises(redis.exceptions.RedisError) as caught:
        client.set("rq:pool:probe", 1)
    client.close()
    return caught.value


@pytest.fixture
def resetting() -> Iterator[str]:
    """The URL of what resets each connection on which something is sent, as a server does that
    expects TLS."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            with accepted:
                accepted.recv(1)
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_server_without_tls_does_not_answer_its_handshake(monkeypatch, server):
    url = server.connection_url.replace("redis://", "rediss://")
    assert trouble(error_of(monkeypatch, url)) is Trouble.TLS


def test_a_connection_that_is_reset_may_lack_tls(monkeypatch, resetting):
    error = error_of(monkeypatch, resetting)
    assert trouble(error) is Trouble.UNREACHABLE
    assert "expects TLS" in described(error)


def test_a_user_that_there_is_not_is_no_server_that_is_away(monkeypatch, server):
    url = server.connection_url.replace("redis://", "redis://nobody:x@")
    assert trouble(error_of(monkeypatch, url)) is Trouble.LOGIN


def test_a_server_that_asks_for_a_password_is_no_server_that_is_away(monkeypatch, valkey, server):
    valkey.config_set("requirepass", "secret")
    url = server.connection_url.replace("redis://", "redis://:secret@")
    admin = redis.Redis.from_url(url)
    try:
        error = error_of(monkeypatch, server.connection_url)
    finally:
        admin.config_set("requirepass", "")
        admin.close()
    assert trouble(error) is Trouble.LOGIN


def test_a_database_that_there_is_not_is_that(monkeypatch, server):
    assert trouble(error_of(monkeypatch, server.connection_url + "/99")) is Trouble.DATABASE
