"""Membership: a pooled worker's place in its pool and in Redis.

Rule of the room: it knows RQ's insides, as `running`, `pooled` and `accounting` do; each override
says what RQ does instead and why that will not do. Who is registered is alive, or accounted for.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any, cast

from rq import Worker, worker_registration
from rq.defaults import RQ_KEY_PREFIX
from rq.exceptions import StopRequested
from rq.utils import now as utc_now
from rq.worker import BaseWorker

from ..config.groups import QueueGroup
from ..ledger import settle
from ..ledger.settle import IN_FLIGHT_KEY, MEMBERS_KEY
from .fetch import Fetcher
from .import_tracker import ImportTracker
from .manager_link import ManagerLink

if TYPE_CHECKING:
    Base = Worker
else:
    Base = object

logger = logging.getLogger("django_rq_pool")

_MAINTAINED_KEY = RQ_KEY_PREFIX + ":pool:maintained:%s:%s"
"""Stands while the registries of a pool's queue group need no cleaning."""


class RegistrationMixin(Base):
    """The part of `pooled.PooledWorker` that belongs to the pool.

    Attributes:
        group: the queue group.
        stands_for_dead: whether this object is no worker but settles what a dead one left.
    """

    group: QueueGroup
    stands_for_dead = False
    _link: ManagerLink
    _suspects_due = math.inf
    _import_tracker: ImportTracker | None = None

    def attach(self, link: ManagerLink) -> None:
        """Gives the worker its ties to the pool, after RQ's constructor and before ``work``."""
        self._link = link
        if link.assignment.tracks_imports and not self.stands_for_dead:
            self._import_tracker = ImportTracker()
        self._fetcher = Fetcher(self.connection, IN_FLIGHT_KEY % self.name, link.wait)

    def register_birth(self) -> None:
        """Puts the worker on the pool's list too, from which another pool knows whom to account
        for when this host has vanished."""
        super().register_birth()
        self._join_pool()

    def register_death(self) -> None:
        """Settles what may be left, which RQ would forget here, and leaves the list as well."""
        settle.settle(cast(Any, self), f"Worker {self.name} left.")
        super().register_death()
        self.connection.hdel(MEMBERS_KEY % self._link.assignment.pool, self.name)

    def _join_pool(self) -> None:
        self.connection.hset(MEMBERS_KEY % self._link.assignment.pool, self.name, self.group.name)

    def clean_registries(self) -> None:
        """Accounts for lost workers of this pool, beside RQ's own maintenance.

        RQ has each worker clean the registries of its queues when it starts and every ten minutes,
        and look whether every other worker is registered: for a hundred workers that is ten
        thousand questions each time. Here one does so for all of its group.
        """
        if self._takes_turn():
            super().clean_registries()
        else:
            cast(Any, self).last_cleaned_at = utc_now()
        self.account_for_lost()

    def _takes_turn(self) -> bool:
        """Whether the registries are to be cleaned by this worker: when nobody of its group has
        done so for as long as RQ lets a worker wait, and when the pool starts, which may be after
        another of its name has died."""
        assignment = self._link.assignment
        key = _MAINTAINED_KEY % (assignment.pool, self.group.name)
        first = self.last_cleaned_at is None and assignment.number == 1
        seconds = max(1, int(self.maintenance_interval) - 1)
        return bool(self.connection.set(key, 1, ex=seconds, nx=not first))

    def account_for_lost(self) -> None:
        """Accounts for workers of this pool whom nobody else accounts for, and notes when to look
        at the merely suspected ones again."""
        pool = self._link.assignment.pool
        lost, others = settle.lost_members(self.connection, pool)
        self._suspects_due = math.inf
        if others:
            self._suspects_due = time.monotonic() + settle.SUSPECT_SECONDS
        for name in lost:
            if settle.lock(self.connection, name):
                logger.warning("worker %s of this pool was lost; accounting for it", name)
                cause = f"Worker {name} was lost with its host."
                settle.account_for(self._stand_in(name), pool, cause)

    def until_suspects_are_due(self) -> float:
        """Seconds until suspected workers must be looked at again; infinite when there are none."""
        return max(0.0, self._suspects_due - time.monotonic())

    def _stand_in(self, name: str) -> Any:
        """An object that settles what the worker of this name left, as this one would."""
        dead = type(self)(
            self.queues,
            name=name,
            connection=self.connection,
            exception_handlers=self._exc_handlers[:],
            job_class=self.job_class,
            queue_class=self.queue_class,
            worker_ttl=self.worker_ttl,
            serializer=self.serializer,
            prepare_for_work=False,
        )
        dead.group = self.group
        dead.stands_for_dead = True
        dead.attach(self._link)
        return dead

    def _await_redis(self) -> None:
        """Waits for Redis and registers again where it has forgotten the worker."""
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
