"""What goes wrong in a worker, or with its permissions, while a job runs leaves the job alone."""

from __future__ import annotations

import os
import signal

import psutil
from rq import Queue, Retry
from rq.job import JobStatus
from rq.registry import FailedJobRegistry

from django_rq_pool.ledger.members import join
from harness import eventually
from ledger_steps import member

WORKERS = """
from rq import Worker

class Quick(Worker):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs, job_monitoring_interval=1)

class Breaks(Quick):
    def maintain_heartbeats(self, job, execution):
        super().maintain_heartbeats(job, execution)
        raise ValueError("this class breaks")
"""


def hold(enqueue, valkey, **options):
    """Enqueues a job that holds; returns it and its horse once it runs."""
    job = enqueue("high", "hold", "gate", **options)
    eventually(lambda: valkey.llen("gate:running") > 0)
    return job, psutil.Process(int(valkey.lindex("gate:running", -1)))


def test_a_heartbeat_that_redis_refuses_is_logged_and_the_job_runs_on(
    start_with, enqueue, valkey, limited
):
    pool = start_with(
        "",
        modules={"own": WORKERS},
        yaml="high: {workers: 1, worker_class: own.Quick}",
        env={"REDIS_URL": limited},
    ).expect_ready(1)
    job, _ = hold(enqueue, valkey, retry=Retry(max=1))
    valkey.acl_setuser("limited", enabled=True, commands=["-sismember"])
    pool.expect(rf"heartbeat of job {job.id}: .*sismember", 2)
    valkey.rpush("gate:open", 1)
    eventually(lambda: job.is_finished)
    assert valkey.llen("gate:running") == 1
    assert len(pool.found("forked")) == 1
    assert pool.stop() == 0


def test_a_worker_that_breaks_leaves_its_running_job_alone(start_with, enqueue, valkey):
    pool = start_with(
        "", modules={"own": WORKERS}, yaml="high: {workers: 1, worker_class: own.Breaks}"
    ).expect_ready(1)
    job, horse = hold(enqueue, valkey, retry=Retry(max=1))
    worker = horse.ppid()
    pool.expect(rf"leaves its work horse {horse.pid} behind")
    pool.expect(rf"worker {worker} of high reaped")
    pool.expect_ready(2)
    assert job.get_status() == JobStatus.STARTED
    valkey.rpush("gate:open", 1)
    eventually(lambda: job.is_finished)
    eventually(lambda: valkey.keys("rq:pool:recovery:*") == [])
    assert valkey.llen("gate:running") == 1
    assert pool.stop() == 0


def test_what_another_lost_worker_has_left_does_not_end_the_one_that_looks(
    start_pool, enqueue, valkey
):
    join(valkey, member())
    valkey.hset("rq:pool:suspects", member().key, valkey.time()[0] - 61)
    valkey.rpush(f"rq:pool:in-flight:{member().name}:rq:queue:high", b"\xff is no job id")
    pool = start_pool("low=1").expect_ready(1)
    pool.expect(f"what worker {member().name} has left cannot be settled now")
    assert not valkey.exists(f"rq:pool:recovery:{member().name}")  # the next look tries again
    job = enqueue("low", "note", "trace")
    eventually(lambda: job.is_finished)
    assert len(pool.found("forked")) == 1
    assert pool.stop() == 0


def test_a_job_that_was_canceled_while_it_ran_is_not_requeued(start_pool, enqueue, valkey):
    pool = start_pool(yaml="high: {workers: 1, interrupted: requeue}").expect_ready(1)
    job, horse = hold(enqueue, valkey)
    job.cancel()
    os.kill(horse.ppid(), signal.SIGUSR1)
    eventually(lambda: job.id in FailedJobRegistry("high", connection=valkey))
    other = enqueue("high", "note", "trace")
    eventually(lambda: other.is_finished)
    assert Queue("high", connection=valkey).job_ids == []
    assert valkey.llen("gate:running") == 1
    assert pool.stop() == 0


def test_a_job_that_keeps_no_result_has_succeeded_though_its_execution_has_expired(
    start_pool, enqueue, valkey
):
    pool = start_pool("high=1").expect_ready(1)
    job, _ = hold(enqueue, valkey, result_ttl=0, retry=Retry(max=1))
    valkey.delete(*valkey.keys("rq:execution:*"))
    valkey.rpush("gate:open", 1)
    eventually(lambda: not valkey.exists(job.key))
    other = enqueue("high", "note", "trace")
    eventually(lambda: other.is_finished)
    assert valkey.llen("gate:running") == 1
    assert valkey.keys(f"*{job.id}*") == []
    assert pool.stop() == 0
