"""Failure notice: tells the project of a failure that no work horse could tell.

Rule of the room: it tells what RQ tells when its maintenance finds an abandoned job, and when a
worker outlives its work horse. What the project's code raises must not keep the job from being
settled.
"""

from __future__ import annotations

import logging

from redis import Redis
from rq.callbacks import execute_failure_callback
from rq.exceptions import AbandonedJobError
from rq.job import Job
from rq.job_lifecycle import call_exception_handlers

from ..config.classes import make_worker, worker_class_of
from ..config.groups import QueueGroup
from ..config.redis_clients import client

logger = logging.getLogger("django_rq_pool")


class FailureNotice:
    """Tells the project of the failures of one dead worker's jobs.

    What it has to call are methods and attributes of the project's worker class. So it builds such
    a worker for each failure, without the pool's behaviour, on a client of its own: RQ's
    constructor changes the time limits of the client that it is given.

    Args:
        group: the dead worker's queue group.
        worker: its name.
    """

    def __init__(self, group: QueueGroup, worker: str) -> None:
        self._group = group
        self._worker = worker

    def send(self, job: Job) -> None:
        """Calls the handler for killed work horses, the job's failure callback and the exception
        handlers, in this order, until one of them raises."""
        error = AbandonedJobError()
        redis: Redis | None = None
        try:
            redis = client(self._group)
            worker = make_worker(
                worker_class_of(self._group), self._group, self._worker, redis, works=False
            )
            worker.handle_work_horse_killed(job, None, None, None)
            execute_failure_callback(job, worker.death_penalty_class, type(error), error, None)
            call_exception_handlers(worker._exc_handlers, job, type(error), error, None)
        except Exception:
            logger.exception("the project could not be told that job %s failed", job.id)
        finally:
            if redis is not None:
                redis.close()
