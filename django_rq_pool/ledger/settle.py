"""Settle: what becomes of the jobs of a worker that is gone, or that lost its hold on one.

Rule of the room: a job is settled in one step that takes it from where it stood, so that it is
settled once, whoever tries. A job that was not begun goes back to the head of its queue; one that
was begun is retried, failed or requeued. Read against RQ 3.0.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from redis import Redis
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, ScheduledJobRegistry
from rq.utils import as_text
from rq.utils import now as utc_now

from .failure_notice import FailureNotice
from .held import Begun, Fetched, HeldJobs, Hold
from .keys import INTERRUPTED_FIELD
from .members import Member
from .transactions import Command, InHand, NotHeld, Transactions, in_one_step

logger = logging.getLogger("django_rq_pool")

TOO_OFTEN = " It was cut short too often: perhaps it is what ends its workers."
"""What the record of a job says that is requeued no more."""

NEVER_BEGAN = (
    " It was put back too often without having begun: perhaps it is what ends its work horses."
)
"""What the record of a job says that is put back no more."""


def _once(step: Callable[[], Any]) -> Any:
    return step()


class Settler:
    """Settles the jobs that one worker holds.

    A live worker has one for its own jobs. Whoever recovers what a dead worker left makes one for
    that worker's.

    Every method raises `redis.exceptions.RedisError` when the server does not do what it says; it
    can be called again then.

    Args:
        redis: a client of the worker's server.
        member: the worker, and its rules.
        notice: tells the project of failures that no work horse could tell, or None where the
            work horse has.
        transactions: carries out the steps; None: each is tried once.

    Attributes:
        held: the jobs that the worker holds.
    """

    def __init__(
        self,
        redis: Redis,
        member: Member,
        notice: FailureNotice | None = None,
        transactions: Transactions | None = None,
    ) -> None:
        self.redis = redis
        self.member = member
        self.held = HeldJobs(redis, member.name, member.queue_keys)
        self._classes = member.classes
        self._options = member.group.options
        self._notice = notice
        self._transactions = transactions or Transactions(redis, self.held, _once)
        self._notified: set[str] = set()

    def settle_all(self, cause: str) -> None:
        """Settles every job that the worker holds. None of its work horses may be alive.

        Args:
            cause: why the jobs were cut short, as a sentence for their records.
        """
        for hand in self.put_back_and_list_begun():
            self.end(hand, cause)

    def put_back_and_list_begun(self) -> list[InHand]:
        """Puts back every job that no work horse has begun, and forgets those that are gone.

        Returns:
            The jobs that were begun and not settled.
        """
        taken = self.held.taken()
        noted = self.held.noted() if taken else []
        for fetched in reversed(taken):
            self.put_back(fetched, [each for each in noted if each.job_id == fetched.job_id])
        hands = (self._in_hand(begun) for begun in self.held.begun())
        return [hand for hand in hands if hand is not None]

    def put_back(
        self, fetched: Fetched, executions: list[Execution], *, counted: bool = False
    ) -> bool:
        """Puts a job that no work horse has begun back to the head of its queue.

        Args:
            fetched: the job.
            executions: what the worker noted before it forked a work horse for it.
            counted: whether it was tried in vain; then it is put back only so often.

        Returns:
            False when it was tried too often and must fail.
        """
        job_key = self._classes.job.key_for(fetched.job_id)
        limit = self._options.interrupted_limit if counted else 0
        if not self.held.put_back(fetched, job_key, limit):
            return False
        if executions:
            origin = as_text(self.redis.hget(job_key, "origin") or b"")
            self.held.drop(executions, origin)
        logger.info(
            "job %s, not begun by worker %s, is back in its queue",
            fetched.job_id,
            self.member.name,
        )
        return True

    def requeue(self, hand: InHand) -> bool:
        """Puts a job that was cut short back to the front of its queue, as ``interrupted: requeue``
        wants it.

        Returns:
            False when it has been cut short too often and must fail.
        """
        job, queue = hand.job, hand.queue
        before = int(self.redis.hget(job.key, INTERRUPTED_FIELD) or 0)
        if before >= self._options.interrupted_limit:
            return False
        with self.redis.pipeline() as pipeline:
            hand.execution.delete(job=job, pipeline=pipeline)
            pipeline.hincrby(job.key, INTERRUPTED_FIELD, 1)
            pipeline.hset(job.key, "status", JobStatus.QUEUED.value)
            pipeline.sadd(queue.redis_queues_keys, queue.key)
            pipeline.lpush(queue.key, job.id)
            self._settle(hand, pipeline)
        logger.info(
            "job %s of %s was cut short and is first in its queue again", job.id, queue.name
        )
        return True

    def fail_unreadable(self, fetched: Fetched) -> None:
        """Puts a job whose data cannot be read among the failed ones of its queue."""
        prefix = self._classes.queue.redis_queue_namespace_prefix
        registry = FailedJobRegistry(fetched.queue_key.removeprefix(prefix), connection=self.redis)
        key = self._classes.job.key_for(fetched.job_id)
        with self.redis.pipeline() as pipeline:
            pipeline.hset(key, "status", JobStatus.FAILED.value)
            pipeline.zadd(registry.key, {fetched.job_id: "+inf"})
            pipeline.lrem(self.held.in_flight_key(fetched.queue_key), 1, fetched.job_id)
            pipeline.execute()

    def end(self, hand: InHand, cause: str) -> None:
        """Settles a job that was begun: retried, failed or requeued."""
        job = hand.job
        job.ended_at = utc_now()
        try:
            if self._options.interrupted == "requeue":
                if self.requeue(hand):
                    return
                job.retries_left = 0
                cause += TOO_OFTEN
            # The record below may be repeated until Redis takes it; the project is told once.
            if self._notice is not None and hand.execution.id not in self._notified:
                self._notified.add(hand.execution.id)
                self._notice.send(job)
            self._record_failure(hand, cause)
        except NotHeld:
            logger.info("job %s of worker %s has been settled already", job.id, self.member.name)

    def _in_hand(self, begun: Begun) -> InHand | None:
        """The job of an execution; None, and nothing left of it, when it needs no settling."""
        execution = begun.execution
        prefix = self._classes.queue.redis_queue_namespace_prefix
        queue = self._classes.queue(
            begun.queue_key.removeprefix(prefix),
            connection=self.redis,
            job_class=self._classes.job,
            serializer=self._classes.serializer,
        )
        with contextlib.suppress(NoSuchJobError):
            job = self.job_of(execution)
            if self._is_unsettled(job):
                return InHand(job, queue, execution)
        self.held.drop([execution], queue.name)
        return None

    def _is_unsettled(self, job: Job) -> bool:
        """Whether a job that was begun still has to end. RQ makes a job that is to be retried later
        a scheduled one first, and puts it in the registry in the next transaction."""
        status = job.get_status(refresh=False)
        if status == JobStatus.SCHEDULED:
            return job.id not in ScheduledJobRegistry(job.origin, connection=self.redis)
        return status in (JobStatus.QUEUED, JobStatus.STARTED)

    def look(self, hand: InHand) -> Hold:
        """Where a job and its execution stand now."""
        return self.held.look(hand.job.id, hand.queue.key, hand.execution)

    def job_of(self, execution: Execution) -> Job:
        """The job of an execution.

        Raises:
            NoSuchJobError: it has been deleted.
        """
        job: Job = self._classes.job.fetch(
            execution.job_id, connection=self.redis, serializer=self._classes.serializer
        )
        return job

    def _settle(self, hand: InHand, pipeline: Any, outcome: JobStatus | None = None) -> None:
        commands: list[Command] = [command for command, _ in pipeline.command_stack]
        self._transactions.settle(hand, commands, outcome)

    def _record_failure(self, hand: InHand, cause: str) -> None:
        """Does what RQ's ``handle_job_failure`` does, without a worker: retries the job, or fails
        it and enqueues its dependents, frees its rate limit slot, and sends its webhooks."""
        job, execution = hand.job, hand.execution
        retry = job.should_retry
        with self.redis.pipeline() as pipeline, in_one_step(job):
            if not retry:
                job.set_status(JobStatus.FAILED, pipeline=pipeline)
            execution.delete(job=job, pipeline=pipeline)
            if retry:
                job.retry(hand.queue, pipeline)
            else:
                job._handle_failure(
                    cause,
                    pipeline=pipeline,
                    worker_name=self.member.name,
                    execution_id=execution.id,
                    execution_started_at=execution.created_at,
                    execution_ended_at=job.ended_at,
                )
            self._settle(hand, pipeline, None if retry else JobStatus.FAILED)
        if not retry:
            job.send_webhooks(JobStatus.FAILED, exc_string=cause)
