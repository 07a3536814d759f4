"""What a server says of itself, and what that means for a pool."""

from __future__ import annotations

import pytest

from django_rq_pool.worker.needs import named, obstacles, risks, tries, version

GOOD = {
    "redis_version": "7.2.4",
    "role": "master",
    "connected_slaves": 1,
    "cluster_enabled": 0,
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "rdb_last_bgsave_status": "ok",
}


def test_a_good_server_has_no_obstacle_and_no_risk():
    assert list(obstacles(GOOD, replicas=1)) == []
    assert list(risks(GOOD)) == []


def test_a_server_that_tells_nothing_is_not_accused():
    assert list(obstacles({}, replicas=1)) == []
    assert list(risks({})) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"redis_version": "6.0.16"}, "it is Redis 6.0.16, and the pool needs Redis 6.2"),
        ({"redis_version": "5.0"}, "needs Redis 6.2"),
        ({"role": "slave"}, "it is a replica"),
        ({"cluster_enabled": 1}, "a node of a cluster"),
        ({"connected_slaves": 0}, "RQ_POOL_WAIT_REPLICAS is 1 and it has 0 replicas"),
    ],
)
def test_what_no_worker_can_work_on_is_an_obstacle(facts, words):
    (sentence,) = obstacles({**GOOD, **facts}, replicas=1)
    assert words in sentence


@pytest.mark.parametrize("known", ["6.2.0", "6.10.1", "7.0", "8.1.3", "255.255.255"])
def test_later_versions_are_enough(known):
    assert list(obstacles({**GOOD, "redis_version": known}, replicas=0)) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"maxmemory": 1, "maxmemory_policy": "allkeys-lru"}, "it deletes jobs"),
        ({"maxmemory": 1, "maxmemory_policy": "volatile-ttl"}, "it deletes results"),
        ({"aof_enabled": 0}, "no append-only file"),
        ({"rdb_last_bgsave_status": "err"}, "its last snapshot to the disk failed"),
        ({"aof_last_write_status": "err"}, "its last write to the disk failed"),
    ],
)
def test_what_may_lose_jobs_is_a_risk(facts, words):
    (sentence,) = risks({**GOOD, **facts})
    assert words in sentence


def test_a_policy_without_a_limit_deletes_nothing():
    assert list(risks({**GOOD, "maxmemory_policy": "allkeys-lru"})) == []


def test_a_server_is_called_by_its_own_name():
    assert version({"redis_version": "7.2.4", "valkey_version": "9.0.1"}) == "Valkey 9.0.1"
    assert version({"redis_version": "7.2.4"}) == "Redis 7.2.4"


def test_commands_are_named_as_the_rules_of_a_user_name_them():
    assert named(("LMOVE", "a", "b")) == "lmove"
    assert named(("CLIENT", "ID")) == "client|id"


def test_every_key_of_a_trial_is_ones_own():
    for command in tries("rq:pool:trial:x"):
        for word in command[1:]:
            assert not str(word).startswith("rq:") or str(word).startswith("rq:pool:trial:x:")
