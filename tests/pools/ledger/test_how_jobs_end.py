"""A job ends once, whatever ends: its process, its callbacks, its worker's wrapper, or its host."""

from __future__ import annotations

import os
import signal

import pytest
from rq import Callback, Queue, Retry, Worker
from rq.job import Dependency, JobStatus
from rq.rate_limit import RateLimit
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry

from django_rq_pool.ledger.members import join
from ending_jobs import BAD
from harness import eventually
from ledger_steps import begin, member

FORKED, SIMPLE = "rq.Worker", "rq.SimpleWorker"


def group(worker_class: str, **options: object) -> str:
    given = "".join(f", {name}: {value}" for name, value in options.items())
    return f"high: {{workers: 1, worker_class: {worker_class}{given}}}"


def assert_settled_once(valkey, job, status):
    """The job has ended in one way only, and nothing says that somebody has it."""
    assert job.get_status() == status
    finished = job.id in FinishedJobRegistry("high", connection=valkey)
    failed = job.id in FailedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False)
    assert (finished, failed) == (status == JobStatus.FINISHED, status == JobStatus.FAILED)
    assert len(job.results()) == 1
    assert StartedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False) == []
    assert valkey.keys("rq:pool:in-flight:*") == []
    for key in valkey.keys("rq:pool:begun:*"):
        assert valkey.hkeys(key) == [b"settled"]
    return True


# Dependents


@pytest.mark.parametrize(
    ("function", "options"),
    [
        ("fail", "job_class: ending_jobs.KilledWhenSettled"),
        ("nothing", "job_class: ending_jobs.KilledWhenSettled"),
        ("nothing", "queue_class: ending_jobs.KilledBeforeDependents"),
    ],
)
def test_dependents_are_enqueued_though_the_horse_ends_right_after_it_has_settled_their_dependency(
    start_pool, enqueue, function, options
):
    job = enqueue("high", function)
    then = enqueue("low", "note", "trace", depends_on=Dependency(job, allow_failure=True))
    pool = start_pool(yaml=f"high: {{workers: 1, {options}}}\nlow: 1")
    eventually(lambda: then.is_finished)
    assert job.get_status() == (JobStatus.FAILED if function == "fail" else JobStatus.FINISHED)
    assert pool.stop() == 0


# TERM after the job's own code


@pytest.mark.parametrize("where", ["callback", "webhook", "settling"])
def test_a_job_whose_code_has_ended_is_finished_though_its_worker_stops_immediately(
    start_patient, enqueue, valkey, where
):
    pool = start_patient(
        yaml="high: {workers: 1, job_class: ending_jobs.EndsSlowly}", env={"TERM_CHILD": "1"}
    ).expect_ready(1)
    callback = Callback("ending_jobs.await_term" if where == "callback" else "pool_jobs.succeeded")
    job = enqueue(
        "high",
        "nothing",
        meta={"term": where},
        on_success=callback,
        on_failure=Callback("pool_jobs.failed"),
        retry=Retry(max=3),
    )
    eventually(lambda: valkey.llen("awaited"))
    assert pool.stop(signal.SIGTERM) == 0
    assert valkey.llen("awaited") == 1
    assert not valkey.exists("failed")
    assert assert_settled_once(valkey, job, JobStatus.FINISHED)


# A lost host


@pytest.mark.parametrize(
    ("own", "finders"), [("fail", "requeue"), ("requeue", "fail"), ("requeue", "requeue")]
)
def test_a_lost_workers_job_is_settled_by_the_rules_of_its_own_group(
    start_pool, enqueue, valkey, own, finders
):
    job = enqueue("low", "note", "trace")
    gone = member("shop.gone.low.1-00000000", interrupted=own)
    begin(valkey, Queue("low", connection=valkey), job, gone.name)
    join(valkey, gone)
    valkey.hset("rq:pool:suspects", gone.key, valkey.time()[0] - 61)

    pool = start_pool(yaml=group(FORKED, interrupted=finders)).expect_ready(1)
    pool.expect(f"worker {gone.name} was lost; recovering its jobs")
    if own == "requeue":
        eventually(lambda: valkey.lrange("rq:queue:low", 0, -1) == [job.id.encode()])
        assert job.get_status() == JobStatus.QUEUED
    else:
        eventually(lambda: job.get_status() == JobStatus.FAILED)
        assert "was lost with its host" in job.latest_result().exc_string
    eventually(lambda: valkey.hlen("rq:pool:members") == 1)
    assert not valkey.exists(f"rq:pool:begun:{gone.name}")
    assert pool.stop() == 0


