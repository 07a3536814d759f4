"""Workers whose host stands still, or whose clock is wrong: what they run is settled once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from rq import Callback, Queue, Worker
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry

from django_rq_pool.ledger.members import join
from harness import Pool, eventually
from ledger_steps import begin, member

FORKED, SIMPLE = "rq.Worker", "rq.SimpleWorker"
LONG_AGO = 30
"""Seconds since an execution has expired."""


def group(worker_class: str, interrupted: str = "fail", queue: str = "high") -> str:
    return f"{queue}: {{workers: 1, worker_class: {worker_class}, interrupted: {interrupted}}}"


@contextmanager
def frozen(pool: Pool) -> Iterator[None]:
    """The pool's processes stand still, as those of a virtual machine that is suspended."""
    processes = [*pool.manager.children(recursive=True), pool.manager]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in reversed(processes):
            process.resume()


def expire(valkey: redis.Redis, worker: Worker) -> None:
    """As if it had stood still for so long: RQ's keys of it have expired, and it is missed."""
    valkey.delete(worker.key, f"rq:worker:{worker.name}:executions", *valkey.keys("rq:execution:*"))
    valkey.hset("rq:pool:suspects", worker.key, valkey.time()[0] - 121)
    valkey.delete(*valkey.keys("rq:pool:swept:*"))


def hold(enqueue, valkey, **options: object) -> tuple[Job, Worker]:
    """A job that runs, and its worker."""
    job = enqueue("high", "hold", "gate", **options)
    eventually(lambda: valkey.llen("gate:running"))
    [worker] = Worker.all(connection=valkey)
    return job, worker


def assert_settled_once(valkey: redis.Redis, job: Job, status: JobStatus) -> bool:
    assert job.get_status() == status
    finished = FinishedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False)
    failed = FailedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False)
    assert (finished, failed) == (([job.id], []) if status == "finished" else ([], [job.id]))
    assert len(job.results()) == 1
    assert StartedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False) == []
    assert valkey.keys("rq:execution:*") == []
    assert valkey.keys("rq:pool:in-flight:*") == []
    return True


def assert_registered(valkey: redis.Redis, *pools: Pool) -> bool:
    pids = [pid for pool in pools for pid in pool.worker_pids()]
    assert sorted(worker.pid for worker in Worker.all(connection=valkey)) == sorted(pids)
    assert valkey.hlen("rq:pool:members") == len(pids)
    assert not valkey.exists("rq:pool:suspects")
    return True


@pytest.mark.parametrize("worker_class", [FORKED, SIMPLE])
def test_a_job_that_another_pool_has_failed_while_its_host_was_frozen_stays_failed(
    start_pool, enqueue, valkey, worker_class
):
    pool = start_pool(yaml=group(worker_class)).expect_ready(1)
    job, worker = hold(enqueue, valkey, on_failure=Callback("pool_jobs.failed"))
    with frozen(pool):
        expire(valkey, worker)
        other = start_pool("--name", "other", "low=1").expect_ready(1)
        other.expect(f"worker {worker.name} was lost; recovering its jobs")
        eventually(lambda: job.get_status() == JobStatus.FAILED)
        eventually(lambda: not valkey.hexists("rq:pool:members", worker.key))
    valkey.rpush("gate:open", 1)
    pool.expect(f"job {job.id} is settled, or held, by somebody else; nothing is recorded here")
    eventually(lambda: assert_settled_once(valkey, job, JobStatus.FAILED))
    assert valkey.lrange("failed", 0, -1) == [job.id.encode()]
    next_job = enqueue("high", "note", "trace")
    eventually(lambda: next_job.is_finished)
    eventually(lambda: assert_registered(valkey, pool, other))
    assert len(pool.found("forked")) == 1
    assert (pool.stop(), other.stop()) == (0, 0)


@pytest.mark.parametrize("worker_class", [FORKED, SIMPLE])
def test_a_job_that_was_requeued_while_its_host_was_frozen_is_finished_once(
    start_pool, enqueue, valkey, worker_class
):
    pool = start_pool(yaml=group(worker_class, "requeue")).expect_ready(1)
    job, worker = hold(enqueue, valkey)
    with frozen(pool):
        expire(valkey, worker)
        other = start_pool("--name", "other", yaml=group(FORKED)).expect_ready(1)
        eventually(lambda: valkey.llen("gate:running") == 2)  # the other pool runs it
    valkey.rpush("gate:open", 1, 1)
    pool.expect(f"job {job.id} is settled, or held, by somebody else; nothing is recorded here")
    eventually(lambda: valkey.llen("gate:done") == 2)
    eventually(lambda: assert_settled_once(valkey, job, JobStatus.FINISHED))
    eventually(lambda: assert_registered(valkey, pool, other))
    assert (pool.stop(), other.stop()) == (0, 0)


@pytest.mark.parametrize("worker_class", [FORKED, SIMPLE])
def test_a_job_that_rqs_clean_up_has_failed_while_its_host_was_frozen_stays_failed(
    start_pool, enqueue, valkey, worker_class
):
    pool = start_pool(yaml=group(worker_class)).expect_ready(1)
    job, worker = hold(enqueue, valkey)
    with frozen(pool):
        expire(valkey, worker)
        StartedJobRegistry("high", connection=valkey).cleanup(time.time() + 3600)
        assert job.get_status() == JobStatus.FAILED
    valkey.rpush("gate:open", 1)
    pool.expect(f"job {job.id} is settled, or held, by somebody else; nothing is recorded here")
    eventually(lambda: assert_settled_once(valkey, job, JobStatus.FAILED))
    next_job = enqueue("high", "note", "trace")
    eventually(lambda: next_job.is_finished)
    eventually(lambda: assert_registered(valkey, pool))
    assert pool.stop() == 0


