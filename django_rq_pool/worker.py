"""The worker: an RQ worker of the project's own class, living in the pool.

Rule of the room: this one and `accounting` know RQ's insides, nobody else does; each override says
what RQ does instead and why that will not do. Read against RQ 3.0.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import traceback
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from django_rq.queues import get_queues
from django_rq.workers import get_exception_handlers, get_worker_class
from redis.exceptions import ConnectionError
from rq import Queue, SpawnWorker, Worker, worker_registration
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.suspension import is_suspended
from rq.timeouts import HorseMonitorTimeoutException
from rq.utils import now as utc_now
from rq.worker import BaseWorker, DequeueStrategy, WorkerStatus
from setproctitle import setproctitle

from . import TermException, accounting, log, processes
from .accounting import IN_FLIGHT_KEY, MEMBERS_KEY
from .assignment import Assignment
from .berth import REDIS_RETRY, UNREACHABLE, Berth
from .connections import close_connections
from .fetch import Fetched, Fetcher
from .groups import QueueGroup
from .reports import Event

if TYPE_CHECKING:
    Base = Worker
else:
    Base = object

logger = logging.getLogger("django_rq_pool")

_SUSPENSION_CHECK = 1.0
"""Seconds between two looks at RQ's suspension key, as in RQ."""


def run_worker(assignment: Assignment) -> int:
    """Lives a worker's life, in the process forked for it. See `assignment.RunWorker`.

    Returns:
        0 when it left because it was asked to, or because its options said so; else 1.
    """
    berth = Berth(assignment)
    setproctitle(f"rq:worker:{assignment.name}: Starting")
    close_connections()
    try:
        while berth.await_redis():
            try:
                return _work(assignment, berth)
            except UNREACHABLE as error:
                if berth.ready:
                    logger.warning("worker %s could not unregister: %s", assignment.name, error)
                    return 1
        return 0
    except BaseException:  # a project's class may raise anything, SystemExit included
        if berth.ready:
            raise
        assignment.reports.send(Event.BOOT_FAILED, traceback.format_exc())
        return 1


def _work(assignment: Assignment, berth: Berth) -> int:
    options = assignment.group.options
    worker = build_worker(assignment.group, assignment.name)
    worker.board(berth)
    worker.work(
        burst=assignment.burst,
        logging_level=None,
        date_format=log.DATE_FORMAT,
        log_format=log.FORMAT,
        max_jobs=options.max_jobs,
        max_idle_time=options.max_idle_time,
        with_scheduler=options.with_scheduler,
        dequeue_strategy=DequeueStrategy(options.dequeue_strategy),
    )
    entitled = assignment.burst or options.max_jobs or options.max_idle_time
    return 0 if berth.stopping or entitled else 1


def build_worker(
    group: QueueGroup,
    name: str,
    *,
    alive: bool = True,
    worker_class: type[BaseWorker] | None = None,
) -> PooledWorker:
    """Builds a group's RQ worker as ``manage.py rqworker`` does, from settings and options.

    Args:
        group: the queue group.
        name: the worker's name in Redis.
        alive: whether it is this process; else it stands for a dead one, to be accounted for.
        worker_class: None takes the group's, or the settings'.

    Raises:
        Exception: what the project's classes raise.
    """
    options = group.options
    queues = get_queues(*group.queues, job_class=options.job_class, queue_class=options.queue_class)
    worker: PooledWorker = pooled(get_worker_class(worker_class or options.worker_class))(
        queues,
        name=name,
        connection=queues[0].connection,
        exception_handlers=get_exception_handlers() or None,
        job_class=queues[0].job_class,
        queue_class=type(queues[0]),
        worker_ttl=options.worker_ttl,
        serializer=options.serializer or queues[0].serializer,
        prepare_for_work=alive,
    )
    worker.group = group
    worker._stands_for_dead = not alive
    return worker


def pooled(worker_class: type[BaseWorker]) -> type[Any]:
    """The project's worker class with the pool's behaviour on top.

    Raises:
        TypeError: the class cannot work in a pool; the text says why.
    """
    problem = unfit(worker_class)
    if problem is not None:
        raise TypeError(problem)
    return type(f"Pooled{worker_class.__name__}", (PooledWorker, worker_class), {})


def unfit(worker_class: object) -> str | None:
    """Why a class cannot be a worker's class in a pool, or None when it can."""
    if not (isinstance(worker_class, type) and issubclass(worker_class, BaseWorker)):
        return f"{worker_class!r} is not an RQ worker class."
    if issubclass(worker_class, SpawnWorker):
        return "SpawnWorker starts a new interpreter for every job, which shares nothing."
    return None


