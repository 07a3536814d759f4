"""What a scheduler enqueues, in a real server and without a process of its own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest
import redis
from rq import Queue, SimpleWorker
from rq.rate_limit import RateLimit
from rq.registry import ScheduledJobRegistry
from rq.scheduler import RQScheduler

from django_rq_pool.ledger import schedulers
from django_rq_pool.worker.manager_link import ManagerLink
from django_rq_pool.worker.scheduler_process import PooledScheduler
from harness import eventually

NO_LINK = cast(ManagerLink, None)  # it matters in the process only
LOCK = RQScheduler.get_locking_key("high")


@pytest.fixture
def queue(valkey: redis.Redis) -> Queue:
    return Queue("high", connection=valkey)


@pytest.fixture
def scheduler(valkey: redis.Redis, queue: Queue) -> PooledScheduler:
    """One that holds the lock of its queue."""
    scheduler = PooledScheduler(SimpleWorker([queue], connection=valkey), NO_LINK)
    assert scheduler.acquire_locks() == {"high"}
    return scheduler


def schedule(queue: Queue, **options: Any) -> str:
    """The id of a job that is due."""
    return queue.enqueue_in(timedelta(seconds=-1), "pool_jobs.nothing", **options).id


def scheduled(queue: Queue) -> list[str]:
    return ScheduledJobRegistry(queue=queue).get_job_ids(cleanup=False)


@pytest.mark.parametrize(
    "options", [{}, {"rate_limit": RateLimit("key", 1)}], ids=["any", "limited"]
)
def test_a_job_that_is_due_is_enqueued_by_the_holder_of_the_lock(scheduler, queue, options):
    job_id = schedule(queue, **options)
    scheduler.enqueue_scheduled_jobs()
    assert queue.job_ids == [job_id]
    assert scheduled(queue) == []


def test_a_job_is_left_alone_once_the_lock_is_another_s(scheduler, queue, valkey):
    job_id = schedule(queue)
    valkey.set(LOCK, "another")
    scheduler.enqueue_scheduled_jobs()
    assert queue.job_ids == []
    assert scheduled(queue) == [job_id]


@pytest.mark.parametrize("happens", ["another takes it", "it expires"])
def test_a_lock_lost_between_reading_and_enqueuing_leaves_the_job_alone(
    scheduler, queue, valkey, monkeypatch, happens
):
    job_id = schedule(queue)
    enqueue = Queue._enqueue_job

    def lose_lock_and_enqueue(*arguments, **options):
        if happens == "it expires":
            valkey.pexpire(LOCK, 1)
            eventually(lambda: not valkey.exists(LOCK))
        else:
            valkey.set(LOCK, "another")
        return enqueue(*arguments, **options)

    monkeypatch.setattr(Queue, "_enqueue_job", lose_lock_and_enqueue)
    scheduler.enqueue_scheduled_jobs()
    assert queue.job_ids == []
    assert scheduled(queue) == [job_id]


def test_a_lock_that_is_lost_does_not_keep_other_queues_from_being_scheduled(valkey, queue):
    other = Queue("default", connection=valkey)
    scheduler = PooledScheduler(SimpleWorker([queue, other], connection=valkey), NO_LINK)
    scheduler.acquire_locks()
    for each in (queue, other):
        valkey.set(scheduler.get_locking_key(each.name), scheduler.name)
        schedule(each)
    valkey.set(scheduler.get_locking_key("default"), "another")
    scheduler.enqueue_scheduled_jobs()
    assert (queue.count, other.count) == (1, 0)


def test_only_what_a_worker_s_scheduler_held_is_released(scheduler, valkey):
    scheduler.register_birth()
    valkey.set(RQScheduler.get_locking_key("default"), "another")
    schedulers.release(valkey, scheduler.name, ["high", "default"])
    assert valkey.get(LOCK) is None
    assert valkey.get(RQScheduler.get_locking_key("default")) == b"another"
    assert not valkey.exists(scheduler.key)
