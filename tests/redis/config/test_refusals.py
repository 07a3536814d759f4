"""A server that answers, and refuses to write for now or for ever."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest
import redis
from redis.exceptions import (
    ConnectionError,
    NoPermissionError,
    ResponseError,
)

from django_rq_pool.config import redis_clients
from django_rq_pool.config.groups import QueueGroup
from django_rq_pool.config.pool_redis import PoolRedis
from django_rq_pool.config.redis_errors import Refused
from harness import DEADLINE, eventually
from refusals import full, replica, without_replicas

GROUP = QueueGroup("high", ("high",), 0)

MakeClient = Callable[..., PoolRedis]


def command(client: PoolRedis) -> object:
    return client.set("key", "value")


def transaction(client: PoolRedis) -> object:
    with client.pipeline() as pipeline:
        pipeline.get("key")
        pipeline.set("key", "value")
        return pipeline.execute()


def pipeline(client: PoolRedis) -> object:
    with client.pipeline(transaction=False) as pipeline:
        pipeline.get("key")
        pipeline.set("key", "value")
        return pipeline.execute()


def watched(client: PoolRedis) -> object:
    with client.pipeline() as pipeline:
        pipeline.watch("key")
        pipeline.get("key")
        pipeline.multi()
        pipeline.set("key", "value")
        return pipeline.execute()


def between_watch_and_multi(client: PoolRedis) -> object:
    with client.pipeline() as pipeline:
        pipeline.watch("key")
        return pipeline.set("key", "value")


def script(client: PoolRedis) -> object:
    return client.register_script("return redis.call('SET', KEYS[1], 'value')")(keys=["key"])


def script_in_a_pipeline(client: PoolRedis) -> object:
    written = client.register_script("return redis.call('SET', KEYS[1], 'value')")
    with client.pipeline() as pipeline:
        written(keys=["key"], client=pipeline)
        return pipeline.execute()


def probe(client: PoolRedis) -> object:
    redis_clients.probe(GROUP).check()
    return True


WAYS = [
    command,
    transaction,
    pipeline,
    watched,
    between_watch_and_multi,
    script,
    script_in_a_pipeline,
    probe,
]
written = pytest.mark.parametrize("write", WAYS, ids=lambda way: way.__name__.replace("_", " "))


@contextlib.contextmanager
def busy_with_a_script(admin: redis.Redis) -> Iterator[None]:
    admin.config_set("busy-reply-threshold", 1)
    path = admin.connection_pool.connection_kwargs["path"]
    endless = redis.Redis(unix_socket_path=path, socket_timeout=None)
    thread = threading.Thread(target=run_until_killed, args=(endless,))
    thread.start()
    eventually(lambda: is_busy(admin))
    yield
    admin.script_kill()
    thread.join(DEADLINE)


def run_until_killed(client: redis.Redis) -> None:
    with contextlib.suppress(ResponseError):
        client.eval("while true do end", 0)


def is_busy(admin: redis.Redis) -> bool:
    try:
        admin.get("key")
    except ResponseError as error:
        return str(error).startswith("BUSY")
    return False


STATES = [
    (full, "OOM command not allowed"),
    (without_replicas, "NOREPLICAS Not enough good replicas"),
    (replica, "READONLY You can't write"),
    (busy_with_a_script, "BUSY "),
]


@written
@pytest.mark.parametrize(("state", "words"), STATES, ids=lambda each: getattr(each, "__name__", ""))
def test_a_write_that_the_server_refuses_for_now_fails_with_the_servers_own_words(
    client, admin, state, words, write
):
    with state(admin):
        with pytest.raises(Refused) as raised:
            write(client)
        assert str(raised.value).startswith(words)
        assert isinstance(raised.value, ConnectionError)
        assert isinstance(raised.value.__cause__, ResponseError)
    assert eventually(lambda: write(client))


@written
def test_a_write_that_the_user_may_not_do_is_an_error_that_waiting_does_not_end(
    make_client, admin, own_server, write
):
    admin.acl_setuser("reader", enabled=True, nopass=True, categories=["+@all"], keys=["%R~*"])
    client = make_client(URL=own_server.url.replace("unix://", "unix://reader:x@"))
    with pytest.raises(ResponseError) as raised:
        write(client)
    assert not isinstance(raised.value, Refused)
    if write is command:
        assert type(raised.value) is NoPermissionError


def test_a_transaction_that_is_refused_has_changed_nothing(client, admin):
    admin.set("other", "there")
    with full(admin), client.pipeline() as pipeline:
        pipeline.delete("other")
        pipeline.set("key", "value")
        with pytest.raises(Refused):
            pipeline.execute()
    assert admin.get("other") == b"there"


def test_a_script_that_the_server_has_forgotten_is_loaded_again(client, admin):
    answer = client.register_script("return 42")
    assert answer() == 42
    admin.script_flush()
    assert answer() == 42


def test_an_error_of_the_command_itself_passes(client):
    client.set("key", "value")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        client.lpush("key", "value")
    with pytest.raises(ResponseError, match="unknown command"):
        client.execute_command("NO_SUCH_COMMAND")


def test_the_connections_to_a_server_that_became_a_replica_are_dropped(client, admin):
    held = client.connection_pool.get_connection()
    client.ping()
    assert len(numbers(admin)) == 3
    with replica(admin):
        before = numbers(admin)
        with pytest.raises(Refused):
            client.set("key", "value")
        eventually(lambda: len(numbers(admin)) == 1)
        held.send_packed_command(b"")  # nothing is written: the answer is what has ended
        with pytest.raises(ConnectionError):
            held.read_response()
        client.ping()
        assert not numbers(admin) & before - {admin.client_id()}


def numbers(admin: redis.Redis) -> set[int]:
    return {int(each["id"]) for each in admin.client_list(_type="normal")}


def test_the_probe_writes_what_goes_by_itself_and_leaves_no_connection(client, admin):
    redis_clients.probe(GROUP).check()
    assert 0 < admin.ttl(redis_clients.PROBE_KEY) <= 60
    eventually(lambda: len(numbers(admin)) == 1)


def test_the_probe_finds_a_server_that_is_not_there(make_client):
    make_client(URL="redis://127.0.0.1:1")
    with pytest.raises(ConnectionError):
        redis_clients.probe(GROUP).check()
