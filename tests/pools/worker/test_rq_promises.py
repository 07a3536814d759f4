"""What RQ's own worker does for a job, a worker of the pool does too."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rq import Callback, Queue, Repeat, Retry
from rq.job import Dependency, JobStatus
from rq.registry import FinishedJobRegistry, ScheduledJobRegistry

from harness import eventually

WORKER_CLASSES = ["rq.Worker", "rq.SimpleWorker"]


@pytest.fixture(params=WORKER_CLASSES)
def pool(request, start_pool):
    pool = start_pool(
        yaml=f'"high,default": {{workers: 1, worker_class: {request.param}}}'
    ).expect_ready(1)
    yield pool
    assert pool.stop() == 0


def test_a_result_is_kept(pool, enqueue, valkey):
    job = enqueue("high", "note", "trace", "value", result_ttl=100)
    eventually(lambda: job.is_finished)
    assert job.return_value() == "value"
    assert job.id in FinishedJobRegistry("high", connection=valkey)
    assert 0 < valkey.ttl(job.key) <= 100


def test_a_result_without_time_to_live_is_not_kept(pool, enqueue, valkey):
    job = enqueue("high", "note", "trace", "value", result_ttl=0)
    eventually(lambda: valkey.llen("trace"))
    eventually(lambda: not valkey.exists(job.key))


def test_a_failure_has_its_traceback(pool, enqueue):
    job = enqueue("high", "fail")
    eventually(lambda: job.is_failed)
    assert "ZeroDivisionError" in job.latest_result().exc_string


def test_a_retry_runs_again_and_may_succeed(pool, enqueue, valkey):
    job = enqueue("high", "fail_once", retry=Retry(max=2))
    eventually(lambda: job.is_finished)
    assert valkey.llen("tries") == 2


def test_a_repeat_runs_so_many_times_more(pool, enqueue, valkey):
    enqueue("high", "note", "trace", repeat=Repeat(times=2, interval=0))
    eventually(lambda: valkey.llen("trace") == 3)


def test_a_time_limit_ends_a_job(pool, enqueue):
    job = enqueue("high", "hold", "gate", job_timeout=1)
    eventually(lambda: job.is_failed)
    assert "JobTimeoutException" in job.latest_result().exc_string


def test_callbacks_are_called(pool, enqueue, valkey):
    good = enqueue("high", "note", "trace", on_success=Callback("pool_jobs.succeeded"))
    bad = enqueue("high", "fail", on_failure=Callback("pool_jobs.failed"))
    eventually(lambda: good.is_finished and bad.is_failed)
    assert valkey.lrange("succeeded", 0, -1) == [good.id.encode()]
    assert valkey.lrange("failed", 0, -1) == [bad.id.encode()]


def test_dependents_run_after_what_they_depend_on(pool, enqueue, valkey):
    first = enqueue("default", "note", "trace", "first")
    second = enqueue("high", "note", "trace", "second", depends_on=first)
    failed = enqueue("high", "fail")
    never = enqueue("high", "note", "trace", "never", depends_on=failed)
    anyway = enqueue(
        "high", "note", "trace", "anyway", depends_on=Dependency(failed, allow_failure=True)
    )
    eventually(lambda: second.is_finished and anyway.is_finished)
    assert never.get_status() == JobStatus.DEFERRED
    trace = valkey.lrange("trace", 0, -1)
    assert sorted(trace) == [b"anyway", b"first", b"second"]
    assert trace.index(b"first") < trace.index(b"second")


def test_meta_and_the_current_job_are_there(pool, enqueue):
    job = enqueue("high", "write_meta")
    eventually(lambda: job.is_finished)
    assert job.get_meta() == {"job": job.id}


def test_a_retry_with_an_interval_is_scheduled(pool, enqueue, valkey):
    job = enqueue("high", "fail", retry=Retry(max=1, interval=3600))
    eventually(lambda: job.id in ScheduledJobRegistry("high", connection=valkey))
    assert job.get_status() == JobStatus.SCHEDULED


def test_scheduled_jobs_run_in_time(start_pool, valkey):
    pool = start_pool(yaml="high: {workers: 1, with_scheduler: true}").expect_ready(1)
    job = Queue("high", connection=valkey).enqueue_in(
        timedelta(milliseconds=1), "pool_jobs.note", "trace"
    )
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0
    assert pool.processes() == []


def test_in_burst_mode_scheduled_jobs_that_are_due_run_too(start_pool, valkey):
    job = Queue("high", connection=valkey).enqueue_in(
        timedelta(seconds=-1), "pool_jobs.note", "trace"
    )
    pool = start_pool("--burst", yaml="high: {workers: 1, with_scheduler: true}")
    assert pool.wait() == 0
    assert job.is_finished
