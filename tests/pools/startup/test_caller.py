"""A process that runs a pool and then goes on: it is as it was, and its children are its own."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from pathlib import Path

import psutil
import pytest

from harness import DEADLINE, eventually, python_command

pytestmark = pytest.mark.skipif(
    not Path("/proc/thread-self/children").exists(), reason="needs Linux's /proc"
)

PREPARED = """
import gc, os, signal, subprocess, sys
import django

django.setup()

from django.core.management import CommandError, call_command
from caller_state import children, differences, prepare, state
from django_rq_pool import StartError, run_pool

prepare()
name = os.environ["POOL_NAME"]
"""

COMPARED = """
before = state()
try:
    {run}
except BaseException as error:
    print(f"raised {{type(error).__name__}}: {{error}}")
finally:
    print("finally", os.getpid())
for difference in differences(before, state()):
    print("DIFFERENT", difference)
print("goes on", flush=True)
os._exit(7)
"""

FILES = "pidfile='own.pid', lock='own.lock', stdout='own.log', stderr='own.log'"
SWAPS = f"name=name, hot_swap=True, {FILES}"
"""As much as a command may do to its process."""


@pytest.fixture
def name() -> str:
    """A name that no other pool on this machine has."""
    return f"caller-{secrets.token_hex(4)}"


@pytest.fixture
def start_script(start_with, name):
    """Starts a script that runs a pool in its process and compares what it finds afterwards."""

    def start(run: str, *, prepared: str = "", settings: str = "", more=None, **options):
        script = PREPARED + prepared + COMPARED.format(run=run)
        command = python_command("-c", script)
        return start_with(
            settings, command=command, env={"POOL_NAME": name, **(more or {})}, **options
        )

    return start


def expect_as_it_was(script) -> None:
    """The script has gone on, once, and has found everything as it was."""
    assert script.wait() == 7, script.text()
    assert not script.found("^DIFFERENT"), script.text()
    assert len(script.found("^goes on$")) == 1
    [ended] = script.found(r"^finally (\d+)$")
    assert int(ended[1]) == script.process.pid


@pytest.mark.parametrize(
    "run",
    [
        "run_pool({'high': 2}, name=name)",
        "call_command('rqpool', 'high=2', name=name)",
        "call_command('rqpool', 'high=2', '--name', name, swap_step=True)",
        "run_pool({'high': {'workers': {'min': 2, 'max': 3}}}, name=name)",
    ],
)
@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGTERM])
def test_a_process_is_as_it_was_when_its_pool_has_ended(start_script, enqueue, run, signum):
    script = start_script(run).expect_ready(2)
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    script.send(signum)
    expect_as_it_was(script)


def test_its_streams_and_files_are_as_they_were(start_script):
    script = start_script(f"call_command('rqpool', 'high=1', {SWAPS})")
    log = script.cwd / "own.log"
    eventually(lambda: log.exists() and "ready" in log.read_text())
    assert (script.cwd / "own.pid").read_text().split() == [str(script.process.pid)]
    script.process.send_signal(signal.SIGQUIT)
    expect_as_it_was(script)
    assert not (script.cwd / "own.pid").exists()
    assert "finished" in log.read_text()
    assert "goes on" not in log.read_text()


@pytest.mark.parametrize(
    ("run", "settings", "error"),
    [
        ("run_pool({'high': -1}, name=name)", "", "CountsError: .*'high': -1 is not a count"),
        ("call_command('rqpool', 'hgh=1')", "", "CommandError: .*no queue 'hgh'"),
        ("run_pool({'high': 1}, preload=['nothing'], name=name)", "", "PreloadError"),
        (
            "run_pool({'high': 1}, strict_fork=True, name=name)",
            "import socket\nlistening = socket.create_server(('127.0.0.1', 0))",
            "ForkError: Socket",
        ),
        ("call_command('rqpool', 'high=1', pidfile='/dev/null')", "", "CommandError: pid file"),
        ("call_command('rqpool', 'high=1', stdout='/')", "", "CommandError: log file"),
    ],
)
def test_a_process_is_as_it_was_when_its_pool_cannot_be_started(start_script, run, settings, error):
    script = start_script(run, settings=settings)
    expect_as_it_was(script)
    assert script.found(f"^raised {error}")
    assert not script.found("forked")


def test_a_start_that_fails_later_is_an_error_of_call_command(start_script):
    script = start_script(
        "call_command('rqpool', 'high=1', name=name, hot_swap=True, no_pidfile=True)",
        settings="RQ_POOL_PRELOAD = ['failing']",
        modules={
            "failing": (
                "from django_rq_pool import hooks\n"
                "@hooks.after_prefork\n"
                "def fail(worker): raise ZeroDivisionError\n"
            ),
        },
    )
    expect_as_it_was(script)
    assert script.found("^raised CommandError: rqpool: the start has failed; the log says why.")


def test_a_signal_that_comes_before_the_pool_runs_leaves_the_process_as_it_was(start_script):
    script = start_script(
        "run_pool({'high': 1}, preload=['stopping'], name=name)",
        modules={"stopping": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)"},
    )
    expect_as_it_was(script)
    assert script.found(r"^raised Stopped: 143$")  # it is a SystemExit


@pytest.mark.parametrize(
    "run", ["run_pool({'high': 1})", "call_command('rqpool', 'high=1', daemon=True)"]
)
def test_a_transaction_of_the_caller_is_refused_in_words(start_script, run):
    script = start_script(
        f"with transaction.atomic(): {run}",
        prepared=(
            "from django.db import connection, transaction\nconnection.ensure_connection()\n"
        ),
    )
    assert script.wait() == 7
    assert script.found("^raised (Start|Command)Error: database 'default' is in a transaction, ")
    assert script.found("Start the pool outside of transaction.atomic")


def test_what_the_caller_had_frozen_and_turned_off_stays_so(start_script):
    script = start_script(
        "run_pool({'high': 1}, burst=True, name=name)", prepared="gc.disable()\ngc.freeze()\n"
    )
    expect_as_it_was(script)


def test_a_pool_may_run_twice_in_a_process(start_script, enqueue):
    jobs = [enqueue("high", "note", "trace") for _ in range(3)]
    run = "print('once', run_pool({'high': 1}, name=name, burst=True)); enqueue(); "
    run += "print('twice', run_pool({'high': 2}, name=name, burst=True))"
    script = start_script(
        run,
        prepared=(
            "import django_rq\n"
            "def enqueue(): django_rq.get_queue('high').enqueue('pool_jobs.note', 'trace')\n"
            "enqueue()\n"
            "django_rq.get_queue('high').connection.close()\n"
        ),
    )
    script.expect("^twice 0$")
    eventually(lambda: all(job.is_finished for job in jobs))
    assert len(script.found("^once 0$")) == 1
    expect_as_it_was(script)


def test_a_caller_is_found_by_its_title(start_script, start_pool, name):
    older = start_script("run_pool({'high': 1}, name=name)").expect_ready(1)
    newer = start_pool("high=1", "--hot-swap", "--name", name)
    newer.expect(rf"pool {name} of manager {older.process.pid} is asked to leave")
    expect_as_it_was(older)
    assert newer.stop() == 0


IN_AN_EMPTY_ENVIRONMENT = """
import os, sys

