"""A server that is silent, or whose answer has been lost."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from redis.exceptions import (
    ConnectionError,
    TimeoutError,
    WatchError,
)

from django_rq_pool.config import pool_redis
from django_rq_pool.config.pool_redis import PoolPipeline, PoolRedis
from harness import eventually


def count(client: PoolRedis) -> None:
    client.incr("count")


def count_in_a_transaction(client: PoolRedis) -> None:
    with client.pipeline() as pipeline:
        pipeline.incr("count")
        pipeline.execute()


def count_in_a_pipeline(client: PoolRedis) -> None:
    with client.pipeline(transaction=False) as pipeline:
        pipeline.incr("count")
        pipeline.execute()


def count_in_a_script(client: PoolRedis) -> None:
    client.eval("return redis.call('INCR', KEYS[1])", 1, "count")


@pytest.mark.parametrize(
    "act", [count, count_in_a_transaction, count_in_a_pipeline, count_in_a_script]
)
def test_a_command_whose_answer_is_lost_was_sent_once(hasty, frozen, admin, act):
    hasty.ping()  # it is connected when the server falls silent
    with frozen(), pytest.raises(TimeoutError):
        act(hasty)
    eventually(lambda: admin.get("count") == b"1")
    hasty.ping()
    assert admin.get("count") == b"1"


def test_a_lost_answer_is_not_called_a_change_of_the_watched_key(hasty, frozen, admin):
    with hasty.pipeline() as pipeline:
        pipeline.watch("key")
        pipeline.multi()
        pipeline.incr("count")
        with frozen(), pytest.raises(TimeoutError):
            pipeline.execute()
    eventually(lambda: admin.get("count") == b"1")
    with hasty.pipeline() as pipeline:
        pipeline.watch("key")
        pipeline.multi()
        pipeline.incr("count")
        admin.client_kill_filter(skipme=True)
        with pytest.raises(ConnectionError):
            pipeline.execute()


def test_a_pipeline_gives_its_connection_back_when_the_server_is_silent(hasty, frozen):
    with frozen(), contextlib.suppress(TimeoutError), hasty.pipeline() as pipeline:
        pipeline.watch("key")
    hasty.ping()
    with hasty.pipeline() as pipeline:
        pipeline.watch("key")
        with frozen():
            pipeline.reset()
    assert not hasty.connection_pool._in_use_connections
    hasty.ping()


def test_a_change_of_the_watched_key_is_still_one(client, admin):
    with client.pipeline() as pipeline:
        pipeline.watch("key")
        admin.set("key", "changed")
        pipeline.multi()
        pipeline.set("key", "value")
        with pytest.raises(WatchError):
            pipeline.execute()


def watch(client: PoolRedis) -> None:
    with client.pipeline() as pipeline:
        pipeline.watch("key")


class Ended(BaseException):
    """What a signal's handler raises to end a job."""


@pytest.mark.parametrize(
    "act",
    [
        lambda client: client.set("key", "value"),
        count_in_a_transaction,
        count_in_a_pipeline,
        watch,
    ],
    ids=["command", "transaction", "pipeline", "WATCH"],
)
def test_the_answer_to_a_command_that_was_cut_short_is_not_taken_for_anothers(
    client, admin, monkeypatch, act
):
    def end(*_: object, **__: object) -> None:
        raise Ended

    pool = client.connection_pool
    pool.release(pool.get_connection())
    with monkeypatch.context() as patched:
        patched.setattr(pool.connection_class, "read_response", end)
        with pytest.raises(Ended):
            act(client)
    assert client.echo("mine") == b"mine"


# Silence


def test_a_server_that_is_silent_is_noticed_within_the_time_of_a_command(client, frozen):
    client.ping()
    with frozen():
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            client.ping()
        assert time.monotonic() - began >= 0.9 * pool_redis.COMMAND_TIMEOUT


@pytest.mark.parametrize(
    "block",
    [
        lambda client, seconds: client.blpop(["none"], seconds),
        lambda client, seconds: client.blmove("none", "other", seconds, "LEFT", "RIGHT"),
        lambda client, seconds: client.blmpop(seconds, 1, "none", direction="LEFT"),
        lambda client, seconds: client.bzpopmin(["none"], seconds),
        lambda client, seconds: client.xread({"none": "$"}, block=int(1000 * seconds)),
        lambda client, seconds: client.wait(1, int(1000 * seconds)),
    ],
    ids=["BLPOP", "BLMOVE", "BLMPOP", "BZPOPMIN", "XREAD", "WAIT"],
)
def test_a_command_that_blocks_at_the_server_has_that_much_longer(hasty, short, block):
    began = time.monotonic()
    assert not block(hasty, 2 * short)
    assert time.monotonic() - began >= 1.9 * short
    pool = hasty.connection_pool
    connection = pool.get_connection()
    assert connection._sock.gettimeout() == short
    pool.release(connection)


def test_one_that_may_block_for_ever_waits_longer_than_the_time_of_a_command(hasty, short, admin):
    pushed = threading.Timer(2 * short, admin.rpush, ["list", "late"])
    pushed.start()
    assert list(hasty.blpop(["list"], 0)) == [b"list", b"late"]
    pushed.join()


def test_a_client_makes_pipelines_of_its_own_class(client):
    class OwnPipeline(PoolPipeline):
        pass

    assert type(client.pipeline()) is PoolPipeline
    client.pipeline_class = OwnPipeline
    assert type(client.pipeline(transaction=False)) is OwnPipeline
    assert client.pipeline(False).transaction is False
