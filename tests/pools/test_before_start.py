"""The hook that runs once for each start, before any worker is forked."""

from __future__ import annotations

import os
import secrets
import signal
import sys

import pytest

from django_rq_pool.planning.phases import INFO
from harness import eventually, python_command

NOTES = """
@hooks.before_start
def enqueue():
    pool_jobs.note("trace", f"{os.getpid()} {os.getppid()}")
"""
FAILS_TWICE = """
@hooks.before_start
def first():
    pool_jobs.note("first")

@hooks.before_start
def wait_for_database():
    if pool_jobs.client().incr("tries") < 3:
        raise RuntimeError("no database yet")
"""
HANGS = """
@hooks.before_start
def wait_for_database():
    try:
        pool_jobs.note("begun", str(os.getpid()))
        pool_jobs.wait_for_file("open")
    finally:
        pool_jobs.note("left")
"""
DEAF = """
import signal, sys
@hooks.before_start
def wait_for_database():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    pool_jobs.note("begun", str(os.getpid()))
    pool_jobs.wait_for_file("open")
"""


@pytest.fixture
def start_with_hooks(start_with, tmp_path):
    """Starts a pool whose project has an app with the given module `rqpool`."""

    def start(source: str, *arguments: str, settings: str = "", **options):
        (tmp_path / "shelf").mkdir(exist_ok=True)
        head = "import os\nfrom django_rq_pool import hooks\nimport pool_jobs\n"
        return start_with(
            f"INSTALLED_APPS = [*INSTALLED_APPS, 'shelf']\n{settings}",
            *arguments,
            modules={"shelf/__init__": "", "shelf/rqpool": head + source},
            **options,
        )

    return start


def begun(valkey, times: int = 1) -> int:
    """Waits until a hook has said that it runs; returns its process."""
    eventually(lambda: valkey.llen("begun") == times)
    return int(valkey.lindex("begun", times - 1))


def test_it_runs_once_in_a_process_of_its_own_before_the_first_fork(start_with_hooks, valkey):
    pool = start_with_hooks(NOTES, "high=2", "low=1").expect_ready(3)
    [noted] = [note.decode().split() for note in valkey.lrange("trace", 0, -1)]
    assert int(noted[1]) == pool.manager_pid
    assert int(noted[0]) not in [pool.manager_pid, *pool.worker_pids()]
    finished = pool.text().index("before_start: shelf.rqpool.enqueue finished after")
    assert finished < pool.text().index("forked")
    os.kill(pool.worker_pids()[0], signal.SIGKILL)
    pool.expect_ready(4)
    pool.send(signal.SIGHUP).expect_ready(4 + 3)
    assert valkey.llen("trace") == 1
    assert pool.stop() == 0


def test_it_is_tried_again_until_it_succeeds_and_those_before_it_are_not(
    start_with_hooks, valkey, enqueue
):
    job = enqueue("high", "note", "trace")
    pool = start_with_hooks(FAILS_TWICE, "high=1")
    log = pool.until("before_start: .*wait_for_database finished")
    assert log.count("Traceback") == 1
    assert log.count("has failed: Traceback") == 1
    assert "has failed 2 times, last with RuntimeError: no database yet; is tried again in" in log
    assert "forked" not in log
    eventually(lambda: job.is_finished)
    assert valkey.llen("first") == 1
    assert int(valkey.get("tries")) == 3
    assert pool.stop() == 0


