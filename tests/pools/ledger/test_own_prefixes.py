"""Classes with prefixes of their own: their jobs are put back, recovered and left alone alike."""

from __future__ import annotations

import psutil
import pytest
import redis
from rq.job import JobStatus
from rq.registry import FailedJobRegistry, StartedJobRegistry

from ending_jobs import OwnJob, OwnQueue
from harness import eventually

KINDS = ("queue", "worker", "job")
CLASSES = ", ".join(f"{kind}_class: ending_jobs.Own{kind.title()}" for kind in KINDS)


def yaml(workers: int, **options: object) -> str:
    given = "".join(f", {name}: {value}" for name, value in options.items())
    return f"high: {{workers: {workers}, {CLASSES}{given}}}"


@pytest.fixture
def queue(valkey):
    return OwnQueue("high", connection=valkey, job_class=OwnJob)


def hold(queue, valkey) -> tuple[OwnJob, psutil.Process]:
    """A job that runs, and the work horse that it runs in."""
    job = queue.enqueue("pool_jobs.hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    return job, psutil.Process(int(valkey.lindex("gate:running", -1)))


def kill(worker: psutil.Process, horse: psutil.Process) -> None:
    worker.kill()
    horse.kill()


def assert_nothing_left(valkey: redis.Redis, workers: int) -> bool:
    """So many workers are members, and nothing is held."""
    assert valkey.hlen("rq:pool:members") == workers
    assert len(valkey.keys("own:worker:*")) == workers
    assert valkey.scard("rq:workers") == workers
    assert valkey.keys("rq:pool:in-flight:*") == []
    assert valkey.keys("rq:pool:recovery:*") == []
    assert StartedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False) == []
    # Nothing was written to the keys that RQ's own classes have.
    assert [valkey.keys(f"rq:{kind}:*") for kind in KINDS] == [[], [], []]
    return True


def test_a_job_that_was_not_begun_by_a_killed_worker_is_back_in_its_queue_and_runs(
    start_pool, valkey, queue
):
    pool = start_pool(yaml=yaml(1)).expect_ready(1)
    valkey.set("hold horses", 1)
    job, then = queue.enqueue("pool_jobs.note", "trace"), queue.enqueue("pool_jobs.nothing")
    eventually(lambda: valkey.llen("held"))
    horse = psutil.Process(int(valkey.lindex("held", 0)))
    assert valkey.keys("rq:pool:in-flight:*:own:queue:high")
    valkey.delete("hold horses")
    kill(horse.parent(), horse)
    eventually(lambda: job.is_finished and then.is_finished)
    assert valkey.llen("trace") == 1
    eventually(lambda: assert_nothing_left(valkey, 1))
    assert pool.stop() == 0


@pytest.mark.parametrize("interrupted", ["fail", "requeue"])
def test_a_job_whose_worker_and_horse_are_killed_is_settled(start_pool, valkey, queue, interrupted):
    pool = start_pool(yaml=yaml(1, interrupted=interrupted)).expect_ready(1)
    job, horse = hold(queue, valkey)
    kill(horse.parent(), horse)
    if interrupted == "fail":
        eventually(lambda: job.get_status() == JobStatus.FAILED)
        failed = FailedJobRegistry("high", connection=valkey)
        assert failed.get_job_ids(cleanup=False) == [job.id]
    else:
        eventually(lambda: valkey.llen("gate:running") == 2)
        valkey.rpush("gate:open", 1)
        eventually(lambda: job.is_finished)
    eventually(lambda: assert_nothing_left(valkey, 1))
    assert pool.stop() == 0


def test_what_a_lost_worker_held_is_recovered_by_a_worker_with_other_prefixes(
    start_pool, valkey, queue
):
    lost = start_pool("--name", "lost", yaml=yaml(1)).expect_ready(1)
    running, horse = hold(queue, valkey)
    worker = horse.parent()
    lost.manager.kill()
    kill(worker, horse)
    waiting = queue.enqueue("pool_jobs.nothing")
    [key] = valkey.hkeys("rq:pool:members")
    assert key.startswith(b"own:worker:")
    name = key.removeprefix(b"own:worker:").decode()
    valkey.lmove("own:queue:high", f"rq:pool:in-flight:{name}:own:queue:high")
    valkey.delete(key)
    valkey.hset("rq:pool:suspects", key, valkey.time()[0] - 121)

    finder = start_pool("low=1").expect_ready(1)
    finder.expect(f"worker {name} was lost; recovering its jobs")
    eventually(lambda: running.get_status() == JobStatus.FAILED)
    eventually(lambda: queue.job_ids == [waiting.id])
    eventually(lambda: not valkey.hexists("rq:pool:members", key))
    assert finder.stop() == 0


def test_a_running_job_of_a_live_worker_is_left_alone_by_its_siblings(start_pool, valkey, queue):
    pool = start_pool(yaml=yaml(2)).expect_ready(2)
    job, horse = hold(queue, valkey)
    # Whatever was seen of it before is a minute old, and every pool looks again.
    sweeps = start_pool("--name", "other", yaml="low: 1").expect_ready(1)
    for key in valkey.hkeys("rq:pool:members"):
        valkey.hset("rq:pool:suspects", key, valkey.time()[0] - 121)
    valkey.delete("rq:pool:swept:shop", "rq:pool:swept:other")
    next_pool = start_pool("--name", "other", yaml="low: 1").expect_ready(1)
    eventually(lambda: not valkey.exists("rq:pool:suspects"))
    assert job.get_status() == JobStatus.STARTED
    assert horse.is_running()
    assert valkey.scard("rq:workers") == 2 + 2
    for each in (pool, sweeps, next_pool):
        assert not each.found("was lost")
    valkey.rpush("gate:open", 1)
    eventually(lambda: job.is_finished)
    for each in (pool, sweeps, next_pool):
        assert each.stop() == 0
