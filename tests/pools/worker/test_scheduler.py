"""RQ's scheduler: some worker of a group always holds it, and no job that is due waits or runs
twice, whoever is killed and whichever pool takes another's place."""

from __future__ import annotations

import os
import secrets
import signal
from datetime import timedelta

import psutil
import pytest
import redis
from rq import Queue, Repeat, Retry
from rq.exceptions import SchedulerNotFound
from rq.scheduler import RQScheduler

from harness import Pool, eventually

GROUP = "high: {workers: %d, with_scheduler: true}"

SOON = timedelta(milliseconds=1)


def holder(valkey: redis.Redis, queue: str = "high") -> str:
    """The worker whose scheduler holds the lock of a queue; empty when it is free."""
    return (valkey.get(RQScheduler.get_locking_key(queue)) or b"").decode()


def scheduler_of(valkey: redis.Redis, worker: str) -> int:
    """The pid of a worker's scheduler process, once it is at work."""

    def pid() -> int:
        try:
            return RQScheduler.fetch(worker, connection=valkey).pid
        except SchedulerNotFound:
            return 0

    return eventually(pid)


def pid_of(pool: Pool, worker: str) -> int:
    return int(pool.expect(rf"worker (\d+) of \S+ forked: {worker}$")[0][1])


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def runs_what_is_due(valkey: redis.Redis, queue: str = "high") -> bool:
    job = Queue(queue, connection=valkey).enqueue_in(SOON, "pool_jobs.nothing")
    return bool(eventually(lambda: job.is_finished))


# Whoever dies


@pytest.mark.parametrize("kill", [os.kill, os.killpg], ids=["worker", "worker and scheduler"])
@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_when_the_holder_is_killed_another_worker_takes_over(
    start_pool, valkey, kill, worker_class
):
    yaml = f"high: {{workers: 2, with_scheduler: true, worker_class: {worker_class}}}"
    pool = start_pool(yaml=yaml).expect_ready(2)
    killed = eventually(lambda: holder(valkey))
    scheduler = scheduler_of(valkey, killed)
    kill(pid_of(pool, killed), signal.SIGKILL)
    eventually(lambda: holder(valkey) not in ("", killed))
    assert runs_what_is_due(valkey)
    eventually(lambda: is_gone(scheduler))
    assert pool.stop() == 0
    assert holder(valkey) == ""


def test_a_scheduler_process_that_dies_is_replaced_by_its_worker(start_pool, valkey):
    pool = start_pool(yaml=GROUP % 2).expect_ready(2)
    worker = eventually(lambda: holder(valkey))
    killed = scheduler_of(valkey, worker)
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: scheduler_of(valkey, worker) != killed)
    assert runs_what_is_due(valkey)
    assert holder(valkey) == worker
    assert pool.stop() == 0


def test_a_scheduler_ends_when_worker_and_manager_are_killed(start_pool, valkey):
    pool = start_pool(yaml=GROUP % 1).expect_ready(1)
    worker = eventually(lambda: holder(valkey))
    scheduler = scheduler_of(valkey, worker)
    pid = pid_of(pool, worker)
    os.kill(pool.manager_pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: is_gone(scheduler))
    assert holder(valkey) == ""


def test_a_scheduler_outlasts_an_absence_of_redis(start_pool, own_server):
    with redis.Redis.from_url(own_server.url) as client:
        pool = start_pool(yaml=GROUP % 1, env={"REDIS_URL": own_server.url}).expect_ready(1)
        before = scheduler_of(client, eventually(lambda: holder(client)))
        own_server.stop()
        pool.expect("Scheduler: .*; trying again$")
        own_server.start()
        assert runs_what_is_due(client)
        assert scheduler_of(client, holder(client)) == before
        assert pool.stop() == 0


# Whoever leaves


@pytest.mark.parametrize("doing", ["nothing", "a job", "a pause"])
def test_a_worker_takes_over_whatever_it_is_doing(start_pool, enqueue, valkey, doing):
    old = start_pool("--name", "old", yaml=GROUP % 1).expect_ready(1)
    eventually(lambda: holder(valkey))
    new = start_pool("--name", "new", yaml=GROUP % 1).expect_ready(1)
    if doing == "a job":
        old.send(signal.SIGUSR2).expect("USR2")
        enqueue("high", "hold", "gate")
        eventually(lambda: valkey.llen("gate:running"))
    elif doing == "a pause":
        new.send(signal.SIGUSR2)
        new.expect("suspended")
    assert old.stop() == 0
    eventually(lambda: holder(valkey).startswith("new."))
    job = Queue("high", connection=valkey).enqueue_in(SOON, "pool_jobs.nothing")
    eventually(lambda: job.is_queued or job.is_finished)
    valkey.rpush("gate:open", 1)
    new.send(signal.SIGCONT)
    eventually(lambda: job.is_finished)
    assert new.stop() == 0


