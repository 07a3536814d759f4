"""Registration: a pooled worker's place in its pool and in Redis.

Rule of the room: it knows RQ's insides, as `execution` and `pooled_worker` do; each override says
what RQ does instead and why that will not do. A worker that is registered is alive, or is being
recovered.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from redis.exceptions import ResponseError
from rq import Worker, worker_registration
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.utils import now as utc_now
from rq.worker import BaseWorker

from ..config.groups import QueueGroup
from ..config.redis_clients import REDIS_RETRY, UNREACHABLE
from ..ledger import recovery
from ..ledger.failure_notice import FailureNotice
from ..ledger.keys import MAINTAINED_KEY
from ..ledger.recovery import Recovery
from ..ledger.settle import JobClasses, Settler
from ..system import processes
from .fetch import Fetcher
from .import_tracker import ImportTracker
from .manager_link import ManagerLink

if TYPE_CHECKING:
    Base = Worker
else:
    Base = object

logger = logging.getLogger("django_rq_pool")

Outcome = TypeVar("Outcome")


class RegistrationMixin(Base):
    """The part of `pooled_worker.PooledWorker` that belongs to the pool.

    Attributes:
        group: the queue group, for the project's hooks.
    """

    group: QueueGroup
    _link: ManagerLink
    _settler: Settler
    _fetcher: Fetcher
    _suspects_due = math.inf
    _import_tracker: ImportTracker | None = None

    def attach(self, link: ManagerLink) -> None:
        """Ties the worker to its manager, after RQ's constructor and before ``work``."""
        self._link = link
        self.group = link.assignment.group
        if link.assignment.tracks_imports:
            self._import_tracker = ImportTracker()
        self._settler = self._settler_for(self.name, notice=None)
        self._fetcher = Fetcher(self.connection, self._settler.held, link.wait)

    def _settler_for(self, worker: str, notice: FailureNotice | None) -> Settler:
        classes = JobClasses(self.job_class, self.queue_class, self.serializer)
        options = self._link.assignment.group.options
        return Settler(self.connection, worker, options, classes, notice)

    def register_birth(self) -> None:
        """Makes the worker a member of its pool too, so that another host knows whom to recover
        when this one has vanished."""
        super().register_birth()
        self._join_pool()

    def register_death(self) -> None:
        """Leaves the pool as well."""
        super().register_death()
        recovery.leave(self.connection, self._link.assignment.pool, self.name)

    def _join_pool(self) -> None:
        assignment = self._link.assignment
        recovery.join(self.connection, assignment.pool, self.name, assignment.group.name)

    def clean_registries(self) -> None:
        """Recovers lost workers of this pool, beside RQ's own maintenance.

        RQ has each worker clean the registries of its queues when it starts and every ten minutes,
        and look whether every other worker is registered. For a hundred workers that is ten
        thousand questions each time. Here one worker does so for its whole group.
        """
        if self._takes_turn():
            super().clean_registries()
        else:
            cast(Any, self).last_cleaned_at = utc_now()
        self.recover_lost()

    def _takes_turn(self) -> bool:
        """Whether this worker has to clean the registries: when no worker of its group has done so
        for as long as RQ lets a worker wait, and when the pool starts, because another of its name
        may have died before."""
        assignment = self._link.assignment
        key = MAINTAINED_KEY % (assignment.pool, assignment.group.name)
        first = self.last_cleaned_at is None and assignment.number == 1
        seconds = max(1, int(self.maintenance_interval) - 1)
        return bool(self.connection.set(key, 1, ex=seconds, nx=not first))

    def recover_lost(self) -> None:
        """Recovers workers of this pool that nobody else recovers, and notes when to look at the
        suspected ones again."""
        pool = self._link.assignment.pool
        lost, suspects = recovery.lost_members(self.connection, pool)
        self._suspects_due = math.inf
        if suspects:
            self._suspects_due = time.monotonic() + recovery.SUSPECT_SECONDS
        for name in lost:
            notice = FailureNotice(self._link.assignment.group, name)
            lost_worker = Recovery(self._settler_for(name, notice), pool, self.queue_names())
            if lost_worker.lock():
                logger.warning("worker %s of this pool was lost; recovering its jobs", name)
                finish = partial(lost_worker.finish, f"Worker {name} was lost with its host.")
                try:
                    self._retry_while_unavailable(finish)
                except ResponseError:  # the lock ends after a while, and somebody tries again
                    logger.exception("worker %s cannot be recovered now", name)

    def until_suspects_are_due(self) -> float:
        """Seconds until suspected workers must be looked at again; infinite when there are none."""
        return max(0.0, self._suspects_due - time.monotonic())

    def _await_redis(self) -> None:
        """Waits for Redis, and registers again where it has forgotten the worker."""
        if not self._link.await_redis():
            raise StopRequested
        if not self.connection.sismember(self.redis_workers_keys, self.key):
            with self.connection.pipeline() as pipeline:
                self.last_heartbeat = utc_now()
                pipeline.hset(self.key, mapping=self.serialize())
                worker_registration.register(cast(BaseWorker, self), pipeline)
                pipeline.expire(self.key, self.worker_ttl + 60)
                pipeline.execute()
            self._join_pool()

    def _retry_while_unavailable(
        self, write: Callable[[], Outcome], execution: Execution | None = None
    ) -> Outcome | None:
        """Repeats a command that must succeed until Redis is back.

        Args:
            write: sends it, in one transaction.
            execution: what the transaction settles, or None. When an answer was lost with the
                connection, it shows whether the transaction was carried out.

        Returns:
            What ``write`` returns; None when the transaction had been carried out before.
        """
        logged = False
        while True:
            try:
                if logged and execution is not None and not self._settler.held.is_open(execution):
                    return None
                return write()
            except UNREACHABLE as error:
                if not logged:
                    self.log.error("Worker %s: %s; trying until Redis is back", self.name, error)
                logged = True
                if self.is_horse:
                    processes.pause(REDIS_RETRY)
                elif not self._link.await_redis():
                    raise
