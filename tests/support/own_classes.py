"""Worker, job and queue classes as projects have them: what they add, and what they replace."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from rq import Queue, SimpleWorker, Worker
from rq.exceptions import ShutDownImminentException
from rq.job import Job
from rq.worker import HerokuWorker

from pool_jobs import client, hold, note, wait_for_file

CALLED = "called"
"""The list in which an override notes its name."""


# Overrides that call super()


class PreparesJobs(Worker):
    """Does something just before a job starts, in its process."""

    def prepare_job_execution(self, job, *args, **kwargs):
        super().prepare_job_execution(job, *args, **kwargs)
        note("trace", f"prepared in {os.getpid()}")


class PreparesJobsInPlace(SimpleWorker):
    """The same without a work horse."""

    def prepare_job_execution(self, job, remove_from_intermediate_queue=False):
        note("trace", f"prepared in {os.getpid()}")
        super().prepare_job_execution(job, remove_from_intermediate_queue)


class PreparesNothing(Worker):
    """Leaves out what RQ writes before a job starts."""

    def prepare_job_execution(self, job, remove_from_intermediate_queue=False):
        note("trace", f"prepared in {os.getpid()}")


def note_process(key: str) -> None:
    note(key, f"ran in {os.getpid()}")


class AddsToAll(Worker):
    """Adds a note to each method that the pool replaces, and calls it."""

    def check_for_suspension(self, burst):
        note(CALLED, "check_for_suspension")
        super().check_for_suspension(burst)

    def dequeue_job_and_maintain_ttl(self, timeout, max_idle_time=None):
        result = super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
        note(CALLED, "dequeue_job_and_maintain_ttl")
        return result

    def wait_for_horse(self):
        pid, status, usage = super().wait_for_horse()
        if pid and usage.ru_maxrss:
            note(CALLED, "wait_for_horse")
        return pid, status, usage

    def kill_horse(self, sig=signal.SIGKILL):
        note(CALLED, "kill_horse")
        super().kill_horse(sig)

    def setup_work_horse_signals(self):
        super().setup_work_horse_signals()
        note(CALLED, "setup_work_horse_signals")

    def request_stop(self, signum, frame):
        note(CALLED, f"request_stop {signum}")
        super().request_stop(signum, frame)

    def handle_warm_shutdown_request(self):
        super().handle_warm_shutdown_request()
        note(CALLED, "handle_warm_shutdown_request")

    def unsubscribe(self):
        super().unsubscribe()
        note(CALLED, "unsubscribe")


# Overrides that replace


class ReplacesAll(Worker):
    """Has ways of its own, each of which would break a worker of the pool."""

    def check_for_suspension(self, burst):
        note(CALLED, "check_for_suspension")

    def dequeue_job_and_maintain_ttl(self, timeout, max_idle_time=None):
        note(CALLED, "dequeue_job_and_maintain_ttl")
        return self.queue_class.dequeue_any(self.queues, timeout, self.connection)

    def wait_for_horse(self):
        note(CALLED, "wait_for_horse")
        return Worker.wait_for_horse(self)

    def kill_horse(self, sig=signal.SIGKILL):
        note(CALLED, "kill_horse")

    def request_stop(self, signum, frame):
        note(CALLED, "request_stop")

    def _install_signal_handlers(self):
        note(CALLED, "_install_signal_handlers")
        for signum in (signal.SIGQUIT, signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)


class PopsItself(Queue):
    """Takes the last job first."""

    @classmethod
    def dequeue_any(cls, *args, **kwargs):
        note(CALLED, "dequeue_any")
        return super().dequeue_any(*args, **kwargs)


class FailsWhenStopped(Worker):
    """Does not bear a stop."""

    def request_stop(self, signum, frame):
        super().request_stop(signum, frame)
        raise RuntimeError("this class cannot be stopped")


class PopsToo(Worker):
    """Takes a job of another queue before those of its own."""

    def dequeue_job_and_maintain_ttl(self, timeout, max_idle_time=None):
        job_id = self.connection.lpop("rq:queue:low")
        if job_id is None:
            return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
        job = Job.fetch(job_id.decode(), connection=self.connection)
        return job, Queue("low", connection=self.connection)


class WaitsForLicence(Worker):
    """Waits for something else before it takes a job."""

    def check_for_suspension(self, burst):
        note(CALLED, "waits")
        while not client().exists("licence") and not self.asked_to_stop:
            client().blpop(["nothing"], 0.01)
        super().check_for_suspension(burst)


class SignalsItsHorse(Worker):
    """Tells its work horse, and what that has started, that it was asked to stop."""

    def handle_warm_shutdown_request(self):
        self.kill_horse(signal.SIGRTMIN)
        note("told", "the horse")


def count_signals(gate: str) -> int:
    """Holds; returns how often it was told."""
    told = []
    signal.signal(signal.SIGRTMIN, lambda *_: told.append(1))
    hold(gate)
    return len(told)


def touch_and_wait(running: str, gate: str) -> None:
    """Says that it runs, and waits for a sign, without Redis."""
    Path(running).touch()
    wait_for_file(gate)


# Heroku


class ToldAtOnce(HerokuWorker):
    imminent_shutdown_delay = 0


class ToldSoon(HerokuWorker):
    imminent_shutdown_delay = 1


class ToldBeforeItBegins(HerokuWorker):
    """Holds its first job where its process has just begun it."""

    imminent_shutdown_delay = 1

    def prepare_job_execution(self, job, *args, **kwargs):
        super().prepare_job_execution(job, *args, **kwargs)
        hold("before")


def hold_and_finish(gate: str) -> str:
    """Holds; ends well when it is told of the shutdown."""
    try:
        return hold(gate)
    except ShutDownImminentException:
        return "in time"


# Constructors


class TakesFew(Worker):
    """Knows three of the parameters of RQ's."""

    def __init__(self, queues, name, connection):
        super().__init__(queues, name=name, connection=connection)


