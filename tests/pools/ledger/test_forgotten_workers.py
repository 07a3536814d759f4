"""A worker that Redis has forgotten registers again, idle or busy, and is a member again."""

from __future__ import annotations

import signal

import pytest
import redis
from rq import Worker
from rq.suspension import suspend

from harness import Pool, eventually

OFTEN = "high: {workers: 2, worker_class: ending_jobs.WatchesOften}"
SIMPLE = "high: {workers: 2, worker_class: rq.SimpleWorker}"


def assert_registered(valkey: redis.Redis, pool: Pool) -> bool:
    """Exactly the live workers stand in each list that RQ and the pool have, with all that RQ
    writes of a worker, and their registrations expire."""
    workers = Worker.all(connection=valkey)
    assert {worker.pid for worker in workers} == set(pool.worker_pids())
    keys = {worker.key.encode() for worker in workers}
    assert valkey.smembers("rq:workers:high") == keys
    assert set(valkey.hkeys("rq:pool:members")) == keys
    for key in keys:
        assert valkey.hmget(key, "birth", "queues", "hostname", "last_heartbeat").count(None) == 0
        assert 0 < valkey.ttl(key) <= 420 + 60
    return True


def flush(valkey: redis.Redis) -> None:
    valkey.flushall()


def delete_hashes(valkey: redis.Redis) -> None:
    valkey.delete(*valkey.smembers("rq:workers"))


def forget_members(valkey: redis.Redis) -> None:
    valkey.delete("rq:pool:members")


def remove_from_lists(valkey: redis.Redis) -> None:
    valkey.delete("rq:workers", "rq:workers:high")


WAYS = [flush, delete_hashes, remove_from_lists, forget_members]


@pytest.mark.parametrize("forget", WAYS)
def test_idle_workers_that_redis_has_forgotten_register_again(start_pool, enqueue, valkey, forget):
    pool = start_pool("high=2").expect_ready(2)
    forget(valkey)
    eventually(lambda: assert_registered(valkey, pool))
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert len(pool.found("forked")) == 2
    assert pool.stop() == 0
    assert valkey.hlen("rq:pool:members") == 0


@pytest.mark.parametrize("forget", WAYS)
@pytest.mark.parametrize("yaml", ["high: 2", SIMPLE], ids=["forked", "simple"])
def test_workers_that_redis_has_forgotten_register_again_though_they_are_given_jobs(
    start_pool, enqueue, valkey, forget, yaml
):
    # A job has its worker's heartbeat written, with which RQ makes a part of the hash.
    pool = start_pool(yaml=yaml).expect_ready(2)
    forget(valkey)

    def work_and_look() -> bool:
        job = enqueue("high", "note", "trace")
        eventually(lambda: job.is_finished)
        return assert_registered(valkey, pool)

    eventually(work_and_look)
    assert len(pool.found("forked")) == 2
    assert pool.stop() == 0


@pytest.mark.parametrize("forget", WAYS)
def test_busy_workers_that_redis_has_forgotten_register_again(start_pool, enqueue, valkey, forget):
    pool = start_pool(yaml=OFTEN).expect_ready(2)
    jobs = [enqueue("high", "hold", "gate") for _ in range(2)]
    eventually(lambda: valkey.llen("gate:running") == 2)
    forget(valkey)
    eventually(lambda: assert_registered(valkey, pool))
    valkey.rpush("gate:open", 1, 1)
    if forget is flush:
        # Nobody knows of the jobs any more, and nothing is made up about them.
        pool.expect("is settled, or held, by somebody else", 2)
        eventually(lambda: valkey.keys("rq:job:*") == [])
        assert valkey.llen("gate:done") == 2
        assert valkey.keys("rq:finished:*") == valkey.keys("rq:execution*") == []
    else:
        eventually(lambda: all(job.is_finished for job in jobs))
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    eventually(lambda: assert_registered(valkey, pool))
    assert len(pool.found("forked")) == 2
    assert pool.stop() == 0


@pytest.mark.parametrize("how", ["USR2", "rq suspend"])
def test_workers_that_take_no_jobs_for_longer_than_their_registration_lasts_stay_registered(
    start_pool, enqueue, valkey, how
):
    pool = start_pool(yaml="high: {workers: 2, worker_ttl: 16}").expect_ready(2)
    if how == "USR2":
        pool.send(signal.SIGUSR2)
    else:
        suspend(valkey)
    pool.expect("suspended", 2)
    for forget in (expire_soon, flush, delete_hashes):
        forget(valkey)
        if how == "rq suspend":
            suspend(valkey)
        eventually(lambda: assert_registered(valkey, pool))
        eventually(lambda: all(valkey.ttl(key) > 30 for key in valkey.smembers("rq:workers")))
    job = enqueue("high", "note", "trace")
    assert valkey.llen("rq:queue:high") == 1
    if how == "USR2":
        pool.send(signal.SIGCONT)
    else:
        valkey.delete("rq:suspended")
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


def expire_soon(valkey: redis.Redis) -> None:
    """As if so long had passed; a worker that sends no heartbeat is not registered then."""
    for key in valkey.smembers("rq:workers"):
        valkey.expire(key, 20)
