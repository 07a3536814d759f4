"""Workers that die, fail to boot or cannot be forked; Redis that goes and comes."""

from __future__ import annotations

import os
import signal

import psutil
import redis
from rq import Queue, Worker

from django_rq_pool.planning.phases import INFO
from harness import DEADLINE, eventually, python_command


def test_a_killed_worker_is_replaced(start_pool, enqueue):
    pool = start_pool("high=2", "low=1").expect_ready(3)
    before = pool.worker_pids()

    os.kill(before[0], signal.SIGKILL)
    pool.expect(rf"worker {before[0]} of high reaped: SIGKILL after \d+\.\d s$")
    pool.expect_ready(4)
    after = pool.worker_pids()
    assert len(after) == 3
    assert len(set(after) & set(before)) == 2
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


def test_ten_workers_killed_at_once_are_all_replaced_and_the_count_is_never_exceeded(start_pool):
    pool = start_pool("high=10").expect_ready(10)
    before = pool.worker_pids()

    for pid in before:
        os.kill(pid, signal.SIGKILL)
    pool.expect_ready(20)
    assert len(pool.workers()) == 10
    assert not set(before) & set(pool.worker_pids())
    assert pool.stop() == 0


def test_a_death_is_accounted_for_with_the_job_that_the_worker_was_running(
    start_pool, enqueue, valkey
):
    pool = start_pool("high=1").expect_ready(1)
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    [worker] = pool.worker_pids()

    os.kill(worker, signal.SIGKILL)
    pool.expect(rf"worker {worker} of high reaped: SIGKILL .*, running job {job.id}$")


def test_a_horse_that_outlives_its_worker_finishes_before_the_pool_quits(
    start_pool, enqueue, valkey
):
    pool = start_pool("high=1").expect_ready(1)
    job = enqueue("high", "kill_own_worker")
    horse = int(valkey.blpop(["orphaned"], DEADLINE)[1])
    pool.expect_ready(2)
    assert psutil.Process(horse).ppid() == pool.manager_pid

    pool.send(signal.SIGQUIT)
    pool.expect("worker .* reaped", 2)
    valkey.rpush("orphan:open", 1)
    assert pool.wait() == 0
    pool.expect(
        rf"horse {horse} of high, which outlived its worker, reaped: exit code 0, job {job.id}"
    )
    assert job.is_finished


def test_term_ends_a_horse_that_outlived_its_worker(start_pool, enqueue, valkey):
    pool = start_pool("high=1").expect_ready(1)
    enqueue("high", "kill_own_worker")
    valkey.blpop(["orphaned"], DEADLINE)
    pool.expect_ready(2)

    assert pool.stop(signal.SIGTERM) == 0
    assert pool.processes() == []


