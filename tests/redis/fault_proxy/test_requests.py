"""The fault proxy, between redis-py and a real server: what a rule does to requests and answers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import pytest
import redis

from fault_proxy import FaultProxy
from fault_rules import ONCE, Client, Fault, Turns, command, nth
from harness import DEADLINE, eventually


def blocked_clients(valkey: redis.Redis) -> int:
    return int(valkey.info("clients")["blocked_clients"])


@pytest.mark.parametrize("protocol", [2, 3])
def test_without_a_rule_a_client_notices_nothing(proxy, connect, valkey, protocol, block):
    client = connect(protocol=protocol, client_name="me")
    large = b"x\r\n" * 1_000_000
    with client.pipeline() as pipeline:
        pipeline.set("large", large).get("large").get("nothing").incr("n")
        pipeline.hset("map", mapping={"a": 1}).hgetall("map").config_get("maxmemory")
        assert pipeline.execute()[1:6] == [large, None, 1, 1, {b"a": b"1"}]
    with client.pipeline(transaction=False) as pipeline:
        for number in range(2000):
            pipeline.rpush("many", number)
        assert pipeline.execute() == list(range(1, 2001))
    assert client.lrange("many", 0, -1) == [str(n).encode() for n in range(2000)]
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.get("many")
    assert client.eval("return {1, {2, redis.call('GET', KEYS[1])}}", 1, "n") == [1, [2, b"1"]]
    blocked = block(client, "later")
    valkey.rpush("later", "now")
    assert list(blocked.wait()) == [b"later", b"now"]
    assert {each.name for each in proxy.clients} == {b"me"}
    assert proxy.events == []


@contextlib.contextmanager
def raw_connection(proxy: FaultProxy) -> Iterator[IO[bytes]]:
    address = urlsplit(proxy.url)
    with (
        socket.create_connection((address.hostname, address.port), DEADLINE) as connection,
        connection.makefile("rwb", buffering=0) as stream,
    ):
        yield stream


@pytest.mark.parametrize("protocol", [2, 3])
def test_messages_and_pushes_pass_and_belong_to_no_request(proxy, connect, valkey, protocol):
    proxy.lose_answer(command("PING"), nth(2))
    client = connect(protocol=protocol)
    subscription = client.pubsub()
    subscription.subscribe("news", "more")
    for number in range(3):
        eventually(lambda: valkey.pubsub_numsub("news", "more") == [(b"news", 1), (b"more", 1)])
        valkey.publish("news", number)
    seen: list[object] = []

    def read() -> bool:
        message = subscription.get_message(ignore_subscribe_messages=True, timeout=0.1)
        seen.extend([message["data"]] if message else [])
        return len(seen) == 3

    eventually(read)
    assert seen == [b"0", b"1", b"2"]
    subscription.close()
    assert client.ping()


def test_a_push_is_not_the_answer_that_is_lost(proxy, valkey):
    proxy.lose_answer(command("BLPOP"))
    with raw_connection(proxy) as stream:
        stream.write(b"HELLO 3\r\nSUBSCRIBE news\r\nBLPOP later 0\r\n")
        eventually(lambda: blocked_clients(valkey) == 1)
        valkey.publish("news", "arrives")
        valkey.rpush("later", "never arrives")
        assert stream.read().endswith(b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$7\r\narrives\r\n")


def test_in_version_2_no_answer_is_lost_after_a_subscription(proxy):
    """There, nothing tells an answer from a message."""
    proxy.lose_answer(command("PING"))
    with raw_connection(proxy) as stream:
        stream.write(b"SUBSCRIBE a b\r\nPING\r\n")
        received = b""
        while b"pong" not in received:
            more = stream.read(1)
            assert more, "the connection has ended"
            received += more
        assert received.count(b"subscribe") == 2


def test_a_connection_is_cut_before_the_request_reaches_the_server(proxy, connect, valkey):
    rule = proxy.cut(command("RPUSH"), ONCE)
    client = connect()
    with pytest.raises(redis.ConnectionError):
        client.rpush("list", 1)
    assert valkey.llen("list") == 0
    assert client.rpush("list", 2) == 1, "the next one passes"
    assert rule.hits == 1
    [event] = proxy.events
    assert event.fault == Fault.CUT
    assert event.request.args == (b"list", b"1")


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_lost_answer_was_given_and_is_not_delivered(proxy, connect, valkey, protocol):
    proxy.lose_answer(command(queued="lpush", mentions=b"list"), ONCE)
    client = connect(protocol=protocol)
    assert client.lpush("other", 1) == 1
    with client.pipeline() as other, client.pipeline() as pipeline:
        assert other.lpush("other", 2).execute() == [2]
        pipeline.set("key", 1).lpush("list", 1)
        with pytest.raises(redis.ConnectionError):
            pipeline.execute()
    assert valkey.lrange("list", 0, -1) == [b"1"], "it has been carried out"
    [event] = proxy.events
    assert [each.name for each in event.request.queued] == ["SET", "LPUSH"]


def test_answers_before_the_lost_one_arrive(proxy, connect):
    proxy.lose_answer(command("INCR"), nth(2))
    with raw_connection(proxy) as stream:
        stream.write(b"INCR a\r\n" * 3)
        assert stream.read() == b":1\r\n"


def test_a_script_is_known_by_its_keys(proxy, connect, valkey):
    proxy.cut(lambda request: b"mine" in request.keys)
    client = connect()
    script = client.register_script("return redis.call('INCR', KEYS[1])")
    assert script(keys=["yours"]) == 1
    with pytest.raises(redis.ConnectionError):
        script(keys=["mine"])
    proxy.heal()
    proxy.cut(lambda request: request.name == "EXEC" and b"mine" in request.keys)
    with client.pipeline() as pipeline:
        script(keys=["mine"], client=pipeline)
        with pytest.raises(redis.ConnectionError):
            pipeline.execute()
    assert not valkey.exists("mine")


def test_a_request_is_refused_without_the_server_hearing_of_it(proxy, connect, valkey):
    proxy.refuse(command("RPUSH", mentions=b"list"), "OOM command not allowed", Turns(every=2))
    client = connect()
    with client.pipeline(transaction=False) as pipeline:
        for number in range(4):
            pipeline.rpush("list", number).get("nothing")
        answers = pipeline.execute(raise_on_error=False)
    assert answers[0::2][0::2] == [1, 2]
    assert all(isinstance(each, redis.exceptions.OutOfMemoryError) for each in answers[2::4])
    assert answers[1::2] == [None] * 4, "each request has its own answer"
    assert valkey.lrange("list", 0, -1) == [b"0", b"2"]


def test_an_answer_may_be_of_any_type(proxy, connect):
    proxy.answer(command("LRANGE"), b"*2\r\n$1\r\na\r\n$1\r\nb\r\n")
    assert connect().lrange("nothing", 0, -1) == [b"a", b"b"]


@pytest.mark.parametrize("refused", ["RPUSH", "EXEC"])
def test_a_transaction_that_is_refused_leaves_nothing_behind(proxy, connect, valkey, refused):
    proxy.refuse(command(refused), "OOM command not allowed", ONCE)
    client = connect(max_connections=1)
    with client.pipeline() as pipeline:
        pipeline.set("key", 1).rpush("list", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            pipeline.execute()
    assert valkey.keys() == []
    assert client.set("key", 2), "the connection is in no transaction any more"
    assert valkey.get("key") == b"2"


def test_new_connections_go_to_another_server_and_those_that_there_are_stay(
    proxy, connect, valkey, other_valkey, server, other_server
):
    before = connect()
    before.set("where", "old")
    proxy.move(other_server.connection_url)
    after = connect()
    after.set("where", "new")
    before.rpush("more", 1)
    assert (valkey.get("where"), other_valkey.get("where")) == (b"old", b"new")
    assert valkey.llen("more") == 1
    proxy.move(server.connection_url)
    assert connect().get("where") == b"old"
    assert after.get("where") == b"new"


def test_every_connection_is_cut_at_once(proxy, connect, valkey, block):
    blocked = block(connect(), "later")
    proxy.cut_now()
    assert isinstance(blocked.wait(), redis.ConnectionError)
    eventually(lambda: blocked_clients(valkey) == 0)


def test_a_rule_may_be_for_one_connection(proxy, connect):
    proxy.refuse(command("GET", by=lambda each: each.name == b"second"), "ERR not you")
    assert connect(client_name="first").get("key") is None
    with pytest.raises(redis.ResponseError, match="not you"):
        connect(client_name="second").get("key")


def test_chance_is_the_same_each_time(server):
    def hits() -> list[int]:
        with FaultProxy(server.connection_url) as proxy:
            proxy.refuse(command("GET"), "ERR chance", Turns(probability=0.3, seed=7))
            with redis.Redis.from_url(proxy.url) as client, client.pipeline(False) as pipeline:
                for _ in range(50):
                    pipeline.get("key")
                answers = pipeline.execute(raise_on_error=False)
        return [n for n, answer in enumerate(answers) if answer is not None]

    first = hits()
    assert 0 < len(first) < 50
    assert hits() == first


def test_it_also_stands_between_unix_sockets(own_server, connect):
    path = Path(urlsplit(own_server.url).path).with_name("proxy")
    with FaultProxy(own_server.url, path) as proxy:
        proxy.refuse(command("GET"), "ERR not now", ONCE)
        client = connect(proxy.url)
        with pytest.raises(redis.ResponseError, match="not now"):
            client.get("key")
        assert client.get("key") is None
        assert proxy.clients == [Client(1, 0)]


def test_an_address_where_nobody_listens_ends_a_connection(proxy, connect):
    proxy.move("redis://127.0.0.1:1")
    with pytest.raises(redis.ConnectionError):
        connect().ping()