# Processes that end themselves


@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize("worker_class", [FORKED, SIMPLE])
@pytest.mark.parametrize("interrupted", ["fail", "requeue"])
def test_a_job_that_ends_its_process_is_failed_at_once_with_the_status(
    start_pool, enqueue, valkey, worker_class, status, interrupted
):
    pool = start_pool(yaml=group(worker_class, interrupted=interrupted)).expect_ready(1)
    job, next_job = enqueue("high", "leave", status), enqueue("high", "note", "trace")
    eventually(lambda: next_job.is_finished)
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    reason = job.latest_result().exc_string
    if worker_class == SIMPLE:
        assert f"exit code {status} while it ran a job" in reason
    elif status:
        assert f"waitpid returned {status << 8};" in reason  # RQ's own words
    else:
        assert "process ended itself with status 0" in reason
    assert pool.stop() == 0
    assert Worker.count(connection=valkey) == 0
    assert valkey.hlen("rq:pool:members") == 0


def test_a_callback_that_ends_the_recovery_process_is_called_once_and_the_job_is_settled(
    start_pool, enqueue, valkey
):
    pool = start_pool(yaml=group(SIMPLE)).expect_ready(1)
    job = enqueue("high", "hold", "gate", on_failure=Callback("ending_jobs.end_process"))
    eventually(lambda: valkey.llen("gate:running"))
    [worker] = Worker.all(connection=valkey)
    os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    assert valkey.lrange("told", 0, -1) == [job.id.encode()]
    eventually(lambda: valkey.hlen("rq:pool:members") == Worker.count(connection=valkey) == 1)
    pool.expect(rf"recovery of worker {worker.name} failed")
    assert pool.stop() == 0


# Horses that do not begin


def test_a_job_whose_horse_hangs_before_it_begins_is_failed_once(start_pool, enqueue, valkey):
    pool = start_pool(yaml=group("ending_jobs.HangsBeforeItBegins")).expect_ready(1)
    job = enqueue("high", "note", "trace", "hangs", job_timeout=2)
    next_job = enqueue("high", "note", "trace", "next")
    eventually(lambda: next_job.is_finished)
    assert assert_settled_once(valkey, job, JobStatus.FAILED)
    assert valkey.lrange("trace", 0, -1) == [b"next"]
    assert pool.stop() == 0


NOT_BEGUN = {
    "wrapper raises": "worker_class: ending_jobs.WrapperRaises",
    "wrapper raises, simple": "worker_class: ending_jobs.SimpleWrapperRaises",
    "returns": "worker_class: ending_jobs.RunsNothing",
    "returns, simple": "worker_class: ending_jobs.SimpleRunsNothing",
    "unprepared": "job_class: ending_jobs.CannotBePrepared",
    "unprepared, simple": "worker_class: rq.SimpleWorker, job_class: ending_jobs.CannotBePrepared",
}


@pytest.mark.parametrize("how", NOT_BEGUN)
@pytest.mark.parametrize("interrupted", ["fail", "requeue"])
def test_a_job_that_is_not_begun_because_of_an_error_is_failed_once_and_the_next_job_runs(
    start_pool, enqueue, valkey, how, interrupted
):
    job = enqueue("high", "note", "trace", "bad", description=BAD)
    next_job = enqueue("high", "note", "trace", "next")
    pool = start_pool(yaml=f"high: {{workers: 1, interrupted: {interrupted}, {NOT_BEGUN[how]}}}")
    eventually(lambda: next_job.is_finished)
    assert assert_settled_once(valkey, job, JobStatus.FAILED)
    assert valkey.llen("tried") == 1
    assert valkey.lrange("trace", 0, -1) == [b"next"]
    assert len(pool.found("forked")) == 1
    assert pool.stop() == 0


