"""Failure notice: tells the project of a failure that no work horse could tell.

Rule of the room: it tells what RQ tells when its maintenance finds an abandoned job, and when a
worker outlives its work horse. What the project's code raises must not keep the job from being
settled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rq.callbacks import execute_failure_callback
from rq.exceptions import AbandonedJobError
from rq.job import Job
from rq.job_lifecycle import call_exception_handlers
from rq.timeouts import BaseDeathPenalty

logger = logging.getLogger("django_rq_pool")


@dataclass(frozen=True)
class FailureNotice:
    """Whom a failure is told.

    Attributes:
        exception_handlers: the group's, in RQ's order.
        horse_killed: RQ's handler for killed work horses.
        death_penalty: what limits the time of the job's own failure callback.
    """

    exception_handlers: Sequence[Callable[..., object]]
    horse_killed: Callable[[Job], object]
    death_penalty: type[BaseDeathPenalty]

    def send(self, job: Job) -> None:
        """Calls the handler for killed work horses, the job's failure callback and the exception
        handlers, in this order, until one of them raises."""
        error = AbandonedJobError()
        try:
            self.horse_killed(job)
            execute_failure_callback(job, self.death_penalty, AbandonedJobError, error, None)
            call_exception_handlers(self.exception_handlers, job, AbandonedJobError, error, None)
        except Exception:
            logger.exception("the project could not be told that job %s failed", job.id)
