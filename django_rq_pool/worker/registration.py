"""Registration: a pooled worker's place in its pool and in Redis.

Rule of the room: it knows RQ's insides, as `execution` and `pooled_worker` do; each override says
what RQ does instead and why that will not do. A worker that is registered is alive, or is being
recovered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from redis import Redis
from redis.exceptions import ResponseError
from rq import Worker, worker_registration
from rq.exceptions import StopRequested
from rq.utils import now as utc_now
from rq.utils import utcformat
from rq.worker import BaseWorker, WorkerStatus

from ..config import declared
from ..config.groups import QueueGroup
from ..config.pool_redis import PoolRedis
from ..config.redis_clients import REDIS_RETRY
from ..ledger import abandoned, members, sweep
from ..ledger.held import HeldJobs
from ..ledger.keys import MAINTAINED_KEY
from ..ledger.members import JobClasses, Member
from ..ledger.recogniser import Recogniser
from ..ledger.settle import Settler
from ..ledger.transactions import Transactions
from ..system import processes
from .fetch import Fetcher
from .import_tracker import ImportTracker
from .manager_link import ManagerLink
from .time_limits import pooled_limit

if TYPE_CHECKING:
    Base = Worker
else:
    Base = object

logger = logging.getLogger("django_rq_pool")

Outcome = TypeVar("Outcome")

_HEARTBEAT_SECONDS = 10.0
"""Seconds within which a worker that waits, or has just run a job, sends one heartbeat."""


class RegistrationMixin(Base):
    """The part of `pooled_worker.PooledWorker` that belongs to the pool.

    Attributes:
        group: the queue group, for the project's hooks.
    """

    group: QueueGroup
    _link: ManagerLink
    _redis: PoolRedis
    _settler: Settler
    _transactions: Transactions
    _steps: Recogniser
    _fetcher: Fetcher
    _sweep_due = 0.0
    _heartbeat_due = 0.0
    _import_tracker: ImportTracker | None = None

    def _set_connection(self, connection: Redis) -> Redis:
        """RQ raises the socket timeout to 415 s, for its blocking pop. Here `fetch` waits instead,
        and a silent server is noticed in seconds."""
        return connection

    def attach(self, link: ManagerLink) -> None:
        """Ties the worker to its manager, after RQ's constructor and before ``work``."""
        self._link = link
        self.group = link.assignment.group
        self.death_penalty_class = pooled_limit(self.death_penalty_class, link.handlers)
        if link.assignment.tracks_imports:
            self._import_tracker = ImportTracker()
        member = Member(
            self.name,
            self.key,
            self.redis_workers_keys,
            link.assignment.pool,
            self.group,
            tuple(queue.key for queue in self.queues),
            JobClasses(self.job_class, self.queue_class, self.serializer),
        )
        held = HeldJobs(self.connection, self.name, member.queue_keys)
        replicas = declared.WAIT_REPLICAS.value()
        steps = Transactions(self.connection, held, self._retry_while_unavailable, replicas)
        self._transactions = steps
        self._settler = Settler(self.connection, member, None, steps)
        self._steps = Recogniser(steps)
        self._redis = cast(PoolRedis, self.connection)
        self._redis.pipeline_class = self._steps.pipeline
        self._fetcher = Fetcher(self.connection, held, link.wait_for_job, self.job_class.key_for)

    def register_birth(self) -> None:
        """Makes the worker a member of its pool too, so that others know whom to recover when this
        one has vanished, and how."""
        super().register_birth()
        members.join(self.connection, self._settler.member)
        self._note_heartbeat()

    def unregister(self) -> None:
        """Removes a registration that may be incomplete, to begin again."""
        members.unregister(self.connection, self._settler.member)

    def register_death(self) -> None:
        """Leaves the pool as well."""
        super().register_death()
        self._fetcher.close()
        with self.connection.pipeline() as pipeline:
            members.leave(self.connection, self._settler.member, pipeline)
            self._write_stop_date(pipeline)
            pipeline.execute()
        self._link.slot.leave()

    def _register_again(self) -> None:
        """Registers a worker that Redis has forgotten, while it lived."""
        self.log.warning("Worker %s: Redis has forgotten this worker; registering again", self.name)
        with self.connection.pipeline() as pipeline:
            self.last_heartbeat = utc_now()
            pipeline.hset(self.key, mapping=self.serialize())
            worker_registration.register(cast(BaseWorker, self), pipeline)
            pipeline.expire(self.key, self.worker_ttl + 60)
            pipeline.execute()
        members.join(self.connection, self._settler.member)
        self._state = WorkerStatus.STARTED

    # A stop

    def tell_of_stop(self) -> bool:
        """Has the project's class hear of a stop, once, as RQ has it: but here, where it can wait
        for nothing and lose nothing, and not in the signal's handler.

        Returns:
            Whether the worker was asked to stop since the last call.
        """
        if not self._link.stopping or self._shutdown_requested_date is not None:
            return False
        self._shutdown_requested_date = utc_now()
        try:
            self.request_stop(self._link.stop_signal, None)
        except StopRequested:
            pass  # that is RQ's way to stop; this worker is about to
        except (Exception, SystemExit):
            self.log.exception("Worker %s: its class failed when asked to stop", self.name)
        return True

    def _write_stop_date(self, pipeline: Any) -> None:
        """Shows when the worker was asked to stop, with what it sends anyway: RQ writes it in the
        signal's handler, and raises from there when Redis is away."""
        if self._shutdown_requested_date is not None:
            date = utcformat(self._shutdown_requested_date)
            pipeline.hset(self.key, "shutdown_requested_date", date)

    # Signs of life

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """RQ's worker leaves when a heartbeat fails, sends its three commands one by one, and does
        so before and after each job. Here a failure is logged, the commands take one round trip,
        and they are sent by the clock. And a worker that Redis has forgotten registers again."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
            self._write_stop_date(pipeline)
            return
        if timeout is None and time.monotonic() < self._heartbeat_due:
            return
        try:
            with self.connection.pipeline(transaction=False) as own:
                super().heartbeat(timeout, own)
                members.ask_whether_known(self._settler.member, own)
                answers = own.execute()
            self._note_heartbeat()
            if not members.is_known(answers):
                self._register_again()
        except self._link.unavailable as error:
            self.log.warning("Worker %s: heartbeat: %s", self.name, error)

    def _register_again_if_forgotten(self) -> None:
        with self.connection.pipeline(transaction=False) as pipeline:
            members.ask_whether_known(self._settler.member, pipeline)
            if not members.is_known(pipeline.execute()):
                self._register_again()

    def _note_heartbeat(self) -> None:
        self._heartbeat_due = time.monotonic() + _HEARTBEAT_SECONDS

    def clean_registries(self) -> None:
        """RQ has each worker clean the registries of its queues when it starts and every ten
        minutes, and look whether every other worker is registered. For a hundred workers that is
        ten thousand questions each time. Here one worker does so for its whole group. And RQ fails
        a job whose last heartbeat is old by this host's clock, though it runs."""
        if self._takes_turn():
            abandoned.spare_held(self.connection, self.queue_names())
            super().clean_registries()
        else:
            cast(Any, self).last_cleaned_at = utc_now()

    def _takes_turn(self) -> bool:
        """Whether this worker has to clean the registries: when no worker of its group has done so
        for as long as RQ lets a worker wait, and when the pool starts, because another of its name
        may have died before."""
        assignment = self._link.assignment
        key = MAINTAINED_KEY % (assignment.pool, assignment.group.name)
        first = self.last_cleaned_at is None and assignment.number == 1
        seconds = max(1, int(self.maintenance_interval) - 1)
        return bool(self.connection.set(key, 1, ex=seconds, nx=not first))

    def sweep(self) -> None:
        """Looks every half minute, once for all workers of the pool, for workers that are gone and
        for what they have left, and recovers it. To be called wherever the worker merely waits."""
        if time.monotonic() < self._sweep_due:
            return
        self._sweep_due = time.monotonic() + sweep.SWEEP_SECONDS
        try:
            sweep.sweep(self.connection, self._link.assignment.pool)
        except self._link.unavailable as error:
            self.log.warning("Worker %s: looking for lost workers: %s", self.name, error)
        except ResponseError:  # somebody tries again in half a minute
            logger.exception("lost workers cannot be recovered now")

    # An absent Redis

    def _await_redis(self, error: BaseException | None = None) -> None:
        """Waits for Redis, and registers again where it has forgotten the worker.

        Args:
            error: what a command has raised, if one has.
        """
        while self._link.await_redis(error):
            try:
                self._register_again_if_forgotten()
                return
            except self._link.unavailable as trouble:  # it has gone again
                error = trouble
        self.tell_of_stop()
        raise StopRequested

    def _retry_while_unavailable(self, write: Callable[[], Outcome]) -> Outcome:
        """Repeats what must succeed until Redis is back. A worker that is asked to stop tries once
        more: what it waits for may be something else than Redis, such as a replica.

        Args:
            write: does it; what it sends can be sent again.

        Returns:
            What ``write`` returns.
        """
        logged = tried_when_asked = False
        while True:
            try:
                return write()
            except self._link.unavailable as error:
                if not logged:
                    self.log.error("Worker %s: %s; trying until Redis is back", self.name, error)
                logged = True
                if self.is_horse:
                    processes.pause(REDIS_RETRY)
                elif not self._link.await_redis(error) or tried_when_asked:
                    raise
                tried_when_asked = self._link.stopping
