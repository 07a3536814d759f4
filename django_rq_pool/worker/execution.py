"""Execution: a job of a pooled worker, seen from the worker: the fork of its work horse, the wait
for it, and the account.

Rule of the room: it knows RQ's insides, as the other rooms of the worker do; each override says
what RQ does instead and why that will not do. Whether a job is settled is looked up, not inferred.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import psutil
from redis.exceptions import NoPermissionError, RedisError
from rq import Queue
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.timeouts import HorseMonitorTimeoutException
from rq.utils import now as utc_now

from ..connections import close_connections
from ..ledger.settle import NEVER_BEGAN
from ..ledger.transactions import InHand
from ..system import families, processes, signals
from .horse import REFUSED, HorseMixin
from .scheduling import SchedulingMixin

FORBIDDEN = "Redis does not let this user work: %s"
"""Why a worker that has never been ready leaves, with the server's words."""


class ExecutionMixin(HorseMixin, SchedulingMixin):
    """The part of `pooled_worker.PooledWorker` that has a job in hand."""

    _kill_horse_at: float | None = None
    """When to kill the horse that was asked to end, on the monotonic clock; None: not asked."""
    _horse_family: Sequence[psutil.Process] = ()
    """What the horse's job had made when the horse was asked to end."""
    _queue: Queue
    _at_hand: tuple[InHand, float] | None = None
    """The job that runs, and since when, on the monotonic clock."""
    _own_end = ""
    """How a job ended that nobody cut short, when its process did not record it."""

    crashed = ""
    """Why the worker leaves, if something went wrong in it: a sentence, or a traceback."""

    warn_horse: Callable[[], float | None]
    """Tells the job that it is about to be ended; `bases` has it. Returns the seconds that it has
    left, or None: it is ended now."""

    @contextlib.contextmanager
    def noting_crashes(self) -> Iterator[None]:
        """Notes an error that RQ's loop logs before it leaves as if its work were done. What is
        forbidden by Redis is no error of the code, and needs no traceback."""
        try:
            yield
        except StopRequested:
            raise
        except self._link.unavailable:
            raise
        except NoPermissionError as error:
            self.crashed = FORBIDDEN % error
            raise StopRequested from error
        except Exception:
            self.crashed = traceback.format_exc()
            raise

    # In the worker

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Shows the job on the scoreboard while it runs. When Redis goes away around a job, RQ's
        worker leaves with the job in hand; here it waits for Redis and settles the job. And what
        RQ infers from an exit status is looked up here: whether the job was settled."""
        self._link.slot.begin(job.id)
        self._cut_short = self._own_end = ""
        self._is_asked_to_end = self._is_settled = self._is_refused = False
        self._queue = queue
        try:
            with self.noting_crashes():
                super().execute_job(job, queue)
                self._account_for(job, queue)
        except self._link.unavailable as error:
            self.log.error("Worker %s: Redis went away around job %s: %s", self.name, job.id, error)
            self._settle_afresh(error)
        finally:
            self._at_hand = None
            if not self.horse_pid:  # else the manager must know that it runs on
                self._link.slot.end()
            if self._import_tracker is not None:
                self._link.report_imported(self._import_tracker.take())

    def _settle_afresh(self, error: RedisError) -> None:
        """Settles what this worker holds, however often Redis goes away meanwhile."""
        trouble: RedisError | None = error
        while trouble is not None:
            self._start_afresh(trouble)
            try:
                self._settle_held("Redis went away around the job")
                trouble = None
            except self._link.unavailable as again:
                trouble = again

    def prepare_execution(self, job: Job) -> Execution:
        """Keeps the execution, to look up what has become of it."""
        execution = super().prepare_execution(job)
        self._at_hand = (InHand(job, self._queue, execution), time.monotonic())
        return execution

    def _account_for(self, job: Job, queue: Queue) -> None:
        """Looks up whether the job that was run, or should have been, is settled. It may be that
        its process has ended without a word, or that this worker does not hold the job any more."""
        if self._is_settled:
            return
        if self._at_hand is None:
            self._retry_while_unavailable(partial(self._put_back_unrun, job, queue))
            return
        hand, _ = self._at_hand
        hold = self._retry_while_unavailable(partial(self._settler.look, hand))
        if hold.settled:
            return
        if hold.begun and not self.connection.exists(hand.job.key):
            self._settler.forget(hand)
        elif hold.begun or (hold.taken and not self._is_refused):
            self._fail(hand, self._own_end or "The job was not run. ")
        else:
            self._give_up_hold(hand)

    def _give_up_hold(self, hand: InHand) -> None:
        self.log.warning(
            "Worker %s: job %s is not held by this worker, or not any more; connecting to Redis "
            "afresh",
            self.name,
            hand.job.id,
        )
        self._start_afresh()
        self._settler.held.drop([hand.execution], hand.queue.name)
        if self._settler.look(hand).taken and not self._put_back(hand, counted=True):
            self._fail(hand, NEVER_BEGAN)

    def _fail(self, hand: InHand, reason: str) -> None:
        hand.job.ended_at = utc_now()
        self.handle_job_failure(hand.job, hand.queue, exc_string=reason, execution=hand.execution)

    def _start_afresh(self, error: BaseException | None = None) -> None:
        """Drops every connection, because one may lead to a server that is no longer the right one,
        and waits until Redis can be written to.

        Args:
            error: what a command has raised, if one has.
        """
        self._fetcher.close()
        self._redis.drop_connections()
        self._await_redis(error)

    def register_death(self) -> None:
        """Settles what may be left, which RQ would forget here. If something has gone wrong while
        the work horse runs, its job is left alone: the manager has the worker recovered once the
        horse has ended."""
        if self.horse_pid and not self.is_horse:
            self.log.error("Worker %s leaves its work horse %d behind", self.name, self.horse_pid)
            return
        self._settle_held(f"Worker {self.name} left.")
        super().register_death()

    def _settle_held(self, cause: str) -> None:
        """Settles every job that this worker holds, in its own name: RQ's way, with the project's
        overrides, and with what the worker knows of a job that was stopped by the user."""
        for hand in self._settler.put_back_and_list_begun():
            self._cut_short, self._is_settled = cause, False
            self._fail(hand, "")
        self.executions.clear()

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """RQ's worker leaves its running work horse behind when a heartbeat fails; here that is
        logged. And a worker that Redis has forgotten gets its hash back from RQ, and no more."""
        try:
            super().maintain_heartbeats(job, execution)
            self._register_again_if_forgotten()
        except RedisError as error:
            self.log.warning("Worker %s: heartbeat of job %s: %s", self.name, job.id, error)

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """RQ's work horse inherits the worker's database connections, and the text that the worker
        has not yet written to its standard streams. And only the horse makes itself the leader of a
        process group, so that `kill_horse` right after the fork would kill the worker's group."""
        close_connections()
        processes.flush_output()
        with signals.blocked():  # the horse unblocks them when it has its own handlers
            super().fork_work_horse(job, queue)
        processes.lead_process_group(self.horse_pid)
        self._link.slot.horse(self.horse_pid)

    def signal_horse(self, sig: signal.Signals) -> None:
        """Sends the horse and its process group a signal, to each process once. A kill ends what
        its job has put into other groups too."""
        if self.horse_pid and sig == signal.SIGKILL:
            families.end_with_family(self.horse_pid)
        elif self.horse_pid:
            processes.signal_child_and_group(self.horse_pid, sig)

    def await_horse(self) -> tuple[int | None, int | None, Any]:
        """Waits for the horse, as RQ's `wait_for_horse` does. That is interrupted for heartbeats by
        an alarm whose handler raises an exception wherever the worker is; here the same exception
        is raised in time before that."""
        if not self.horse_pid:
            return None, None, None
        heartbeat_at = time.monotonic() + 0.9 * self.job_monitoring_interval
        while True:
            try:
                if self._is_asked_to_end and processes.has_ended(self.horse_pid):
                    # While it is not reaped, no other group can have its number.
                    families.end_with_family(self.horse_pid)
                    families.kill(self._horse_family)
                pid, status, usage = os.wait4(self.horse_pid, os.WNOHANG)
            except ChildProcessError:
                return None, None, None
            if pid:
                self._kill_horse_at = None
                return pid, self._note_end(status), usage
            if self._link.end_job or (self._link.immediately and self._kill_horse_at is None):
                self._kill_horse_at = self._end_horse()
            if self.tell_of_stop() and not self._link.immediately and self._at_hand is not None:
                hand, _ = self._at_hand
                self.maintain_heartbeats(hand.job, hand.execution)  # Redis hears of it
            now = time.monotonic()
            if self._kill_horse_at is not None and now >= self._kill_horse_at:
                self.kill_horse()
                self._kill_horse_at = float("inf")
            if now >= heartbeat_at:
                self._set_start_by_monotonic_clock()
                raise HorseMonitorTimeoutException
            self.sweep()
            self.look_after_scheduler()
            due = min(heartbeat_at, self._kill_horse_at or heartbeat_at, self._sweep_due) - now
            self._link.wait([], min(due, self.until_scheduler_look()))

    def _note_end(self, status: int) -> int:
        """Notes how the horse has ended. Returns what RQ shall take for its wait status."""
        exit_code = os.waitstatus_to_exitcode(status)
        self._is_refused = exit_code == REFUSED
        self._own_end = (
            f"The job's process ended itself with status {exit_code}, without a record of how the "
            "job ended. "
            if exit_code >= 0
            else ""
        )
        return 0 if self._is_refused else status

    def _set_start_by_monotonic_clock(self) -> None:
        """RQ finds out by a clock that can be set how long a job has been running, and kills one
        that seems to be overdue."""
        if self._at_hand is None:
            return
        hand, began = self._at_hand
        hand.job.started_at = utc_now() - timedelta(seconds=time.monotonic() - began)

    def _end_horse(self) -> float:
        """Begins to end the running job. Returns when to kill what is left of it, on the monotonic
        clock."""
        asked = "to stop immediately" if self._link.immediately else "by USR1 to end the job"
        self._cut_short = f"Worker {self.name} was asked {asked}."
        self._is_asked_to_end, self._link.end_job = True, False
        # Those that it has when it has ended have other parents then.
        self._horse_family = families.descendants(self.horse_pid)
        grace = self.warn_horse()
        return 0.0 if grace is None else time.monotonic() + grace

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """RQ asks for the status of a job whose horse failed, and leaves when Redis cannot say."""
        try:
            super().monitor_work_horse(job, queue, execution)
        except self._link.unavailable as error:
            self.log.error("Worker %s: Redis went away around job %s: %s", self.name, job.id, error)
            self._start_afresh(error)

    def handle_work_horse_killed(self, job: Job, retpid: Any, ret_val: Any, rusage: Any) -> None:
        """Notes that the failure which RQ records next is not the job's own fault, if it is not: an
        exit status is the job's own end, and so is the signal that ends one that is overdue. RQ
        fails a job again whose horse ended just after it had settled it by a retry."""
        if self._at_hand is None:
            return
        hand, began = self._at_hand
        look = partial(self._settler.look, hand)
        self._is_settled = self._retry_while_unavailable(look).settled
        if self._is_settled:
            return
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)
        ran, limit = time.monotonic() - began, job.timeout or -1
        if 0 < limit < ran:
            self._cut_short = ""
        elif not self._cut_short and ret_val is not None and os.WIFSIGNALED(ret_val):
            self._cut_short = "Its horse was ended by somebody else."
