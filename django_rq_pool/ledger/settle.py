"""Settle: what becomes of the jobs of a worker that is gone, or that lost its hold on one.

Rule of the room: a job is settled in one step that takes it from where it stood, so that it is
settled once, whoever tries. A job that was not begun goes back to the head of its queue; one that
was begun is retried, failed or requeued. Read against RQ 3.0.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.defaults import DEFAULT_FAILURE_TTL
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, ScheduledJobRegistry
from rq.results import Result
from rq.utils import as_text
from rq.utils import now as utc_now

from .failure_notice import FailureNotice
from .held import Begun, Fetched, HeldJobs, Hold
from .keys import INTERRUPTED_FIELD
from .members import Member
from .recogniser import in_one_step
from .transactions import Command, InHand, NotHeld, Transactions

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
        self._token = secrets.token_hex(8)
        self._notified: set[str] = set()

    def settle_all(self, cause: str) -> None:
        """Settles every job that the worker holds. None of its work horses may be alive.

        Args:
            cause: why the jobs were cut short, as a sentence for their records.
        """
        for hand in self.put_back_and_list_begun():
            with self._failing_unusable(hand.queue.key, hand.execution):
                self.end(hand, cause)

    def put_back_and_list_begun(self) -> list[InHand]:
        """Puts back every job that no work horse has begun, forgets those that are gone, and fails
        those that cannot be loaded.

        Returns:
            The jobs that were begun and not settled.
        """
        taken = self.held.taken()
        noted = self.held.noted() if taken else []
        for fetched in reversed(taken):
            self.put_back(fetched, [each for each in noted if each.job_id == fetched.job_id])
        hands = []
        for begun in self.held.begun():
            with self._failing_unusable(begun.queue_key, begun.execution):
                hand = self._in_hand(begun)
                if hand is not None:
                    hands.append(hand)
        return hands

    @contextlib.contextmanager
    def _failing_unusable(self, queue_key: str, execution: Execution) -> Iterator[None]:
        """Fails a job whose data, or class, raises an error where it is settled. It would raise the
        same each time, and the worker's other jobs would never be settled."""
        try:
            yield
        except RedisError:
            raise
        except Exception:
            logger.exception(
                "job %s of worker %s cannot be settled in its own way, failing it",
                execution.job_id,
                self.member.name,
            )
            fetched = Fetched(queue_key, execution.job_id)
            self.fail_unusable(fetched, traceback.format_exc(), execution)

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
        # First, for nobody would know of them if the answer to the next step were lost.
        if executions:
            origin = as_text(self.redis.hget(job_key, "origin") or b"")
            self.held.drop(executions, origin)
        if not self.held.put_back(fetched, job_key, limit):
            return False
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

    def fail_unusable(
        self, fetched: Fetched, reason: str, execution: Execution | None = None
    ) -> None:
        """Fails a job that cannot be used, with nothing of its data and its class but the keys.

        Args:
            fetched: the job, and where it came from.
            reason: why, for its record.
            execution: its execution; None if none was noted.
        """
        job_id = fetched.job_id
        queue = self._queue(fetched.queue_key)
        if execution is None:
            execution = Execution(uuid4().hex, job_id, self.redis, self.member.name)
        job = self._stand_in(job_id, queue.name)
        failed = FailedJobRegistry(queue.name, connection=self.redis)
        with self.redis.pipeline() as pipeline:
            execution.delete(job=job, pipeline=pipeline)
            pipeline.hset(job.key, "status", JobStatus.FAILED.value)
            pipeline.zadd(failed.key, {job_id: "+inf"})
            Result.create_failure(
                job, DEFAULT_FAILURE_TTL, reason, self.member.name, pipeline=pipeline
            )
            with contextlib.suppress(NotHeld):
                self._settle(InHand(job, queue, execution), pipeline, JobStatus.FAILED)

    def _stand_in(self, job_id: str, origin: str) -> Job:
        """A job with the keys of one that cannot be used."""
        prefix = self._classes.job.redis_job_namespace_prefix
        job: Job = type("Job", (Job,), {"redis_job_namespace_prefix": prefix})(
            connection=self.redis
        )
        job._id, job.origin = job_id, origin  # RQ's constructor refuses an id that is none
        rate, limit = self.redis.hmget(job.key, ["rate_limit_key", "rate_limit_concurrency"])
        if rate and limit:
            job.rate_limit_key, job.rate_limit_concurrency = as_text(rate), int(limit)
        return job

    def forget(self, hand: InHand) -> None:
        """Removes what is noted of a job that was deleted while it ran, and frees its slot of a
        rate limit."""
        with self.redis.pipeline() as pipeline:
            hand.execution.delete(job=hand.job, pipeline=pipeline)
            with contextlib.suppress(NotHeld):
                self._settle(hand, pipeline)

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
            self._tell(hand)
            self._record_failure(hand, cause)
        except NotHeld:
            logger.info("job %s of worker %s has been settled already", job.id, self.member.name)

    def _tell(self, hand: InHand) -> None:
        """Tells the project of a failure, once. The record of it may be repeated until Redis takes
        it; and what the project does may end this process, so that another one goes on."""
        execution = hand.execution
        if self._notice is None or execution.id in self._notified:
            return
        if self.held.takes_telling(execution, self._token):
            self._notified.add(execution.id)
            self._notice.send(hand.job)

    def _queue(self, key: str) -> Queue:
        prefix = self._classes.queue.redis_queue_namespace_prefix
        return self._classes.queue(
            key.removeprefix(prefix),
            connection=self.redis,
            job_class=self._classes.job,
            serializer=self._classes.serializer,
        )

    def _in_hand(self, begun: Begun) -> InHand | None:
        """The job of an execution; None, and nothing left of it, when it needs no settling."""
        execution = begun.execution
        queue = self._queue(begun.queue_key)
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
            elif not self._options.disable_default_exception_handler:
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
