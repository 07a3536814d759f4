"""Horse: a job in its own process, or in a `SimpleWorker`'s, from the fork until it is settled.

Rule of the room: it knows RQ's insides, as the other rooms of the worker do; each override says
what RQ does instead and why that will not do. A job that this worker does not hold is not run.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.timeouts import JobTimeoutException
from rq.utils import now as utc_now

from ..config import redis_clients
from ..config.redis_clients import UNREACHABLE
from ..connections import renew_connections
from ..errors import TermException
from ..ledger.transactions import InHand, NotHeld
from ..system import families, processes
from ..system.handlers import do_nothing
from .settling import SettlingMixin

REFUSED = os.EX_TEMPFAIL
"""Exit status of a work horse that did not begin its job, because its worker does not hold it."""


class HorseMixin(SettlingMixin):
    """The part of `pooled_worker.PooledWorker` that runs a job."""

    _hand: InHand
    _is_begun = False
    _is_refused = False
    """Whether the job was not begun, because this worker does not hold it."""
    _is_in_function = False
    """Whether the job's own function runs, which `TermException` may end."""
    _to_end_by: Callable[[FrameType | None], object] | None = None
    """What a signal that has come before it is to be answered with, when it begins."""

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """A work horse that notes itself on the scoreboard is waited for. If its worker died before
        that, nobody knows of it and its job is given to another worker: it must not begin."""
        worker_pid = self.pid
        self._link.become_horse()
        if self._link.stop_rules.term_child is not None:
            self._link.handlers.install([signal.SIGTERM], self._raise_in_job)
        if os.getppid() != worker_pid:
            os._exit(1)
        self._release_redis()
        redis_clients.keep_driver_quiet(self.connection)
        super().main_work_horse(job, queue)

    def _release_redis(self) -> None:
        """Closes the horse's copies of its worker's connections to Redis. redis-py does not use
        them after a fork. But while they are open the server does not notice that the worker is
        gone, and goes on sending to it."""
        for client in (self.connection, *(queue.connection for queue in self.queues)):
            redis_clients.release_inherited(client)

    def _raise_in_job(self, signum: int, frame: FrameType | None) -> None:
        """Tells the job that its worker was asked to stop immediately, under TERM_CHILD."""
        self.end_function_by(self._raise_term, signum, frame)

    def _raise_term(self, signum: int, frame: FrameType | None) -> None:
        # Once: its clean-up is not interrupted.
        self._link.handlers.install([signal.SIGTERM], do_nothing)
        self.note_shutdown()
        raise TermException(self._cut_short)

    def note_shutdown(self) -> None:
        """Notes that the job is cut short by a stop, and does not end by itself."""
        self._cut_short = f"Worker {self.name} was asked to stop immediately."

    def end_function_by(
        self, handler: Callable[[int, FrameType | None], object], signum: int, frame: Any
    ) -> None:
        """Handles a signal that ends the job's own function. Before that has begun, it is handled
        when it begins. After it there is nothing to end: settling is finished.

        Args:
            handler: raises an exception, now or later.
            signum: the signal.
            frame: where it arrived.
        """
        if self._is_in_function:
            handler(signum, frame)
        else:
            self._to_end_by = partial(handler, signum)

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """RQ's work horse leaves by ``os._exit``, so that text which a job prints into a file or a
        pipe is lost, unless a line of RQ's log follows it there. RQ's `SimpleWorker` keeps a
        database connection that is broken. And what is raised around a job (by an exception
        handler, or by a library that wraps this method) is lost with the horse, and ends a
        `SimpleWorker`; here the job fails with it."""
        renew_connections()
        if self._import_tracker is not None:
            self._import_tracker.begin()
        self._hand = InHand(job, queue, execution)
        self._is_begun = self._is_settled = self._is_refused = False
        vars(job)["perform"] = partial(self._perform, job.perform)
        try:
            done = super().perform_job(job, queue, execution)
            if not self._is_settled:
                self._fail_in_hand(job, queue, execution, "The job was not run. ")
            return done
        except NotHeld:
            self._is_refused = not self._is_begun
            self._note_not_held(job)
        except UNREACHABLE:
            raise
        except BaseException:
            self._fail_in_hand(job, queue, execution, traceback.format_exc())
        finally:
            vars(job).pop("perform", None)
            if self._import_tracker is not None:
                self._import_tracker.end()
            renew_connections()
            processes.flush_output()
        if self._is_refused and self.is_horse:
            os._exit(REFUSED)
        return False

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Does what RQ does, if the job is in this worker's in-flight list (instead of RQ's
        intermediate queue), which it leaves in the transaction that makes it a started job. A
        project's override that leaves out that transaction does not keep the job from beginning."""
        prepare = partial(super().prepare_job_execution, job, False)
        with self._steps.beginning(self._hand):
            self._write(job, prepare)
        if self._transactions.begun != self._hand.execution.composite_key:
            self._transactions.begin(self._hand, [])
        self._is_begun = True

    def _perform(self, perform: Callable[[], Any]) -> Any:
        self._is_in_function = True
        try:
            if self._to_end_by is not None:
                self._to_end_by(inspect.currentframe())
            return perform()
        except JobTimeoutException:
            if self.is_horse:  # a worker's own family may be of other jobs
                families.kill_own_family()
            raise
        finally:
            self._is_in_function = False

    def _finalize_failure(self, *arguments: Any) -> None:
        """RQ takes whatever is raised in `perform_job` for a failure of the job."""
        if isinstance(sys.exc_info()[1], NotHeld):
            raise
        super()._finalize_failure(*arguments)

    def _fail_in_hand(self, job: Job, queue: Queue, execution: Execution, reason: str) -> None:
        """Fails a job that was not settled, whether it was begun or not."""
        if self._is_settled:
            self.log.error("Worker %s: after job %s: %s", self.name, job.id, reason)
            return
        self.log.error("Worker %s: around job %s: %s", self.name, job.id, reason)
        job.ended_at = utc_now()
        self.handle_job_failure(job, queue, exc_string=reason, execution=execution)
