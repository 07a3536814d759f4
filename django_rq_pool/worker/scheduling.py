"""Scheduling: a worker's part in keeping RQ's scheduler at work for its queues.

Rule of the room: at any time some worker of the group holds the lock of each queue and has a
scheduler process. Whoever merely waits looks whether that is so, every few seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import cast

from redis.exceptions import RedisError
from rq import Worker

from .registration import RegistrationMixin
from .scheduler_process import LOOK_SECONDS, PooledScheduler


class SchedulingMixin(RegistrationMixin):
    """The part of `pooled_worker.PooledWorker` that has RQ's scheduler."""

    scheduler: PooledScheduler | None
    _scheduler_look_due = math.inf
    _scheduler_trouble = ""

    def _start_scheduler(
        self,
        burst: bool = False,
        logging_level: str | int | None = "INFO",
        date_format: str = "",
        log_format: str = "",
    ) -> None:
        """RQ makes a scheduler of its own class, and leaves when Redis is away meanwhile."""
        self.scheduler = PooledScheduler(
            cast(Worker, self),
            self._link,
            logging_level=self.log.level if logging_level is None else logging_level,
            date_format=date_format,
            log_format=log_format,
        )
        if not burst:
            self._scheduler_look_due = 0.0
            self.look_after_scheduler()
        elif self.scheduler.acquire_locks():
            try:
                self.scheduler.enqueue_scheduled_jobs()
            finally:
                self.scheduler.release_locks()

    def look_after_scheduler(self) -> None:
        """Where a look is due, takes the locks that are free and replaces a scheduler process that
        has ended. RQ does so at the start and every ten minutes: after the death of a holder, or
        when one pool takes another's place, jobs that are due would wait so long.

        A worker that was asked to stop asks its scheduler to stop, as in RQ: it may still have a
        long job, and others can schedule meanwhile.
        """
        if self.scheduler is None:
            return
        if self._link.stopping:
            if self._scheduler_look_due < math.inf:
                self._scheduler_look_due = math.inf
                self.scheduler.ask_to_stop()
        elif time.monotonic() >= self._scheduler_look_due:
            self._scheduler_look_due = time.monotonic() + LOOK_SECONDS
            self._note_trouble(self.scheduler.hold)

    def until_scheduler_look(self) -> float:
        """Seconds until `look_after_scheduler` has to be called; infinite without a scheduler."""
        return max(0.0, self._scheduler_look_due - time.monotonic())

    def stop_scheduler(self) -> None:
        """RQ waits for the process for ever."""
        if self.scheduler is not None:
            self._scheduler_look_due = math.inf
            self._note_trouble(self.scheduler.end)

    def _note_trouble(self, act: Callable[[], object]) -> None:
        """Does something to the scheduler. An error is no reason for the worker to leave: it looks
        again. The same error is logged once."""
        trouble = ""
        try:
            act()
        except (RedisError, OSError) as error:
            trouble = str(error)
            if trouble != self._scheduler_trouble:
                self.log.warning("Worker %s: its scheduler: %s", self.name, trouble)
        self._scheduler_trouble = trouble
