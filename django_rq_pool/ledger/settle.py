"""Settle: what becomes of the jobs of a worker that is gone, or that lost its hold on one.

Rule of the room: a job is settled in one transaction that takes it from where it stood, so that it
is settled once, whoever tries. A job that was not begun goes back to the head of its queue; one
that was begun is retried, failed or requeued. Read against RQ 3.0.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis import Redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.rate_limit import release_slot
from rq.registry import FailedJobRegistry, ScheduledJobRegistry
from rq.utils import as_text
from rq.utils import now as utc_now

from ..config.options import GroupOptions
from .failure_notice import FailureNotice
from .held import Fetched, HeldJobs
from .keys import INTERRUPTED_FIELD

logger = logging.getLogger("django_rq_pool")

TOO_OFTEN = " It was cut short too often: perhaps it is what ends its workers."
"""What the record of a job says that is requeued no more."""

_REQUEUE = """
if redis.call('SREM', KEYS[1], ARGV[1]) == 1 then
    redis.call('HINCRBY', KEYS[2], ARGV[3], 1)
    redis.call('HSET', KEYS[2], 'status', ARGV[4])
    redis.call('SADD', KEYS[4], KEYS[3])
    redis.call('LPUSH', KEYS[3], ARGV[2])
end
"""
"""Conditional, because redis-py repeats what it sent when an answer is lost."""

_UNSETTLED = (JobStatus.QUEUED, JobStatus.STARTED)


@dataclass(frozen=True)
class JobClasses:
    """What a queue group's jobs and queues are made with."""

    job: type[Job]
    queue: type[Queue]
    serializer: Any


