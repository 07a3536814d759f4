"""A daemon and the command that waits for its launch."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import psutil
import pytest

from conversations import Conversation
from harness import DEADLINE, eventually, living

DAEMON = """
import json, logging, os, signal, sys
from pathlib import Path
from django_rq_pool.system import parents, processes
from django_rq_pool.system.daemon import detach, reporting_failure
from django_rq_pool.errors import StartError

def redirect():
    fd = os.open("daemon.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)

def wait_for(name):
    while not Path(name).exists():
        processes.pause(0.01)

def body(launch):
    Path("daemon.pid.new").write_text(str(os.getpid()))
    Path("daemon.pid.new").rename("daemon.pid")
"""

DETACH = 'launch = detach(redirect, "daemon.log")\n'

RUN = """
with reporting_failure(launch):
    body(launch)
"""

Command = Callable[..., Conversation]


@pytest.fixture
def command(talk: Callable[..., Conversation], tmp_path: Path) -> Command:
    """Starts a command that detaches; its daemon does what the given lines say. Other lines may
    come before everything, or instead of the call that detaches."""

    def start(body: str, *, before: str = "", detach: str = DETACH, **options: Any) -> Conversation:
        return talk(
            f"{before}\n{DAEMON}{indent(dedent(body), '    ')}\n{detach}{RUN}",
            stderr=subprocess.PIPE,
            start_new_session=True,
            title="command",
            **options,
        )

    yield start
    for process in living(tmp_path):
        process.kill()
    eventually(lambda: not living(tmp_path))


def daemon_pid(folder: Path) -> int:
    path = folder / "daemon.pid"
    eventually(path.exists)
    return int(path.read_text())


def told(command: Conversation) -> tuple[int, str]:
    """The status with which a command ends, and what it has told."""
    _, errors = command.process.communicate(timeout=DEADLINE)
    return command.process.returncode, errors.decode()


# Detached


ATTRIBUTES = """
null = os.stat(os.devnull)
launch.say(json.dumps({
    "leads its session": os.getsid(0) == os.getpid(),
    "leads its group": os.getpgrp() == os.getpid(),
    "session": os.getsid(0),
    "reads nothing": os.path.samestat(os.fstat(0), null),
    "directory": os.getcwd(),
    "umask": os.umask(0),
    "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "descriptors": sorted(int(fd) for fd in os.listdir("/dev/fd")),
}))
launch.succeed()
signal.pause()
"""


@pytest.mark.parametrize(("before", "after"), [(0o022, 0o022), (0o002, 0o002), (0, 0o002)])
def test_the_daemon_is_detached_and_keeps_its_directory(command, tmp_path, before, after):
    waiting = command(ATTRIBUTES, umask=before)
    status, text = told(waiting)
    assert status == 0, text
    found = json.loads(text)
    assert not found.pop("leads its session")  # so it can never get a terminal
    assert not found.pop("leads its group")
    assert found.pop("session") != waiting.pid
    assert found.pop("descriptors")[:3] == [0, 1, 2]
    assert found == {
        "reads nothing": True,
        "directory": str(tmp_path),
        "umask": after,
        "blocked": 0,
    }
    [daemon] = living(tmp_path)
    assert daemon.terminal() is None
    assert daemon.is_running()


def test_its_output_goes_to_the_log_and_the_command_lets_go_of_its_own(command, tmp_path):
    # Whoever reads what the command says, such as a shell's $(...), comes to the end of it.
    waiting = command(
        """
        print("to the log", flush=True)
        os.system("echo by a program")
        launch.succeed()
        signal.pause()
        """
    )
    status, text = told(waiting)
    assert (status, text) == (0, "")
    assert (tmp_path / "daemon.log").read_text() == "to the log\nby a program\n"
    assert len(living(tmp_path)) == 1


# The launch


def test_the_command_returns_when_the_daemon_says_so_and_not_before(command, tmp_path):
    waiting = command("wait_for('go')\nlaunch.succeed()\nsignal.pause()")
    pid = daemon_pid(tmp_path)
    assert waiting.process.poll() is None
    (tmp_path / "go").touch()
    assert told(waiting) == (0, "")
    assert psutil.pid_exists(pid)


def test_a_failure_is_told_on_the_terminal_with_its_status(command):
    assert told(command("launch.fail('lock file: it is locked', 3)")) == (
        3,
        "lock file: it is locked\n",
    )


def test_what_is_said_in_the_end_comes_after_all_that_was_said_before(command):
    body = "for number in range(500): launch.say(number)\nlaunch.fail('the end')"
    status, text = told(command(body))
    assert text.split("\n") == [*map(str, range(500)), "the end", ""]
    assert status == 1


def test_warnings_are_shown_while_the_launch_lasts_and_lesser_lines_are_not(command, tmp_path):
    status, text = told(
        command(
            "logging.basicConfig(level=logging.DEBUG)\n"
            "launch.show(['django_rq_pool', 'rq.worker'])\n"
            "logging.getLogger('django_rq_pool').info('reading counts')\n"
            "logging.getLogger('django_rq_pool').warning('waiting for %s', 'Redis')\n"
            "logging.getLogger('rq.worker').error('broken')\n"
            "logging.getLogger('elsewhere').error('not ours')\n"
            "launch.succeed()\n"
            "logging.getLogger('django_rq_pool').error('later')\n"
        )
    )
    assert (status, text) == (0, "waiting for Redis\nbroken\n")
    log = tmp_path / "daemon.log"
    for line in ("reading counts", "waiting for Redis", "later"):
        eventually(lambda line=line: line in log.read_text())


@pytest.mark.parametrize(
    ("ends", "status", "text"),
    [
        ("raise StartError('no counts')", 1, "CommandError: no counts\n"),
        ("sys.exit('cannot go on')", 1, "cannot go on\n"),
        ("sys.exit(7)", 7, "The pool ended before it was ready.\n"),
        ("sys.exit(0)", 1, "The pool ended before it was ready.\n"),
        ("pass", 1, "The pool ended before it was ready.\n"),
    ],
)
def test_whatever_ends_the_daemon_fails_the_launch(command, ends, status, text):
    assert told(command(ends)) == (status, text)


def test_an_exception_is_told_by_its_traceback_in_both_places(command, tmp_path):
    status, text = told(command("1 / 0"))
    assert status == 1
    assert text.startswith("Traceback (most recent call last)")
    assert text.endswith("ZeroDivisionError: division by zero\n")
    log = tmp_path / "daemon.log"
    eventually(lambda: log.read_text().endswith("ZeroDivisionError: division by zero\n"))


def test_after_the_launch_the_command_has_its_status_whatever_becomes_of_the_daemon(command):
    assert told(command("launch.succeed()\nlaunch.fail('too late')\n1 / 0")) == (0, "")


def test_a_long_traceback_loses_its_middle(command):
    status, text = told(command("launch.fail('begin' + chr(128512) * 100_000 + 'end')"))
    assert status == 1
    assert text.startswith("begin")
    assert text.endswith("end\n")
    assert len(text) < 6000


# A daemon that cannot speak


@pytest.mark.parametrize(
    ("ends", "status", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + 9, "was ended by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 128 + 11, "was ended by SIGSEGV"),
        ("os._exit(5)", 5, "ended with exit code 5"),
        ("os._exit(0)", 1, "ended with exit code 0"),
    ],
)
def test_a_daemon_that_ends_without_a_word_is_an_error_that_says_how(
    command, tmp_path, ends, status, how
):
    got, text = told(command(ends))
    pid = daemon_pid(tmp_path)
    assert text == f"The pool (process {pid}) {how} before it was ready. Its log: daemon.log\n"
    assert got == status


def test_where_the_system_tells_nothing_of_its_end_it_is_an_error_too(command, tmp_path):
    other_unix = "parents.adopt_orphans = lambda: False\n"
    body = "os.kill(os.getpid(), signal.SIGKILL)"
    status, text = told(command(body, detach=other_unix + DETACH))
    assert status == 1
    assert text.endswith(" ended before it was ready. Its log: daemon.log\n")


def test_workers_of_a_daemon_that_is_killed_do_not_keep_the_command_waiting(command, tmp_path):
    status, text = told(
        command(
            "if os.fork() == 0:\n"
            "    launch.become_worker()\n"
            "    launch.fail('a worker cannot say this')\n"
            "    signal.pause()\n"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
    )
    assert status == 128 + 9
    assert "was ended by SIGKILL" in text
    assert len(living(tmp_path)) == 1


def test_log_files_that_cannot_be_opened_are_told_on_the_terminal(command, tmp_path):
    (tmp_path / "daemon.log").mkdir()
    status, text = told(command("launch.succeed()"))
    assert status == 1
    assert text.startswith("The daemon cannot be started: ")
    assert "Is a directory: 'daemon.log'" in text


# Whoever waits


def test_ctrl_c_is_passed_on_to_the_daemon(command, tmp_path):
    waiting = command(
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nwait_for('never')\n"
    )
    pid = daemon_pid(tmp_path)
    waiting.send(signal.SIGINT)
    status, text = told(waiting)
    assert status == 128 + signal.SIGINT
    assert text.startswith(
        f"Sending SIGINT to process {pid}. Repeat it to stop waiting.\nTraceback"
    )
    eventually(lambda: not living(tmp_path))


def test_term_that_the_daemon_dies_of_is_no_surprise(command, tmp_path):
    waiting = command("wait_for('never')")
    pid = daemon_pid(tmp_path)
    waiting.send(signal.SIGTERM)
    assert told(waiting) == (
        128 + signal.SIGTERM,
        f"Sending SIGTERM to process {pid}. Repeat it to stop waiting.\n",
    )


def test_a_second_ctrl_c_leaves_a_daemon_alone_that_takes_its_time(command, tmp_path):
    waiting = command(
        "signal.signal(signal.SIGINT, lambda *_: Path('heard').touch())\nwait_for('never')"
    )
    pid = daemon_pid(tmp_path)
    eventually(lambda: signal.SIGINT in caught(pid))
    waiting.send(signal.SIGINT)
    eventually((tmp_path / "heard").exists)
    waiting.send(signal.SIGINT)
    status, text = told(waiting)
    assert status == 128 + signal.SIGINT
    assert text.endswith(f"No longer waiting for process {pid}.\n")
    assert psutil.pid_exists(pid)


def caught(pid: int) -> set[int]:
    """The signals that a process has handlers for."""
    status = Path(f"/proc/{pid}/status").read_text()
    [mask] = [int(line.split()[1], 16) for line in status.splitlines() if "SigCgt" in line]
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def test_a_command_that_does_not_read_does_not_hold_the_daemon_up(command, tmp_path):
    waiting = command(
        "wait_for('go')\n"
        "for number in range(5000): launch.say('x' * 100)\n"
        "launch.fail('the reason' + 'x' * 10_000)\n"
        "Path('done').touch()\n"
    )
    daemon_pid(tmp_path)
    waiting.send(signal.SIGSTOP)
    eventually(lambda: psutil.Process(waiting.pid).status() == psutil.STATUS_STOPPED)
    (tmp_path / "go").touch()
    eventually((tmp_path / "done").exists)
    waiting.send(signal.SIGCONT)
    status, text = told(waiting)
    assert status == 1
    assert "the reason" in text


def test_the_daemon_goes_on_when_the_command_is_killed(command, tmp_path):
    waiting = command(
        "wait_for('go')\nlaunch.say('to nobody')\nlaunch.succeed()\nwait_for('never')"
    )
    daemon = psutil.Process(daemon_pid(tmp_path))
    waiting.send(signal.SIGKILL).wait()
    (tmp_path / "go").touch()
    eventually(lambda: daemon.num_fds() == 3)
    assert daemon.is_running()


def test_a_command_without_standard_streams_makes_a_daemon_that_has_them(command, tmp_path):
    closed = "import os\nfor fd in range(3): os.close(fd)\n"
    body = "print('to the log', flush=True)\nlaunch.say('to nowhere')\nlaunch.fail('', 6)"
    waiting = command(body, before=closed)
    assert told(waiting) == (6, "")
    assert (tmp_path / "daemon.log").read_text() == "to the log\n"


def test_what_was_buffered_before_is_written_once(command):
    waiting = command("launch.succeed()", before="import sys\nsys.stdout.write('once')")
    output, _ = waiting.process.communicate(timeout=DEADLINE)
    assert output == b"once"


def test_what_runs_at_exit_runs_in_the_daemon_alone(command, tmp_path):
    at_exit = (
        "import atexit, os\natexit.register(lambda: print(os.getpid(), file=open('exits', 'a')))"
    )
    waiting = command("launch.succeed()", before=at_exit)
    assert told(waiting) == (0, "")
    pid = daemon_pid(tmp_path)
    eventually(lambda: not living(tmp_path))
    assert (tmp_path / "exits").read_text() == f"{pid}\n"


def test_a_launch_in_the_foreground_does_nothing(command, tmp_path):
    waiting = command(
        """
        assert launch.over
        launch.show(['django_rq_pool'])
        assert not logging.getLogger('django_rq_pool').handlers
        launch.say('text')
        launch.become_worker()
        launch.succeed()
        launch.fail('text')
        sys.exit(3)
        """,
        detach="from django_rq_pool.system.launch import Launch\nlaunch = Launch()\n",
    )
    assert told(waiting) == (3, "")
    assert waiting.pid == daemon_pid(tmp_path)
