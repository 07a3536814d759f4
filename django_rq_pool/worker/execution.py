"""Execution: a job of a pooled worker, from the fork of its work horse until it is settled.

Rule of the room: it knows RQ's insides, as `registration` and `pooled_worker` do; each override
says what RQ does instead and why that will not do. What must be written is written, however long
Redis is away.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import Any, TypeVar

from redis.exceptions import ConnectionError
from rq import Queue
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.timeouts import HorseMonitorTimeoutException
from rq.utils import now as utc_now

from ..config import redis_clients
from ..config.redis_clients import UNREACHABLE
from ..connections import close_connections, renew_connections
from ..errors import TermException
from ..ledger.settle import TOO_OFTEN
from ..system import processes
from .registration import RegistrationMixin

Outcome = TypeVar("Outcome")


class ExecutionMixin(RegistrationMixin):
    """The part of `pooled_worker.PooledWorker` that has a job in hand."""

    _cut_short = ""
    """Why the job at hand was cut short; empty for one that ended by itself."""
    _kill_horse_at: float | None = None
    """When to kill the horse that was asked to end, on the monotonic clock; None: not asked."""

    crashed = False
    """Whether the worker leaves because something went wrong in it."""

    @contextlib.contextmanager
    def noting_crashes(self) -> Iterator[None]:
        """Notes an error that RQ's loop logs before it leaves as if its work were done."""
        try:
            yield
        except (StopRequested, *UNREACHABLE):
            raise
        except Exception:
            self.crashed = True
            raise

    # In the worker

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Shows the job on the scoreboard while it runs. When Redis goes away around a job, RQ's
        worker leaves with the job in hand; here it waits for Redis and settles the job."""
        self._link.slot.begin(job.id)
        self._cut_short = ""
        try:
            with self.noting_crashes():
                super().execute_job(job, queue)
        except UNREACHABLE as error:
            self.log.error("Worker %s: Redis went away around job %s: %s", self.name, job.id, error)
            self._await_redis()
            self._settle_held("Redis went away around the job")
        finally:
            self._link.slot.end()
            if self._import_tracker is not None:
                self._link.report_imported(self._import_tracker.take())

    def register_death(self) -> None:
        """Settles what may be left, which RQ would forget here."""
        self._settle_held(f"Worker {self.name} left.")
        super().register_death()

    def _settle_held(self, cause: str) -> None:
        """Settles every job that this worker holds, in its own name: RQ's way, with the project's
        overrides, and with what the worker knows of a job that was stopped by the user."""
        for job, execution in self._settler.put_back_and_list_begun():
            self._cut_short = cause
            job.ended_at = utc_now()
            queue = self._settler.queue_of(job)
            self.handle_job_failure(job, queue, exc_string="", execution=execution)
        self.executions.clear()

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """RQ's worker leaves when a heartbeat fails, and sends its three commands one by one. Here
        a failure is logged, and the commands take one round trip."""
        try:
            if pipeline is not None:
                super().heartbeat(timeout, pipeline)
                return
            with self.connection.pipeline(transaction=False) as own:
                super().heartbeat(timeout, own)
                own.execute()
        except UNREACHABLE as error:
            self.log.warning("Worker %s: heartbeat: %s", self.name, error)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """RQ's worker leaves its running work horse behind when a heartbeat fails; here that is
        logged."""
        try:
            super().maintain_heartbeats(job, execution)
        except UNREACHABLE as error:
            self.log.warning("Worker %s: heartbeat of job %s: %s", self.name, job.id, error)

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """RQ's work horse inherits the worker's database connections, and the text that the worker
        has not yet written to its standard streams. And only the horse makes itself the leader of a
        process group, so that `kill_horse` right after the fork would kill the worker's group."""
        close_connections()
        processes.flush_output()
        super().fork_work_horse(job, queue)
        processes.lead_process_group(self.horse_pid)
        self._link.slot.horse(self.horse_pid)

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """RQ kills the process group that the horse is in, which is its worker's just after the
        fork. Here it is the group that the horse leads."""
        if self.horse_pid:
            processes.signal_process_group(self.horse_pid, sig)
            processes.send(self.horse_pid, sig)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """RQ blocks in wait4, where it handles no signal and does not notice that the manager is
        gone. For heartbeats it is interrupted by an alarm whose handler raises an exception
        wherever the worker is; here the same exception is raised in time before that."""
        if not self.horse_pid:
            return super().wait_for_horse()
        heartbeat_at = time.monotonic() + 0.9 * self.job_monitoring_interval
        while True:
            try:
                pid, status, usage = os.wait4(self.horse_pid, os.WNOHANG)
            except ChildProcessError:
                return None, None, None
            if pid:
                self._kill_horse_at = None
                return pid, status, usage
            if self._link.end_job or (self._link.immediately and self._kill_horse_at is None):
                self._kill_horse_at = self._end_horse()
            now = time.monotonic()
            if self._kill_horse_at is not None and now >= self._kill_horse_at:
                self.kill_horse()
                self._kill_horse_at = float("inf")
            if now >= heartbeat_at:
                raise HorseMonitorTimeoutException
            self._link.wait([], min(heartbeat_at, self._kill_horse_at or heartbeat_at) - now)

    def _end_horse(self) -> float:
        """Begins to end the running job. Returns when to kill what is left of it, on the monotonic
        clock."""
        asked = "to stop immediately" if self._link.immediately else "by USR1 to end the job"
        self._cut_short = f"Worker {self.name} was asked {asked}."
        self._link.end_job = False
        grace = self._link.stop_rules.term_child
        if grace is None:
            return 0.0
        os.kill(self.horse_pid, signal.SIGTERM)
        return time.monotonic() + grace

    def handle_work_horse_killed(self, job: Job, retpid: Any, ret_val: Any, rusage: Any) -> None:
        """Notes that the failure which RQ records next is not the job's own fault."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)
        started, limit = job.started_at, job.timeout or -1
        overdue = started and limit > 0 and (utc_now() - started).total_seconds() > limit
        if not (self._cut_short or overdue):
            self._cut_short = "Its horse was ended by somebody else."

    # In the horse

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """A work horse that notes itself on the scoreboard is waited for. If its worker died before
        that, nobody knows of it and its job is given to another worker: it must not begin."""
        worker_pid = self.pid
        self._link.become_horse()
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
            for kept in ("_available_connections", "_in_use_connections", "_connections"):
                for connection in tuple(getattr(client.connection_pool, kept, ())):
                    connection.disconnect()

    def setup_work_horse_signals(self) -> None:
        """RQ lets TERM kill a work horse, so that a signal to a whole process group or container
        fails jobs without their worker. `ManagerLink.become_horse` has set the signals."""
        if self._link.stop_rules.term_child is not None:
            signal.signal(signal.SIGTERM, self._raise_in_job)

    def _raise_in_job(self, signum: int, frame: FrameType | None) -> None:
        """Tells the job that its worker was asked to stop immediately, under TERM_CHILD."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: its clean-up is not interrupted
        self._cut_short = f"Worker {self.name} was asked to stop immediately."
        raise TermException(self._cut_short)

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """RQ's work horse leaves by ``os._exit``, so that text which a job prints into a file or a
        pipe is lost. And RQ's `SimpleWorker` keeps a database connection that is broken."""
        renew_connections()
        if self._import_tracker is not None:
            self._import_tracker.begin()
        try:
            return super().perform_job(job, queue, execution)
        finally:
            if self._import_tracker is not None:
                self._import_tracker.end()
            renew_connections()
            processes.flush_output()

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """Does what RQ does, except that the job leaves this worker's in-flight list (instead of
        RQ's intermediate queue), and in the same transaction that makes it a started job."""

        def prepare() -> None:
            with self.connection.pipeline() as pipeline:
                ttl = self.get_heartbeat_ttl(job)
                self.heartbeat(ttl, pipeline=pipeline)
                job.heartbeat(utc_now(), ttl, pipeline=pipeline)
                job.prepare_for_execution(self.name, pipeline=pipeline)
                pipeline.persist(job.key)
                pipeline.lrem(self._settler.held.in_flight_key, 1, job.id)
                pipeline.execute()

        self._retry_while_unavailable(prepare)
        self.procline(f"Processing {job.func_name} from {job.origin} since {time.time()}")

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Retries while Redis is away."""
        write = super().handle_execution_ended
        self._retry_while_unavailable(lambda: write(job, queue, heartbeat_ttl))

    def handle_job_success(
        self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution
    ) -> None:
        """Retries while Redis is away: for RQ, a job whose success cannot be written has failed."""
        write = super().handle_job_success
        self._retry_while_unavailable(
            lambda: write(job, queue, started_job_registry, execution), execution
        )

    def handle_job_retry(
        self, job: Job, queue: Queue, retry: Any, started_job_registry: Any, execution: Execution
    ) -> None:
        """Retries while Redis is away, as for a success."""
        write = super().handle_job_retry
        self._retry_while_unavailable(
            lambda: write(job, queue, retry, started_job_registry, execution), execution
        )

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Retries while Redis is away, adds the reason if the pool cut the job short, and requeues
        such a job if its group says so. RQ logs an error of Redis and forgets the job; and it fails
        a job again whose work horse ended just after settling it by a retry."""
        reason, self._cut_short = self._cut_short, ""
        if (
            execution is not None
            and not self.is_horse
            and not self._retry_while_unavailable(lambda: self._settler.held.is_open(execution))
        ):
            return
        if reason and self._stopped_job_id != job.id and execution is not None:
            if self._settle_cut_short(job, queue, execution):
                self.executions.pop(execution.id, None)
                return
            exc_string = f"{exc_string}{reason}"
            if self._requeues_interrupted:
                job.retries_left = 0
                exc_string += TOO_OFTEN
        write = super().handle_job_failure
        stopped, retries = self._stopped_job_id, job.retries_left
        attempts = iter(range(3))

        def attempt() -> None:
            self._stopped_job_id, job.retries_left = stopped, retries
            write(job, queue, started_job_registry, exc_string, execution)
            # RQ logs what went wrong and returns. Only the absence of Redis passes by itself.
            unrecorded = execution is not None and self._settler.held.is_open(execution)
            if unrecorded and next(attempts, None) is not None:
                raise ConnectionError("the failure of the job is not recorded")

        self._retry_while_unavailable(attempt, execution)

    @property
    def _requeues_interrupted(self) -> bool:
        return self._link.assignment.group.options.interrupted == "requeue"

    def _settle_cut_short(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Puts a job that was cut short back into its queue; False when it must fail, or be
        retried."""
        if not self._settler.held.is_begun(job.id):
            # A horse that was ended before it began: the job has not run at all.
            self._retry_while_unavailable(lambda: self._settler.put_back(job.id, [execution]))
            return True
        if not self._requeues_interrupted:
            return False
        requeue = partial(self._settler.requeue, job, queue, execution)
        return self._retry_while_unavailable(requeue, execution) is not False
