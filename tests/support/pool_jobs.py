"""Jobs and worker classes that only the tests use; on the path of the pools that they start."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import redis
from rq import SimpleWorker, Worker
from rq.job import Job

THE_CAUSE = "this worker class raises at boot"


def client() -> redis.Redis:
    return redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=None)


def hold(gate: str) -> str:
    """Says that it runs, then waits until the test opens its gate."""
    connection = client()
    connection.rpush(f"{gate}:running", os.getpid())
    connection.blpop([f"{gate}:open"], 60)
    connection.rpush(f"{gate}:done", os.getpid())
    return gate


def hold_with_child(gate: str) -> None:
    """Holds while a process of its own runs too."""
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    client().rpush(f"{gate}:child", child.pid)
    hold(gate)


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def note(key: str, value: str = "") -> str:
    """Leaves a trace in a list: what ran, in which order."""
    client().rpush(key, value)
    return value


def kill_own_worker() -> None:
    """Kills the worker that forked this horse; the horse lives on."""
    os.kill(os.getppid(), signal.SIGKILL)
    client().rpush("orphaned", os.getpid())
    client().blpop(["orphan:open"], 60)


def process_state(key: str) -> None:
    """Reports what the process of a job looks like."""
    note(key, f"{os.getpid()} {os.getppid()} {os.getpgrp()}")


def failed(job: Job, *exc_info: object) -> None:
    """A failure callback that leaves a trace."""
    client().rpush("failed", job.id)


def wait_for_file(path: str) -> None:
    """Waits for a sign that does not come through Redis."""
    while not Path(path).exists():
        select.select([], [], [], 0.01)


def handle(job: Job, *exc_info: object) -> None:
    """An exception handler that leaves a trace."""
    note("handled", job.id)


def crash() -> None:
    """Ends the process without a word, as a segmentation fault in a library does."""
    os.kill(os.getpid(), signal.SIGSEGV)


class CustomJob(Job):
    pass


class CustomWorker(Worker):
    """A project's own worker class."""

    def execute_job(self, job, queue):
        self.connection.rpush("custom", job.id)
        super().execute_job(job, queue)


class InProcessWorker(SimpleWorker):
    """Runs jobs without a horse."""


class FailsToBoot(Worker):
    def __init__(self, *args, **kwargs):
        raise RuntimeError(THE_CAUSE)


class CrashesWhenReady(Worker):
    def run_maintenance_tasks(self):
        os.kill(os.getpid(), signal.SIGSEGV)
