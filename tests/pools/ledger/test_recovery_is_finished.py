"""What a dead worker leaves is recovered, whatever its status was and however often it takes."""

from __future__ import annotations

import contextlib
import os
import signal

import psutil
import pytest
import redis
from rq import Queue, Worker
from rq.job import JobStatus
from rq.registry import StartedJobRegistry

from harness import eventually

SIMPLE = "high: {workers: 1, worker_class: rq.SimpleWorker}"

QUICK_AT_ANY_LOAD = "from django_rq_pool.planning import backoff\nbackoff.QUICK = 3600.0"
"""Settings by which a worker dies quickly, however long a busy machine takes to have it crash."""


RECORDS = "rq:worker:*.*-????????"
"""RQ's hashes of workers. It keeps those of workers that have left for a minute; a recovery removes
them."""


def assert_nothing_left(valkey, workers):
    """So many workers are registered, and nothing is there of any other, nor a job without one."""
    assert Worker.count(connection=valkey) == workers
    assert sum(not valkey.hexists(key, "death") for key in valkey.keys(RECORDS)) == workers
    assert valkey.hlen("rq:pool:members") == workers
    assert valkey.keys("rq:pool:in-flight:*") == []
    assert valkey.keys("rq:pool:recovery:*") == []
    assert StartedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False) == []
    return True


# Workers that end with status 0 and have not left


def test_a_job_that_ends_its_simple_worker_with_status_0_is_failed_with_the_reason(
    start_pool, enqueue, valkey
):
    pool = start_pool(yaml=SIMPLE).expect_ready(1)
    job = enqueue("high", "leave", 0)
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    pool.expect(rf"WARNING worker .* reaped: exit code 0 .*, running job {job.id}$")
    reason = job.latest_result().exc_string
    assert "ended unexpectedly with exit code 0 while it ran a job" in reason
    pool.expect_ready(2)
    eventually(lambda: assert_nothing_left(valkey, workers=1))
    assert pool.stop() == 0


def test_a_worker_that_was_asked_to_stop_and_is_ended_by_its_job_with_status_0_is_recovered(
    start_pool, enqueue, valkey
):
    pool = start_pool(yaml=SIMPLE).expect_ready(1)
    job = enqueue("high", "leave", 0, "gate")
    eventually(lambda: valkey.llen("gate:running"))
    pool.send(signal.SIGQUIT).expect("signal QUIT")
    valkey.rpush("gate:open", 1)
    assert pool.wait() == 0
    assert job.get_status() == JobStatus.FAILED
    assert assert_nothing_left(valkey, workers=0)


def test_workers_that_their_jobs_end_with_status_0_are_not_replaced_without_end(
    start_with, enqueue
):
    pool = start_with(QUICK_AT_ANY_LOAD, yaml=SIMPLE).expect_ready(1)
    for _ in range(12):
        enqueue("high", "leave", 0)
    assert pool.until("exit code 0; next fork in", 2).count("forked") <= 8
    assert pool.stop() == 0


def test_a_burst_goes_on_after_a_job_that_ended_its_worker_with_status_0(
    start_pool, enqueue, valkey
):
    ends, follows = enqueue("high", "leave", 0), enqueue("high", "note", "trace")
    pool = start_pool("--burst", yaml=SIMPLE)
    assert pool.wait() == 0
    assert (ends.get_status(), follows.get_status()) == (JobStatus.FAILED, JobStatus.FINISHED)
    assert assert_nothing_left(valkey, workers=0)


def test_a_worker_that_left_by_itself_is_not_recovered(start_pool, enqueue, valkey):
    pool = start_pool(yaml="high: {workers: 1, max_jobs: 1}").expect_ready(1)
    job = enqueue("high", "note", "trace")
    pool.expect(r"INFO worker .* reaped: exit code 0 after \d+\.\d s$")
    pool.expect_ready(2)
    assert job.is_finished
    assert pool.stop() == 0
    assert assert_nothing_left(valkey, workers=0)
    assert len(valkey.keys(RECORDS)) == 2


# Recovery processes that do not finish


def hold(enqueue, valkey):
    """A job that runs; the pids of its worker and of the process that it runs in."""
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    [worker] = Worker.all(connection=valkey)
    return job, worker, int(valkey.lindex("gate:running", -1))


def recovery_process(pool, *before):
    """The pid of the recovery process that is none of those before."""

    def look():
        for child in pool.manager.children():
            with contextlib.suppress(psutil.Error):
                title = " ".join(child.cmdline())
                if title.startswith("rqpool-recovery") and child.pid not in before:
                    return child.pid
        return None

    return eventually(look)