sys.path[:0] = {paths}
os.environ.update({environment})

import django

django.setup()

from django_rq_pool import run_pool

run_pool({{"high": 1}}, name="n" * 100, burst=True)
"""


@pytest.mark.parametrize(
    ("variables", "told"), [([], True), (["A=1"], True), ([f"A={'1' * 300}"], False)]
)
def test_a_process_whose_title_has_no_room_says_so(
    start_pool, pool_environment, tmp_path, variables, told
):
    script = IN_AN_EMPTY_ENVIRONMENT.format(
        paths=pool_environment["PYTHONPATH"].split(os.pathsep), environment=pool_environment
    )
    (tmp_path / "s.py").write_text(script)
    python = ["env", "-i", *variables, sys.executable, "../s.py"]
    pool = start_pool(command=python)
    assert pool.wait() == 0
    assert bool(pool.found("WARNING The process title has no room for")) is told


# Swaps and reloads


def test_a_pool_of_another_command_replaces_an_older_one_and_reloads(
    start_script, start_pool, name
):
    older = start_pool("high=1", "--name", name).expect_ready(1)
    script = start_script("call_command('rqpool', 'high=2', name=name, hot_swap=True)")
    script.expect_ready(2)
    script.expect(rf"pool {name} of manager {older.process.pid} is asked to leave")
    assert older.wait() == 0
    script.process.send_signal(signal.SIGHUP)
    script.expect_ready(4)
    script.process.send_signal(signal.SIGQUIT)
    expect_as_it_was(script)


LIVES_ON = """
import os, sys
import django

django.setup()

from django_rq_pool import run_pool

