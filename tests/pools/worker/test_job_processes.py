"""What a job forks or starts can be ended like any process, in every way that projects do it."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from rq import Queue
from rq.job import JobStatus

from django_rq_pool.config.stop_policy import INFO
from harness import eventually

WORKERS = {"worker": "rq.Worker", "simple worker": "rq.SimpleWorker"}
TERM, BROKEN = -signal.SIGTERM, "BrokenProcessPool"

WAYS = {
    "a process": ("process_at_work", "fork", TERM),
    "a spawned process": ("process_at_work", "spawn", TERM),
    "a process of a server": ("process_at_work", "forkserver", TERM),
    "processes that have just been forked": ("process_at_once", "fork", TERM),
    "processes that have just been spawned": ("process_at_once", "spawn", TERM),
    "a pool": ("pool", "fork", None),
    "a pool of spawned processes": ("pool", "spawn", None),
    "a pool of a server": ("pool", "forkserver", None),
    "an executor": ("executor", "fork", BROKEN),
    "an executor of spawned processes": ("executor", "spawn", BROKEN),
    "an executor of a server": ("executor", "forkserver", BROKEN),
    "a program": ("program", TERM),
    "a program after a function": ("program_after_preparation", TERM),
    "a fork": ("fork", TERM),
    "joblib": ("parallel", 20),
}


@pytest.fixture(params=WORKERS)
def yaml(request) -> str:
    return f"high: {{workers: 1, worker_class: {WORKERS[request.param]}}}"


@pytest.fixture(params=[None, "1"], ids=["", "TERM_CHILD"])
def env(request) -> dict[str, str]:
    return {} if request.param is None else {"TERM_CHILD": request.param}


def test_whatever_a_job_makes_it_can_end(start_pool, valkey, yaml, env):
    pool = start_pool(yaml=yaml, env=env).expect_ready(1)
    queue = Queue("high", connection=valkey)
    jobs = {
        name: queue.enqueue(f"job_processes.{function}", *arguments, job_timeout=60)
        for name, (function, *arguments, _) in WAYS.items()
    }
    for job in jobs.values():
        eventually(lambda job=job: job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED), 120)
    ended = {name: job.return_value() for name, job in jobs.items()}
    assert ended == {name: way[-1] for name, way in WAYS.items()}
    assert len(pool.found("forked")) == 1
    assert pool.stop() == 0
    eventually(lambda: pool.processes() == [])


def test_what_a_job_forks_finds_the_actions_of_a_new_python(start_pool, valkey, yaml, env):
    pool = start_pool(yaml=yaml, env=env).expect_ready(1)
    job = Queue("high", connection=valkey).enqueue("job_processes.child_actions")
    eventually(lambda: job.is_finished)
    assert job.return_value() == ["-1"]
    assert pool.stop() == 0


def test_a_process_that_a_job_has_made_a_daemon_goes_on_until_it_is_told(
    start_pool, valkey, yaml, env
):
    pool = start_pool(yaml=yaml, env=env).expect_ready(1)
    job = Queue("high", connection=valkey).enqueue("job_processes.daemonise", "daemon")
    eventually(lambda: job.is_finished)
    daemon = psutil.Process(int(valkey.blpop(["daemon"], 60)[1]))
    assert pool.stop(signal.SIGTERM) == 0
    assert pool.processes() == [daemon]
    os.kill(daemon.pid, signal.SIGTERM)
    eventually(lambda: pool.processes() == [])


HOOKS = """
from django_rq_pool import hooks
from pool_jobs import note
import job_processes

def tell(moment):
    note("told", moment + " " + " ".join(job_processes.child_actions()))

hooks.before_fork(lambda: tell("before_fork"))
hooks.after_prefork(lambda worker: tell("after_prefork"))
hooks.siginfo(lambda roster: tell("siginfo"))

def load(environment):
    tell("load")
    return {"high": 1}
"""


def test_what_a_hook_or_a_loader_forks_finds_them_too(start_with, valkey, tmp_path):
    (tmp_path / "shelf").mkdir()
    pool = start_with(
        "INSTALLED_APPS = [*INSTALLED_APPS, 'shelf']\nRQ_POOL = 'shelf.rqpool.load'",
        modules={"shelf/__init__": "", "shelf/rqpool": HOOKS},
    ).expect_ready(1)
    pool.send(INFO)
    moments = {"before_fork", "after_prefork", "siginfo", "load"}

    def told() -> set[str]:
        return {each.decode() for each in valkey.lrange("told", 0, -1)}

    eventually(lambda: {each.split()[0] for each in told()} == moments)
    assert told() == {f"{moment} -1" for moment in moments}
    assert pool.stop() == 0
