"""The project's hooks, in an app's module `rqpool`."""

from __future__ import annotations

import os
import signal

import pytest
from rq import Worker

from harness import eventually


@pytest.fixture
def start_with_hooks(start_with, tmp_path):
    """Starts a pool whose project has an app with the given module `rqpool`."""

    def start(source: str, *arguments: str, **options):
        (tmp_path / "shelf").mkdir()
        head = "import os\nfrom django_rq_pool import hooks\nimport pool_jobs\n"
        return start_with(
            "INSTALLED_APPS = [*INSTALLED_APPS, 'shelf']",
            *arguments,
            modules={"shelf/__init__": "", "shelf/rqpool": head + source},
            **options,
        )

    return start


def test_after_prefork_runs_in_each_worker_before_its_first_job(start_with_hooks, enqueue, valkey):
    jobs = [enqueue("high", "note", "trace", "job") for _ in range(4)]
    pool = start_with_hooks(
        "@hooks.after_prefork\n"
        "def tell(worker):\n"
        "    assert worker.pid == os.getpid()\n"
        "    pool_jobs.note('trace', worker.name)\n",
        "high=2",
    ).expect_ready(2)
    eventually(lambda: all(job.is_finished for job in jobs))
    trace = [word.decode() for word in valkey.lrange("trace", 0, -1)]
    names = {worker.name for worker in Worker.all(connection=valkey)}
    assert set(trace) == {*names, "job"}
    assert trace[0] in names
    assert len(trace) == 6
    assert pool.stop() == 0


def test_after_spawn_and_before_fork_run_in_the_manager_around_each_fork(start_with_hooks, valkey):
    pool = start_with_hooks(
        "@hooks.before_fork\n"
        "def before():\n"
        "    pool_jobs.note('trace', f'before in {os.getpid()}')\n"
        "@hooks.after_spawn\n"
        "def after(record, pid, roster):\n"
        "    assert record.pid == pid and pid in roster\n"
        "    pool_jobs.note('trace', f'{record.group}.{record.number} in {os.getpid()}')\n",
        "high=1",
        "low=1",
    ).expect_ready(2)
    here = f"in {pool.manager_pid}"
    trace = [word.decode() for word in valkey.lrange("trace", 0, -1)]
    assert trace == [f"before {here}", f"high.1 {here}", f"before {here}", f"low.1 {here}"]
    assert pool.stop() == 0


def test_a_hook_that_raises_in_a_worker_is_a_boot_failure_told_in_full_once(start_with_hooks):
    pool = start_with_hooks(
        "@hooks.after_prefork\ndef fail(worker):\n    raise RuntimeError('no SDK today')\n",
        "high=2",
    )
    pool.expect("group high: exit code 1; next fork in", 3)
    assert len(pool.found("Traceback")) == 1
    assert pool.found("again RuntimeError: no SDK today")
    assert pool.stop() == 0


@pytest.mark.parametrize("error", ["RuntimeError('it fails')", "SystemExit('it fails')"])
@pytest.mark.parametrize("moment", ["before_fork", "after_spawn", "siginfo"])
def test_a_hook_that_raises_in_the_manager_is_logged_and_the_pool_lives_on(
    start_with_hooks, enqueue, moment, error
):
    pool = start_with_hooks(
        f"@hooks.{moment}\ndef fail(*arguments):\n    raise {error}\n", "high=1"
    ).expect_ready(1)
    pool.send(29)
    pool.expect(rf"{moment}: the hook shelf\.rqpool\.fail failed")
    assert pool.found(r"^\w+: it fails")
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


def test_a_module_of_hooks_that_does_not_import_stops_the_start(start_with_hooks):
    pool = start_with_hooks("import no_such_module\n", "high=1")
    assert pool.wait() == 1
    assert "No module named 'no_such_module'" in pool.text()
    assert "forked" not in pool.text()


def test_hooks_run_for_the_successor_of_a_dead_worker_too(start_with_hooks, valkey):
    pool = start_with_hooks(
        "@hooks.after_prefork\ndef tell(worker):\n    pool_jobs.note('trace')\n", "high=1"
    ).expect_ready(1)
    os.kill(pool.worker_pids()[0], signal.SIGKILL)
    pool.expect_ready(2)
    assert valkey.llen("trace") == 2
    assert pool.stop() == 0


def test_a_hook_that_cannot_reach_a_server_of_its_own_is_a_boot_failure(start_with_hooks):
    pool = start_with_hooks(
        "import redis\n"
        "@hooks.after_prefork\n"
        "def connect(worker):\n"
        "    redis.Redis(port=1).ping()\n",
        "high=1",
    )
    pool.expect("an after_prefork hook cannot reach its server")
    pool.expect("next fork in", 2)
    assert pool.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGTERM])
def test_what_a_worker_registers_with_atexit_runs_when_it_leaves_and_what_the_manager_has_does_not(
    start_with_hooks, valkey, signum
):
    pool = start_with_hooks(
        "import atexit\n"
        "atexit.register(lambda: pool_jobs.note('trace', f'module in {os.getpid()}'))\n"
        "@hooks.after_prefork\n"
        "def connect(worker):\n"
        "    atexit.register(pool_jobs.note, 'trace', f'hook in {worker.pid}')\n",
        "high=2",
    ).expect_ready(2)
    manager, workers = pool.manager_pid, pool.worker_pids()
    assert pool.stop(signum) == 0
    trace = [word.decode() for word in valkey.lrange("trace", 0, -1)]
    *of_workers, last = trace
    assert sorted(of_workers) == sorted(f"hook in {pid}" for pid in workers)
    assert last == f"module in {manager}"