POSTPONING = ["ending_jobs.Postpones", "ending_jobs.SimplePostpones"]


@pytest.mark.parametrize("worker_class", POSTPONING)
def test_a_job_that_a_class_returns_without_running_is_tried_so_often_and_then_failed(
    start_pool, enqueue, valkey, worker_class
):
    pool = start_pool(yaml=group(worker_class, interrupted_limit=2)).expect_ready(1)
    job = enqueue("high", "note", "trace", "bad", description=BAD)
    next_job = enqueue("high", "note", "trace", "next")
    eventually(lambda: next_job.is_finished)
    assert assert_settled_once(valkey, job, JobStatus.FAILED)
    assert "was put back too often" in job.latest_result().exc_string
    assert valkey.llen("tried") == 3
    assert pool.stop() == 0


@pytest.mark.parametrize("worker_class", POSTPONING)
def test_a_job_that_a_class_puts_into_another_queue_is_there_once(
    start_pool, enqueue, valkey, worker_class
):
    pool = start_pool(yaml=group(worker_class)).expect_ready(1)
    job = enqueue("high", "note", "trace", "bad", description=BAD, meta={"to": "low"})
    next_job = enqueue("high", "note", "trace", "next")
    eventually(lambda: next_job.is_finished)
    assert valkey.lrange("rq:queue:low", 0, -1) == [job.id.encode()]
    assert valkey.keys("rq:pool:in-flight:*") == []
    assert valkey.llen("tried") == 1
    assert pool.stop() == 0


# Exception handlers


@pytest.mark.parametrize("worker_class", [FORKED, SIMPLE])
def test_a_job_whose_exception_handler_raises_is_run_once_and_not_called_interrupted(
    start_with, enqueue, valkey, worker_class
):
    pool = start_with(
        'RQ_EXCEPTION_HANDLERS = ["ending_jobs.note_and_refuse_to_fail"]',
        yaml=group(worker_class, interrupted="requeue"),
    ).expect_ready(1)
    queue = Queue("high", connection=valkey)
    job = queue.enqueue("ending_jobs.note_and_fail", "ran")
    next_job = enqueue("high", "note", "trace")
    eventually(lambda: next_job.is_finished)
    assert assert_settled_once(valkey, job, JobStatus.FAILED)
    assert (valkey.llen("ran"), valkey.llen("handled")) == (1, 1)
    reason = job.latest_result().exc_string
    assert "this handler is broken" in reason
    assert "somebody else" not in reason
    assert len(pool.found("forked")) == 1
    assert pool.stop() == 0


# Jobs that are deleted


@pytest.mark.parametrize("worker_class", [FORKED, SIMPLE])
@pytest.mark.parametrize("end", ["finishes", "is killed"])
def test_a_job_that_is_deleted_while_it_runs_leaves_nothing_among_the_started_ones(
    start_pool, enqueue, valkey, worker_class, end
):
    pool = start_pool(yaml=group(worker_class)).expect_ready(1)
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    job.delete()
    if end == "finishes":
        valkey.rpush("gate:open", 1)
    else:
        os.kill(int(valkey.lindex("gate:running", 0)), signal.SIGKILL)
    next_job = enqueue("high", "note", "trace")
    eventually(lambda: next_job.is_finished)

    def nothing_left() -> bool:
        assert StartedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False) == []
        assert valkey.keys("rq:execution:*") == valkey.keys("rq:executions:*") == []
        assert valkey.keys("rq:pool:in-flight:*") == []
        return True

    eventually(nothing_left)
    assert pool.stop() == 0


def test_a_job_that_is_deleted_while_it_runs_and_is_killed_frees_its_slot_of_a_rate_limit(
    start_pool, enqueue, valkey
):
    pool = start_pool("high=1").expect_ready(1)
    limit = RateLimit("partner", 1)
    job = enqueue("high", "hold", "gate", rate_limit=limit)
    next_job = enqueue("high", "note", "trace", rate_limit=limit)
    eventually(lambda: valkey.llen("gate:running"))
    job.delete()
    os.kill(int(valkey.lindex("gate:running", 0)), signal.SIGKILL)
    eventually(lambda: next_job.is_finished)
    assert StartedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False) == []
    assert pool.stop() == 0
