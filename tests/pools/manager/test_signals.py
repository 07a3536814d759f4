"""Signals to the manager that do not stop it, and any signal at any moment."""

from __future__ import annotations

import os
import random
import re
import signal

import pytest
from rq import Worker
from rq.job import JobStatus

from django_rq_pool.config.stop_policy import STOP_SIGNALS
from django_rq_pool.planning.phases import INFO, OTHER_SIGNALS
from harness import eventually


def states(valkey) -> list[str]:
    return [worker.get_state() for worker in Worker.all(connection=valkey)]


def running(valkey, times=1):
    eventually(lambda: valkey.llen("gate:running") >= times)


def test_usr1_ends_every_running_job_and_the_workers_go_on(start_pool, enqueue, valkey):
    pool = start_pool("high=2", "low=1").expect_ready(3)
    before = pool.worker_pids()
    held = [enqueue(queue, "hold", "gate") for queue in ("high", "low")]
    running(valkey, 2)

    pool.send(signal.SIGUSR1)
    eventually(lambda: all(job.is_failed for job in held))
    job = enqueue("low", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.worker_pids() == before
    assert pool.stop() == 0


def test_a_pause_holds_every_worker_and_survives_their_deaths_until_cont(
    start_pool, enqueue, valkey
):
    pool = start_pool("high,default=2", "low=1").expect_ready(3)
    pool.send(signal.SIGUSR2)
    eventually(lambda: states(valkey) == ["suspended"] * 3)
    jobs = [enqueue(queue, "note", "trace") for queue in ("high", "low")]

    for pid in pool.worker_pids():
        os.kill(pid, signal.SIGKILL)
    pool.expect_ready(6)
    eventually(lambda: states(valkey) == ["suspended"] * 3)
    assert [job.get_status() for job in jobs] == [JobStatus.QUEUED] * 2
    pool.send(signal.SIGCONT)
    eventually(lambda: all(job.is_finished for job in jobs))
    assert pool.stop() == 0


def test_a_pause_survives_a_reload(start_pool, enqueue, valkey):
    pool = start_pool("high=2").expect_ready(2)
    pool.send(signal.SIGUSR2).send(signal.SIGHUP)
    pool.expect_ready(4)
    job = enqueue("high", "note", "trace")
    eventually(lambda: states(valkey) == ["suspended"] * 2)
    assert job.get_status() == JobStatus.QUEUED
    pool.send(signal.SIGCONT)
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


def test_info_reports_every_group_and_worker_and_runs_the_projects_hook(
    start_with, enqueue, valkey, tmp_path
):
    (tmp_path / "shelf").mkdir()
    hook = (
        "from django_rq_pool.hooks import siginfo\n"
        "@siginfo\n"
        "def tell(roster):\n"
        "    print(f'the roster has {len(roster)} workers', flush=True)\n"
    )
    modules = {"shelf/__init__": "", "shelf/rqpool": hook}
    pool = start_with(
        "INSTALLED_APPS = [*INSTALLED_APPS, 'shelf']", "high,default=2", "low=1", modules=modules
    ).expect_ready(3)
    job = enqueue("low", "hold", "gate")
    running(valkey)

    pool.send(INFO)
    pool.expect("the roster has 3 workers")
    report = pool.text().partition("reporting")[2]
    assert re.search(r"manager \d+ of pool own_settings: running, (\d+ min )?\d+ s old", report)
    assert "high,default: 2 wanted, 2 ready, 0 stopping" in report
    assert "low: 1 wanted, 1 ready, 0 stopping" in report
    assert len(re.findall(r"high,default\.\d-\w+: idle, \d+ s old, \d+\.\d MB", report)) == 2
    assert re.search(rf"low\.1-\w+: busy with job {job.id}, \d+ s old, \d+\.\d MB", report)
    assert pool.stop(signal.SIGTERM) == 0


def test_winch_changes_nothing_in_the_foreground(start_pool):
    pool = start_pool("high=1").expect_ready(1)
    before = pool.worker_pids()
    pool.send(signal.SIGWINCH)
    pool.expect("signal WINCH changes nothing: running")
    assert pool.worker_pids() == before
    assert pool.stop() == 0


# At any moment

WAITS = """
import os, select
open("loading", "w").close()
while not os.path.exists("go on"):
    select.select([], [], [], 0.01)
"""


@pytest.fixture
def loading(start_with):
    """A pool whose manager is just importing the project's modules."""
    pool = start_with("RQ_POOL_PRELOAD = ['waits']", "high=1", modules={"waits": WAITS})
    eventually((pool.cwd / "loading").exists)
    return pool


def test_no_signal_that_asks_for_something_else_ends_a_pool_that_is_starting(loading):
    for signum in OTHER_SIGNALS:
        loading.process.send_signal(signum)
    (loading.cwd / "go on").touch()
    loading.expect("signal HUP: reloading")
    loading.expect("signal USR2: forwarded")
    loading.expect_ready(1)
    assert loading.stop() == 0


@pytest.mark.parametrize("stop", STOP_SIGNALS)
def test_a_stop_ends_a_pool_that_is_starting_at_once(loading, stop):
    loading.process.send_signal(stop)
    assert loading.wait() == 128 + stop
    assert "forked" not in loading.text()


def begin_nothing(pool):
    """Leaves the pool running."""


def begin_reload(pool):
    pool.send(signal.SIGHUP)


def begin_quit(pool):
    pool.send(signal.SIGQUIT)


@pytest.mark.parametrize("begin", [begin_nothing, begin_reload, begin_quit])
@pytest.mark.parametrize("stop", STOP_SIGNALS)
def test_every_other_signal_followed_by_a_stop_ends_in_that_stop(
    start_pool, enqueue, valkey, begin, stop
):
    pool = start_pool("high=2", "low=1").expect_ready(3)
    job = enqueue("low", "hold", "gate")
    running(valkey)
    begin(pool)
    for signum in OTHER_SIGNALS:
        if signum != signal.SIGUSR1:  # which would end the job
            pool.send(signum)
    pool.send(stop)

    if stop == signal.SIGQUIT:
        pool.expect("signal QUIT")
        valkey.rpush("gate:open", 1)
    assert pool.wait() == 0
    if stop == signal.SIGINT:
        assert job.get_status() == JobStatus.STARTED
        valkey.rpush("gate:open", 1)
    eventually(lambda: not pool.processes())
    assert job.is_failed if stop == signal.SIGTERM else job.is_finished


def test_a_thousand_signals_under_load_cost_no_job_and_no_worker(start_pool, enqueue, valkey):
    pool = start_pool("high=2", "high,default=2").expect_ready(4)
    manager = pool.manager_pid
    chance = random.Random(4)
    jobs = []
    # USR1 ends running jobs, which then count as failed: that is what it is for.
    signals = [signum for signum in OTHER_SIGNALS if signum != signal.SIGUSR1]
    for number in range(1_000):
        pool.send(chance.choice(signals))
        if number % 5 == 0:
            jobs.append(enqueue(chance.choice(["high", "default"]), "short"))
    pool.send(signal.SIGCONT)

    eventually(lambda: all(job.is_finished for job in jobs), 120)
    done = [job_id.decode() for job_id in valkey.lrange("done", 0, -1)]
    assert sorted(done) == sorted(job.id for job in jobs)
    assert pool.manager_pid == manager
    eventually(lambda: len(Worker.all(connection=valkey)) == len(pool.workers()) == 4)
    assert pool.stop() == 0
