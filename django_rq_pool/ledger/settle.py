"""Accounting: what becomes of the jobs of a worker that is gone, or that lost its hold on one.

Rule of the room: a job is settled in one transaction that takes it from where it stood, so that it
is settled once, whoever tries. It knows RQ's insides, as `member`, `running` and `pooled` do;
read against RQ 3.0.

A worker's jobs stand in two places. Its in-flight list holds those that it took from a queue and no
horse has begun: they go back to the head of their queue. Its executions (RQ's set) hold those that
were begun and not settled: each is retried, failed or requeued.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from redis import Redis
from rq import Queue, worker_registration
from rq.callbacks import execute_failure_callback
from rq.defaults import RQ_KEY_PREFIX
from rq.exceptions import AbandonedJobError, NoSuchJobError
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job, JobStatus
from rq.job_lifecycle import call_exception_handlers
from rq.registry import FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.utils import as_text
from rq.utils import now as utc_now
from rq.worker import BaseWorker

from ..worker.fetch import Fetched, give_back

if TYPE_CHECKING:
    from ..worker.execution import ExecutionMixin

logger = logging.getLogger("django_rq_pool")

IN_FLIGHT_KEY = RQ_KEY_PREFIX + ":pool:in-flight:%s"
"""List of the jobs that a worker, by name, has taken from a queue and no horse has begun."""

MEMBERS_KEY = RQ_KEY_PREFIX + ":pool:members:%s"
"""Hash of the workers of a pool, by its name: a worker's name and its queue group. Who stands here
and is not registered with RQ has been lost."""

_LOCK_KEY = RQ_KEY_PREFIX + ":pool:recovery:%s"
"""Held by whoever accounts for a dead worker, by its name."""

LOCK_SECONDS = 300

_SUSPECTS_KEY = RQ_KEY_PREFIX + ":pool:suspects:%s"
"""Hash of members that are not registered, and since when that has been known (Redis's clock)."""

SUSPECT_SECONDS = 60
"""Longer than the time between two heartbeats of a worker with a job."""

_INTERRUPTED = "pool_interrupted"
"""Field of a job's hash: how often it was requeued because something cut it short."""

_REQUEUE = """
if redis.call('SREM', KEYS[1], ARGV[1]) == 1 then
    redis.call('HINCRBY', KEYS[2], ARGV[3], 1)
    redis.call('HSET', KEYS[2], 'status', ARGV[4])
    redis.call('SADD', KEYS[4], KEYS[3])
    redis.call('LPUSH', KEYS[3], ARGV[2])
end
"""
"""Conditional, for redis-py repeats what it sent when an answer is lost."""

_UNSETTLED = (JobStatus.QUEUED, JobStatus.STARTED)


def lock(redis: Redis, name: str) -> bool:
    """Makes this process the one that accounts for a worker; False when another is."""
    return bool(redis.set(_LOCK_KEY % name, 1, nx=True, ex=LOCK_SECONDS))


def lost_members(redis: Redis, pool: str) -> tuple[list[str], bool]:
    """The workers of a pool that are gone without having been accounted for.

    That is so when their registration has expired: their host vanished, or the manager that would
    have accounted for them was killed with them. A worker that lives and could not reach Redis for
    a while looks the same until its next heartbeat: so nobody is lost at first sight.

    Returns:
        Who has been missing for `SUSPECT_SECONDS`, and whether others are suspected.
    """
    names = [as_text(name) for name in redis.hkeys(MEMBERS_KEY % pool)]
    suspects_key = _SUSPECTS_KEY % pool
    keys = [f"{RQ_KEY_PREFIX}:worker:{name}" for name in names]
    # One question for all of them, which is all that it takes while nobody is missing.
    if not names or (redis.exists(*keys) == len(keys) and not redis.exists(suspects_key)):
        return [], False
    with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.exists(key)
        pipeline.hgetall(suspects_key)
        pipeline.time()
        *registered, suspected, (now, _) = pipeline.execute()
    since = {as_text(name): int(seen) for name, seen in suspected.items()}
    missing = [name for name, there in zip(names, registered) if not there]
    lost = [name for name in missing if now - since.get(name, now) >= SUSPECT_SECONDS]
    with redis.pipeline(transaction=False) as pipeline:
        for name in missing:
            pipeline.hsetnx(suspects_key, name, now)
        for name in since.keys() - set(missing):
            pipeline.hdel(suspects_key, name)
        pipeline.execute()
    return lost, len(missing) > len(lost)


def unregister(worker: ExecutionMixin) -> None:
    """Removes a dead worker's registration, and keeps what is known of its jobs."""
    with worker.connection.pipeline() as pipeline:
        worker_registration.unregister(cast(BaseWorker, worker), pipeline)
        pipeline.delete(worker.key)
        pipeline.execute()


def account_for(worker: ExecutionMixin, pool: str, cause: str) -> None:
    """Settles all that a dead worker left and forgets it. The lock must be held.

    Args:
        worker: stands for the dead one; see `worker.build_worker`.
        pool: the name of its pool.
        cause: how it ended, for the record of its jobs.
    """
    settle(worker, cause)
    unregister(worker)  # its horse, and the settling, may have written to the worker's hash again
    with worker.connection.pipeline() as pipeline:
        pipeline.delete(worker.executions_key)
        pipeline.hdel(MEMBERS_KEY % pool, worker.name)
        pipeline.hdel(_SUSPECTS_KEY % pool, worker.name)
        pipeline.delete(_LOCK_KEY % worker.name)
        pipeline.execute()


def settle(worker: ExecutionMixin, cause: str) -> None:
    """Settles every job that a worker holds; none of its horses may be alive."""
    not_begun = [as_text(job) for job in worker.connection.lrange(_in_flight(worker), 0, -1)]
    executions = worker.get_current_executions(refresh=True)
    for job_id in reversed(not_begun):
        put_back(worker, job_id, [each for each in executions if each.job_id == job_id])
    for execution in executions:
        if execution.job_id not in not_begun:
            _end(worker, execution, cause)


def keep_alive(worker: ExecutionMixin, seconds: int) -> None:
    """Sends the heartbeats of what a dead worker's horse still runs, so that no clean-up calls it
    abandoned. To be repeated within so many seconds."""
    for execution in worker.get_current_executions(refresh=True):
        try:
            job = _fetch(worker, execution)
        except NoSuchJobError:
            continue
        with worker.connection.pipeline() as pipeline:
            execution.heartbeat(job.started_job_registry, seconds, pipeline)
            job.heartbeat(utc_now(), seconds, pipeline=pipeline, xx=True)
            pipeline.expire(worker.executions_key, seconds)
            pipeline.expire(_LOCK_KEY % worker.name, LOCK_SECONDS)
            pipeline.execute()


def is_open(worker: ExecutionMixin, execution: Execution) -> bool:
    """Whether an execution has not been settled. RQ takes it off the worker's set in the same
    transaction that settles its job."""
    return bool(worker.connection.sismember(worker.executions_key, execution.composite_key))


def requeue(worker: ExecutionMixin, job: Job, queue: Queue, execution: Execution) -> bool:
    """Puts a job that was cut short back to the front of its queue, as ``interrupted: requeue``
    wants it.

    Returns:
        False when it has been cut short too often and must fail.
    """
    before = int(worker.connection.hget(job.key, _INTERRUPTED) or 0)
    if before >= worker.group.options.interrupted_limit:
        return False
    worker.connection.register_script(_REQUEUE)(
        keys=[worker.executions_key, job.key, queue.key, queue.redis_queues_keys],
        args=[execution.composite_key, job.id, _INTERRUPTED, JobStatus.QUEUED.value],
    )
    with worker.connection.pipeline() as pipeline:
        worker.cleanup_execution(job, pipeline=pipeline, execution=execution)
        pipeline.execute()
    logger.info("job %s of %s was cut short and is first in its queue again", job.id, queue.name)
    return True


def fail_unreadable(worker: ExecutionMixin, fetched: Fetched) -> None:
    """Puts a job whose data cannot be read among the failed ones of its queue."""
    queue_name = fetched.queue_key.removeprefix(Queue.redis_queue_namespace_prefix)
    registry = FailedJobRegistry(queue_name, connection=worker.connection)
    with worker.connection.pipeline() as pipeline:
        pipeline.hset(worker.job_class.key_for(fetched.job_id), "status", JobStatus.FAILED.value)
        pipeline.zadd(registry.key, {fetched.job_id: "+inf"})
        pipeline.lrem(_in_flight(worker), 1, fetched.job_id)
        pipeline.execute()


def _in_flight(worker: ExecutionMixin) -> str:
    return IN_FLIGHT_KEY % worker.name


def _fetch(worker: ExecutionMixin, execution: Execution) -> Job:
    job: Job = worker.job_class.fetch(
        execution.job_id, connection=worker.connection, serializer=worker.serializer
    )
    return job


def put_back(worker: ExecutionMixin, job_id: str, executions: list[Execution]) -> None:
    """Puts a job that no horse has begun back to the head of its queue."""
    status, origin = worker.connection.hmget(worker.job_class.key_for(job_id), "status", "origin")
    with worker.connection.pipeline() as pipeline:
        for execution in executions:
            _drop(worker, execution, as_text(origin or b""), pipeline)
            worker.executions.pop(execution.id, None)
        pipeline.execute()
    if status and origin and as_text(status) in _UNSETTLED:
        queue_key = f"{Queue.redis_queue_namespace_prefix}{as_text(origin)}"
        give_back(worker.connection, _in_flight(worker), Fetched(queue_key, job_id))
        logger.info("job %s, not begun by worker %s, is back in its queue", job_id, worker.name)
    else:
        worker.connection.lrem(_in_flight(worker), 1, job_id)


def is_begun(worker: ExecutionMixin, job: Job) -> bool:
    """Whether a horse has made the job a started one, which takes it off the in-flight list."""
    return worker.connection.lpos(_in_flight(worker), job.id) is None


def _end(worker: ExecutionMixin, execution: Execution, cause: str) -> None:
    """Settles a job that was begun: retried, failed or requeued."""
    try:
        job = _fetch(worker, execution)
    except NoSuchJobError:
        with worker.connection.pipeline() as pipeline:
            _drop(worker, execution, "", pipeline)
            pipeline.execute()
        return
    if not _is_unsettled(worker, job):
        with worker.connection.pipeline() as pipeline:
            _drop(worker, execution, job.origin, pipeline)
            pipeline.execute()
        return
    queue = worker.queue_class(
        job.origin,
        connection=worker.connection,
        job_class=worker.job_class,
        serializer=worker.serializer,
    )
    job.ended_at = utc_now()
    worker.executions[execution.id] = execution
    worker.fail_cut_short(job, queue, execution, cause)


def _is_unsettled(worker: ExecutionMixin, job: Job) -> bool:
    """Whether the job of an open execution needs settling. RQ makes a job that is to be retried
    after a while a scheduled one first, and puts it in the registry in the next transaction."""
    status = job.get_status(refresh=False)
    if status == JobStatus.SCHEDULED:
        return job.id not in ScheduledJobRegistry(job.origin, connection=worker.connection)
    return status in _UNSETTLED


def notify_failure(worker: ExecutionMixin, job: Job) -> None:
    """Tells whoever wants to know of a failure that no horse could tell.

    RQ calls the failure callback and the exception handlers when its maintenance finds an abandoned
    job, and the handler for killed horses when a worker outlives its horse. What they raise must
    not keep the job from being settled.
    """
    error = AbandonedJobError()
    try:
        worker.handle_work_horse_killed(job, None, None, None)
        execute_failure_callback(job, worker.death_penalty_class, AbandonedJobError, error, None)
        call_exception_handlers(worker._exc_handlers, job, AbandonedJobError, error, None)
    except Exception:
        logger.exception("the failure of job %s could not be told", job.id)


def _drop(worker: ExecutionMixin, execution: Execution, origin: str, pipeline: Any) -> None:
    """Removes an execution whose job is not running and needs no settling."""
    pipeline.delete(execution.key)
    pipeline.srem(worker.executions_key, execution.composite_key)
    ExecutionRegistry(execution.job_id, connection=worker.connection).remove(execution, pipeline)
    StartedJobRegistry(origin, connection=worker.connection).remove_execution(
        execution, pipeline=pipeline
    )
