"""Worker, job and queue classes of the tests that end jobs, horses and workers in unusual ways."""

from __future__ import annotations

import os
import select
import signal
import sys
from datetime import timedelta

import rq.utils
from rq import Queue, SimpleWorker, Worker
from rq.job import Job

from pool_jobs import client, note

BAD = "bad"
"""The description of a job that some of these classes do not run."""


# Jobs


def note_and_fail(key: str) -> None:
    note(key)
    raise RuntimeError("this job fails by itself")


def note_and_refuse_to_fail(job: Job, *exc_info: object) -> None:
    """An exception handler that raises one itself."""
    note("handled", job.id)
    raise RuntimeError("this handler is broken")


def end_process(job: Job, *exc_info: object) -> None:
    """A callback that ends whatever process it is called in, as if all were well."""
    note("told", job.id)
    os._exit(0)


def await_term(job: Job, *result: object) -> None:
    """A callback that waits for a TERM, or for what ends its process."""
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender)
    note("awaited", str(os.getpid()))
    select.select([receiver], [], [])
    signal.set_wakeup_fd(-1)


class EndsSlowly(Job):
    """Waits for a TERM where its meta says."""

    def send_webhooks(self, *args, **kwargs):
        super().send_webhooks(*args, **kwargs)
        if self.meta.get("term") == "webhook":
            await_term(self)

    def _handle_success(self, *args, **kwargs):
        if self.meta.get("term") == "settling":
            await_term(self)
        super()._handle_success(*args, **kwargs)


class KilledWhenSettled(Job):
    """Kills its process when its end is written, and RQ has not yet enqueued its dependents."""

    def send_webhooks(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)


class KilledBeforeDependents(Queue):
    """Kills its process where RQ enqueues the dependents of a job that has succeeded."""

    def enqueue_ready_jobs_by_queue(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)


class CannotBePrepared(Job):
    """Raises where RQ makes it a started job."""

    def prepare_for_execution(self, *args, **kwargs):
        if self.description == BAD:
            note("tried")
            raise RuntimeError("this job cannot be prepared")
        super().prepare_for_execution(*args, **kwargs)


class CannotBeReadAgain(Job):
    """Cannot be fetched once it runs."""

    @classmethod
    def fetch(cls, id, connection=None, serializer=None):
        if client().sismember("unreadable", id):
            raise RuntimeError("this job class is broken")
        return super().fetch(id, connection, serializer)


class OwnJob(Job):
    redis_job_namespace_prefix = "own:job:"


# Queues


class OwnQueue(Queue):
    redis_queue_namespace_prefix = "own:queue:"


# Workers


class Wrapper:
    """A library wraps `perform_job` and looks into the job there."""

    def perform_job(self, job, queue, execution):
        if job.description == BAD:
            note("tried")
            raise RuntimeError("the wrapper is broken")
        return super().perform_job(job, queue, execution)


class Refusal:
    """A `perform_job` that returns."""

    def perform_job(self, job, queue, execution):
        if job.description == BAD:
            note("tried")
            return False
        return super().perform_job(job, queue, execution)


class WrapperRaises(Wrapper, Worker):
    pass


class SimpleWrapperRaises(Wrapper, SimpleWorker):
    pass


class RunsNothing(Refusal, Worker):
    pass


class SimpleRunsNothing(Refusal, SimpleWorker):
    pass


class Postponement:
    """An `execute_job` that does not run a job, or that puts it into another queue."""

    def execute_job(self, job, queue):
        if job.description == BAD:
            note("tried")
            if job.meta.get("to"):
                Queue(job.meta["to"], connection=self.connection).enqueue_job(job)
        else:
            super().execute_job(job, queue)


class Postpones(Postponement, Worker):
    pass


class SimplePostpones(Postponement, SimpleWorker):
    pass


class HangsBeforeItBegins(Worker):
    """Its horse hangs with the first job before that is begun. RQ ends a horse that is overdue by a
    minute; here it does so after the job's time limit."""

    def main_work_horse(self, job, queue):
        if client().set("hung", os.getpid(), nx=True):
            signal.pause()
        super().main_work_horse(job, queue)

    def monitor_work_horse(self, job, queue, execution):
        self.job_monitoring_interval = 1
        job.timeout -= 60
        super().monitor_work_horse(job, queue, execution)


class OwnWorker(Worker):
    """Has keys of its own, and horses that hold before they begin while a key is there."""

    redis_worker_namespace_prefix = "own:worker:"

    def main_work_horse(self, job, queue):
        if client().exists("hold horses"):
            note("held", str(os.getpid()))
            signal.pause()
        super().main_work_horse(job, queue)


class WatchesOften(Worker):
    """Sends heartbeats of its running job, and looks at its clock, every second."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.job_monitoring_interval = 1


class ClockIsSet(WatchesOften):
    """Lives on a host whose clock is an hour forward while a key is there."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        right, seconds = rq.utils.now, rq.utils.current_timestamp

        def ahead() -> int:
            return 3600 * client().exists("clock is set")

        def now():
            return right() + timedelta(seconds=ahead())

        def current_timestamp():
            return seconds() + ahead()

        for module in list(sys.modules.values()):
            if module.__name__.startswith(("rq.", "django_rq_pool.")):
                for name, value in list(vars(module).items()):
                    if value is right:
                        setattr(module, name, now)
                    elif value is seconds:
                        setattr(module, name, current_timestamp)