class Settler:
    """Settles the jobs that one worker holds.

    A live worker has one for its own jobs. Whoever recovers what a dead worker left makes one for
    that worker's.

    Every method raises `redis.exceptions.RedisError` when the server does not do what it says; it
    can be called again then.

    Args:
        redis: a client of the worker's server.
        worker: the worker's name.
        options: the options of its queue group.
        classes: what the group's jobs and queues are made with.
        notice: tells the project of failures that no work horse could tell, or None where the
            work horse has.

    Attributes:
        held: the jobs that the worker holds.
    """

    def __init__(
        self,
        redis: Redis,
        worker: str,
        options: GroupOptions,
        classes: JobClasses,
        notice: FailureNotice | None = None,
    ) -> None:
        self.redis = redis
        self.worker = worker
        self.held = HeldJobs(redis, worker)
        self._options = options
        self._classes = classes
        self._notice = notice
        self._notified: set[str] = set()

    def settle_all(self, cause: str) -> None:
        """Settles every job that the worker holds. None of its work horses may be alive.

        Args:
            cause: why the jobs were cut short, as a sentence for their records.
        """
        for job, execution in self.put_back_and_list_begun():
            self._end(job, execution, cause)

    def put_back_and_list_begun(self) -> list[tuple[Job, Execution]]:
        """Puts back every job that no work horse has begun, and forgets those that are settled.

        Returns:
            The jobs that were begun and not settled, each with its execution.
        """
        not_begun = self.held.not_begun()
        executions = self.held.executions()
        for job_id in reversed(not_begun):
            self.put_back(job_id, [each for each in executions if each.job_id == job_id])
        begun = []
        for execution in executions:
            if execution.job_id not in not_begun:
                job = self._unsettled_job(execution)
                if job is not None:
                    begun.append((job, execution))
        return begun

    def put_back(self, job_id: str, executions: list[Execution]) -> None:
        """Puts a job that no work horse has begun back to the head of its queue.

        Args:
            job_id: the job.
            executions: what the worker noted before it forked a work horse for it.
        """
        key = self._classes.job.key_for(job_id)
        status, origin = self.redis.hmget(key, "status", "origin")
        self.held.drop(executions, as_text(origin or b""))
        if status and origin and as_text(status) in _UNSETTLED:
            queue_key = f"{Queue.redis_queue_namespace_prefix}{as_text(origin)}"
            self.held.give_back(Fetched(queue_key, job_id))
            logger.info("job %s, not begun by worker %s, is back in its queue", job_id, self.worker)
        else:
            self.held.forget(job_id)

    def requeue(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Puts a job that was cut short back to the front of its queue, as ``interrupted: requeue``
        wants it.

        Returns:
            False when it has been cut short too often and must fail.
        """
        before = int(self.redis.hget(job.key, INTERRUPTED_FIELD) or 0)
        if before >= self._options.interrupted_limit:
            return False
        self.redis.register_script(_REQUEUE)(
            keys=[self.held.executions_key, job.key, queue.key, queue.redis_queues_keys],
            args=[execution.composite_key, job.id, INTERRUPTED_FIELD, JobStatus.QUEUED.value],
        )
        with self.redis.pipeline() as pipeline:
            execution.delete(job=job, pipeline=pipeline)
            pipeline.execute()
        logger.info(
            "job %s of %s was cut short and is first in its queue again", job.id, queue.name
        )
        return True

    def fail_unreadable(self, fetched: Fetched) -> None:
        """Puts a job whose data cannot be read among the failed ones of its queue."""
        queue_name = fetched.queue_key.removeprefix(Queue.redis_queue_namespace_prefix)
        registry = FailedJobRegistry(queue_name, connection=self.redis)
        key = self._classes.job.key_for(fetched.job_id)
        with self.redis.pipeline() as pipeline:
            pipeline.hset(key, "status", JobStatus.FAILED.value)
            pipeline.zadd(registry.key, {fetched.job_id: "+inf"})
            pipeline.lrem(self.held.in_flight_key, 1, fetched.job_id)
            pipeline.execute()

    def job_of(self, execution: Execution) -> Job:
        """The job of an execution.

        Raises:
            NoSuchJobError: it has been deleted.
        """
        job: Job = self._classes.job.fetch(
            execution.job_id, connection=self.redis, serializer=self._classes.serializer
        )
        return job

    def queue_of(self, job: Job) -> Queue:
        """The queue that a job came from."""
        return self._classes.queue(
            job.origin,
            connection=self.redis,
            job_class=self._classes.job,
            serializer=self._classes.serializer,
        )

    def _unsettled_job(self, execution: Execution) -> Job | None:
        """The job of an execution; None, and nothing left of it, when it needs no settling."""
        try:
            job = self.job_of(execution)
        except NoSuchJobError:
            self.held.drop([execution], "")
            return None
        if self._is_unsettled(job):
            return job
        self.held.drop([execution], job.origin)
        return None

    def _end(self, job: Job, execution: Execution, cause: str) -> None:
        """Settles a job that was begun: retried, failed or requeued."""
        queue = self.queue_of(job)
        job.ended_at = utc_now()
        if self._options.interrupted == "requeue":
            if self.requeue(job, queue, execution):
                return
            job.retries_left = 0
            cause += TOO_OFTEN
        # The record below may be repeated until Redis takes it, and the project is told once.
        if self._notice is not None and execution.id not in self._notified:
            self._notified.add(execution.id)
            self._notice.send(job)
        self._record_failure(job, queue, execution, cause)

    def _is_unsettled(self, job: Job) -> bool:
        """Whether the job of an open execution needs settling. RQ makes a job that is to be retried
        later a scheduled one first, and puts it in the registry in the next transaction."""
        status = job.get_status(refresh=False)
        if status == JobStatus.SCHEDULED:
            return job.id not in ScheduledJobRegistry(job.origin, connection=self.redis)
        return status in _UNSETTLED

    def _record_failure(self, job: Job, queue: Queue, execution: Execution, cause: str) -> None:
        """Does what RQ's ``handle_job_failure`` does, without a worker: retries the job, or fails
        it, sends its webhooks, enqueues its dependents and frees its rate limit slot."""
        retry = job.should_retry
        with self.redis.pipeline() as pipeline:
            if not retry:
                job.set_status(JobStatus.FAILED, pipeline=pipeline)
            execution.delete(job=job, pipeline=pipeline)
            if retry:
                job.retry(queue, pipeline)
            else:
                job._handle_failure(
                    cause,
                    pipeline=pipeline,
                    worker_name=self.worker,
                    execution_id=execution.id,
                    execution_started_at=execution.created_at,
                    execution_ended_at=job.ended_at,
                )
            pipeline.execute()
        if not retry:
            job.send_webhooks(JobStatus.FAILED, exc_string=cause)
            _attempt("enqueue the dependents", job, lambda: queue.enqueue_dependents(job))
        _attempt("free the rate limit slot", job, lambda: release_slot(job))


def _attempt(what: str, job: Job, act: Callable[[], object]) -> None:
    """Does what follows a failure that is recorded; as in RQ, an error is logged and no more."""
    try:
        act()
    except Exception:
        logger.exception("cannot %s of job %s", what, job.id)