@pytest.mark.parametrize(
    ("ending", "cause"),
    [
        ("os._exit(0)", "its process ended with exit code 0"),
        ("os.kill(os.getpid(), 11)", "its process ended with SIGSEGV"),
        ("raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_only_a_hook_that_returns_has_finished(start_with_hooks, ending, cause):
    pool = start_with_hooks(f"@hooks.before_start\ndef ends():\n    {ending}\n", "high=1")
    pool.expect(rf"before_start: shelf\.rqpool\.ends has failed 2 times, last with {cause}")
    assert "forked" not in pool.text()
    assert pool.stop() == 0


@pytest.mark.parametrize("stop", [signal.SIGQUIT, signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_it_and_it_may_clean_up(start_with_hooks, valkey, stop):
    pool = start_with_hooks(HANGS, "high=1")
    begun(valkey)
    assert pool.stop(stop) == 0
    assert valkey.llen("left") == 1
    assert "forked" not in pool.text()
    assert pool.processes() == []


DELETES = """
class Deleted:
    def __del__(self):
        os.kill(os.getpid(), 15)

@hooks.before_start
def wait_for_database():
    Deleted()
    pool_jobs.wait_for_file("open")
"""


def test_a_stop_that_comes_while_an_object_is_deleted_is_not_lost(start_with_hooks):
    # Python ignores what is raised there.
    pool = start_with_hooks(DELETES, "high=1")
    pool.expect("has failed 1 time, last with its process ended with exit code 143")
    assert pool.stop() == 0


GRACE_IS_SHORT = "from django_rq_pool.startup import run\nrun.IMMEDIATE_STOP_GRACE = 0.3"


def test_one_that_does_not_hear_is_killed(start_with_hooks, valkey):
    pool = start_with_hooks(DEAF, "high=1", settings=GRACE_IS_SHORT)
    begun(valkey)
    assert pool.stop(signal.SIGTERM) == 0
    assert pool.found(r"before_start: shelf\.rqpool\.wait_for_database did not stop, killing it")
    assert pool.processes() == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a child of it")
def test_it_ends_with_a_manager_that_is_killed(start_with_hooks, valkey):
    pool = start_with_hooks(HANGS, "high=1")
    begun(valkey)
    pool.send(signal.SIGKILL)
    pool.wait()
    eventually(lambda: not pool.processes())
    assert valkey.llen("left") == 1


TOLD_SOON = "from django_rq_pool.planning import start_hooks\nstart_hooks.TOLD_AFTER = 0.2"


def test_one_that_hangs_is_told_with_its_place_and_shown_by_the_report(start_with_hooks, valkey):
    pool = start_with_hooks(HANGS, "high=1", settings=TOLD_SOON)
    pid = begun(valkey)
    line = (
        rf"before_start: \S+wait_for_database runs for \d+ s in process {pid}, now in wait_for_file"
    )
    pool.expect(rf"WARNING {line}")
    pool.send(INFO).expect(rf"INFO   {line}, \S+pool_jobs\.py line \d+$")
    (pool.cwd / "open").touch()
    pool.expect_ready(1)
    assert pool.stop() == 0


def test_signals_that_ask_for_something_else_leave_it_alone(start_with_hooks, valkey):
    pool = start_with_hooks(HANGS, "high=1")
    pid = begun(valkey)
    for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, 29):
        os.kill(pid, signum)
        pool.send(signum)
    pool.expect("signal USR2").extend(pool.expect("signal HUP"))
    (pool.cwd / "open").touch()
    pool.expect("before_start: .* finished after")
    pool.expect_ready(1)
    assert valkey.llen("begun") == 1
    assert pool.stop() == 0


def test_a_burst_waits_for_it(start_with_hooks, enqueue, valkey):
    job = enqueue("high", "note", "ran")
    pool = start_with_hooks(FAILS_TWICE, "--burst", "high=1")
    assert pool.wait() == 0
    assert job.is_finished
    assert int(valkey.get("tries")) == 3


FROM_PYTHON = """
import os, sys
import django

django.setup()

import pool_jobs
from django_rq_pool import hooks, run_pool

@hooks.before_start
def enqueue():
    pool_jobs.note("trace", str(os.getppid()))

sys.exit(run_pool({"high": 1}, name="script"))
"""


def test_it_runs_in_a_pool_that_a_script_runs(start_pool, valkey):
    pool = start_pool(command=python_command("-c", FROM_PYTHON)).expect_ready(1)
    assert [int(pid) for pid in valkey.lrange("trace", 0, -1)] == [pool.manager_pid]
    assert pool.stop() == 0


def test_without_a_hook_nothing_is_forked_for_it(start_pool):
    pool = start_pool("high=1").expect_ready(1)
    assert "before_start" not in pool.text()
    assert len(pool.manager.children()) == 1
    assert pool.stop() == 0


def test_a_hook_may_use_the_database(start_shop):
    pool = start_shop(
        {},
        "high=1",
        rqpool="from django.core.management import call_command\n"
        "Order.objects.all\n"
        "connection.ensure_connection()\n"
        "@hooks.before_start\n"
        "def prepare():\n"
        "    call_command('migrate', verbosity=0)\n"
        "    Order.objects.create(number=7)\n"
        "    pool_jobs.note('orders', str(Order.objects.count()))\n",
    ).expect_ready(1)
    assert pool.found("before_start: shelf.rqpool.prepare finished")
    assert pool.stop() == 0


@pytest.fixture
def name() -> str:
    return f"start-{secrets.token_hex(4)}"


def test_a_swap_runs_it_in_the_new_pool_only_and_before_the_old_one_is_asked(
    start_with_hooks, valkey, name
):
    old = start_with_hooks(NOTES, "high=1", "--name", name).expect_ready(1)
    new = start_with_hooks(NOTES, "high=1", "--name", name, "--hot-swap").expect_ready(1)
    assert old.wait() == 0
    notes = [note.decode().split() for note in valkey.lrange("trace", 0, -1)]
    assert [int(manager) for _, manager in notes] == [old.manager_pid, new.manager_pid]
    assert new.text().index("finished after") < new.text().index("is asked to leave")
    assert new.stop() == 0


def test_a_swap_whose_hook_does_not_succeed_in_time_fails_with_the_reason_and_changes_nothing(
    start_with_hooks, valkey, name
):
    old = start_with_hooks(NOTES, "high=1", "--name", name).expect_ready(1)
    before = old.worker_pids()
    source = "@hooks.before_start\ndef wait():\n    raise RuntimeError('no database')\n"
    arguments = ["--daemon", "--hot-swap", "--swap-timeout", "1.5", "--name", name]
    new = start_with_hooks(source, "high=1", *arguments)
    assert new.wait() == 1
    assert (
        new.text()
        .splitlines()[-1]
        .startswith("The pool was not ready in time: before_start: shelf.rqpool.wait has failed ")
    )
    assert "last with RuntimeError: no database" in new.text().splitlines()[-1]
    eventually(lambda: not new.processes())
    assert old.worker_pids() == before
    assert "signal" not in old.text()
    assert valkey.llen("trace") == 1
    assert old.stop() == 0


def test_a_swap_that_fails_later_does_not_have_the_old_pool_run_it_again(
    start_with_hooks, valkey, name
):
    old = start_with_hooks(NOTES, "high=1", "--name", name).expect_ready(1)
    yaml = "high: {workers: 1, worker_class: pool_jobs.FailsToBoot}"
    new = start_with_hooks(NOTES, "--hot-swap", "--name", name, yaml=yaml)
    assert new.wait() == 1
    managers = [int(note.decode().split()[1]) for note in valkey.lrange("trace", 0, -1)]
    assert managers == [old.manager_pid, new.manager_pid]
    assert len(old.workers()) == 1
    assert old.stop() == 0