run_pool({"high": 1}, name=os.environ["POOL_NAME"])
os.mkfifo("hold")
print("goes on", flush=True)
open("hold").read()
"""


def test_a_pool_whose_process_goes_on_counts_as_gone(start_pool, name):
    command = python_command("-c", LIVES_ON)
    older = start_pool(command=command, env={"POOL_NAME": name}).expect_ready(1)
    newer = start_pool("high=1", "--name", name, "--hot-swap")
    older.expect("^goes on$")
    newer.expect(rf"pool {name} of manager {older.process.pid} has gone")
    assert older.process.poll() is None
    (older.cwd / "hold").write_text("enough")
    assert older.wait() == 0
    assert newer.stop() == 0


def test_a_daemon_that_a_command_starts_leaves_the_command_as_it_was(start_script):
    script = start_script(
        "call_command('rqpool', 'high=1', name=name, daemon=True, no_pidfile=True)"
    )
    expect_as_it_was(script)
    log = (script.cwd / "log" / "rqpool.stdout.log").read_text()
    assert "ready" in log
    assert "finally" not in log
    [manager] = [p for p in script.processes() if "rqpool-manager" in " ".join(p.cmdline())]
    manager.send_signal(signal.SIGQUIT)
    eventually(lambda: not script.processes())
    log = (script.cwd / "log" / "rqpool.stdout.log").read_text()
    assert "finished" in log
    assert "goes on" not in log


def test_a_daemon_does_not_say_goodbye_on_the_callers_connections(
    start_script, postgres_folder, name
):
    script = start_script(
        "call_command('rqpool', 'high=1', name=name, daemon=True, no_pidfile=True); "
        "print('orders', Order.objects.count(), Order.objects.count())",
        prepared="from shop.models import Order\nprint('before', Order.objects.count())\n",
        more=postgres_folder,
    )
    script.expect("^orders 0 0$")
    assert script.wait() == 7, script.text()
    [manager] = [p for p in script.processes() if "rqpool-manager" in " ".join(p.cmdline())]
    manager.send_signal(signal.SIGQUIT)
    eventually(lambda: not script.processes())


def test_a_daemon_that_cannot_start_is_an_error_of_call_command(start_script):
    script = start_script(
        "call_command('rqpool', 'high=1', name=name, daemon=True, no_pidfile=True)",
        settings="RQ_POOL_PRELOAD = ['no_such_module']",
    )
    expect_as_it_was(script)
    assert script.found("^raised CommandError: rqpool: the start has failed")
    assert script.found("No module named 'no_such_module'")
    assert not script.processes()


# Children

CHILDREN = """
read_end, write_end = os.pipe()
early = subprocess.Popen(["sh", "-c", "exit 41"])
os.waitid(os.P_PID, early.pid, os.WEXITED | os.WNOWAIT)
late = subprocess.Popen(["sh", "-c", "read line; exit 42"], stdin=read_end)
os.close(read_end)
"""


def test_children_of_the_caller_keep_their_exit_statuses(start_script, enqueue, valkey):
    """One has ended before the pool runs, and hides the deaths behind it; one ends meanwhile."""
    script = start_script(
        "run_pool({'high': 2}, name=name); print('early', early.wait(), 'late', late.wait())",
        prepared=f"{CHILDREN}print('late is', late.pid, 'write', write_end, flush=True)\n",
    ).expect_ready(2)
    [late] = script.expect(r"^late is (\d+) write (\d+)$")
    with open(f"/proc/{script.process.pid}/fd/{late[2]}", "wb") as stream:  # noqa: PTH123
        stream.write(b"\n")
    eventually(lambda: psutil.Process(int(late[1])).status() == psutil.STATUS_ZOMBIE)
    for ready in (3, 4, 5):
        os.kill(script.worker_pids()[0], signal.SIGKILL)
        script.expect_ready(ready)
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    script.send(signal.SIGQUIT)
    script.expect("^early 41 late 42$")
    assert script.wait(DEADLINE) == 7


def test_an_orphan_is_reaped_although_a_child_of_the_caller_has_ended(start_script, enqueue):
    script = start_script("run_pool({'high': 1}, name=name)", prepared=CHILDREN)
    script.expect_ready(1)
    orphan = "import os, time\nif os.fork(): os._exit(0)\n"
    job = enqueue("high", "run_python", orphan)
    eventually(lambda: job.is_finished)
    manager = psutil.Process(script.process.pid)

    def zombies() -> int:
        return [child.status() for child in manager.children()].count(psutil.STATUS_ZOMBIE)

    eventually(lambda: zombies() == 1)
    script.send(signal.SIGQUIT)
    assert script.wait() == 7