def test_a_scheduler_takes_the_lock_of_a_further_queue_when_it_becomes_free(start_pool, valkey):
    one = start_pool("--name", "one", yaml=GROUP % 1).expect_ready(1)
    eventually(lambda: holder(valkey))
    both = start_pool(
        "--name", "both", yaml='"high,default": {workers: 1, with_scheduler: true}'
    ).expect_ready(1)
    before = scheduler_of(valkey, eventually(lambda: holder(valkey, "default")))
    assert holder(valkey).startswith("one.")
    assert one.stop() == 0
    eventually(lambda: holder(valkey).startswith("both."))
    assert runs_what_is_due(valkey)
    assert scheduler_of(valkey, holder(valkey)) == before
    assert both.stop() == 0


def test_a_worker_that_finishes_a_long_job_leaves_the_scheduler_to_others(
    start_pool, enqueue, valkey
):
    pool = start_pool(yaml=GROUP % 1).expect_ready(1)
    worker = eventually(lambda: holder(valkey))
    scheduler = scheduler_of(valkey, worker)
    enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    pool.send(signal.SIGQUIT)
    eventually(lambda: is_gone(scheduler))
    assert holder(valkey) == ""
    valkey.rpush("gate:open", 1)
    assert pool.wait() == 0


def test_a_worker_that_leaves_after_its_last_job_leaves_the_scheduler_to_others(
    start_pool, enqueue, valkey
):
    yaml = "high: {workers: 1, with_scheduler: true, max_jobs: 1}"
    pool = start_pool(yaml=yaml).expect_ready(1)
    before = eventually(lambda: holder(valkey))
    enqueue("high", "nothing")
    eventually(lambda: holder(valkey) not in ("", before))
    assert runs_what_is_due(valkey)
    assert pool.stop() == 0


def test_groups_with_a_scheduler_that_are_stopped_at_once_never_hang(start_pool, valkey):
    queues = ("high", "default", "low", "foo", "bar")
    yaml = "\n".join(f"{queue}: {{workers: 1, with_scheduler: true}}" for queue in queues)
    for _ in range(4):
        pool = start_pool(yaml=yaml)
        pool.expect("worker .* forked", len(queues))
        assert pool.stop() == 0
        assert pool.processes() == []
        assert not pool.found("did not stop")
        assert not any(holder(valkey, queue) for queue in queues)


def test_a_scheduler_that_does_not_stop_is_killed_and_its_lock_released(start_pool, valkey):
    pool = start_pool(yaml=GROUP % 1).expect_ready(1)
    scheduler = scheduler_of(valkey, eventually(lambda: holder(valkey)))
    os.kill(scheduler, signal.SIGSTOP)
    assert pool.stop() == 0
    assert pool.found(f"Scheduler with PID {scheduler} did not stop, killing it")
    assert pool.processes() == []
    assert holder(valkey) == ""


TERM_IN_WINDOW = """
import os, signal
from rq import Worker

armed = []

class Window(Worker):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        armed.append(True)

def term():
    if armed:
        os.kill(os.getpid(), signal.SIGTERM)

# Imported before the first fork, so that it comes first in each forked process.
os.register_at_fork(after_in_child=term)
"""


def test_a_scheduler_that_is_asked_to_stop_before_it_begins_stops(start_with, valkey):
    yaml = "high: {workers: 1, with_scheduler: true, worker_class: own.Window}"
    pool = start_with("", modules={"own": TERM_IN_WINDOW}, yaml=yaml).expect_ready(1)
    pool.expect(r"Scheduler with PID \d+ has stopped$")
    assert pool.stop() == 0
    assert not pool.found("did not stop")
    assert holder(valkey) == ""


# While pools swap


@pytest.mark.parametrize("swap", ["--hot-swap", "--swap-step"])
def test_while_pools_swap_each_job_that_is_due_runs_once(start_pool, valkey, swap):
    name = f"swap-{secrets.token_hex(4)}"
    yaml = "high: {workers: 3, with_scheduler: true}"
    pools = [start_pool("--name", name, yaml=yaml).expect_ready(3)]
    eventually(lambda: holder(valkey))
    queue = Queue("high", connection=valkey)
    due = [timedelta(seconds=number * 0.2) for number in range(38)]
    jobs = [queue.enqueue_in(delay, "pool_jobs.short") for delay in due]
    retried = queue.enqueue("pool_jobs.fail_once", retry=Retry(max=1, interval=2))
    repeated = queue.enqueue("pool_jobs.note", "repeated", repeat=Repeat(times=2, interval=2))
    for _ in range(2):
        pools.append(start_pool("--name", name, swap, yaml=yaml).expect_ready(3))
        assert pools[-2].wait() == 0
    eventually(lambda: all(job.is_finished for job in [*jobs, retried, repeated]))
    done = [job_id.decode() for job_id in valkey.lrange("done", 0, -1)]
    assert sorted(done) == sorted(job.id for job in jobs)
    assert valkey.llen("tries") == 2
    eventually(lambda: valkey.llen("repeated") == 3)
    pid_of(pools[-1], eventually(lambda: holder(valkey)))  # it is free for some seconds
    assert pools[-1].stop() == 0
