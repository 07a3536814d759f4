"""Puts pooled workers in the place of RQ's own classes, without a pool.

Rule of the room: what a manager and a pool's start do for a worker, RQ's tests do not, and this
does it in their place. Nothing here changes what a pooled worker itself does.
"""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import threading
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import rq
import rq.worker.worker_classes
from django.conf import settings
from redis import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.worker import BaseWorker

from django_rq_pool.config import redis_clients
from django_rq_pool.config.groups import QueueGroup
from django_rq_pool.config.stop_policy import StopRules, TermPolicy
from django_rq_pool.ipc.assignment import Assignment
from django_rq_pool.ipc.lifeline import Lifeline
from django_rq_pool.ipc.reports import Reports
from django_rq_pool.ipc.scoreboard import Scoreboard
from django_rq_pool.ledger.transactions import InHand
from django_rq_pool.worker.main import pooled
from django_rq_pool.worker.manager_link import ManagerLink

REPLACED = ("Worker", "SimpleWorker", "RoundRobinWorker", "RandomWorker")
"""A pool refuses `SpawnWorker`."""


def install() -> None:
    """Replaces the classes, before any test has imported them."""
    for name in REPLACED:
        found = make_stand_in(getattr(rq.worker, name))
        for module in (rq, rq.worker, rq.worker.worker_classes):
            if hasattr(module, name):
                setattr(module, name, found)


def make_stand_in(worker_class: type[Any]) -> type[Any]:
    """The pooled class, under the name by which RQ's tests know it."""
    found = type(worker_class.__name__, (StandIn, pooled(worker_class)), {})
    found.__module__ = worker_class.__module__
    found.__qualname__ = worker_class.__qualname__
    return found


class StandIn:
    """A pooled worker that a test makes, and uses as a whole or one method at a time.

    - It has an assignment, as from a manager that lives.
    - Its client is the pool's own, made from the test's.
    - A job that a test hands to one of its methods stands where a pooled worker would have put it
      before: in its in-flight list, or in its record of what was begun.
    - Signals are its own while it works, and the test's otherwise.
    """

    _is_at_work = False
    """Whether it is the worker that calls its methods, and not the test."""

    def __init__(self, queues: Any, name: str | None = None, *args: Any, **options: Any) -> None:
        super().__init__(queues, name, *args, **options)
        if not options.get("prepare_for_work", True) or self.connection is None:
            return  # an object that only stands for a worker
        name_in_settings(queue_names_of(self), self.connection)
        self.connection = redis_clients.client(group_of(self))
        self.queues = [_with_connection(queue, self.connection) for queue in self.queues]
        self._ordered_queues = self.queues[:]
        with signals_of_its_own():
            self._attach()

    def _attach(self) -> None:
        self.attach(ManagerLink(assignment_of(self)))

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        before, self._is_at_work = self._is_at_work, True
        try:
            yield
        finally:
            self._is_at_work = before

    # What a test calls for a whole worker

    def work(self, *args: Any, **options: Any) -> Any:
        self.pid = os.getpid()  # a test makes it in one process and lets it work in another
        with signals_of_its_own():
            self._attach()
            try:
                with self._at_work():
                    return super().work(*args, **options)
            finally:
                self._end_subscription()

    def _end_subscription(self) -> None:
        """The thread would end with the worker's process, which goes on here."""
        if self.pubsub_thread is not None:
            BaseWorker.unsubscribe(self)

    # What a test calls for one step

    def execute_job(self, job: Job, queue: Queue) -> Any:
        self._hold(job, queue)
        with self._at_work():
            return super().execute_job(job, queue)

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> Any:
        self._hold(job, queue)
        with self._at_work():
            return super().perform_job(job, queue, execution)

    def fork_work_horse(self, job: Job, queue: Queue) -> Any:
        self._hold(job, queue)
        with self._at_work():
            return super().fork_work_horse(job, queue)

    def prepare_execution(self, job: Job) -> Execution:
        if not self._is_at_work:
            self._queue = self._queue_of(job)
        return super().prepare_execution(job)

    def prepare_job_execution(self, job: Job, *args: Any, **options: Any) -> None:
        if not self._is_at_work:
            self._hold(job, self._queue_of(job))
            unnoted = Execution(uuid.uuid4().hex, job.id, self.connection, self.name)
            execution = self.execution or unnoted
            self._hand = InHand(job, self._queue_of(job), execution)
        super().prepare_job_execution(job, *args, **options)

    def handle_job_success(
        self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution
    ) -> Any:
        self._note_begun(queue, execution)
        return super().handle_job_success(job, queue, started_job_registry, execution)

    def handle_job_retry(
        self, job: Job, queue: Queue, retry: Any, started_job_registry: Any, execution: Execution
    ) -> Any:
        self._note_begun(queue, execution)
        return super().handle_job_retry(job, queue, retry, started_job_registry, execution)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> Any:
        if execution is not None:
            self._note_begun(queue, execution)
        return super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)

    def _queue_of(self, job: Job) -> Queue:
        return self.queue_class(job.origin, connection=self.connection)

    def _hold(self, job: Job, queue: Queue) -> None:
        key = self._settler.held.in_flight_key(queue.key)
        if not self._is_at_work and self.connection.lpos(key, job.id) is None:
            self.connection.rpush(key, job.id)

    def _note_begun(self, queue: Queue, execution: Execution) -> None:
        if not self._is_at_work:
            self._is_settled = False
            key = self._settler.held.begun_key
            self.connection.hset(key, execution.composite_key, queue.key)


def name_in_settings(queues: Sequence[str], redis: Redis) -> None:
    """Has the settings say where the queues are, as a pool's always do."""
    options = redis.connection_pool.connection_kwargs
    address = f"redis://localhost:{options.get('port', 6379)}/{options.get('db', 0)}"
    settings.RQ_QUEUES.update({queue: {"URL": address} for queue in queues})


def _with_connection(queue: Queue, redis: Redis) -> Queue:
    own = copy.copy(queue)
    own.connection = redis
    return own


def queue_names_of(worker: Any) -> tuple[str, ...]:
    return tuple(worker.queue_names()) or ("default",)


def group_of(worker: Any) -> QueueGroup:
    """The queue group that a pool would have for the worker, which has at least one queue."""
    queues = queue_names_of(worker)
    return QueueGroup(",".join(queues), queues, 1)


def assignment_of(worker: Any) -> Assignment:
    """What a manager would have handed to the worker."""
    return Assignment(
        pool="suite",
        group=group_of(worker),
        number=1,
        name=worker.name,
        burst=False,
        paused=False,
        stop_rules=StopRules(term=TermPolicy.GRACEFUL_WAIT),
        slot=Scoreboard().acquire(),
        reports=Reports(),
        lifeline=Lifeline(),
        reopen_logs=lambda: None,
        tracks_imports=False,
    )


@contextlib.contextmanager
def signals_of_its_own() -> Iterator[None]:
    """Gives the signals back to whoever had them. In a thread there are none to take."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    descriptor = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
