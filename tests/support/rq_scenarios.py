"""Scenarios: what a site may ask of RQ, one queue each, so that their records can be told apart.

Rule of the room: each enqueues jobs and names them; whoever runs a worker in burst mode on the
queues runs them all. Job ids begin with the name of their scenario.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from redis import Redis
from rq import Callback, Queue, Repeat, Retry, get_current_job
from rq.command import send_stop_job_command
from rq.group import Group
from rq.job import Dependency, Job
from rq.rate_limit import RateLimit
from rq.webhook import Webhook

from pool_jobs import client

HERE = __name__


# Jobs


def give(value: object = None) -> object:
    return value


def fail() -> None:
    raise ValueError("this job fails")


def fail_before(attempt: int) -> str:
    job = get_current_job()
    assert job is not None
    if client().incr(f"attempts:{job.id}") < attempt:
        raise ValueError("this attempt fails")
    return "done"


def ask_for_retry() -> object:
    return Retry(max=1, interval=0)


def spend(seconds: float) -> None:
    client().blpop(["nothing"], seconds)


def give_what_cannot_be_kept() -> object:
    return lambda: None


def change_itself(how: str) -> None:
    job = get_current_job()
    assert job is not None
    if how == "cancel":
        job.cancel()
    elif how == "delete":
        job.delete()
    elif how == "meta":
        job.meta["seen"] = job.id
        job.save_meta()
    elif how == "stop":
        send_stop_job_command(job.connection, job.id)
        spend(60)


def end_process(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(3)


def enqueue_another(queue: str, job_id: str) -> None:
    job = get_current_job()
    assert job is not None
    Queue(queue, connection=job.connection).enqueue(give, "inner", job_id=job_id)


def note_end(job: Job, *rest: object) -> None:
    client().rpush(f"told:{job.id}", "told")


def raise_at_end(job: Job, *rest: object) -> None:
    raise RuntimeError("this callback fails")


# Scenarios

Enqueue = Callable[..., Job]
Scenario = Callable[[Enqueue, Queue], object]
SCENARIOS: dict[str, Scenario] = {}
NEED_A_HORSE = ("stopped-by-command", "killed", "killed-with-retries")
"""Those that end the process of a job, which must not be a worker's."""


def scenario(enqueue: Scenario) -> Scenario:
    SCENARIOS[enqueue.__name__.replace("_", "-")] = enqueue
    return enqueue


def enqueue_all(names: list[str], connection: Redis) -> None:
    """Enqueues the jobs of some scenarios, each in the queue of its name."""
    for name in names:
        queue = Queue(name, connection=connection)
        SCENARIOS[name](partial(_enqueue, queue), queue)


def _enqueue(
    queue: Queue, job: str, function: Callable[..., object], *args: object, **options: object
) -> Job:
    path = f"{HERE}.{function.__name__}"
    return queue.enqueue(path, *args, job_id=f"{queue.name}-{job}", **options)


