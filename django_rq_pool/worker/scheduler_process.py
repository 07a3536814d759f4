"""Scheduler process: RQ's scheduler in a process of its own, which enqueues jobs that are due.

Rule of the room: it knows RQ's insides. The process ends with its worker, however that ends. It
enqueues a job only while the lock of the job's queue is its own.
"""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import RedisError, WatchError
from rq import Worker
from rq.scheduler import ForkProcess, RQScheduler
from rq.utils import as_text
from setproctitle import setproctitle

from ..config import redis_clients
from ..config.stop_aware import StopAware
from ..config.stop_policy import STOP_SIGNALS
from ..connections import close_connections
from ..ledger import schedulers
from ..system import signals
from .manager_link import ManagerLink

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

LOOK_SECONDS = 4.0
"""Seconds between two looks whether a lock is free."""

_STOP_LIMIT = 3.0
"""Seconds within which the process ends that was asked to; normally it takes some milliseconds.
Shorter than what an immediate stop gives the worker."""


class PooledScheduler(RQScheduler):
    """The scheduler of one worker.

    RQ's is tried at the worker's start and every ten minutes, ends at the first error of Redis, and
    does not notice that its worker is gone.

    Args:
        worker: the worker, whose name the scheduler has too.
        link: ties the worker to its manager.
        options: of RQ's scheduler: how it logs.
    """

    _process: Any
    _connection: Any

    def __init__(self, worker: Worker, link: ManagerLink, **options: Any) -> None:
        super().__init__(
            worker.queues,
            connection=worker.connection,
            serializer=worker.serializer,
            name=worker.name,
            **options,
        )
        self._connection = worker.connection
        self._clients = [worker.connection, *(queue.connection for queue in worker.queues)]
        self._link = link
        self._worker_pid = os.getpid()
        self._look_due = 0.0
        self._is_stopping = False

    # In the worker

    def hold(self) -> None:
        """Acquires the locks that are free and starts the process, if that is not running.

        Raises:
            redis.exceptions.RedisError: the server has not done what it says.
            OSError: the system has no process left.
        """
        if self._process is not None:
            if self._process.is_alive():
                return
            self.log.warning(
                "Scheduler with PID %d ended unexpectedly with %d",
                self._process.pid,
                self._process.exitcode,
            )
            self._process = None
        elif not self._is_a_lock_free():
            return
        self.acquire_locks(auto_start=True)

    def _is_a_lock_free(self) -> bool:
        keys = schedulers.lock_keys(sorted(self._queue_names))
        return bool(self.connection.exists(*keys) < len(keys))

    def start(self) -> BaseProcess:
        """Forks the process. In RQ's it has the worker's signal handlers at first, which swallow a
        TERM, and keeps the worker's connections."""
        self._status = self.Status.STARTED
        close_connections()
        process = ForkProcess(target=self._run, name="Scheduler")
        try:
            with signals.blocked():
                process.start()
        except OSError:
            self.release_locks()
            raise
        self._process = process
        return process

    def ask_to_stop(self) -> None:
        """Asks the process to release its locks and end."""
        if self._process is not None and self._process.is_alive():
            self._process.terminate()

    def end(self) -> None:
        """Ends the process; kills it when it does not stop in time. RQ waits for ever.

        Raises:
            redis.exceptions.RedisError: a lock may still be held, for a minute at most.
        """
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        # One whose server does not answer has nothing to say to it.
        process.join(0.0 if self._link.stop_aware.gave_up else _STOP_LIMIT)
        if process.is_alive():
            self.log.warning("Scheduler with PID %d did not stop, killing it", process.pid)
            process.kill()
            process.join(_STOP_LIMIT)
        if process.exitcode != 0:
            schedulers.release(self.connection, self.name, sorted(self._queue_names))

    # In its own process

    def _run(self) -> None:
        inbox = self._link.become_scheduler()
        for client in self._clients:
            redis_clients.release_inherited(client)
        queues = ",".join(sorted(self._queue_names))
        setproctitle(f"rqpool-scheduler[{self._link.assignment.pool}]: {queues}")
        stop_aware = StopAware(
            inbox.wait, partial(self._is_asked_to_stop, inbox), inbox.interruptible
        )
        self._connection = redis_clients.client(self._link.assignment.group, stop_aware)
        self.log.info("Scheduler for %s started with PID %d", queues, os.getpid())
        self._schedule(inbox)
        with contextlib.suppress(RedisError):  # its locks expire
            self.stop()
        self.log.info("Scheduler with PID %d has stopped", os.getpid())

    def _schedule(self, inbox: signals.SignalInbox) -> None:
        """Schedules until the process is asked to stop, or its worker is gone."""
        registered, trouble = False, ""
        while os.getppid() == self._worker_pid and not self._is_asked_to_stop(inbox):
            try:
                if not registered:
                    self.register_birth()
                    registered = True
                if self.should_reacquire_locks:
                    self.acquire_locks()
                self.heartbeat()
                self.enqueue_scheduled_jobs()
                trouble = ""
            except RedisError as error:
                registered = False  # Redis may have forgotten it meanwhile
                if str(error) != trouble:
                    trouble = str(error)
                    self.log.warning("Scheduler: %s; trying again", trouble)
            # The signal may have been handled while an answer of Redis was waited for.
            inbox.wait([], 0.0 if self._is_asked_to_stop(inbox) else self.interval)

    def _is_asked_to_stop(self, inbox: signals.SignalInbox) -> bool:
        if any(signum in STOP_SIGNALS for signum in inbox.take()):
            self._is_stopping = True
        return self._is_stopping

    @property
    def should_reacquire_locks(self) -> bool:
        """Whether a lock that another has held is free. RQ looks every ten minutes."""
        if self._queue_names == self.acquired_locks or time.monotonic() < self._look_due:
            return False
        self._look_due = time.monotonic() + LOOK_SECONDS
        return self._is_a_lock_free()

    def enqueue_scheduled_jobs(self) -> None:
        """Does what RQ does, each queue's in transactions that fail once its lock is another's.

        RQ reads what is due and enqueues it in a later step. A process that stood still in between
        would enqueue what the next holder of the lock has enqueued already.
        """
        client = self._connection
        for queue in sorted(self.acquired_locks):
            self._connection = _Guarded(client, self.get_locking_key(queue), self.name)
            try:
                self.prepare_registries([queue])
                super().enqueue_scheduled_jobs()
            except WatchError:
                self.log.warning("Scheduler lock for %s was lost while jobs were due", queue)
            finally:
                self._connection = client


class _Guarded:
    """A client each of whose transactions fails with WatchError unless a lock is ours.

    Args:
        client: the real one.
        lock_key: the key of the lock.
        token: what its value is while it is ours.
    """

    def __init__(self, client: Redis, lock_key: str, token: str) -> None:
        self._client = client
        self._lock_key = lock_key
        self._token = token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def pipeline(self) -> Pipeline:
        pipeline = self._client.pipeline()
        pipeline.watch(self._lock_key)
        if as_text(pipeline.get(self._lock_key) or b"") != self._token:
            pipeline.reset()
            raise WatchError
        pipeline.multi()
        return pipeline
