"""Signals of timers, and INFO, end no process of a pool; RQ's time limits go on working."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from rq import Queue
from rq.job import JobStatus

from django_rq_pool.config.stop_policy import INFO, TIMER_SIGNALS
from harness import Pool, eventually

HARMLESS = (*TIMER_SIGNALS, INFO)


def titled(pool: Pool, title: str) -> psutil.Process:
    """The process of the pool whose title begins like this, once it is there."""

    def find() -> psutil.Process | None:
        for process in pool.processes():
            if " ".join(process.cmdline()).startswith(title):
                return process
        return None

    return eventually(find)


def send_often(pid: int, numbers=HARMLESS) -> None:
    for _ in range(20):
        for number in numbers:
            os.kill(pid, number)


def test_they_end_neither_manager_nor_autoscaling_nor_scheduler(start_pool, enqueue, valkey):
    pool = start_pool(
        yaml="high: {workers: {min: 1, max: 2}, with_scheduler: true}\nlow: 1",
    ).expect_ready(2)
    helpers = [titled(pool, f"rqpool-{name}[") for name in ("autoscaling", "scheduler")]
    for pid in (pool.manager_pid, *(helper.pid for helper in helpers)):
        send_often(pid)
    for queue in ("high", "low"):
        job = enqueue(queue, "note", "trace")
        eventually(lambda job=job: job.is_finished)
    pool.expect("signal INFO: reporting")
    assert all(helper.is_running() for helper in helpers)
    assert not pool.found("autoscaling process ended|Scheduler with PID .* ended")
    assert pool.stop() == 0


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_they_do_not_end_a_worker_before_or_after_a_job(start_pool, enqueue, worker_class):
    pool = start_pool(yaml=f"high: {{workers: 1, worker_class: {worker_class}}}").expect_ready(1)
    [worker] = pool.worker_pids()
    for _ in range(3):
        send_often(worker)
        job = enqueue("high", "note", "trace")
        eventually(lambda job=job: job.is_finished)
    send_often(worker)
    job = enqueue("high", "fail")
    eventually(lambda: job.is_failed)
    assert len(pool.found("forked")) == 1
    assert pool.stop() == 0


def test_they_do_not_end_a_worker_that_waits_for_its_horse_nor_the_horse(
    start_pool, enqueue, valkey
):
    pool = start_pool("high=1").expect_ready(1)
    [worker] = pool.worker_pids()
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    send_often(worker)
    send_often(int(valkey.lindex("gate:running", 0)), set(HARMLESS) - {signal.SIGALRM})
    valkey.rpush("gate:open", 1)
    eventually(lambda: job.is_finished)
    assert len(pool.found("forked")) == 1
    assert pool.stop() == 0


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_a_time_limit_still_ends_a_job_and_the_next_one_runs(start_pool, valkey, worker_class):
    pool = start_pool(yaml=f"high: {{workers: 1, worker_class: {worker_class}}}").expect_ready(1)
    [worker] = pool.worker_pids()
    queue = Queue("high", connection=valkey)
    overdue = [
        queue.enqueue("pool_jobs.hold", "gate", job_timeout=1),
        queue.enqueue("pool_jobs.hold", "gate", job_timeout=1),
    ]
    for job in overdue:
        eventually(lambda job=job: job.get_status() == JobStatus.FAILED)
        assert "exceeded maximum timeout value (1 seconds)" in job.latest_result().exc_string
    send_often(worker)
    job = queue.enqueue("pool_jobs.nothing")
    eventually(lambda: job.is_finished)
    assert len(pool.found("forked")) == 1
    assert pool.stop() == 0


def test_a_class_of_time_limits_without_an_alarm_works_too(start_with, valkey):
    pool = start_with(
        "",
        modules={
            "own": """
from rq import SimpleWorker
from rq.timeouts import TimerDeathPenalty

class TimerWorker(SimpleWorker):
    death_penalty_class = TimerDeathPenalty
"""
        },
        yaml="high: {workers: 1, worker_class: own.TimerWorker}",
    ).expect_ready(1)
    [worker] = pool.worker_pids()
    queue = Queue("high", connection=valkey)
    job = queue.enqueue("pool_jobs.wait_for_file", "/nowhere", job_timeout=1)
    eventually(lambda: job.is_failed)
    assert "exceeded maximum timeout value" in job.latest_result().exc_string
    send_often(worker)
    job = queue.enqueue("pool_jobs.nothing")
    eventually(lambda: job.is_finished)
    assert len(pool.found("forked")) == 1
    assert pool.stop() == 0
