"""Whose the pool's connections are, and what they take over from the project's settings."""

from __future__ import annotations

import copy
import functools
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.connection import BlockingConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.credentials import UsernamePasswordCredentialProvider
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection

from django_rq_pool.config import redis_clients
from django_rq_pool.config.pool_redis import COMMAND_TIMEOUT, PoolRedis

MakeClient = Callable[..., PoolRedis]


def options(client: redis.Redis) -> dict[str, Any]:
    return client.connection_pool.connection_kwargs


def opened(client: redis.Redis) -> list[object]:
    """The connections that a client has made."""
    pool = client.connection_pool
    kept = ("_available_connections", "_in_use_connections", "_connections")
    return [each for name in kept for each in getattr(pool, name, ()) if each is not None]


class ProjectRedis(redis.Redis):
    """A client class of a project, with a method of its own."""

    def greet(self) -> bytes:
        return self.echo("hello")


# Whose they are


@pytest.fixture
def theirs(server: Any) -> redis.Redis:
    """A client of the project, with as much of its own as there can be."""
    pool = BlockingConnectionPool(
        max_connections=1,
        timeout=60,
        host="127.0.0.1",
        port=server.port,
        socket_timeout=77,
        socket_keepalive=True,
        socket_keepalive_options={socket.TCP_KEEPCNT: 9},
        retry=Retry(ConstantBackoff(1), 8),
        retry_on_error=[redis.exceptions.BusyLoadingError],
        health_check_interval=42,
        client_name="project",
    )
    return ProjectRedis(connection_pool=pool)


def from_django_redis(theirs: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("django_redis")
    module.get_redis_connection = lambda alias: {"queues": theirs}[alias]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "django_redis", module)


def from_a_cache(
    by: Callable[[redis.Redis], object], theirs: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "django_redis", None)  # not installed
    monkeypatch.setattr("django.core.cache.caches", {"queues": by(theirs)})


def with_a_client(theirs: redis.Redis) -> object:
    """What django-redis-cache had before version 0.13.1."""
    return types.SimpleNamespace(_client=theirs)


def with_a_master(theirs: redis.Redis) -> object:
    """What it has since then."""
    return types.SimpleNamespace(get_master_client=lambda: theirs)


@pytest.mark.parametrize(
    "install",
    [
        from_django_redis,
        functools.partial(from_a_cache, with_a_client),
        functools.partial(from_a_cache, with_a_master),
    ],
    ids=["django-redis", "django-redis-cache 0.13", "django-redis-cache"],
)
def test_a_client_of_the_projects_cache_is_copied_and_neither_changed_nor_connected(
    make_client, theirs, valkey, monkeypatch, install
):
    install(theirs, monkeypatch)
    before = dict(options(theirs))
    keepalive, retry = before["socket_keepalive_options"], before["retry"]
    contents = copy.copy(keepalive), copy.copy(before["retry_on_error"]), copy.copy(vars(retry))
    own = make_client(USE_REDIS_CACHE="queues")
    own.set("key", "value")
    own.set_retry(Retry(ConstantBackoff(3), 3))
    redis_clients.keep_driver_quiet(own)
    own.close()
    assert own.connection_pool is not theirs.connection_pool
    assert {name: id(value) for name, value in options(theirs).items()} == {
        name: id(value) for name, value in before.items()
    }
    assert (keepalive, before["retry_on_error"], vars(retry)) == contents
    assert opened(theirs) == []
    assert options(own).get("maint_notifications_pool_handler") is None
    assert options(own).get("himport_registry", own) is not before.get("himport_registry")


def test_it_is_of_the_projects_class_and_keeps_its_options(make_client, theirs, monkeypatch):
    from_django_redis(theirs, monkeypatch)
    own = make_client(USE_REDIS_CACHE="queues")
    assert isinstance(own, ProjectRedis)
    assert own.greet() == b"hello"
    assert own.client_getname() == "project"
    assert options(own)["health_check_interval"] == 42
    assert type(make_client(USE_REDIS_CACHE="queues")) is type(own)


def test_it_has_as_many_connections_as_a_worker_has_queues(make_client, theirs, monkeypatch):
    from_django_redis(theirs, monkeypatch)
    pool = make_client(USE_REDIS_CACHE="queues").connection_pool
    connections = [pool.get_connection() for _ in range(120)]
    for connection in connections:
        connection.send_command("PING")
        assert connection.read_response() in (b"PONG", "PONG")
        pool.release(connection)
    pool.disconnect()


def test_making_one_connects_to_nothing(make_client):
    own = make_client(HOST="127.0.0.1", PORT=1)
    assert opened(own) == []


# What it is like, for each way to name a server


def free_of_limits(client: redis.Redis) -> None:
    """Asserts what every client of the pool is like."""
    assert client.connection_pool.max_connections > 1_000_000
    assert not isinstance(client.connection_pool, BlockingConnectionPool)
    connection = client.connection_pool.make_connection()
    assert connection.retry._retries == 0
    assert connection.retry_on_error == []
    assert connection.retry_on_timeout is False
    assert 0 < connection.socket_timeout <= COMMAND_TIMEOUT
    assert 0 < connection.socket_connect_timeout <= COMMAND_TIMEOUT