def test_a_worker_class_that_raises_at_boot_does_not_spin_and_its_cause_is_told_in_full_once(
    start_pool, enqueue
):
    pool = start_pool(
        yaml="high: {workers: 3, worker_class: pool_jobs.FailsToBoot}\nlow: 1"
    ).expect_ready(1)

    # Three at first; then one at a time, each after a longer wait.
    log = pool.until("next fork in", 5)
    assert log.count("of high forked") <= 3 + 2
    assert log.count("Traceback") == 1
    pool.expect("again RuntimeError: this worker class raises at boot")
    assert pool.found(r"next fork in 0\.[89]|next fork in 1\.[012]")
    job = enqueue("low", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


QUICK_AT_ANY_LOAD = "from django_rq_pool.planning import backoff\nbackoff.QUICK = 3600.0"
"""Settings by which a worker dies quickly, however long a busy machine takes to have it crash."""


def test_a_worker_that_keeps_crashing_after_it_was_ready_does_not_spin(start_with):
    yaml = "high: {workers: 1, worker_class: pool_jobs.CrashesWhenReady}"
    pool = start_with(QUICK_AT_ANY_LOAD, yaml=yaml)
    assert pool.until("SIGSEGV; next fork in", 2).count("forked") <= 8
    waits = r"high: 1 wanted, .* next fork in \d+\.\d s after SIGSEGV$"
    eventually(lambda: pool.send(INFO).found(waits))
    assert pool.stop() == 0


def test_a_crash_is_no_clean_end_for_a_worker_that_may_end_by_itself(start_with):
    yaml = "high: {workers: 1, max_jobs: 5, worker_class: pool_jobs.BreaksWhenReady}"
    pool = start_with(QUICK_AT_ANY_LOAD, yaml=yaml)
    assert pool.until("exit code 1; next fork in", 2).count("forked") <= 8
    assert pool.stop() == 0


def test_a_crash_loop_writes_its_traceback_once_and_a_report_has_the_cause(start_with):
    yaml = "high: {workers: 3, worker_class: pool_jobs.BreaksWhenReady}"
    pool = start_with(QUICK_AT_ANY_LOAD, yaml=yaml)
    cause = "RuntimeError: something is wrong with this class"
    pool.expect(f"group high: workers crash: again {cause}", 4)
    assert len(pool.found("Traceback")) == len(pool.found("workers crash: Traceback")) == 1
    pool.send(INFO).expect(rf"\] INFO     workers crash: {cause}")
    assert pool.stop() == 0


FORK_FAILS = """
import errno, os, sys
import django
django.setup()
from django_rq_pool import run_pool
real_fork, failures = os.fork, [errno.EAGAIN, errno.ENOMEM]
def fork():
    if failures:
        raise OSError(failures[-1], os.strerror(failures.pop()))
    return real_fork()
os.fork = fork
sys.exit(run_pool({"high": 2}, name="tight"))
"""


def test_a_system_that_has_no_process_to_give_is_asked_again_later(start_pool):
    pool = start_pool(command=python_command("-c", FORK_FAILS))
    pool.expect("group high: cannot fork: .*Cannot allocate memory; next fork in")
    pool.expect_ready(2)
    assert pool.stop() == 0


def test_a_pool_outlives_its_redis_and_is_whole_again_when_it_comes_back(start_pool, own_server):
    url = own_server.url
    pool = start_pool("high=2", "high,default=2", env={"REDIS_URL": url}).expect_ready(4)
    workers = set(pool.worker_pids())

    own_server.forget()
    pool.expect("Redis cannot be reached", 2)
    assert set(pool.worker_pids()) == workers
    own_server.start()
    pool.expect("Redis is back", 2)
    with redis.Redis.from_url(url) as client:
        # The new server knows nothing; the workers register again.
        eventually(lambda: len(Worker.all(connection=client)) == 4)
        jobs = [
            Queue(name, connection=client).enqueue("pool_jobs.note", "trace")
            for name in ("high", "default", "high")
        ]
        eventually(lambda: all(job.is_finished for job in jobs))
    assert set(pool.worker_pids()) == workers
    assert pool.stop() == 0


def test_a_pool_started_before_its_redis_waits_for_it(start_pool, own_server):
    url = own_server.url
    own_server.stop()
    pool = start_pool("high=3", env={"REDIS_URL": url})

    pool.expect("group high: Redis cannot be reached")
    eventually(lambda: len(pool.workers()) == 3)
    pool.send(INFO)
    pool.expect(r"\] INFO     Redis cannot be reached, workers keep trying: \S")
    own_server.start()
    pool.expect_ready(3)
    assert len(pool.found("group high: Redis cannot be reached")) == 1
    assert len(pool.found("forked")) == 3
    assert pool.stop() == 0


def test_a_pool_without_its_redis_can_be_stopped(start_pool, own_server):
    url = own_server.url
    own_server.stop()
    pool = start_pool("high=3", env={"REDIS_URL": url})
    pool.expect("Redis cannot be reached")
    assert pool.stop(signal.SIGQUIT) == 0
    assert not pool.found("recovery|recovered")  # they had not begun to register
