"""Which processes of a job stay when it has ended, and when its pool has."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from rq import Queue, Worker
from rq.command import send_kill_horse_command, send_stop_job_command
from rq.job import Job

from harness import Pool, eventually, python_command

GROUP, OWN_GROUP, ORPHANED, OWN_SESSION = (
    "group",
    "own group",
    "own group, orphaned",
    "own session",
)
WORKER, SIMPLE = "rq.Worker", "rq.SimpleWorker"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only on Linux does the manager adopt orphans"
)


class Family:
    """What `job_processes.make_family` has made."""

    def __init__(self, valkey) -> None:
        kinds = (GROUP, OWN_GROUP, ORPHANED, OWN_SESSION)
        self._made = {kind: psutil.Process(int(valkey.blpop([kind], 60)[1])) for kind in kinds}

    def alive(self) -> set[str]:
        return {kind for kind, process in self._made.items() if _is_alive(process)}


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def start(start_pool, start_patient):
    """Starts a pool of one worker; one whose worker cannot end its job itself is not patient."""

    def start(worker_class: str, *arguments: str, **env: str) -> Pool:
        yaml = f"high: {{workers: 1, worker_class: {worker_class}}}"
        start = start_patient if worker_class == WORKER else start_pool
        return start(*arguments, yaml=yaml, env=env).expect_ready(1)

    return start


def worker_of(pool: Pool) -> int:
    return int(pool.expect(r"worker (\d+) of high forked")[-1][1])


def hold(valkey, **options) -> tuple[Job, Family]:
    """A job that runs, and has made a family."""
    queue = Queue("high", connection=valkey)
    job = queue.enqueue("job_processes.make_family_and_hold", "gate", **options)
    return job, Family(valkey)


def finished(valkey) -> Family:
    """What a job has made that has finished."""
    job = Queue("high", connection=valkey).enqueue("job_processes.make_family")
    eventually(lambda: job.is_finished)
    return Family(valkey)


# At the end of a pool


@pytest.mark.parametrize("worker_class", [WORKER, SIMPLE])
@pytest.mark.parametrize("env", [{}, {"TERM_CHILD": "1"}], ids=["", "TERM_CHILD"])
def test_term_leaves_nothing_but_what_has_a_session_of_its_own(start, valkey, worker_class, env):
    pool = start(worker_class, **env)
    _, family = hold(valkey)
    assert pool.stop(signal.SIGTERM) == 0
    assert family.alive() == {OWN_SESSION}


@pytest.mark.parametrize("worker_class", [WORKER, SIMPLE])
@pytest.mark.parametrize("arguments", [[], ["--single-process-group"]], ids=["", "one group"])
def test_term_leaves_nothing_of_jobs_that_have_finished_either(
    start, valkey, worker_class, arguments
):
    pool = start(worker_class, *arguments)
    family = finished(valkey)
    assert family.alive() == {GROUP, OWN_GROUP, ORPHANED, OWN_SESSION}
    assert pool.stop(signal.SIGTERM) == 0
    assert pool.found("killing what jobs have left running")
    assert family.alive() == {OWN_SESSION}


WITH_CHILD = """
import subprocess, sys
import django
django.setup()
from django_rq_pool import run_pool
child = subprocess.Popen(["sh", "-c", "sleep 600 & echo $! > grandchild; echo; wait"], stdout=-1)
child.stdout.readline()
print("child", child.pid, flush=True)
sys.exit(run_pool({"high": 1}, name="guest"))
"""


def test_term_leaves_alone_what_was_there_before_the_pool(start_pool, valkey):
    pool = start_pool(command=python_command("-c", WITH_CHILD)).expect_ready(1)
    family = finished(valkey)
    own = [int(pool.expect(r"^child (\d+)$")[0][1]), int((pool.cwd / "grandchild").read_text())]
    assert pool.stop(signal.SIGTERM) == 0
    assert all(_is_alive(psutil.Process(pid)) for pid in own)
    assert family.alive() == {OWN_SESSION}


@pytest.mark.parametrize("worker_class", [WORKER, SIMPLE])
def test_a_graceful_stop_leaves_what_jobs_have_left_running(start, valkey, worker_class):
    pool = start(worker_class)
    family = finished(valkey)
    assert pool.stop(signal.SIGQUIT) == 0
    assert family.alive() == {GROUP, OWN_GROUP, ORPHANED, OWN_SESSION}


# At the end of a job


def usr1(pool, job, valkey) -> None:
    pool.send(signal.SIGUSR1)


def worker_int(pool, job, valkey) -> None:
    os.kill(worker_of(pool), signal.SIGINT)


def stop_job(pool, job, valkey) -> None:
    send_stop_job_command(valkey, job.id)


def kill_horse(pool, job, valkey) -> None:
    [worker] = Worker.all(connection=valkey)
    send_kill_horse_command(valkey, worker.name)


def time_limit(pool, job, valkey) -> None:
    """Comes by itself."""


@pytest.mark.parametrize("end", [usr1, worker_int, stop_job, kill_horse, time_limit])
@pytest.mark.parametrize("env", [{}, {"TERM_CHILD": "1"}], ids=["", "TERM_CHILD"])
def test_the_end_of_a_job_that_is_cut_short_ends_its_family(start, valkey, end, env):
    pool = start(WORKER, **env)
    job, family = hold(valkey, job_timeout=5 if end is time_limit else 180)
    end(pool, job, valkey)
    eventually(lambda: job.is_failed or job.is_stopped)
    eventually(lambda: family.alive() == {ORPHANED, OWN_SESSION})
    assert pool.stop(signal.SIGTERM) == 0
    assert family.alive() == {OWN_SESSION}


def test_at_its_time_limit_a_job_leaves_nothing_in_shared_memory(start, valkey):
    pool = start(WORKER)
    job = Queue("high", connection=valkey).enqueue(
        "job_processes.share_memory_and_hold", "gate", job_timeout=2
    )
    memory = Path("/dev/shm", valkey.blpop(["shared"], 60)[1].decode())  # noqa: S108
    sleeper = psutil.Process(int(valkey.blpop(["group"], 60)[1]))
    assert memory.exists()
    eventually(lambda: job.is_failed)
    eventually(lambda: not memory.exists())
    eventually(lambda: not _is_alive(sleeper))
    assert pool.stop() == 0


def test_a_simple_worker_that_is_killed_takes_the_group_of_its_job_with_it(start, valkey):
    pool = start(SIMPLE)
    _, family = hold(valkey)
    os.kill(worker_of(pool), signal.SIGKILL)
    eventually(lambda: family.alive() == {OWN_GROUP, ORPHANED, OWN_SESSION})
    pool.expect_ready(2)
    assert pool.stop(signal.SIGTERM) == 0
    assert family.alive() == {OWN_SESSION}
