"""Recovery: takes over what one worker that is gone has left in Redis.

Rule of the room: whoever holds a worker's lock recovers it, and nobody else.
"""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import ResponseError
from rq.exceptions import NoSuchJobError
from rq.utils import now as utc_now

from . import schedulers
from .keys import RECOVERY_LOCK_KEY
from .members import leave, unregister
from .scripts import FREE_LOCK, TAKE_LOCK
from .settle import Settler

logger = logging.getLogger("django_rq_pool")

LOCK_SECONDS = 300
"""Seconds for which a lock holds without a sign of life of its holder."""


class Recovery:
    """The recovery of one worker that is gone.

    Args:
        settler: settles that worker's jobs.
        token: proves that the lock is this recovery's. One that was cut off and is done again, by
            another process, has the same.
    """

    def __init__(self, settler: Settler, token: str) -> None:
        self._settler = settler
        self._redis = settler.redis
        self._member = settler.member
        self._token = token
        self._lock_key = RECOVERY_LOCK_KEY % settler.member.name

    def lock(self) -> bool:
        """Makes this process the one that recovers the worker; False when another is. To be
        repeated within `LOCK_SECONDS`."""
        take = self._redis.register_script(TAKE_LOCK)
        return bool(take(keys=[self._lock_key], args=[self._token, LOCK_SECONDS]))

    def unregister(self) -> None:
        """Removes the worker's registration, and ends what it may still have under way. The lock
        must be held."""
        unregister(self._redis, self._member)
        # Others can schedule at once.
        schedulers.release(self._redis, self._member.name, self._member.group.queues)
        self._end_connections()

    def _end_connections(self) -> None:
        """Ends the worker's connections at the server. One behind a network that has fallen silent
        goes on there: it would move the next job to the list of a worker that is gone."""
        try:
            for client in self._redis.client_list():
                if client.get("name") == self._member.name:
                    self._redis.client_kill_filter(_id=client["id"])
        except ResponseError as error:
            # Whatever it moves is found by `sweep`.
            logger.debug("the connections of worker %s: %s", self._member.name, error)

    def keep_alive(self, seconds: int) -> None:
        """Sends the heartbeats of the jobs that a dead worker's work horse still runs, so that no
        clean-up calls them abandoned. To be repeated within so many seconds."""
        self.lock()
        held = self._settler.held
        for begun in held.begun():
            execution = begun.execution
            try:
                job = self._settler.job_of(execution)
            except NoSuchJobError:
                continue
            with self._redis.pipeline() as pipeline:
                execution.heartbeat(job.started_job_registry, seconds, pipeline)
                job.heartbeat(utc_now(), seconds, pipeline=pipeline, xx=True)
                pipeline.expire(held.executions_key, seconds)
                pipeline.execute()

    def finish(self, cause: str) -> None:
        """Settles all that the worker left, and forgets it. The lock must be held, and none of its
        work horses may be alive.

        Args:
            cause: how the worker ended, as a sentence for the records of its jobs.
        """
        self._settler.settle_all(cause)
        with self._redis.pipeline() as pipeline:
            # Its work horse may have written to the worker's hash again.
            unregister(self._redis, self._member, pipeline)
            pipeline.delete(self._settler.held.executions_key)
            leave(self._redis, self._member, pipeline)
            self.unlock(pipeline)
            pipeline.execute()

    def unlock(self, pipeline: Any = None) -> None:
        """Lets another process recover the worker.

        Args:
            pipeline: where the command goes; None has it carried out at once.
        """
        free = self._redis.register_script(FREE_LOCK)
        free(keys=[self._lock_key], args=[self._token], client=pipeline)
