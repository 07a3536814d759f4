"""A worker's steps with its jobs, taken one by one in a real server and without any worker."""

from __future__ import annotations

from collections.abc import Callable

import redis
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.executions import Execution
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.serializers import DefaultSerializer

from django_rq_pool.config.groups import QueueGroup
from django_rq_pool.config.options import GroupOptions
from django_rq_pool.ledger.failure_notice import FailureNotice
from django_rq_pool.ledger.held import HeldJobs
from django_rq_pool.ledger.members import JobClasses, Member
from django_rq_pool.ledger.settle import Settler
from django_rq_pool.ledger.transactions import InHand, Transactions

NAME = "shop.web1.high.1-00000000"


def member(name: str = NAME, **options: object) -> Member:
    """A worker of the queues high and low."""
    group = QueueGroup("high,low", ("high", "low"), 1, GroupOptions(**options))
    return Member(
        name,
        f"{RQ_KEY_PREFIX}:worker:{name}",
        f"{RQ_KEY_PREFIX}:workers",
        "shop",
        group,
        ("rq:queue:high", "rq:queue:low"),
        JobClasses(Job, Queue, DefaultSerializer),
    )


def settler(
    valkey: redis.Redis, notice: FailureNotice | None = None, name: str = NAME, **options: object
) -> Settler:
    return Settler(valkey, member(name, **options), notice)


def transactions(valkey: redis.Redis, name: str = NAME) -> Transactions:
    held = HeldJobs(valkey, name, member(name).queue_keys)
    return Transactions(valkey, held, lambda step: step())


def take(valkey: redis.Redis, queue: Queue, job: Job, name: str = NAME) -> None:
    """The job goes to the in-flight list of the worker."""
    assert valkey.lrem(queue.key, 1, job.id) == 1
    valkey.rpush(f"rq:pool:in-flight:{name}:{queue.key}", job.id)


def note_execution(job: Job, name: str = NAME) -> Execution:
    """The worker notes that it is about to fork a work horse."""
    with job.connection.pipeline() as pipeline:
        execution = Execution.create(job, 90, pipeline, worker_name=name)
        pipeline.execute()
    return execution


def begin(valkey: redis.Redis, queue: Queue, job: Job, name: str = NAME) -> InHand:
    """A work horse makes the job a started one."""
    take(valkey, queue, job, name)
    return begin_taken(valkey, queue, job, name)


def begin_taken(valkey: redis.Redis, queue: Queue, job: Job, name: str = NAME) -> InHand:
    hand = InHand(job, queue, note_execution(job, name))
    commands = commands_of(valkey, lambda pipeline: job.prepare_for_execution(name, pipeline))
    transactions(valkey, name).begin(hand, commands)
    return hand


def commands_of(valkey: redis.Redis, write: Callable[[redis.client.Pipeline], object]) -> list:
    """What a method of RQ would write."""
    pipeline = valkey.pipeline()
    write(pipeline)
    return [command for command, _ in pipeline.command_stack]


def assert_nothing_held(valkey: redis.Redis, name: str = NAME) -> None:
    """Nothing says that the worker has a job; a note of what it settled last may stand."""
    begun = valkey.hgetall(f"rq:pool:begun:{name}")
    assert set(begun) <= {b"settled"}
    kept = {b"rq:pool:begun:" + name.encode()}
    assert set(valkey.keys(f"*{name}*")) <= kept
    for queue in ("high", "low"):
        assert StartedJobRegistry(queue, connection=valkey).get_job_ids(cleanup=False) == []
    assert valkey.keys("rq:execution:*") == []
