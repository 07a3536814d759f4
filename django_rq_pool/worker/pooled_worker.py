"""Pooled worker: what the pool puts over the project's RQ worker class.

Rule of the room: it knows RQ's insides, as `registration` and `execution` do; each override says
what RQ does instead and why that will not do. Here no job is in hand yet.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
import traceback
from typing import Any

from rq import Queue
from rq.exceptions import StopRequested
from rq.job import Job
from rq.suspension import WORKERS_SUSPENDED
from rq.worker import WorkerStatus

from ..ledger.held import Fetched
from .execution import ExecutionMixin

_SUSPENSION_CHECK = 1.0
"""Seconds between two looks at RQ's suspension key, as in RQ."""


class PooledWorker(ExecutionMixin):
    """Mixin over the project's worker class."""

    own_look_seconds = 30.0
    """Seconds between two looks of a worker whether it holds a job that it does not know of."""
    _own_look_due = 0.0
    _taken_id = ""
    """The job that was taken by the pool's own way, if one was this time."""

    # Stopping and pausing

    def _install_signal_handlers(self) -> None:
        """RQ's handlers raise an exception wherever the worker is. A job that it has just taken
        would be lost. Here the manager link catches the signals, and the worker handles them where
        it waits."""

    def handle_payload(self, message: Any) -> None:
        """RQ's remote ``shutdown`` command sends SIGINT to its own process. Here that would be an
        immediate stop, so it sends SIGQUIT and stays graceful. Runs in RQ's subscription thread."""
        if b'"shutdown"' in message["data"]:
            self.log.info("Worker %s: shutdown command received", self.name)
            os.kill(os.getpid(), signal.SIGQUIT)
        else:
            super().handle_payload(message)

    def wait_until_allowed(self, burst: bool) -> None:
        """Stands for RQ's `check_for_suspension`, which comes first in each turn of its loop,
        without a job in hand: the place to stop, to tell Redis that the worker lives, and to look
        for others that do not."""
        shown = False
        while True:
            self._stop_if_asked()
            self.look_after_scheduler()
            try:
                if not self._link.ready:
                    self._become_ready()
                self.heartbeat()
                self.sweep()
                if not (self._link.paused or self.connection.exists(WORKERS_SUSPENDED)):
                    return
                if not shown:
                    shown = True
                    self.log.info("Worker %s: suspended", self.name)
                    self.set_state(WorkerStatus.SUSPENDED)
            except self._link.unavailable as error:
                self._await_redis(error)
            if burst and not self._link.paused:
                raise StopRequested
            self._link.wait([], _SUSPENSION_CHECK)

    def _become_ready(self) -> None:
        """Reports that the worker listens, once the server has carried out what taking a job needs.
        One that forbids it would have a new pool take the place of one that works."""
        with self.noting_crashes():
            self._fetcher.rehearse()
            nobodys = self.job_class(secrets.token_hex(16), connection=self.connection)
            self._transactions.rehearse(nobodys, self.queues[0])
        self._link.report_ready()

    def _stop_if_asked(self) -> None:
        self._link.handle_signals()
        self._link.end_job = False  # there is none
        if self._link.stopping:
            self.tell_of_stop()
            raise StopRequested

    @property
    def asked_to_stop(self) -> bool:
        """Whether it has to leave because it was asked to, or because the manager is gone. A
        project's override that waits may ask."""
        if not self.is_horse:
            self._link.wait([], 0.0)
        return self._link.stopping

    def run_maintenance_tasks(self) -> None:
        """Does what RQ does, and notes errors: RQ logs them and leaves as if its work were done. It
        leaves too when Redis goes away meanwhile; here the worker waits, at its next command, and
        maintains later."""
        try:
            with self.noting_crashes():
                super().run_maintenance_tasks()
        except self._link.unavailable as error:
            self.log.warning("Worker %s: maintenance: %s", self.name, error)

    # Taking a job

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Notes errors: RQ logs them and leaves as if its work were done. And a job that a
        project's override has popped by itself stands in no list."""
        self._taken_id = ""
        with self.noting_crashes():
            result = super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
            if result is not None and result[0].id != self._taken_id:
                self._fetcher.adopt(Fetched(result[1].key, result[0].id))
            return result

    def take_job(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Takes a job.

        Args:
            timeout: seconds of one wait at most, after which it looks around and waits again; None:
                it does not wait.
            max_idle_time: seconds after which it gives up; None: never.

        Returns:
            The job and its queue, or None.
        """
        idle_until = None if max_idle_time is None else time.monotonic() + max_idle_time
        self.procline("Listening on " + ",".join(self.queue_names()))
        is_checked = True  # RQ has just done so
        while True:
            if not is_checked:
                self.check_for_suspension(burst=timeout is None)
            is_checked = False
            try:
                if self.get_state() != WorkerStatus.IDLE:
                    self.set_state(WorkerStatus.IDLE)
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()
                self._look_after_own()
                result = self._fetch(timeout, idle_until)
            except self._link.unavailable as error:
                self._start_afresh(error)
                self._state = WorkerStatus.STARTED  # whatever Redis knew of it may be gone
                continue
            if result is not None:
                self._taken_id = result[0].id
                return result
            if timeout is None or (idle_until is not None and time.monotonic() >= idle_until):
                return None

    def _look_after_own(self) -> None:
        """Looks once in a while, without a job in hand, whether there is one in this worker's lists
        all the same: a failover can take back what Redis had acknowledged."""
        if time.monotonic() >= self._own_look_due:
            self._own_look_due = time.monotonic() + self.own_look_seconds
            self._fetcher.doubt()
            if self._settler.held.begun():
                self.log.warning("Worker %s: Redis has forgotten how a job ended", self.name)
                self._settle_held("Redis has forgotten how the job ended.")

    def _fetch(self, timeout: int | None, idle_until: float | None) -> tuple[Job, Queue] | None:
        """One try to get a job; ``timeout`` None means not to wait for one."""
        keys = [queue.key for queue in self._ordered_queues]
        fetched = self._fetcher.take(keys)
        self._link.report_allowed()
        if fetched is None and timeout is not None:
            seconds = min(float(timeout), self.until_scheduler_look())
            if idle_until is not None:
                seconds = max(0.0, min(seconds, idle_until - time.monotonic()))
            fetched = self._fetcher.wait(keys, seconds)
        while fetched is not None:
            self._link.handle_signals()
            self._link.end_job = False  # that was for the job before
            if self._link.stopping or self._link.paused:
                self._settler.put_back(fetched, [])
                return None
            result = self._load(fetched)
            if result is not None:
                return result
            fetched = self._fetcher.take(keys)
        return None

    def _load(self, fetched: Fetched) -> tuple[Job, Queue] | None:
        """The job behind an id, or None when there is nothing to run."""
        try:
            result = self.queue_class._fetch_dequeued_job(
                self.connection,
                fetched.queue_key,
                fetched.job_id,
                job_class=self.job_class,
                serializer=self.serializer,
                death_penalty_class=self.death_penalty_class,
            )
        except self._link.unavailable:
            raise
        except Exception:
            # RQ's worker would die of it and the job be lost. Requeued, it would kill the next one.
            self.log.exception("Worker %s: cannot load job %s", self.name, fetched.job_id)
            self._settler.fail_unusable(fetched, traceback.format_exc())
            return None
        if result is None:
            self._settler.held.forget(fetched)  # deleted while it waited: RQ takes the next one too
            return None
        job, queue = result
        if fetched.again:
            self._settler.held.forget_executions(job.id, job.origin)
        self.reorder_queues(reference_queue=queue)
        job.redis_server_version = self.get_redis_server_version()
        described = job.description if self.log_job_description else job.id
        self.log.info("Worker %s: %s: %s (%s)", self.name, queue.name, described, job.id)
        return job, queue
