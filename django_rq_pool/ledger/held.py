"""Held jobs: where the jobs of one worker stand, by its name.

Rule of the room: a job that a worker has taken stands in its in-flight list of that queue until a
work horse begins it, and in its record of begun executions from then until it is settled. Neither
has a time to live. Each change of place is one atomic step. Read against RQ 3.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from redis import Redis
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE, Execution, ExecutionRegistry
from rq.registry import StartedJobRegistry
from rq.utils import as_text

from .keys import BEGUN_KEY, IN_FLIGHT_KEY, NOT_BEGUN_FIELD, SETTLED_FIELD, TOLD_FIELD
from .scripts import PUT_BACK


@dataclass(frozen=True)
class Fetched:
    """A job that stands in an in-flight list.

    Attributes:
        queue_key: the key of the queue that it came from.
        job_id: the job.
        again: whether it stood there before: an answer was lost, or the server has forgotten that
            it was begun.
    """

    queue_key: str
    job_id: str
    again: bool = False


@dataclass(frozen=True)
class Begun:
    """An execution that is not settled.

    Attributes:
        queue_key: the key of the queue that its job came from.
        execution: RQ's record of it, as far as it has not expired.
    """

    queue_key: str
    execution: Execution


@dataclass(frozen=True)
class Hold:
    """What the ledger says of one execution when its work horse has ended.

    Attributes:
        taken: its job stands in an in-flight list: no horse has begun it.
        begun: it was begun and is not settled.
        settled: it is the one that was settled last.
    """

    taken: bool
    begun: bool
    settled: bool


class HeldJobs:
    """The jobs that one worker holds, alive or dead.

    Every method raises `redis.exceptions.RedisError` when the server does not do what it says.

    Args:
        redis: a client of the worker's server.
        worker: the worker's name.
        queue_keys: the keys of its queues.

    Attributes:
        begun_key: key of the record of begun executions.
        executions_key: key of RQ's set of executions, which RQ lets expire.
    """

    def __init__(self, redis: Redis, worker: str, queue_keys: Sequence[str]) -> None:
        self.worker = worker
        self.begun_key = BEGUN_KEY % worker
        self.executions_key = WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker)
        self._queue_keys = tuple(queue_keys)
        self._redis = redis

    def in_flight_key(self, queue_key: str) -> str:
        """Key of the list of jobs that were taken from a queue and that no horse has begun."""
        return IN_FLIGHT_KEY % (self.worker, queue_key)

    def taken(self) -> list[Fetched]:
        """The jobs that no work horse has begun: queue by queue, the one taken first at the
        front."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for queue_key in self._queue_keys:
                pipeline.lrange(self.in_flight_key(queue_key), 0, -1)
            lists = pipeline.execute()
        return [
            Fetched(queue_key, as_text(job_id))
            for queue_key, jobs in zip(self._queue_keys, lists)
            for job_id in jobs
        ]

    def begun(self) -> list[Begun]:
        """The executions that were begun and are not settled."""
        records = {
            as_text(field): as_text(value)
            for field, value in self._redis.hgetall(self.begun_key).items()
        }
        found = [
            Begun(queue_key, Execution.from_composite_key(field, connection=self._redis))
            for field, queue_key in records.items()
            if field != SETTLED_FIELD and not field.startswith(TOLD_FIELD)
        ]
        if not found:
            return []
        with self._redis.pipeline(transaction=False) as pipeline:
            for each in found:
                pipeline.hgetall(each.execution.key)
            for each, data in zip(found, pipeline.execute()):
                # It expires about 90 s after the last heartbeat. One that came later makes a hash
                # with nothing else in it.
                if data.get(b"created_at"):
                    each.execution.restore(data)
                each.execution.worker_name = self.worker
        return found

    def look(self, job_id: str, queue_key: str, execution: Execution) -> Hold:
        """Where an execution and its job stand now."""
        key = execution.composite_key
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hmget(self.begun_key, [key, SETTLED_FIELD])
            pipeline.lpos(self.in_flight_key(queue_key), job_id)
            (begun, settled), place = pipeline.execute()
        return Hold(
            place is not None, begun is not None, as_text(settled or b"").partition(" ")[0] == key
        )

    def takes_telling(self, execution: Execution, token: str) -> bool:
        """Whether the caller is the one that tells the project of a failure.

        Args:
            execution: the one that has failed.
            token: of the caller.
        """
        field = TOLD_FIELD + execution.composite_key
        with self._redis.pipeline() as pipeline:
            pipeline.hsetnx(self.begun_key, field, token)
            pipeline.hget(self.begun_key, field)
            _, holder = pipeline.execute()
        return as_text(holder or b"") == token

    def drop(self, executions: Iterable[Execution], origin: str) -> None:
        """Removes what is noted of executions of a job that is not running.

        Args:
            executions: of one job.
            origin: the name of the job's queue.
        """
        with self._redis.pipeline() as pipeline:
            for execution in executions:
                pipeline.delete(execution.key)
                pipeline.srem(self.executions_key, execution.composite_key)
                pipeline.hdel(self.begun_key, execution.composite_key)
                registry = ExecutionRegistry(execution.job_id, connection=self._redis)
                registry.remove(execution, pipeline)
                started = StartedJobRegistry(origin, connection=self._redis)
                started.remove_execution(execution, pipeline=pipeline)
            pipeline.execute()

    def forget_executions(self, job_id: str, origin: str) -> None:
        """Removes what is noted of every execution of a job that nobody has begun. When one that
        stays expires, RQ's clean-up takes the job for abandoned, which may be running by then.

        Args:
            job_id: the job.
            origin: the name of its queue.
        """
        started = StartedJobRegistry(origin, connection=self._redis)
        for each, execution_id in started.get_job_and_execution_ids(cleanup=False):
            if each == job_id:
                self.drop([Execution(execution_id, job_id, connection=self._redis)], origin)

    def noted(self) -> list[Execution]:
        """The executions in RQ's own set, begun or not, as far as they have not expired."""
        return [
            Execution.from_composite_key(as_text(key), connection=self._redis)
            for key in self._redis.smembers(self.executions_key)
        ]

    def put_back(self, fetched: Fetched, job_key: str, at_most: int = 0) -> bool:
        """Moves a job that was not begun to the head of its queue, if it is still in the list.

        Args:
            fetched: the job, and where it came from.
            job_key: the key of its hash.
            at_most: how often that may happen to it; 0: it is not counted.

        Returns:
            False when it has happened too often: the job stays in the in-flight list.
        """
        answer = self._redis.register_script(PUT_BACK)(
            keys=[self.in_flight_key(fetched.queue_key), fetched.queue_key, job_key],
            args=[fetched.job_id, NOT_BEGUN_FIELD, at_most],
        )
        return int(answer) != 2

    def forget(self, fetched: Fetched) -> None:
        """Takes a job that needs no worker off the in-flight list."""
        self._redis.lrem(self.in_flight_key(fetched.queue_key), 1, fetched.job_id)
