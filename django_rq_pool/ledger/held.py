"""Held jobs: where the jobs of one worker stand, by its name.

Rule of the room: a job that a worker has taken stands in its in-flight list until a work horse
begins it, and among its executions (RQ's set) from then until it is settled. Each change of place
is one atomic step. Read against RQ 3.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis import Redis
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE, Execution, ExecutionRegistry
from rq.registry import StartedJobRegistry
from rq.utils import as_text

from .keys import IN_FLIGHT_KEY

_GIVE_BACK = """
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 1 then
    redis.call('LPUSH', KEYS[2], ARGV[1])
end
"""


@dataclass(frozen=True)
class Fetched:
    """A job that stands in an in-flight list.

    Attributes:
        queue_key: the key of the queue that it came from; empty when that is unknown, because the
            job came while the answer was lost with the connection.
        job_id: the job.
    """

    queue_key: str
    job_id: str


class HeldJobs:
    """The jobs that one worker holds, alive or dead.

    Every method raises `redis.exceptions.RedisError` when the server does not do what it says.

    Args:
        redis: a client of the worker's server.
        worker: the worker's name.

    Attributes:
        in_flight_key: key of the list of jobs that no work horse has begun.
        executions_key: key of RQ's set of executions that are not settled.
    """

    def __init__(self, redis: Redis, worker: str) -> None:
        self.worker = worker
        self.in_flight_key = IN_FLIGHT_KEY % worker
        self.executions_key = WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker)
        self._redis = redis

    def not_begun(self) -> list[str]:
        """The ids of the jobs that no work horse has begun, the one taken first at the front."""
        return [as_text(job_id) for job_id in self._redis.lrange(self.in_flight_key, 0, -1)]

    def is_begun(self, job_id: str) -> bool:
        """Whether a work horse has made the job a started one, which takes it off the list."""
        return self._redis.lpos(self.in_flight_key, job_id) is None

    def executions(self) -> list[Execution]:
        """The executions that are not settled. Those whose data have expired are forgotten, as RQ
        does it."""
        keys = [as_text(key) for key in self._redis.smembers(self.executions_key)]
        if not keys:
            return []
        found = [Execution.from_composite_key(key, connection=self._redis) for key in keys]
        with self._redis.pipeline() as pipeline:
            for execution in found:
                pipeline.hgetall(execution.key)
            hashes = pipeline.execute()
            alive = []
            for execution, data in zip(found, hashes):
                if data:
                    execution.restore(data)
                    alive.append(execution)
                else:
                    pipeline.srem(self.executions_key, execution.composite_key)
            pipeline.execute()
        return alive

    def is_open(self, execution: Execution) -> bool:
        """Whether an execution has not been settled. RQ takes it off the worker's set in the same
        transaction that settles its job."""
        return bool(self._redis.sismember(self.executions_key, execution.composite_key))

    def drop(self, executions: Iterable[Execution], origin: str) -> None:
        """Removes executions of a job that is not running and needs no settling.

        Args:
            executions: of one job.
            origin: the name of the job's queue.
        """
        with self._redis.pipeline() as pipeline:
            for execution in executions:
                self._drop(execution, origin, pipeline)
            pipeline.execute()

    def _drop(self, execution: Execution, origin: str, pipeline: Any) -> None:
        pipeline.delete(execution.key)
        pipeline.srem(self.executions_key, execution.composite_key)
        job_executions = ExecutionRegistry(execution.job_id, connection=self._redis)
        job_executions.remove(execution, pipeline)
        started = StartedJobRegistry(origin, connection=self._redis)
        started.remove_execution(execution, pipeline=pipeline)

    def give_back(self, fetched: Fetched) -> None:
        """Moves a job that was not begun to the head of its queue, if it is still in the list."""
        self._redis.register_script(_GIVE_BACK)(
            keys=[self.in_flight_key, fetched.queue_key], args=[fetched.job_id]
        )

    def forget(self, job_id: str) -> None:
        """Takes a job that needs no worker off the in-flight list."""
        self._redis.lrem(self.in_flight_key, 1, job_id)
