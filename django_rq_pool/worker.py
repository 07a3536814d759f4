"""The worker: an RQ worker of the project's own class, living in the pool.

Rule of the room: this is the only one that knows RQ's insides; each override says what RQ does
instead and why that will not do. Read against RQ 3.0.
"""

from __future__ import annotations

import logging
import os
import signal
import time
import traceback
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from django_rq.queues import get_queues
from django_rq.workers import get_exception_handlers, get_worker_class
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, TimeoutError
from redis.retry import Retry
from rq import Queue, SpawnWorker, Worker, worker_registration
from rq.defaults import RQ_KEY_PREFIX
from rq.exceptions import StopRequested
from rq.job import Job
from rq.suspension import is_suspended
from rq.utils import now as utc_now
from rq.worker import BaseWorker, DequeueStrategy, WorkerStatus
from setproctitle import setproctitle

from . import log, processes, unix_signals
from .assignment import Assignment
from .connections import close_connections
from .fetch import Fetcher
from .reports import Event

if TYPE_CHECKING:
    Base = Worker
else:
    Base = object

logger = logging.getLogger("django_rq_pool")

WORKER_SIGNALS = (
    signal.SIGQUIT,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_REDIS_RETRY = 0.5
"""Seconds between two tries to reach a Redis server that is away."""
_SUSPENSION_CHECK = 1.0
"""Seconds between two looks at RQ's suspension key, as in RQ."""

UNREACHABLE = (ConnectionError, TimeoutError)

IN_FLIGHT_KEY = RQ_KEY_PREFIX + ":pool:in-flight:%s"
"""List of the jobs that a worker, by name, has taken from a queue and not yet begun."""


def run_worker(assignment: Assignment) -> int:
    """Lives a worker's life, in the process forked for it. See `assignment.RunWorker`.

    Returns:
        0 when it left because it was asked to, or because its options said so; else 1.
    """
    berth = Berth(assignment)
    setproctitle(f"rq:worker:{assignment.name}: Starting")
    close_connections()
    try:
        berth.probe = _probe(assignment)
        while True:
            berth.await_redis()
            try:
                return _work(assignment, berth)
            except UNREACHABLE as error:
                if berth.ready:
                    logger.warning("worker %s could not unregister: %s", assignment.name, error)
                    return 1
    except StopRequested:
        return 0
    except BaseException:  # a project's class may raise anything, SystemExit included
        if berth.ready:
            raise
        assignment.reports.send(Event.BOOT_FAILED, traceback.format_exc())
        return 1


def _work(assignment: Assignment, berth: Berth) -> int:
    options = assignment.group.options
    worker = build_worker(assignment, berth)
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


def _probe(assignment: Assignment) -> Redis:
    """A client for asking whether Redis is there, which answers at once and does not retry."""
    redis = cast(Redis, get_queues(assignment.group.queues[0])[0].connection)
    redis.set_retry(Retry(NoBackoff(), 0))
    return redis


def build_worker(assignment: Assignment, berth: Berth) -> PooledWorker:
    """Builds the group's RQ worker as ``manage.py rqworker`` does, from settings and options.

    Raises:
        Exception: what the project's classes raise.
    """
    options = assignment.group.options
    queues = get_queues(
        *assignment.group.queues, job_class=options.job_class, queue_class=options.queue_class
    )
    worker: PooledWorker = pooled(get_worker_class(options.worker_class))(
        queues,
        name=assignment.name,
        connection=queues[0].connection,
        exception_handlers=get_exception_handlers() or None,
        job_class=queues[0].job_class,
        queue_class=type(queues[0]),
        worker_ttl=options.worker_ttl,
        serializer=options.serializer or queues[0].serializer,
    )
    worker.board(berth)
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


def _shrug(signum: int, frame: FrameType | None) -> None:
    """Handles a signal by doing nothing."""


class Berth:
    """A worker's ties to its pool: signals, lifeline, slot and reports.

    It exists before the RQ worker does, so that a stop is heeded while Redis is awaited.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._inbox = unix_signals.SignalInbox(WORKER_SIGNALS)
        unix_signals.unblock()
        self.slot = assignment.slot
        self.ready = False
        self.stopping = False
        self.immediately = False
        self.probe: Redis  # for asking whether Redis is there; see `_probe`
        self._lost = False

    def wait(self, fds: list[int], seconds: float | None) -> set[int]:
        """Waits for descriptors, signals and the end of the manager; heeds the latter two."""
        lifeline = [] if self.stopping else [self._assignment.lifeline.fileno()]
        readable = self._inbox.wait([*fds, *lifeline], seconds)
        self.heed()
        if readable.intersection(lifeline):
            self.stopping = True
        return readable.intersection(fds)

    def heed(self) -> None:
        """Does what the signals that have arrived say."""
        for signum in self._inbox.take():
            if signum in (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT):
                self.stopping = True
            if signum in (signal.SIGTERM, signal.SIGINT):
                self.immediately = True

    def become_horse(self) -> None:
        """In a forked horse: the worker's signals are no business of the job's.

        A handler that does nothing, for a signal that is ignored stays so in every program that
        the job starts, and ``Popen.terminate`` would do nothing.
        """
        self._inbox.close()
        for signum in WORKER_SIGNALS:
            signal.signal(signum, _shrug)

    def tell_ready(self) -> None:
        """Reports that the worker listens, the first time it is called."""
        if not self.ready:
            self.ready = True
            self._assignment.reports.send(Event.READY)

    def await_redis(self) -> None:
        """Waits until Redis answers.

        Raises:
            StopRequested: the worker was asked to stop.
        """
        self.heed()
        while not self.stopping:
            try:
                self.probe.ping()
                self.probe.connection_pool.disconnect()  # no connection more for each worker
            except UNREACHABLE as error:
                if not self._lost:
                    self._lost = True
                    self._assignment.reports.send(Event.REDIS_LOST, str(error))
                self.wait([], _REDIS_RETRY)
            else:
                if self._lost:
                    self._lost = False
                    self._assignment.reports.send(Event.REDIS_BACK)
                return
        raise StopRequested


class PooledWorker(Base):
    """Mixin over the project's worker class."""

    def board(self, berth: Berth) -> None:
        """Gives the worker its ties to the pool, after RQ's constructor and before ``work``."""
        self._berth = berth
        self._fetcher = Fetcher(self.connection, IN_FLIGHT_KEY % self.name, berth.wait)

    def _install_signal_handlers(self) -> None:
        """RQ's handlers raise out of whatever runs, with a job in hand perhaps: it would be lost.
        The berth has the signals; they are heeded where the worker waits."""

    def setup_work_horse_signals(self) -> None:
        """RQ lets TERM kill a horse, so that a signal to a whole group or container fails jobs
        behind the worker's back."""
        self._berth.become_horse()

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
        suspended = False
        while True:
            self._berth.heed()
            if self._berth.stopping:
                raise StopRequested
            try:
                if not is_suspended(self.connection, cast(BaseWorker, self)):
                    return
                if burst or not suspended:
                    self.log.info("Worker %s: suspended", self.name)
                    self.set_state(WorkerStatus.SUSPENDED)
                    suspended = True
            except UNREACHABLE:
                self._await_redis()
            if burst:
                raise StopRequested
            self._berth.wait([], _SUSPENSION_CHECK)

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """RQ pops with BLPOP, which leaves a job nowhere if the worker dies then, blocks where no
        signal is heeded, and backs off up to a minute when Redis is away."""
        self.procline("Listening on " + ",".join(self.queue_names()))
        idle_since = time.monotonic()
        announced = False
        while True:
            self._berth.heed()
            if self._berth.stopping:
                raise StopRequested
            try:
                if not announced:
                    self.set_state(WorkerStatus.IDLE)
                    announced = True
                self.heartbeat()
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()
                idle_left: float | None = None
                if max_idle_time is not None:
                    idle_left = idle_since + max_idle_time - time.monotonic()
                result = self._fetch(timeout, idle_left)
            except UNREACHABLE:
                self._fetcher.close()
                self._await_redis()
                announced = False
                continue
            if result is not None:
                return result
            over = max_idle_time is not None and time.monotonic() >= idle_since + max_idle_time
            if timeout is None or over:
                return None

    def _fetch(self, timeout: int | None, idle_left: float | None) -> tuple[Job, Queue] | None:
        """One try to get a job; ``timeout`` None means not to wait for one."""
        keys = [queue.key for queue in self._ordered_queues]
        fetched = self._fetcher.take(keys)
        if fetched is None and timeout is not None:
            seconds = timeout if idle_left is None else max(0.0, min(timeout, idle_left))
            fetched = self._fetcher.wait(keys, seconds)
        while fetched is not None:
            result = self.queue_class._fetch_dequeued_job(
                self.connection,
                fetched.queue_key,
                fetched.job_id,
                job_class=self.job_class,
                serializer=self.serializer,
                death_penalty_class=self.death_penalty_class,
            )
            if result is not None:
                job, queue = result
                self.reorder_queues(reference_queue=queue)
                job.redis_server_version = self.get_redis_server_version()
                described = job.description if self.log_job_description else job.id
                self.log.info("Worker %s: %s: %s (%s)", self.name, queue.name, described, job.id)
                return result
            # Deleted while it waited; RQ takes the next one too.
            self._fetcher.forget(fetched)
            fetched = self._fetcher.take(keys)
        return None

    def prepare_execution(self, job: Job) -> Any:
        """Notes the job as started, then takes it out of the in-flight list: at no instant is it
        in neither."""
        execution = super().prepare_execution(job)
        self.connection.lrem(IN_FLIGHT_KEY % self.name, 1, job.id)
        return execution

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Shows the job on the scoreboard while it runs."""
        self._berth.slot.begin(job.id)
        try:
            super().execute_job(job, queue)
        finally:
            self._berth.slot.end()

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """RQ's horse inherits the worker's database connections. And only the horse makes itself
        leader of its process group, so that `kill_horse` right after the fork would take the
        worker's group for the horse's."""
        close_connections()
        super().fork_work_horse(job, queue)
        processes.lead_group(self.horse_pid)
        self._berth.slot.horse(self.horse_pid)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """RQ blocks in wait4, where no signal is heeded and a vanished manager is not noticed."""
        if not self.horse_pid:
            return super().wait_for_horse()
        while True:
            try:
                pid, status, usage = os.wait4(self.horse_pid, os.WNOHANG)
            except ChildProcessError:
                return None, None, None
            if pid:
                return pid, status, usage
            if self._berth.immediately:
                self.kill_horse()
            self._berth.wait([], None)

    def _await_redis(self) -> None:
        """Waits for Redis and registers again where it has forgotten the worker."""
        self._berth.await_redis()
        if not self.connection.sismember(self.redis_workers_keys, self.key):
            with self.connection.pipeline() as pipeline:
                self.last_heartbeat = utc_now()
                pipeline.hset(self.key, mapping=self.serialize())
                worker_registration.register(cast(BaseWorker, self), pipeline)
                pipeline.expire(self.key, self.worker_ttl + 60)
                pipeline.execute()