class PassesOn(TakesFew):
    """Passes on whatever it is given to one that takes few."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class PassesOnPositions(Worker):
    """Passes on nothing but positions."""

    def __init__(self, *args):
        super().__init__(*args)


class TakesPositions(Worker):
    def __init__(self, queues, name=None, /, **kwargs):
        super().__init__(queues, name, **kwargs)


class TakesKeywords(Worker):
    def __init__(self, *, connection, queues):
        super().__init__(queues, connection=connection)


class HasOtherWords(Worker):
    """Calls everything by words of its own."""

    def __init__(self, queue_list, redis=None, worker_id=None):
        super().__init__(queue_list, name=worker_id, connection=redis)


class NamesItself(Worker):
    """Is called after its process, and has a lifetime of its own."""

    def __init__(self, queues, **kwargs):
        kwargs["name"] = f"{os.getpid()}@here"
        kwargs["worker_ttl"] = 300
        super().__init__(queues, **kwargs)


class KeepsItsName(Worker):
    """Has one name for all workers."""

    name = property(lambda self: "mine", lambda self, name: None)


class CannotLiveLonger(TakesFew):
    worker_ttl = property(lambda self: 420, lambda self, seconds: self.refuse(seconds))

    def refuse(self, seconds):
        if seconds != 420:
            raise AttributeError("it is fixed")


CONSTRUCTORS = (
    TakesFew,
    PassesOn,
    PassesOnPositions,
    TakesPositions,
    TakesKeywords,
    HasOtherWords,
    NamesItself,
)


class HasAGroup(Worker):
    """Has an attribute that the pool has, too."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.group = "mine"


# Signs of life


class RegistersAgain(Worker):
    """Registers again, in its heartbeat, where Redis has forgotten it."""

    def heartbeat(self, timeout=None, pipeline=None):
        super().heartbeat(timeout, pipeline)
        if not self.connection.sismember(self.redis_workers_keys, self.key):
            if self.connection.exists(self.key):
                self.connection.delete(self.key)
            self.register_birth()
            note(CALLED, "register_birth")

    def maintain_heartbeats(self, *args, **kwargs):
        super().maintain_heartbeats(*args, **kwargs)
        note(CALLED, "maintain_heartbeats")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.job_monitoring_interval = 1


# Classes of big sites


class LimitsItself(HerokuWorker):
    """Notes what becomes of each job, in several places."""

    def execute_job(self, job, queue):
        note("executed", job.id)
        super().execute_job(job, queue)

    def monitor_work_horse(self, job, queue, execution):
        note("monitored", job.id)
        super().monitor_work_horse(job, queue, execution)

    def handle_job_success(self, *args, **kwargs):
        super().handle_job_success(*args, **kwargs)
        note("succeeded", str(os.getpid()))


class OwnLoop(Worker):
    """Starts something before it works, and makes no scheduler."""

    def work(self, *args, **kwargs):
        note("works", self.name)
        kwargs["with_scheduler"] = False
        return super().work(*args, **kwargs)


class RunsInPlace(OwnLoop):
    """Runs jobs without a work horse, its own way."""

    def execute_job(self, job, queue):
        execution = self.prepare_execution(job)
        self.perform_job(job, queue, execution)
        self.set_state("idle")

    def get_heartbeat_ttl(self, job, working_time=0.0):
        return (job.timeout or 420) + 60

    def kill_horse(self, sig=signal.SIGKILL):
        pass


class TenantJob(Job):
    """Runs for a tenant, whose name is in its meta, with a prefix and a constructor of its own."""

    redis_job_namespace_prefix = "tenant:job:"

    def __init__(self, id=None, connection=None, serializer=None, *, tenant="none"):
        super().__init__(id, connection, serializer)
        self.tenant = tenant

    def perform(self):
        note("tenant", self.meta.get("tenant", self.tenant))
        return super().perform()


class TenantQueue(Queue):
    """Makes such jobs, whatever it is told."""

    redis_queue_namespace_prefix = "tenant:queue:"
    job_class = TenantJob

    def __init__(self, name="default", connection=None, **kwargs):
        kwargs["job_class"] = TenantJob
        super().__init__(name, connection=connection, **kwargs)


class TenantWorker(Worker):
    redis_worker_namespace_prefix = "tenant:worker:"
    redis_workers_keys = "tenant:workers"
