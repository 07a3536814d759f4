"""The fault proxy, between redis-py and a real server: silence, which ends or does not."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import pytest
import redis

from fault_rules import ONCE, Direction, command
from harness import DEADLINE, eventually

BRIEF = 0.2
"""Seconds after which a client takes a server that does not answer for gone."""


def blocked_clients(valkey: redis.Redis) -> int:
    return int(valkey.info("clients")["blocked_clients"])


def test_what_is_held_in_both_directions_reaches_nobody_until_it_is_healed(proxy, connect, valkey):
    client = connect(client_name="held", socket_timeout=BRIEF)
    client.ping()
    proxy.hold(command("SET"))
    with pytest.raises(redis.TimeoutError):
        client.set("key", 1)
    assert valkey.get("key") is None
    assert connect(socket_timeout=BRIEF).ping(), "other connections pass"
    names = [each["name"] for each in valkey.client_list()]
    assert "held" in names, "the server has not heard that the client has closed its connection"
    proxy.heal()
    eventually(lambda: valkey.get("key") == b"1")
    eventually(lambda: "held" not in [each["name"] for each in valkey.client_list()])


def test_an_answer_is_held_while_requests_pass(proxy, connect, valkey):
    proxy.hold(command("SET"), Direction.TO_CLIENT)
    client = connect(socket_timeout=BRIEF)
    with pytest.raises(redis.TimeoutError):
        client.set("key", 1)
    assert valkey.get("key") == b"1"


def test_a_connection_that_waits_is_held_and_goes_on_when_it_is_healed(
    proxy, connect, valkey, block
):
    blocked = block(connect(), "later")
    assert len(proxy.hold_now(direction=Direction.TO_CLIENT)) == 1
    valkey.rpush("later", "now")
    eventually(lambda: blocked_clients(valkey) == 0)
    assert blocked.answer is None
    proxy.heal()
    assert list(blocked.wait()) == [b"later", b"now"]


def test_a_blackholed_clients_command_goes_on_at_the_server(proxy, connect, valkey):
    client = connect(client_name="gone", socket_timeout=BRIEF)
    other = connect()
    other.ping()
    proxy.blackhole(command("BLMOVE"))
    with pytest.raises(redis.TimeoutError):
        client.blmove("from", "to", 0)
    assert blocked_clients(valkey) == 0, "a request that is swallowed does not pass"
    proxy.heal()

    client = connect(client_name="gone", socket_timeout=BRIEF)
    client.ping()
    done = threading.Event()
    waits = threading.Thread(target=lambda: (_ignore(client.blmove, "from", "to", 0), done.set()))
    waits.start()
    eventually(lambda: blocked_clients(valkey) == 1)
    assert [each.name for each in proxy.blackhole_now(lambda each: each.name == b"gone")]
    assert done.wait(DEADLINE), "the client has given up"
    waits.join()
    client.close()
    valkey.rpush("from", "job")
    eventually(lambda: valkey.lrange("to", 0, -1) == [b"job"])
    assert other.ping(), "other connections pass"


def _ignore(function: Callable[..., object], *args: object) -> None:
    with contextlib.suppress(redis.TimeoutError):
        function(*args)


def test_a_request_is_delayed_and_those_behind_it_too(proxy, connect):
    proxy.delay(command("GET", mentions=b"slow"), BRIEF, ONCE)
    client = connect()
    client.ping()
    began = time.monotonic()
    with client.pipeline(transaction=False) as pipeline:
        assert pipeline.get("slow").incr("n").execute() == [None, 1]
    assert time.monotonic() - began >= BRIEF
