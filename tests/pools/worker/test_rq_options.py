"""What RQ's options for a worker do in a pool: in its work horses, and for its dead workers."""

from __future__ import annotations

import json
import os
import signal

import pytest
from rq.job import JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry

from django_rq_pool.ledger.members import join
from harness import eventually
from ledger_steps import member

WORKER_CLASSES = ["rq.Worker", "rq.SimpleWorker"]


@pytest.fixture
def start(start_pool):
    def start(worker_class: str = "rq.Worker", **options: object):
        group = {"workers": 1, "worker_class": worker_class, **options}
        return start_pool(yaml=json.dumps({"high": group})).expect_ready(1)

    return start


def running(valkey, gate: str) -> int:
    """Waits until the job holds; returns the pid of the process that it runs in."""
    eventually(lambda: valkey.llen(f"{gate}:running"))
    return int(valkey.lindex(f"{gate}:running", -1))


def killed(valkey) -> list[str]:
    return [line.decode() for line in valkey.lrange("killed", 0, -1)]


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
@pytest.mark.parametrize("seconds", [-1, 0, 70])
def test_a_result_is_kept_as_long_as_the_group_says(start, enqueue, valkey, worker_class, seconds):
    pool = start(worker_class, default_result_ttl=seconds)
    plain = enqueue("high", "note", "trace")
    own = enqueue("high", "note", "trace", result_ttl=1000)
    eventually(lambda: own.is_finished)
    assert 70 < valkey.ttl(own.key) <= 1000
    if seconds == 0:
        eventually(lambda: not valkey.exists(plain.key))
    else:
        assert plain.id in FinishedJobRegistry("high", connection=valkey)
        assert (valkey.ttl(plain.key) == -1) if seconds < 0 else (0 < valkey.ttl(plain.key) <= 70)
    assert pool.stop() == 0


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
@pytest.mark.parametrize("logged", [True, False])
def test_the_log_has_a_jobs_arguments_if_the_group_wants_that(start, enqueue, worker_class, logged):
    pool = start(worker_class, log_job_description=logged)
    job = enqueue("high", "note", "trace", "a secret")
    eventually(lambda: job.is_finished)
    pool.expect("Successfully completed ")
    assert bool(pool.found("a secret")) is logged
    assert pool.stop() == 0


def test_what_is_known_of_a_running_job_lasts_for_the_monitoring_interval_and_a_minute(
    start, enqueue, valkey
):
    pool = start(job_monitoring_interval=1000)
    job = enqueue("high", "hold", "gate", job_timeout=5000)
    running(valkey, "gate")
    [execution] = job.get_executions()
    assert 1000 < valkey.ttl(execution.key) <= 1060
    valkey.rpush("gate:open", 1)
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


def test_heartbeats_come_at_the_monitoring_interval(start, enqueue, valkey):
    pool = start(job_monitoring_interval=1)
    job = enqueue("high", "hold", "gate")
    running(valkey, "gate")
    beats = set()

    def beat() -> bool:
        beats.add(valkey.hget(job.key, "last_heartbeat"))
        return len(beats) >= 4

    eventually(beat)
    valkey.rpush("gate:open", 1)
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


def test_a_worker_with_rare_heartbeats_looks_after_lost_workers_all_the_same(
    start_with, enqueue, valkey
):
    group = {"workers": 1, "job_monitoring_interval": 1000}
    pool = start_with(
        "from django_rq_pool.ledger import sweep\nsweep.SWEEP_SECONDS = 2",
        yaml=json.dumps({"high": group}),
    ).expect_ready(1)
    enqueue("high", "hold", "gate")
    running(valkey, "gate")
    gone = member("shop.gone.low.1-00000000")
    join(valkey, gone)
    valkey.hset("rq:pool:suspects", gone.key, valkey.time()[0] - 121)
    eventually(lambda: not valkey.hexists("rq:pool:members", gone.key))
    valkey.rpush("gate:open", 1)
    assert pool.stop() == 0


def test_registries_are_cleaned_at_the_maintenance_interval(start, enqueue, valkey):
    pool = start(maintenance_interval=1)

    def cleaned() -> bool:
        job = enqueue("high", "nothing")  # a worker that has nothing to do looks more rarely
        eventually(lambda: job.is_finished)
        return len(pool.found("cleaning registries for queue: high")) >= 3

    eventually(cleaned)
    assert pool.stop() == 0


def test_the_groups_handler_hears_of_a_work_horse_that_was_killed(start, enqueue, valkey):
    pool = start(work_horse_killed_handler="pool_jobs.note_killed")
    job = enqueue("high", "hold", "gate")
    horse = running(valkey, "gate")
    os.kill(horse, signal.SIGKILL)
    eventually(lambda: job.is_failed)
    assert killed(valkey) == [f"{job.id} {horse} -9 True"]
    assert pool.stop() == 0


@pytest.mark.parametrize("worker_class", WORKER_CLASSES)
def test_it_hears_of_a_worker_that_was_killed_with_its_job(start, enqueue, valkey, worker_class):
    pool = start(worker_class, work_horse_killed_handler="pool_jobs.note_killed")
    [worker] = pool.worker_pids()
    job = enqueue("high", "hold", "gate")
    process = running(valkey, "gate")
    os.kill(worker, signal.SIGKILL)
    if process != worker:
        os.kill(process, signal.SIGKILL)
    eventually(lambda: job.is_failed)
    assert killed(valkey) == [f"{job.id} None None False"]
    assert pool.stop() == 0


END = ["raises", "horse killed", "worker killed", "immediate stop"]


@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("disabled", [True, False])
def test_a_failure_is_recorded_unless_the_group_disables_that(
    start, enqueue, valkey, end, disabled
):
    pool = start(disable_default_exception_handler=disabled)
    job = enqueue("high", "fail") if end == "raises" else enqueue("high", "hold", "gate")
    if end != "raises":
        horse = running(valkey, "gate")
        [worker] = pool.worker_pids()
        if end == "immediate stop":
            assert pool.stop(signal.SIGTERM) == 0
        elif end == "horse killed":
            os.kill(horse, signal.SIGKILL)
        else:
            os.kill(worker, signal.SIGKILL)
            os.kill(horse, signal.SIGKILL)
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    eventually(lambda: not valkey.keys("rq:pool:in-flight:*"))
    eventually(lambda: not job.get_executions())
    assert (job.id in FailedJobRegistry("high", connection=valkey)) is not disabled
    assert (job.latest_result() is None) is disabled
    if end != "immediate stop":
        after = enqueue("high", "nothing")
        eventually(lambda: after.is_finished)
        assert pool.stop() == 0