@scenario
def success(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("text", give, "text")
    enqueue("nothing", give)
    enqueue("big", give, list(range(1000)))


@scenario
def time_to_live_of_results(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("none", give, 1, result_ttl=0)
    enqueue("ever", give, 1, result_ttl=-1)
    enqueue("hour", give, 1, result_ttl=3600)


@scenario
def failure(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("plain", fail)
    enqueue("short", fail, failure_ttl=3600)


@scenario
def failure_that_is_not_kept(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("none", fail, failure_ttl=0)


@scenario
def retry(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("succeeds", fail_before, 3, retry=Retry(max=3))
    enqueue("gives-up", fail, retry=Retry(max=2))


@scenario
def retry_with_interval(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("later", fail, retry=Retry(max=2, interval=[7200, 14400]))


@scenario
def retry_by_result(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("asks", ask_for_retry)


@scenario
def repeat(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("thrice", give, 1, repeat=Repeat(times=2))
    enqueue("later", give, 1, repeat=Repeat(times=2, interval=7200))


@scenario
def dependents(enqueue: Enqueue, queue: Queue) -> None:
    first = enqueue("first", give, 1)
    second = enqueue("second", give, 2, depends_on=first)
    enqueue("both", give, 3, depends_on=[first, second])


@scenario
def dependents_of_failures(enqueue: Enqueue, queue: Queue) -> None:
    failed = enqueue("failed", fail)
    enqueue("never", give, 1, depends_on=failed)
    enqueue("anyway", give, 2, depends_on=Dependency(failed, allow_failure=True))


@scenario
def dependents_at_the_front(enqueue: Enqueue, queue: Queue) -> None:
    first = enqueue("first", give, 1)
    enqueue("front", give, 2, depends_on=Dependency(first, enqueue_at_front=True))
    enqueue("waits", give, 3)


@scenario
def dependents_of_canceled_jobs(enqueue: Enqueue, queue: Queue) -> None:
    canceled = enqueue("canceled", give, 1)
    enqueue("waits", give, 2, depends_on=canceled)
    canceled.cancel(enqueue_dependents=True)


@scenario
def callbacks(enqueue: Enqueue, queue: Queue) -> None:
    told = Callback(f"{HERE}.note_end")
    enqueue("success", give, 1, on_success=told, on_failure=told)
    enqueue("failure", fail, on_success=told, on_failure=told)


@scenario
def callbacks_that_raise(enqueue: Enqueue, queue: Queue) -> None:
    broken = Callback(f"{HERE}.raise_at_end")
    enqueue("success", give, 1, on_success=broken)
    enqueue("failure", fail, on_failure=broken)


@scenario
def stopped_by_command(enqueue: Enqueue, queue: Queue) -> None:
    enqueue(
        "stopped", change_itself, "stop", on_stopped=Callback(f"{HERE}.note_end"), job_timeout=90
    )


@scenario
def time_limit(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("overdue", spend, 60, job_timeout=1)
    enqueue("retried", spend, 60, job_timeout=1, retry=Retry(max=1))


@scenario
def meta(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("changed", change_itself, "meta", meta={"given": 1})


@scenario
def unreadable_data(enqueue: Enqueue, queue: Queue) -> None:
    job = enqueue("broken", give, 1)
    queue.connection.hset(job.key, "data", b"this is no pickle")


@scenario
def missing_function(enqueue: Enqueue, queue: Queue) -> None:
    queue.enqueue("no_such_module.function", job_id="missing-function-module")
    queue.enqueue(f"{HERE}.no_such_function", job_id="missing-function-name")


@scenario
def result_that_cannot_be_kept(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("lambda", give_what_cannot_be_kept)


@scenario
def canceled(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("waiting", give, 1).cancel()
    enqueue("running", change_itself, "cancel")
    enqueue("next", give, 1)


@scenario
def deleted(enqueue: Enqueue, queue: Queue) -> None:
    job = enqueue("waiting", give, 1)
    queue.connection.delete(job.key)  # as an expired one: its id is still in the queue
    enqueue("running", change_itself, "delete")
    enqueue("next", give, 1)


@scenario
def unique(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("once", give, 1, unique=True)
    enqueue("fails", fail, unique=True)


@scenario
def rate_limit(enqueue: Enqueue, queue: Queue) -> None:
    for number in range(4):
        enqueue(str(number), give, number, rate_limit=RateLimit("narrow", 1))
    enqueue("fails", fail, rate_limit=RateLimit("wide", 2))
    enqueue("after", give, 1, rate_limit=RateLimit("wide", 2))


@scenario
def webhooks(enqueue: Enqueue, queue: Queue) -> None:
    hooks = [
        Webhook("http://127.0.0.1:1/done", "finished"),
        Webhook("http://127.0.0.1:1/failed", "failed", method="POST"),
    ]
    enqueue("success", give, 1, webhooks=hooks)
    enqueue("failure", fail, webhooks=hooks)


@scenario
def group(enqueue: Enqueue, queue: Queue) -> None:
    Group.create(queue.connection, name="group-of-jobs").enqueue_many(
        queue,
        [
            Queue.prepare_data(f"{HERE}.give", args=(number,), job_id=f"group-{number}")
            for number in range(3)
        ],
    )


@scenario
def at_the_front(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("last", give, 1)
    enqueue("first", give, 2, at_front=True)


@scenario
def scheduled(enqueue: Enqueue, queue: Queue) -> None:
    queue.enqueue_in(timedelta(days=1), f"{HERE}.give", 1, job_id="scheduled-tomorrow")


@scenario
def killed(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("by-signal", end_process, "kill")
    enqueue("by-itself", end_process, "exit")


@scenario
def killed_with_retries(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("by-itself", end_process, "exit", retry=Retry(max=1))


@scenario
def jobs_that_enqueue(enqueue: Enqueue, queue: Queue) -> None:
    enqueue("outer", enqueue_another, queue.name, "jobs-that-enqueue-inner")


@scenario
def expired_while_waiting(enqueue: Enqueue, queue: Queue) -> None:
    job = enqueue("job", give, 1, ttl=3600)
    assert job.ttl == 3600