class PooledWorker(Base):
    """Mixin over the project's worker class."""

    group: QueueGroup
    _stands_for_dead = False
    """Whether this object is not a worker but settles what a dead one left."""
    _cut_short = ""
    """Why the job at hand was cut short; empty for one that ended by itself."""
    _kill_horse_at: float | None = None
    """When the horse that was asked to end is killed; None: it was not asked."""

    def board(self, berth: Berth) -> None:
        """Gives the worker its ties to the pool, after RQ's constructor and before ``work``."""
        self._berth = berth
        self._fetcher = Fetcher(self.connection, IN_FLIGHT_KEY % self.name, berth.wait)

    # Being a member of the pool

    def register_birth(self) -> None:
        """Puts the worker on the pool's list too, from which another pool knows whom to account
        for when this host has vanished."""
        super().register_birth()
        self._join_pool()

    def register_death(self) -> None:
        """Settles what may be left, which RQ would forget here, and leaves the list as well."""
        accounting.settle(self, f"Worker {self.name} left.")
        super().register_death()
        self.connection.hdel(MEMBERS_KEY % self._berth.assignment.pool, self.name)

    def _join_pool(self) -> None:
        self.connection.hset(MEMBERS_KEY % self._berth.assignment.pool, self.name, self.group.name)

    def clean_registries(self) -> None:
        """Accounts for lost workers of this pool, beside RQ's own maintenance."""
        super().clean_registries()
        pool = self._berth.assignment.pool
        for name in accounting.lost_members(self.connection, pool):
            if accounting.lock(self.connection, name):
                logger.warning("worker %s of this pool was lost; accounting for it", name)
                lost = build_worker(self.group, name, alive=False)
                lost.board(self._berth)
                accounting.account_for(lost, pool, f"Worker {name} was lost with its host.")

    # Stopping and pausing

    def _install_signal_handlers(self) -> None:
        """RQ's handlers raise out of whatever runs, with a job in hand perhaps: it would be lost.
        The berth has the signals; they are heeded where the worker waits."""

    def handle_payload(self, message: Any) -> None:
        """RQ's remote ``shutdown`` sends SIGINT to its own process, which means an immediate stop
        here; it stays graceful. This runs in RQ's subscription thread."""
        if b'"shutdown"' in message["data"]:
            self.log.info("Worker %s: shutdown command received", self.name)
            os.kill(os.getpid(), signal.SIGQUIT)
        else:
            super().handle_payload(message)

    def unsubscribe(self) -> None:
        """RQ ends its subscription thread and waits for it, up to a second. The process is about to
        end, and with it the thread and its socket."""

    def check_for_suspension(self, burst: bool) -> None:
        """The first thing in each turn of RQ's loop: the place to heed a stop, no job being in
        hand. RQ sleeps while it is suspended and would not notice one, nor that Redis went."""
        self._berth.tell_ready()
        shown = False
        while True:
            self._stop_if_asked()
            try:
                if not (
                    self._berth.paused or is_suspended(self.connection, cast(BaseWorker, self))
                ):
                    return
                if not shown:
                    shown = True
                    self.log.info("Worker %s: suspended", self.name)
                    self.set_state(WorkerStatus.SUSPENDED)
            except UNREACHABLE:
                self._await_redis()
            if burst and not self._berth.paused:
                raise StopRequested
            self._berth.wait([], _SUSPENSION_CHECK)

    def _stop_if_asked(self) -> None:
        self._berth.heed()
        self._berth.end_job = False  # there is none
        if self._berth.stopping:
            raise StopRequested

    # Taking a job

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """RQ pops with BLPOP, which leaves a job nowhere if the worker dies then, blocks where no
        signal is heeded, and backs off up to a minute when Redis is away."""
        idle_until = None if max_idle_time is None else time.monotonic() + max_idle_time
        shown_idle = False
        while True:
            self.check_for_suspension(burst=timeout is None)
            try:
                if not shown_idle:
                    self.procline("Listening on " + ",".join(self.queue_names()))
                    self.set_state(WorkerStatus.IDLE)
                    shown_idle = True
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()
                result = self._fetch(timeout, idle_until)
            except UNREACHABLE:
                self._fetcher.close()
                self._await_redis()
                shown_idle = False
                continue
            shown_idle = shown_idle and not self._berth.paused
            if result is not None:
                return result
            if timeout is None or (idle_until is not None and time.monotonic() >= idle_until):
                return None

    def _fetch(self, timeout: int | None, idle_until: float | None) -> tuple[Job, Queue] | None:
        """One try to get a job; ``timeout`` None means not to wait for one."""
        keys = [queue.key for queue in self._ordered_queues]
        fetched = self._fetcher.take(keys)
        if fetched is None and timeout is not None:
            seconds = float(timeout)
            if idle_until is not None:
                seconds = max(0.0, min(seconds, idle_until - time.monotonic()))
            fetched = self._fetcher.wait(keys, seconds)
        while fetched is not None:
            self._berth.heed()
            self._berth.end_job = False  # that was for the job before
            if self._berth.stopping or self._berth.paused:
                self._fetcher.give_back(fetched)
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
        except UNREACHABLE:
            raise
        except Exception:
            # RQ's worker dies of it, and the job is nowhere. It would kill the next worker too.
            self.log.exception("Worker %s: cannot load job %s", self.name, fetched.job_id)
            accounting.fail_unreadable(self.connection, fetched, IN_FLIGHT_KEY % self.name)
            return None
        if result is None:
            self._fetcher.forget(fetched)  # deleted while it waited: RQ takes the next one too
            return None
        job, queue = result
        self.reorder_queues(reference_queue=queue)
        job.redis_server_version = self.get_redis_server_version()
        described = job.description if self.log_job_description else job.id
        self.log.info("Worker %s: %s: %s (%s)", self.name, queue.name, described, job.id)
        return job, queue

    # Running a job

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Shows the job on the scoreboard while it runs. What RQ does when Redis goes away around
        a job is to leave, with the job in hand; here the worker waits and settles it."""
        self._berth.slot.begin(job.id)
        self._cut_short = ""
        try:
            super().execute_job(job, queue)
        except UNREACHABLE as error:
            self.log.error("Worker %s: Redis went away around job %s: %s", self.name, job.id, error)
            self._await_redis()
            accounting.settle(self, "Redis went away around the job")
        finally:
            self._berth.slot.end()

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """RQ's worker leaves when a heartbeat does not get through."""
        try:
            super().heartbeat(timeout, pipeline)
        except UNREACHABLE as error:
            self.log.warning("Worker %s: heartbeat: %s", self.name, error)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """RQ's worker leaves its running horse alone when a heartbeat does not get through."""
        try:
            super().maintain_heartbeats(job, execution)
        except UNREACHABLE as error:
            self.log.warning("Worker %s: heartbeat of job %s: %s", self.name, job.id, error)

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """RQ's horse inherits the worker's database connections. And only the horse makes itself
        leader of its process group, so that `kill_horse` right after the fork would take the
        worker's group for the horse's."""
        close_connections()
        super().fork_work_horse(job, queue)
        processes.lead_group(self.horse_pid)
        self._berth.slot.horse(self.horse_pid)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """RQ blocks in wait4, where no signal is heeded and a vanished manager is not noticed. It
        is interrupted for heartbeats by an alarm whose handler raises out of whatever runs; here
        the same exception comes before that."""
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
            if self._berth.end_job or (self._berth.immediately and self._kill_horse_at is None):
                self._kill_horse_at = self._end_horse()
            now = time.monotonic()
            if self._kill_horse_at is not None and now >= self._kill_horse_at:
                self.kill_horse()
                self._kill_horse_at = float("inf")
            if now >= heartbeat_at:
                raise HorseMonitorTimeoutException
            self._berth.wait([], min(heartbeat_at, self._kill_horse_at or heartbeat_at) - now)

    def _end_horse(self) -> float:
        """Begins to end the running job; returns when to kill what is left of it."""
        asked = "to stop immediately" if self._berth.immediately else "by USR1 to end the job"
        self._cut_short = f"Worker {self.name} was asked {asked}."
        self._berth.end_job = False
        grace = self._berth.rules.term_child
        if grace is None:
            return 0.0
        os.kill(self.horse_pid, signal.SIGTERM)
        return time.monotonic() + grace

    def handle_work_horse_killed(self, job: Job, retpid: Any, ret_val: Any, rusage: Any) -> None:
        """Notes that the failure which RQ records next is not the job's own."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)
        started, limit = job.started_at, job.timeout or -1
        overdue = started and limit > 0 and (utc_now() - started).total_seconds() > limit
        if not (self._cut_short or overdue):
            self._cut_short = "Its horse was ended by somebody else."

    # In the horse

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """A horse whose worker died before it was on the scoreboard is known to nobody, and its job
        is given to another: it must not begin. One that is on it is waited for."""
        worker_pid = self.pid
        self._berth.become_horse()
        if os.getppid() != worker_pid:
            os._exit(1)
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """RQ lets TERM kill a horse, so that a signal to a whole group or container fails jobs
        behind the worker's back. `Berth.become_horse` has set the signals."""
        if self._berth.rules.term_child is not None:
            signal.signal(signal.SIGTERM, self._raise_in_job)

    def _raise_in_job(self, signum: int, frame: FrameType | None) -> None:
        """Tells the job that its worker was asked to stop immediately, under TERM_CHILD."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: its clean-up is not interrupted
        self._cut_short = f"Worker {self.name} was asked to stop immediately."
        raise TermException(self._cut_short)

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """As RQ's, but the job leaves this worker's in-flight list (instead of RQ's intermediate
        queue) in the very transaction that makes it a started one."""

        def prepare() -> None:
            with self.connection.pipeline() as pipeline:
                ttl = self.get_heartbeat_ttl(job)
                self.heartbeat(ttl, pipeline=pipeline)
                job.heartbeat(utc_now(), ttl, pipeline=pipeline)
                job.prepare_for_execution(self.name, pipeline=pipeline)
                pipeline.persist(job.key)
                pipeline.lrem(IN_FLIGHT_KEY % self.name, 1, job.id)
                pipeline.execute()

        self._insist(prepare)
        self.procline(f"Processing {job.func_name} from {job.origin} since {time.time()}")

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """Insists; see `_insist`."""
        write = super().handle_execution_ended
        self._insist(lambda: write(job, queue, heartbeat_ttl))

    def handle_job_success(
        self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution
    ) -> None:
        """Insists: what RQ cannot write then is a job that ran and counts as failed."""
        write = super().handle_job_success
        self._insist(lambda: write(job, queue, started_job_registry, execution), execution)

    def handle_job_retry(
        self, job: Job, queue: Queue, retry: Any, started_job_registry: Any, execution: Execution
    ) -> None:
        """Insists, as for a success."""
        write = super().handle_job_retry
        self._insist(lambda: write(job, queue, retry, started_job_registry, execution), execution)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Insists, gives the reason if the pool is it, and puts a job back that was cut short if
        its group says so. RQ logs an error of Redis and forgets the job."""
        reason, self._cut_short = self._cut_short, ""
        if reason and self._stopped_job_id != job.id and execution is not None:
            exc_string = f"{exc_string}{reason}"
            if self.group.options.interrupted == "requeue":
                requeued: list[bool] = []
                self._insist(
                    lambda: requeued.append(accounting.requeue(self, job, queue, execution)),
                    execution,
                )
                if requeued != [False]:
                    return
                job.retries_left = 0
                exc_string += " It was cut short too often: perhaps it is what ends its workers."
        if self._stands_for_dead:
            accounting.tell_failure(self, job)
        write = super().handle_job_failure
        stopped, retries = self._stopped_job_id, job.retries_left
        attempts = iter(range(3))

        def attempt() -> None:
            self._stopped_job_id, job.retries_left = stopped, retries
            write(job, queue, started_job_registry, exc_string, execution)
            # RQ logs what went wrong and returns. What is not Redis's absence does not heal.
            unrecorded = execution is not None and accounting.is_open(self, execution)
            if unrecorded and next(attempts, None) is not None:
                raise ConnectionError("the failure of the job is not recorded")

        self._insist(attempt, execution)

    def fail_cut_short(self, job: Job, queue: Queue, execution: Execution, cause: str) -> None:
        """Settles a job whose worker is gone; see `accounting`."""
        self._cut_short = cause
        self.handle_job_failure(job, queue, exc_string="", execution=execution)

    def _insist(self, write: Callable[[], object], execution: Execution | None = None) -> None:
        """Repeats what must be written until Redis is back.

        Args:
            write: writes it in one transaction.
            execution: what the transaction settles, if it does: when an answer was lost with the
                connection, it tells whether the transaction was carried out.
        """
        told = False
        while True:
            try:
                if told and execution is not None and not accounting.is_open(self, execution):
                    return
                write()
                return
            except UNREACHABLE as error:
                if not told:
                    self.log.error("Worker %s: %s; trying until Redis is back", self.name, error)
                told = True
                if self.is_horse:
                    processes.pause(REDIS_RETRY)
                elif not self._berth.await_redis():
                    raise

    # Redis

    def _await_redis(self) -> None:
        """Waits for Redis and registers again where it has forgotten the worker."""
        if not self._berth.await_redis():
            raise StopRequested
        if not self.connection.sismember(self.redis_workers_keys, self.key):
            with self.connection.pipeline() as pipeline:
                self.last_heartbeat = utc_now()
                pipeline.hset(self.key, mapping=self.serialize())
                worker_registration.register(cast(BaseWorker, self), pipeline)
                pipeline.expire(self.key, self.worker_ttl + 60)
                pipeline.execute()
            self._join_pool()
