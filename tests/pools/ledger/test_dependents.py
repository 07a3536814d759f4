"""Dependents are enqueued at once and once, however many workers end their dependencies."""

from __future__ import annotations

import random

import pytest
from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import DeferredJobRegistry, FinishedJobRegistry

from harness import eventually

CHAINS, LINKS = 30, 10


def group(workers: int, worker_class: str) -> str:
    return f"high: {{workers: {workers}, worker_class: {worker_class}}}"


def assert_each_ran_once(valkey, jobs: list[Job]) -> bool:
    """Every job has run, once; RQ would find in ten minutes only those that were left behind."""
    ran = valkey.lrange("trace", 0, -1)
    assert len(ran) >= len(jobs)
    assert sorted(ran) == sorted(job.id.encode() for job in jobs)
    assert DeferredJobRegistry("high", connection=valkey).get_job_ids() == []
    assert not valkey.keys("rq:ready:*")
    finished = FinishedJobRegistry("high", connection=valkey).get_job_ids()
    assert sorted(finished) == sorted(job.id for job in jobs)
    return True


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_three_hundred_jobs_in_chains_run_each_once(start_pool, valkey, worker_class):
    queue = Queue("high", connection=valkey)
    jobs: list[Job] = []
    for chain in range(CHAINS):
        before = None
        for link in range(LINKS):
            job_id = f"chain-{chain}-{link}"
            before = queue.enqueue(
                "pool_jobs.note", "trace", job_id, job_id=job_id, depends_on=before
            )
            jobs.append(before)
    pool = start_pool(yaml=group(4, worker_class)).expect_ready(4)
    eventually(lambda: assert_each_ran_once(valkey, jobs))
    places = {job_id.decode(): at for at, job_id in enumerate(valkey.lrange("trace", 0, -1))}
    for chain in range(CHAINS):
        order = [places[f"chain-{chain}-{link}"] for link in range(LINKS)]
        assert order == sorted(order)
    assert pool.stop() == 0


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_jobs_whose_dependencies_end_in_several_workers_at_once_run_each_once(
    start_pool, valkey, worker_class
):
    queue = Queue("high", connection=valkey)
    chosen = random.Random(13)
    parents = [
        queue.enqueue("pool_jobs.note", "trace", job_id, job_id=job_id)
        for job_id in (f"parent-{number}" for number in range(40))
    ]
    children = [
        queue.enqueue(
            "pool_jobs.note", "trace", job_id, job_id=job_id, depends_on=chosen.sample(parents, 4)
        )
        for job_id in (f"child-{number}" for number in range(100))
    ]
    pool = start_pool(yaml=group(4, worker_class)).expect_ready(4)
    eventually(lambda: assert_each_ran_once(valkey, [*parents, *children]))
    assert pool.stop() == 0


def test_a_job_that_is_enqueued_as_its_dependency_ends_is_not_left_behind(start_pool, valkey):
    pool = start_pool(yaml=group(2, "rq.SimpleWorker")).expect_ready(2)
    queue = Queue("high", connection=valkey)
    jobs: list[Job] = []
    for number in range(100):
        parent = queue.enqueue(
            "pool_jobs.note", "trace", f"parent-{number}", job_id=f"parent-{number}"
        )
        child = queue.enqueue(
            "pool_jobs.note",
            "trace",
            f"child-{number}",
            job_id=f"child-{number}",
            depends_on=parent,
        )
        jobs += [parent, child]
    eventually(lambda: assert_each_ran_once(valkey, jobs))
    assert pool.stop() == 0


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_a_job_that_is_canceled_as_it_runs_sets_no_dependent_free(start_pool, valkey, worker_class):
    queue = Queue("high", connection=valkey)
    pool = start_pool(yaml=group(1, worker_class)).expect_ready(1)
    parent = queue.enqueue("pool_jobs.hold", "gate")
    dependent = queue.enqueue("pool_jobs.note", "trace", "dependent", depends_on=parent)
    assert valkey.blpop(["gate:running"], 60)
    Job.fetch(parent.id, connection=valkey).cancel()
    valkey.rpush("gate:open", "now")
    eventually(lambda: parent.id in FinishedJobRegistry("high", connection=valkey))
    assert dependent.get_status(refresh=True) == JobStatus.DEFERRED
    assert pool.stop() == 0
    assert valkey.lrange("trace", 0, -1) == []
