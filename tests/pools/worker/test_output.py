"""What jobs and workers print, where standard output is a file and Python buffers it."""

from __future__ import annotations

import os
import signal

import pytest

from harness import eventually

BUFFERED = {"PYTHONUNBUFFERED": ""}
QUIET = """
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "loggers": {"rq.worker": {"level": "ERROR"}},
}
"""
"""RQ's own lines would write with them what Python had buffered."""


@pytest.fixture
def start_buffered(start_with):
    """Starts a pool whose standard output is buffered and left alone by RQ."""

    def start(*arguments, **options):
        return start_with(QUIET, *arguments, env=BUFFERED, **options).expect_ready(1)

    return start


def test_what_a_job_prints_is_not_lost_when_its_horse_ends(start_buffered, enqueue):
    pool = start_buffered("high=1")
    enqueue("high", "talk", "the job talks")
    pool.expect("^the job talks$")
    assert pool.stop() == 0
    assert len(pool.found("^the job talks$")) == 1


def test_what_a_failing_job_has_printed_is_not_lost(start_buffered, enqueue):
    pool = start_buffered("high=1")
    enqueue("high", "talk_and_fail", "the job talks")
    pool.expect("^the job talks$")


def test_what_a_worker_had_buffered_is_not_written_by_its_horses_too(start_buffered, enqueue):
    yaml = "high: {workers: 1, worker_class: pool_jobs.TalkingWorker}"
    pool = start_buffered(yaml=yaml)
    # More than a buffer holds, so that each horse writes whatever stands in its buffer.
    jobs = [enqueue("high", "talk", "the job talks", 1000) for _ in range(3)]
    eventually(lambda: all(job.is_finished for job in jobs))
    assert pool.stop() == 0
    assert len(pool.found("^the worker talks$")) == 3
    assert len(pool.found("^the job talks$")) == 3000


@pytest.mark.parametrize("worker_class", ["rq.SimpleWorker", "rq.Worker"])
def test_a_killed_worker_takes_nothing_with_it_that_its_jobs_had_printed(
    start_buffered, enqueue, worker_class
):
    yaml = f"high: {{workers: 1, worker_class: {worker_class}}}"
    pool = start_buffered(yaml=yaml)
    job = enqueue("high", "talk", "the job talks")
    pool.expect("^the job talks$")
    eventually(lambda: job.is_finished)
    os.kill(int(pool.expect(r"worker (\d+) of high ready$")[0][1]), signal.SIGKILL)
    pool.expect_ready(2)
    assert len(pool.found("^the job talks$")) == 1