def test_a_job_that_nobody_has_settled_while_its_host_was_frozen_is_finished(
    start_pool, enqueue, valkey
):
    pool = start_pool("high=1").expect_ready(1)
    job, worker = hold(enqueue, valkey)
    with frozen(pool):
        expire(valkey, worker)
    valkey.rpush("gate:open", 1)
    eventually(lambda: assert_settled_once(valkey, job, JobStatus.FINISHED))
    eventually(lambda: assert_registered(valkey, pool))
    assert pool.stop() == 0


def test_what_a_worker_takes_after_it_was_recovered_by_mistake_is_its_own(
    start_pool, enqueue, valkey
):
    pool = start_pool("high=1").expect_ready(1)
    [worker] = Worker.all(connection=valkey)
    with frozen(pool):
        expire(valkey, worker)
        other = start_pool("--name", "other", "low=1").expect_ready(1)
        other.expect(f"worker {worker.name} was lost; recovering its jobs")
        eventually(lambda: valkey.hexists("rq:pool:left", worker.key))
    eventually(lambda: assert_registered(valkey, pool, other))
    job, _ = enqueue("high", "hold", "gate"), eventually(lambda: valkey.llen("rq:queue:high") == 0)
    eventually(lambda: valkey.llen("gate:running"))
    # A pool looks once more at what those have that have left.
    valkey.delete(*valkey.keys("rq:pool:swept:*"))
    third = start_pool("--name", "third", "low=1").expect_ready(1)
    eventually(lambda: valkey.exists("rq:pool:swept:third"))
    done = enqueue("low", "note", "trace")
    eventually(lambda: done.is_finished)
    assert job.get_status() == JobStatus.STARTED
    valkey.rpush("gate:open", 1)
    eventually(lambda: assert_settled_once(valkey, job, JobStatus.FINISHED))
    assert [each.stop() for each in (pool, other, third)] == [0, 0, 0]


# Clocks


def test_a_job_is_not_ended_when_the_clock_is_set_forward(start_pool, enqueue, valkey):
    pool = start_pool(yaml=group("ending_jobs.ClockIsSet")).expect_ready(1)
    job, _ = hold(enqueue, valkey)
    valkey.set("clock is set", 1)
    started = StartedJobRegistry("high", connection=valkey)
    [entry] = valkey.zrange(started.key, 0, -1)
    hour = time.time() + 3600
    eventually(lambda: valkey.zscore(started.key, entry) > hour)  # a look at the horse later
    assert os.getpgid(int(valkey.lindex("gate:running", 0)))
    assert job.get_status() == JobStatus.STARTED
    valkey.rpush("gate:open", 1)
    eventually(lambda: assert_settled_once(valkey, job, JobStatus.FINISHED))
    assert valkey.llen("gate:running") == 1
    assert pool.stop() == 0


def test_a_job_that_seems_abandoned_by_another_clock_is_left_to_its_live_worker(
    start_pool, enqueue, valkey
):
    pool = start_pool("high=1").expect_ready(1)
    job, _ = hold(enqueue, valkey)
    valkey.set("clock is set", 1)
    both = group("ending_jobs.ClockIsSet", queue='"high,default"')
    other = start_pool("--name", "other", yaml=both).expect_ready(1)
    other.expect("cleaning registries for queue: high")
    done = enqueue("default", "note", "trace")
    eventually(lambda: done.is_finished)
    assert job.get_status() == JobStatus.STARTED
    valkey.delete("clock is set")
    valkey.rpush("gate:open", 1)
    eventually(lambda: assert_settled_once(valkey, job, JobStatus.FINISHED))
    assert (pool.stop(), other.stop()) == (0, 0)


def test_a_lost_workers_job_is_left_to_its_recovery_which_knows_its_groups_rules(
    start_pool, enqueue, valkey
):
    job = enqueue("high", "note", "trace")
    gone = member("shop.gone.high.1-00000000", interrupted="requeue")
    hand = begin(valkey, Queue("high", connection=valkey), job, gone.name)
    join(valkey, gone)
    valkey.zadd("rq:wip:high", {hand.execution.composite_key: time.time() - LONG_AGO})
    pool = start_pool("high=1").expect_ready(1)
    eventually(lambda: valkey.hexists("rq:pool:suspects", gone.key))
    assert job.get_status() == JobStatus.STARTED
    valkey.hset("rq:pool:suspects", gone.key, valkey.time()[0] - 121)
    valkey.delete("rq:pool:swept:shop")
    other = start_pool("--name", "other", "low=1").expect_ready(1)
    eventually(lambda: job.is_finished)
    assert valkey.hget(job.key, "pool_interrupted") == b"1"
    assert (pool.stop(), other.stop()) == (0, 0)


def test_a_job_without_a_live_worker_is_called_abandoned_as_in_rq(start_pool, enqueue, valkey):
    job = enqueue("high", "note", "trace")
    with valkey.pipeline() as pipeline:  # what a worker of RQ's own leaves that is killed
        pipeline.lrem("rq:queue:high", 1, job.id)
        pipeline.hset(job.key, "status", "started")
        pipeline.zadd("rq:wip:high", {f"{job.id}:0123": time.time() - LONG_AGO})
        pipeline.execute()
    pool = start_pool("high=1").expect_ready(1)
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    assert "AbandonedJobError" in job.latest_result().exc_string
    assert pool.stop() == 0
