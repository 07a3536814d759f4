"""What RQ's thread hears of the commands to a worker, whatever becomes of the server."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
import redis
from redis.exceptions import (
    ConnectionError,
)

from django_rq_pool.config import pool_redis
from django_rq_pool.config.pool_redis import PoolPubSub, PoolRedis
from harness import DEADLINE, eventually


class Heard(list[bytes]):
    """The texts that have been heard.

    Attributes:
        subscription: where.
    """

    subscription: PoolPubSub

    def socket(self) -> socket.socket | None:
        """The one of the connection; None while there is none."""
        return self.subscription.connection._sock


@pytest.fixture
def heard(hasty: PoolRedis) -> Iterator[Heard]:
    """What RQ's thread, as it runs it, hears on a channel of the server."""
    messages = Heard()
    subscription = messages.subscription = hasty.pubsub()
    subscription.subscribe(channel=lambda message: messages.append(message["data"]))

    def go_on(error: Exception, _: object, __: object) -> None:
        if not isinstance(error, ConnectionError):
            raise error  # as RQ's handler does: the thread ends
        time.sleep(0.01)

    thread = subscription.run_in_thread(60, daemon=True, exception_handler=go_on)
    yield messages
    assert thread.is_alive()
    thread.stop()
    with contextlib.suppress(AttributeError, OSError):  # it may be connecting just now
        subscription.connection._sock.shutdown(socket.SHUT_RDWR)
    thread.join(DEADLINE)
    assert not thread.is_alive()


def publish(admin: redis.Redis, heard: Heard, text: bytes) -> bool:
    """Whether a text is heard. One may be lost with a connection, so it is sent again each time."""
    admin.publish("channel", text)
    return text in heard


def test_a_subscription_waits_longer_than_the_time_of_a_command(short, heard, admin):
    eventually(lambda: publish(admin, heard, b"first"))
    [before] = admin.client_list(_type="pubsub")
    eventually(lambda: int(admin.client_list(_type="pubsub")[0]["idle"]) > 2 * short)
    assert admin.client_list(_type="pubsub")[0]["id"] == before["id"]
    eventually(lambda: publish(admin, heard, b"second"))


def test_it_comes_back_when_the_server_does(heard, own_server):
    own_server.stop()
    own_server.start()
    admin = redis.Redis.from_url(own_server.url)
    eventually(lambda: publish(admin, heard, b"again"))


def test_it_comes_back_when_the_server_was_silent(monkeypatch, frozen, short, admin, request):
    monkeypatch.setattr(pool_redis, "SUBSCRIPTION_CHECK", short)
    heard = request.getfixturevalue("heard")
    eventually(lambda: publish(admin, heard, b"first"))
    before = heard.socket()
    with frozen():
        eventually(lambda: heard.socket() is not before)
    eventually(lambda: publish(admin, heard, b"second"))
    kept, pings = heard.socket(), pinged(admin)
    eventually(lambda: pinged(admin) >= pings + 3)
    assert heard.socket() is kept


def test_a_timeout_is_an_error_that_the_thread_of_rq_survives(make_client, own_server, frozen):
    client = make_client(URL=f"{own_server.url}?db=1&socket_timeout=0.2")
    subscription = client.pubsub()
    subscription.subscribe(channel=lambda message: None)
    with frozen():
        subscription.connection.disconnect()
        with pytest.raises(ConnectionError):
            subscription.get_message(timeout=0.2)
    subscription.close()


def test_it_asks_a_living_server_on_one_connection(monkeypatch, admin, request):
    monkeypatch.setattr(pool_redis, "SUBSCRIPTION_CHECK", 0.1)
    heard = request.getfixturevalue("heard")
    eventually(lambda: publish(admin, heard, b"first"))
    [before] = admin.client_list(_type="pubsub")
    pings = pinged(admin)
    eventually(lambda: pinged(admin) >= pings + 5)
    [after] = admin.client_list(_type="pubsub")
    assert after["id"] == before["id"]


def pinged(admin: redis.Redis) -> int:
    return int(admin.info("commandstats").get("cmdstat_ping", {}).get("calls", 0))