TCP = {"HOST": "127.0.0.1", "PORT": 6379, "DB": 3}


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"URL": "redis://127.0.0.1:6379/3"}, redis.Connection),
        ({"URL": "redis://127.0.0.1:6379/3?max_connections=1"}, redis.Connection),
        ({"URL": "redis://127.0.0.1:6379/3?retry_on_timeout=yes"}, redis.Connection),
        ({"URL": "rediss://127.0.0.1:6379/3"}, SSLConnection),
        ({"URL": "unix:///run/valkey.sock?db=3"}, UnixDomainSocketConnection),
        ({"UNIX_SOCKET_PATH": "/run/valkey.sock", "DB": 3}, UnixDomainSocketConnection),
        (TCP, redis.Connection),
        ({**TCP, "SSL": True}, SSLConnection),
        ({**TCP, "REDIS_CLIENT_KWARGS": {"max_connections": 1, "retry_on_timeout": True}}, None),
        ({**TCP, "REDIS_CLIENT_KWARGS": {"protocol": 2}}, redis.Connection),
        ({**TCP, "REDIS_CLIENT_KWARGS": {"protocol": 3}}, redis.Connection),
        (
            {"SENTINELS": [("127.0.0.1", 26379)], "MASTER_NAME": "shop", "DB": 3},
            SentinelManagedConnection,
        ),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_whatever_names_the_server_nothing_is_repeated_or_waited_for_long(
    make_client, settings, kind
):
    own = make_client(**settings)
    free_of_limits(own)
    connection = own.connection_pool.make_connection()
    assert kind is None or type(connection) is kind
    assert connection.db == 3
    if isinstance(connection, redis.Connection):
        assert connection.socket_keepalive
        assert connection.socket_keepalive_options[socket.TCP_KEEPINTVL] == 2


def test_a_shorter_timeout_of_the_project_holds_and_a_longer_one_does_not(make_client):
    shorter = {"socket_timeout": 0.5, "socket_connect_timeout": 0.25}
    own = options(make_client(**TCP, REDIS_CLIENT_KWARGS=shorter))
    assert (own["socket_timeout"], own["socket_connect_timeout"]) == (0.5, 0.25)
    longer = {"socket_timeout": 60, "socket_connect_timeout": 60}
    own = options(make_client(**TCP, REDIS_CLIENT_KWARGS=longer))
    assert (own["socket_timeout"], own["socket_connect_timeout"]) == (3.0, 3.0)


def test_so_does_a_shorter_wait_for_a_sign_of_life(make_client):
    theirs = {socket.TCP_KEEPIDLE: 1, socket.TCP_KEEPINTVL: 60, socket.TCP_MAXSEG: 1000}
    own = options(make_client(**TCP, REDIS_CLIENT_KWARGS={"socket_keepalive_options": theirs}))
    chosen = own["socket_keepalive_options"]
    assert chosen[socket.TCP_KEEPIDLE] == 1
    assert chosen[socket.TCP_KEEPINTVL] == 2
    assert chosen[socket.TCP_MAXSEG] == 1000


def test_a_provider_of_credentials_is_shared(make_client):
    provider = UsernamePasswordCredentialProvider("user", "password")
    own = make_client(**TCP, REDIS_CLIENT_KWARGS={"credential_provider": provider})
    assert options(own)["credential_provider"] is provider
    assert own.connection_pool.make_connection().credential_provider is provider


def test_a_server_is_not_asked_to_announce_its_maintenance_unless_the_project_wants_it(
    make_client,
):
    maint_notifications = pytest.importorskip("redis.maint_notifications")
    assert not make_client(**TCP).connection_pool.maint_notifications_enabled()
    for enabled in (False, True):
        config = maint_notifications.MaintNotificationsConfig(enabled=enabled)
        wanted = {"maint_notifications_config": config, "protocol": 3}
        pool = make_client(**TCP, REDIS_CLIENT_KWARGS=wanted).connection_pool
        assert bool(pool.maint_notifications_enabled()) is enabled


# Sentinel


def test_sentinels_are_asked_by_clients_of_the_pool_and_those_of_the_project_stay(
    make_client, monkeypatch, valkey
):
    manager = Sentinel([("127.0.0.1", 1), ("127.0.0.1", 2)], min_other_sentinels=1)
    theirs = manager.master_for("shop", redis_class=ProjectRedis, check_connection=True)
    from_django_redis(theirs, monkeypatch)
    before, sentinels = dict(options(theirs)), list(manager.sentinels)
    pool = make_client(USE_REDIS_CACHE="queues").connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert (pool.service_name, pool.is_master, pool.check_connection) == ("shop", True, True)
    assert pool.sentinel_manager is not manager
    assert pool.sentinel_manager.min_other_sentinels == 1
    for sentinel in pool.sentinel_manager.sentinels:
        free_of_limits(sentinel)
    with pytest.raises(redis.exceptions.ConnectionError):
        pool.get_connection()
    assert manager.sentinels == sentinels
    assert options(theirs) == before
    assert all(opened(each) == [] for each in (theirs, *sentinels))
