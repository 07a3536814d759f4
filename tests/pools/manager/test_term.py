"""What TERM means: the three policies, and TERM_CHILD."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from rq.job import JobStatus

from harness import eventually


def holding(enqueue, valkey, function="hold", **options):
    """A job that has begun and holds."""
    job = enqueue("high", function, "gate", **options)
    eventually(lambda: valkey.llen("gate:running"))
    return job


def test_with_term_graceful_wait_term_means_what_quit_means(start_pool, enqueue, valkey):
    pool = start_pool("high=1", "--term-graceful-wait").expect_ready(1)
    job = holding(enqueue, valkey)

    pool.send(signal.SIGTERM)
    pool.expect("signal TERM: stopping gracefully, leaving when the last worker is gone")
    valkey.rpush("gate:open", 1)
    assert pool.wait() == 0
    assert job.get_status() == JobStatus.FINISHED
    assert pool.processes() == []


def test_with_term_graceful_term_means_what_int_means(start_pool, enqueue, valkey):
    pool = start_pool("high=1", "--term-graceful").expect_ready(1)
    job = holding(enqueue, valkey)

    assert pool.stop(signal.SIGTERM) == 0
    assert job.get_status() == JobStatus.STARTED
    valkey.rpush("gate:open", 1)
    eventually(lambda: not pool.processes())
    assert job.get_status() == JobStatus.FINISHED


@pytest.mark.parametrize(
    ("policy", "status"),
    [("--term-immediate", JobStatus.FAILED), ("--term-graceful-wait", JobStatus.FINISHED)],
)
def test_a_term_to_every_process_means_what_one_to_the_manager_means(
    start_pool, enqueue, valkey, policy, status
):
    pool = start_pool("high=2", policy).expect_ready(2)
    job = holding(enqueue, valkey)

    for process in pool.processes():
        with contextlib.suppress(ProcessLookupError):  # it has left already, as the manager asked
            os.kill(process.pid, signal.SIGTERM)
    pool.expect("signal TERM")
    valkey.rpush("gate:open", 1)
    assert pool.wait() == 0
    assert pool.processes() == []
    assert job.get_status() == status


def test_a_term_to_a_worker_follows_the_policy_of_its_pool(start_pool, enqueue, valkey):
    pool = start_pool("high=1", "--term-graceful-wait").expect_ready(1)
    job = holding(enqueue, valkey)

    os.kill(pool.worker_pids()[0], signal.SIGTERM)
    valkey.rpush("gate:open", 1)
    pool.expect_ready(2)
    assert job.get_status() == JobStatus.FINISHED
    assert pool.stop() == 0


def test_under_term_child_a_job_sees_an_exception_and_cleans_up(start_patient, enqueue, valkey):
    pool = start_patient("high=1", env={"TERM_CHILD": "1"}).expect_ready(1)
    job = holding(enqueue, valkey, "hold_and_clean_up")

    assert pool.stop(signal.SIGTERM) == 0
    assert valkey.lrange("gate:clean", 0, -1) == [b"TermException"]
    assert job.get_status() == JobStatus.FAILED
    assert "was asked to stop immediately" in job.latest_result().exc_string
    assert pool.processes() == []


def test_under_term_child_a_job_that_does_not_end_is_killed_in_time(start_patient, enqueue, valkey):
    pool = start_patient("high=1", env={"TERM_CHILD": "1", "RQ_TERM_TIMEOUT": "0.2"}).expect_ready(
        1
    )
    job = holding(enqueue, valkey, "hold_stubbornly")

    assert pool.stop(signal.SIGTERM) == 0
    assert job.get_status() == JobStatus.FAILED
    assert not pool.found("did not stop, killing it")


def test_under_term_child_an_interrupted_job_can_be_requeued(start_patient, enqueue, valkey):
    pool = start_patient(
        yaml="high: {workers: 1, interrupted: requeue}", env={"TERM_CHILD": "1"}
    ).expect_ready(1)
    job = holding(enqueue, valkey, "hold_and_clean_up")

    assert pool.stop(signal.SIGTERM) == 0
    assert job.get_status() == JobStatus.QUEUED
    assert valkey.lrange("rq:queue:high", 0, -1) == [job.id.encode()]


def test_under_term_child_quit_makes_the_manager_leave_at_once(start_pool, enqueue, valkey):
    pool = start_pool("high=1", env={"TERM_CHILD": "1"}).expect_ready(1)
    job = holding(enqueue, valkey)

    assert pool.stop(signal.SIGQUIT) == 0
    assert job.get_status() == JobStatus.STARTED
    valkey.rpush("gate:open", 1)
    eventually(lambda: not pool.processes())
    assert job.get_status() == JobStatus.FINISHED


def test_a_start_on_a_dyno_without_term_child_warns(start_pool):
    pool = start_pool("high=1", env={"DYNO": "worker.1"}).expect_ready(1)
    assert pool.found("Set TERM_CHILD=1")
    assert pool.stop() == 0


def test_a_term_timeout_that_is_no_time_is_refused(start_pool):
    pool = start_pool("high=1", env={"TERM_CHILD": "1", "RQ_TERM_TIMEOUT": "soon"})
    assert pool.wait() == 1
    assert "RQ_TERM_TIMEOUT: 'soon' is not a number of seconds. Give a number above 0." in (
        pool.text()
    )