def test_a_recovery_process_that_is_killed_is_replaced_and_goes_on_with_the_same_lock(
    start_pool, enqueue, valkey
):
    pool = start_pool("high=1").expect_ready(1)
    job, worker, horse = hold(enqueue, valkey)
    lock = f"rq:pool:recovery:{worker.name}"
    os.kill(worker.pid, signal.SIGKILL)

    killed = []
    for _ in range(3):
        # It holds the lock, and waits for the horse.
        eventually(lambda: valkey.ttl(lock) > 10)
        killed.append(recovery_process(pool, *killed))
        valkey.expire(lock, 10)
        os.kill(killed[-1], signal.SIGKILL)
        pool.expect(rf"recovery of worker {worker.name} failed: SIGKILL; next try", len(killed))
    eventually(lambda: valkey.ttl(lock) > 10)
    assert job.get_status() == JobStatus.STARTED
    os.kill(horse, signal.SIGKILL)
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    eventually(lambda: assert_nothing_left(valkey, workers=1))
    assert pool.stop() == 0


def test_a_recovery_waits_for_another_that_has_the_lock_and_makes_sure_that_it_was_finished(
    start_pool, enqueue, valkey
):
    pool = start_pool(yaml=SIMPLE).expect_ready(1)
    job, worker, _ = hold(enqueue, valkey)
    lock = f"rq:pool:recovery:{worker.name}"
    valkey.set(lock, "of a process that has died")
    os.kill(worker.pid, signal.SIGKILL)

    first = recovery_process(pool)
    os.kill(first, signal.SIGKILL)
    recovery_process(pool, first)
    assert job.get_status() == JobStatus.STARTED
    valkey.delete(lock)  # as when it ends by itself
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    eventually(lambda: assert_nothing_left(valkey, workers=1))
    assert pool.stop() == 0


def test_a_recovery_that_redis_refuses_is_tried_until_it_is_allowed(
    start_pool, enqueue, valkey, limited
):
    pool = start_pool(yaml=SIMPLE, env={"REDIS_URL": limited}).expect_ready(1)
    job, worker, _ = hold(enqueue, valkey)
    valkey.acl_setuser("limited", enabled=True, commands=["-srem"])
    os.kill(worker.pid, signal.SIGKILL)

    pool.expect(rf"recovery of worker {worker.name}: Redis refuses it: .*srem", 3)
    pool.expect(rf"recovery of worker {worker.name} failed: exit code 1; next try in", 3)
    assert not pool.found("Traceback")
    assert job.get_status() == JobStatus.STARTED
    valkey.acl_setuser("limited", enabled=True, commands=["+srem"])
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    eventually(lambda: assert_nothing_left(valkey, workers=1))
    assert pool.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGTERM])
def test_a_pool_that_is_told_to_leave_says_whom_redis_does_not_let_it_recover(
    start_pool, enqueue, valkey, limited, signum
):
    pool = start_pool(yaml=SIMPLE, env={"REDIS_URL": limited}).expect_ready(1)
    _, worker, _ = hold(enqueue, valkey)
    valkey.acl_setuser("limited", enabled=True, commands=["-srem"])
    os.kill(worker.pid, signal.SIGKILL)
    pool.expect(rf"recovery of worker {worker.name} failed", 2)
    assert pool.stop(signum) == 0
    assert len(pool.found(f"worker {worker.name} is not recovered; the next pool does it")) == 1


def test_an_error_in_a_recovery_is_told_in_full_once_and_the_recovery_tried_again(
    start_pool, enqueue, valkey
):
    queue_class = "queue_class: pool_jobs.BreaksRecoveries"
    pool = start_pool(
        yaml=f"high: {{workers: 1, worker_class: rq.SimpleWorker, {queue_class}}}"
    ).expect_ready(1)
    job, worker, _ = hold(enqueue, valkey)
    valkey.set("broken", 1)
    os.kill(worker.pid, signal.SIGKILL)

    told = rf"recovery of worker {worker.name}: RuntimeError\('this queue class is broken'\)"
    pool.expect(told, 3)
    assert len(pool.found(f"{told}\nTraceback")) == 1
    valkey.delete("broken")
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    eventually(lambda: assert_nothing_left(valkey, workers=1))
    assert pool.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGTERM])
def test_a_pool_whose_redis_is_away_can_be_stopped_while_a_worker_is_not_recovered(
    start_pool, own_server, signum
):
    pool = start_pool(yaml=SIMPLE, env={"REDIS_URL": own_server.url}).expect_ready(1)
    with redis.Redis.from_url(own_server.url) as client:
        job = Queue("high", connection=client).enqueue(
            "pool_jobs.wait_for_file", str(pool.cwd / "open")
        )
        eventually(lambda: job.get_status() == JobStatus.STARTED)
        [worker] = Worker.all(connection=client)
    own_server.stop()
    os.kill(worker.pid, signal.SIGKILL)
    recovery_process(pool)
    assert pool.stop(signum) == 0
    pool.expect(f"worker {worker.name} is not recovered; the next pool does it")
    assert pool.processes() == []
