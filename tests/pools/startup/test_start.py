"""Starting a pool: preloading, burst mode, the call from Python, PID 1."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess

import psutil
import pytest
from rq import Queue, Worker
from rq.job import JobStatus

from harness import DEADLINE, MANAGE, eventually, python_command

WHO_IMPORTED = """
import os
IMPORTER = os.getpid()

def tell(key):
    import pool_jobs
    pool_jobs.note(key, str(IMPORTER))
"""


@pytest.mark.parametrize(
    ("settings", "module"),
    [
        ("RQ_POOL_PRELOAD = ['heavy']", "heavy"),
        ("INSTALLED_APPS = [*INSTALLED_APPS, 'bakery']", "bakery.jobs"),
        ("INSTALLED_APPS = [*INSTALLED_APPS, 'bakery']", "bakery.tasks"),
    ],
)
def test_jobs_find_their_modules_imported_by_the_manager(
    start_with, valkey, tmp_path, settings, module
):
    (tmp_path / "bakery").mkdir()
    (tmp_path / "bakery" / "__init__.py").touch()
    modules = {module.replace(".", "/"): WHO_IMPORTED}
    pool = start_with(settings, "high=1", modules=modules).expect_ready(1)

    Queue("high", connection=valkey).enqueue(f"{module}.tell", "importer")
    assert int(valkey.blpop(["importer"], DEADLINE)[1]) == pool.manager_pid
    assert pool.stop() == 0


def test_a_module_that_does_not_import_stops_the_start_with_its_traceback(start_with):
    pool = start_with(
        "RQ_POOL_PRELOAD = ['broken']", "high=1", modules={"broken": "import no_such_module"}
    )
    assert pool.wait() == 1
    assert "RQ_POOL_PRELOAD: 'broken' cannot be imported" in pool.text()
    assert "Traceback" in pool.text()
    assert "No module named 'no_such_module'" in pool.text()
    assert "forked" not in pool.text()


def test_burst_runs_every_job_and_ends_with_status_0(start_pool, enqueue):
    jobs = [enqueue(queue, "note", "trace") for queue in ("high", "default", "low") * 5]
    pool = start_pool("--burst", "high=2", "default,low=1")
    assert pool.wait() == 0
    assert all(job.is_finished for job in jobs)
    assert len(pool.found("forked")) == 3


def test_burst_replaces_a_worker_that_is_killed_before_it_has_finished(start_pool, enqueue, valkey):
    job = enqueue("high", "kill_own_worker")
    later = enqueue("high", "note", "trace")
    pool = start_pool("--burst", "high=1")
    valkey.blpop(["orphaned"], DEADLINE)
    eventually(lambda: later.is_finished)
    valkey.rpush("orphan:open", 1)
    assert pool.wait() == 0
    assert job.get_status() == JobStatus.FINISHED


FROM_PYTHON = """
import sys
import django

django.setup()

from django_rq_pool import run_pool

sys.exit(run_pool({"high": 1, "low": {"workers": 1, "max_jobs": 5}}, name="script"))
"""


def test_the_pool_runs_from_a_script(start_pool, enqueue):
    pool = start_pool(command=python_command("-c", FROM_PYTHON)).expect_ready(2)
    job = enqueue("low", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.manager.cmdline()[0].startswith("rqpool-manager[script]")
    assert pool.stop(signal.SIGTERM) == 0


IN_A_THREAD = """
import threading
import django

django.setup()

from django_rq_pool import run_pool

def run():
    try:
        run_pool({"high": 1})
    except RuntimeError as error:
        print(error)

thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def test_a_pool_that_no_signal_would_reach_is_refused(start_pool):
    pool = start_pool(command=python_command("-c", IN_A_THREAD))
    assert pool.wait() == 0
    assert pool.text() == "run_pool: call it in the main thread, which handles signals.\n"


def test_the_package_can_be_imported_without_settings():
    code = "import django_rq_pool; print(django_rq_pool.__version__)"
    done = subprocess.run(
        python_command("-W", "error", "-c", code), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()


def test_the_check_option_prints_the_groups_and_starts_nothing(start_pool):
    pool = start_pool("--check", yaml='"high,default": {workers: 2, max_jobs: 9}\nlow: 1')
    assert pool.wait() == 0
    assert pool.found(r"^high,default +2 +high default +max_jobs=9$")
    assert pool.found(r"^low +1 +low +-$")
    assert "forked" not in pool.text()


@pytest.mark.parametrize(("verbosity", "lines"), [("0", False), ("1", True)])
def test_verbosity_is_djangos(start_pool, valkey, verbosity, lines):
    # Beside another pool of its name it would say so.
    pool = start_pool("high=1", "--verbosity", verbosity, "--name", f"verbosity-{os.getpid()}")
    eventually(lambda: len(Worker.all(connection=valkey)) == 1)
    pool.process.send_signal(signal.SIGQUIT)
    assert pool.wait() == 0
    assert bool(pool.text()) is lines


LOGGING = """
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "PROJECT %(levelname)s %(message)s"}},
    "handlers": {"file": {
        "class": "logging.FileHandler", "filename": "own.log", "formatter": "plain"
    }},
    "loggers": {"django_rq_pool": {"handlers": ["file"], "level": "WARNING"}},
}
"""


def test_the_projects_logging_wins(start_with):
    # A name of its own: beside another run's pool of its name, its first line would be about that.
    pool = start_with(LOGGING, "high=1", "--name", f"logs-{secrets.token_hex(4)}")
    pool.expect("started with PID")  # RQ's logger is not the project's, and goes to the console
    [worker] = [child.pid for child in psutil.Process(pool.process.pid).children()]
    os.kill(worker, signal.SIGKILL)
    own = pool.cwd / "own.log"
    eventually(lambda: own.read_text())
    assert own.read_text().startswith(f"PROJECT WARNING worker {worker} of high reaped: SIGKILL")
    assert not pool.found("forked|reaped")
    os.kill(pool.process.pid, signal.SIGQUIT)
    assert pool.wait() == 0


def can_make_a_pid_namespace() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*IN_A_CONTAINER, "true"], capture_output=True).returncode == 0


IN_A_CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def test_as_pid_1_the_manager_obeys_signals_and_reaps_orphans(start_pool, enqueue, valkey):
    if not can_make_a_pid_namespace():
        pytest.skip("this user cannot make a PID namespace with unshare")
    pool = start_pool(
        "high=1", command=[*IN_A_CONTAINER, *python_command(str(MANAGE), "rqpool")]
    ).expect_ready(1)
    assert pool.expect(r"manager (\d+) of pool shop started")[0][1] == "1"
    [manager] = [p for p in pool.processes() if "rqpool-manager" in " ".join(p.cmdline())]

    # Its parent has gone before it ends, so that it becomes a child of PID 1.
    orphan = "import os, time\nif os.fork(): os._exit(0)\n"
    job = Queue("high", connection=valkey).enqueue("pool_jobs.run_python", orphan)
    eventually(lambda: job.is_finished)
    eventually(lambda: [child.name() for child in manager.children()] != [])
    eventually(lambda: all(child.status() != "zombie" for child in manager.children()))
    manager.send_signal(signal.SIGTERM)
    assert pool.wait() == 0
