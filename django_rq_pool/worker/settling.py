"""Settling: what a worker and its work horse write about a job.

Rule of the room: RQ's methods, and the project's overrides of them, say what is written; the ledger
says whether, and writes it once. What must be written is written, however long Redis is away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from rq import Queue
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.utils import as_text
from rq.utils import now as utc_now

from ..ledger.held import Fetched
from ..ledger.recogniser import in_one_step
from ..ledger.settle import NEVER_BEGAN, TOO_OFTEN
from ..ledger.transactions import InHand, NotHeld
from .registration import RegistrationMixin


class SettlingMixin(RegistrationMixin):
    """The part of `pooled_worker.PooledWorker` that begins and settles jobs in Redis."""

    _cut_short = ""
    """Why the job at hand was cut short; empty for one that ended by itself."""
    _is_asked_to_end = False
    """Whether the pool itself has the job at hand ended."""
    _is_settled = False
    """Whether this process has settled the job at hand."""

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Goes on while Redis is away: it is only a heartbeat."""
        job.ended_at = utc_now()
        with contextlib.suppress(*self._link.unavailable):
            super().handle_execution_ended(job, queue, heartbeat_ttl)

    def handle_job_success(
        self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution
    ) -> None:
        """Waits while Redis is away: for RQ, a job whose success cannot be written has failed. So
        has one with ``result_ttl=0`` whose execution has expired meanwhile: RQ reads it again in
        order to delete it."""
        write_success = super().handle_job_success

        def write() -> None:
            if job.get_result_ttl(self.default_result_ttl) == 0:
                execution.save(self.job_monitoring_interval + 60)
            write_success(job, queue, started_job_registry, execution)

        self._settle(InHand(job, queue, execution), JobStatus.FINISHED, write)

    def handle_job_retry(
        self, job: Job, queue: Queue, retry: Any, started_job_registry: Any, execution: Execution
    ) -> None:
        """Waits while Redis is away, as for a success."""
        write = partial(
            super().handle_job_retry, job, queue, retry, started_job_registry, execution
        )
        is_last = job.number_of_retries and job.number_of_retries >= retry.max
        self._settle(InHand(job, queue, execution), JobStatus.FAILED if is_last else None, write)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Waits while Redis is away, adds the reason if the pool cut the job short, and requeues
        such a job if its group says so. RQ logs an error of Redis and forgets the job, and it fails
        one that it has settled when something goes wrong afterwards."""
        write = super().handle_job_failure
        if execution is None:
            write(job, queue, started_job_registry, exc_string, None)
            return
        if self._is_settled:
            return
        reason, self._cut_short = self._cut_short, ""
        hand = InHand(job, queue, execution)
        is_stopped = self._stopped_job_id == job.id
        try:
            if reason and not is_stopped:
                why_not = self._put_back_or_requeue(hand)
                if why_not is None:
                    self.executions.pop(execution.id, None)
                    self._is_settled = True
                    return
                exc_string += reason + why_not
            record = partial(write, job, queue, started_job_registry, exc_string, execution)
            is_retried = job.should_retry and not is_stopped
            outcome = JobStatus.STOPPED if is_stopped else JobStatus.FAILED
            self._settle(hand, None if is_retried else outcome, record)
        except NotHeld:
            if self.is_horse:
                raise
            self._note_not_held(job)

    def _enqueue_dependents_safely(self, queue: Queue, job: Job) -> None:
        """RQ does so after it has recorded a failure; here it was done in the same step."""

    def _settle(self, hand: InHand, outcome: JobStatus | None, write: Callable[[], object]) -> None:
        """Has RQ settle a job, in a step of the ledger.

        Args:
            hand: the job.
            outcome: how it ends, for its dependents; None leaves them waiting.
            write: RQ's method.
        """
        with self._steps.settling(hand, outcome), in_one_step(hand.job):
            self._write(hand.job, write)
        # RQ logs some errors and goes on as if it had been written.
        self._is_settled = self._transactions.settled == hand.execution.composite_key

    def _write(self, job: Job, write: Callable[[], object]) -> None:
        """Has RQ write something, again from the start when what it reads for that cannot be read
        now. The step itself is only ever carried out once."""
        state, stopped = dict(vars(job)), self._stopped_job_id

        def attempt() -> None:
            vars(job).clear()
            vars(job).update(state)
            self._stopped_job_id = stopped
            write()

        self._retry_while_unavailable(attempt)

    def _put_back_or_requeue(self, hand: InHand) -> str | None:
        """Does with a job that was cut short what its group wants.

        Returns:
            None when that is done; else why the job must fail or be retried, for its record.
        """
        if self._retry_while_unavailable(partial(self._settler.look, hand)).taken:
            # A horse that was ended before it began: the job has not run at all.
            return None if self._put_back(hand, counted=not self._is_asked_to_end) else NEVER_BEGAN
        if self._link.assignment.group.options.interrupted != "requeue":
            return ""
        if self._retry_while_unavailable(partial(self._is_unwanted, hand.job)):
            return ""
        if self._retry_while_unavailable(partial(self._settler.requeue, hand)):
            return None
        hand.job.retries_left = 0
        return TOO_OFTEN

    def _is_unwanted(self, job: Job) -> bool:
        """Whether the job was canceled or deleted while it ran."""
        status = self.connection.hget(job.key, "status")
        return status is None or as_text(status) == JobStatus.CANCELED

    def _put_back(self, hand: InHand, *, counted: bool) -> bool:
        fetched = Fetched(hand.queue.key, hand.job.id)
        put_back = partial(self._settler.put_back, fetched, [hand.execution], counted=counted)
        return self._retry_while_unavailable(put_back)

    def _put_back_unrun(self, job: Job, queue: Queue) -> None:
        """Does with a job what is left to do when an `execute_job` of the project's class returns
        without running it. RQ forgets such a job. One that was put elsewhere stays there."""
        fetched = Fetched(queue.key, job.id)
        with self.connection.pipeline(transaction=False) as pipeline:
            pipeline.hmget(job.key, "status", "origin")
            pipeline.lpos(queue.key, job.id)
            (status, origin), place = pipeline.execute()
        is_here = as_text(origin or b"") == queue.name and place is None
        if not is_here or as_text(status or b"") != JobStatus.QUEUED:
            self._settler.held.forget(fetched)
        elif not self._settler.put_back(fetched, [], counted=True):
            self._settler.fail_unusable(fetched, NEVER_BEGAN)

    def _note_not_held(self, job: Job) -> None:
        self.log.warning(
            "Worker %s: job %s is settled, or held, by somebody else; nothing is recorded here",
            self.name,
            job.id,
        )
