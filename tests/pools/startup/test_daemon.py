"""A pool as a daemon: what the command that starts it says, its files, and holding."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import time

import pytest
from rq import Worker
from rq.job import JobStatus

from django_rq_pool.planning.phases import INFO
from harness import DEADLINE, Pool, eventually, python_command


@pytest.fixture
def start_daemon(start_pool, valkey):
    def start(*arguments: str, **options) -> Pool:
        return start_pool("--daemon", *arguments, **options).become_daemon()

    return start


def gone(pool: Pool) -> bool:
    return not pool.processes()


def test_the_command_returns_when_each_group_has_a_worker_that_is_ready(start_daemon, valkey):
    pool = start_daemon("high=2", "low=1")
    assert len(pool.found("ready$")) >= 2
    assert {worker.queue_names()[0] for worker in Worker.all(connection=valkey)} == {"high", "low"}
    pid = int((pool.cwd / "tmp/pids/rqpool.pid").read_text())
    assert pid == pool.manager_pid
    assert os.getsid(pid) != os.getsid(0)
    assert stat.S_IMODE((pool.cwd / "tmp/pids/rqpool.pid").stat().st_mode) == 0o600
    assert (pool.cwd / "log/rqpool.stderr.log").read_text() == ""

    pool.send(signal.SIGQUIT)
    eventually(lambda: gone(pool))
    assert not (pool.cwd / "tmp/pids/rqpool.pid").exists()


@pytest.mark.parametrize(
    ("arguments", "yaml", "sentence"),
    [
        ([], "high: -1", "CommandError: rqpool.yml: 'high': -1 is not a count."),
        ([], "hgh: 1", "RQ_QUEUES has no queue 'hgh'"),
        ([], "high: {workers: 2, worker_class: pool_jobs.FailsToBoot}", "Workers of high cannot"),
        (["--pidfile", "/proc/no.pid"], "high: 1", "pid file /proc/no.pid: it cannot be written"),
        (["--stdout", "/proc/no.log"], "high: 1", "log file /proc/no.log cannot be opened"),
        (["--lock", "/proc/no.lock"], "high: 1", "lock file /proc/no.lock: it cannot be opened"),
    ],
)
def test_what_keeps_a_daemon_from_starting_is_told_on_the_terminal(
    start_pool, arguments, yaml, sentence
):
    pool = start_pool("--daemon", *arguments, yaml=yaml)
    assert pool.wait() == 1
    assert sentence in pool.text()
    eventually(lambda: gone(pool))
    assert list(pool.cwd.glob("tmp/pids/*")) == []
    assert pool.text().count(sentence) == 1
    if "FailsToBoot" in yaml:
        assert "RuntimeError: this worker class raises at boot" in pool.text()


def test_a_module_that_does_not_import_is_told_on_the_terminal_with_its_traceback(start_with):
    pool = start_with(
        "RQ_POOL_PRELOAD = ['broken']",
        "--daemon",
        "high=1",
        modules={"broken": "import no_such_module"},
    )
    assert pool.wait() == 1
    assert "ModuleNotFoundError: No module named 'no_such_module'" in pool.text()
    eventually(lambda: gone(pool))


def test_a_daemon_waits_for_its_redis_and_says_so_until_time_is_up(start_pool, own_server):
    own_server.stop()
    env = {"REDIS_URL": own_server.url}
    pool = start_pool("--daemon", "high=2", "--swap-timeout", "1", env=env)
    assert pool.wait() == 1
    assert "The pool was not ready in time: high 0 of 2." in pool.text()
    eventually(lambda: gone(pool))

    patient = start_pool("--daemon", "high=2", env=env)
    patient.expect("group high: Redis cannot be reached")
    own_server.start()
    patient.become_daemon().send(signal.SIGQUIT)
    eventually(lambda: gone(patient))


def test_without_waiting_the_command_returns_at_once(start_pool, own_server):
    own_server.stop()
    arguments = ("--daemon", "--no-wait", "--swap-timeout", "0.2", "high=1")
    pool = start_pool(*arguments, env={"REDIS_URL": own_server.url})
    pool.become_daemon()
    pool.expect("started: high=1").pop()
    # Nobody waits for it, so it has no time to be ready in.
    eventually(lambda: time.time() > pool.manager.create_time() + 2)
    own_server.start()
    pool.expect_ready(1).send(signal.SIGQUIT)
    eventually(lambda: gone(pool))


def test_without_waiting_wrong_counts_are_told_all_the_same(start_pool):
    pool = start_pool("--daemon", "--no-wait", "hgh=1")
    assert pool.wait() == 1
    assert "RQ_QUEUES has no queue 'hgh'" in pool.text()
    eventually(lambda: not pool.processes())


def test_a_second_daemon_with_the_same_pid_file_is_refused(start_daemon, start_pool):
    pool = start_daemon("high=1")
    path = str(pool.cwd / "tmp/pids/rqpool.pid")
    second = start_pool("--daemon", "low=1", "--pidfile", path)
    assert second.wait() == 1
    assert f"pid file {path}: process {pool.manager_pid} uses it." in second.text()
    assert int(pool.cwd.joinpath("tmp/pids/rqpool.pid").read_text()) == pool.manager_pid


def test_of_two_daemons_that_start_at_once_exactly_one_stays(start_pool, tmp_path):
    pid_file = str(tmp_path / "one.pid")
    pools = [start_pool("--daemon", "high=1", "--pidfile", pid_file) for _ in range(2)]
    assert sorted(pool.wait() for pool in pools) == [0, 1]
    [winner] = [pool for pool in pools if pool.process.returncode == 0]
    assert int((tmp_path / "one.pid").read_text()) == winner.become_daemon().manager_pid


def test_a_pid_file_of_a_pool_that_was_killed_is_replaced(start_daemon, start_pool):
    pool = start_daemon("high=1")
    path = pool.cwd / "tmp/pids/rqpool.pid"
    pool.send(signal.SIGKILL)
    eventually(lambda: gone(pool))
    assert path.exists()
    again = start_pool("--daemon", "high=1", "--pidfile", str(path)).become_daemon()
    assert int(path.read_text()) == again.manager_pid


def test_the_lock_is_held_until_the_last_horse_has_ended(start_daemon, enqueue, valkey):
    pool = start_daemon("high=1", "--lock", "tmp/pool.lock")
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    waiting = subprocess.Popen(
        python_command(
            "-c", "import fcntl; fcntl.flock(open('tmp/pool.lock'), fcntl.LOCK_EX); print('free')"
        ),
        cwd=pool.cwd,
        stdout=subprocess.PIPE,
    )
    pool.send(signal.SIGINT)  # the manager leaves at once, its worker when the job has ended
    pool.expect("finished$")
    assert waiting.poll() is None
    valkey.rpush("gate:open", 1)
    assert waiting.communicate(timeout=DEADLINE)[0] == b"free\n"
    assert job.is_finished
    eventually(lambda: gone(pool))


def test_winch_makes_a_daemon_hold_until_hup(start_daemon, enqueue, valkey):
    pool = start_daemon("high=2", "low=1").expect_ready(3)
    held = enqueue("low", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    pool.send(signal.SIGWINCH)
    pool.expect("of high reaped: exit code 0", 2)
    waits = enqueue("high", "note", "trace")
    valkey.rpush("gate:open", 1)
    pool.expect("of low reaped: exit code 0")
    assert held.is_finished
    pool.send(signal.SIGWINCH)  # once more changes nothing
    pool.send(signal.SIGUSR2).send(signal.SIGCONT)
    pool.expect("signal CONT: forwarded")
    assert pool.workers() == []
    assert waits.get_status() == JobStatus.QUEUED

    pool.send(signal.SIGHUP)
    pool.expect_ready(6)
    eventually(lambda: waits.is_finished)
    assert len(pool.workers()) == 3


@pytest.mark.parametrize("stop", [signal.SIGQUIT, signal.SIGINT, signal.SIGTERM])
def test_a_daemon_that_holds_can_be_stopped(start_daemon, stop):
    pool = start_daemon("high=2")
    pool.send(signal.SIGWINCH)
    pool.expect("of high reaped", 2)
    pool.send(stop)
    pool.expect("finished$")
    eventually(lambda: gone(pool))


def test_with_a_delay_workers_are_forked_one_after_the_other(start_pool):
    pool = start_pool("high=3", "--spawn-delay", "200").expect_ready(3)
    assert pool.stop() == 0
    slow = start_pool("high=3", "--spawn-delay", "3600000").expect_ready(1)
    slow.send(INFO)
    slow.expect("high: 3 wanted, 1 ready, 0 stopping")
    assert len(slow.found("of high forked")) == 1
    assert slow.stop() == 0


def test_workers_can_stay_in_the_managers_process_group(start_pool, enqueue, valkey):
    pool = start_pool("high=2", "--single-process-group").expect_ready(2)
    assert {os.getpgid(pid) for pid in pool.worker_pids()} == {os.getpgid(pool.manager_pid)}
    enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    os.kill(pool.worker_pids()[0], signal.SIGKILL)
    pool.expect_ready(3)
    os.killpg(os.getpgid(pool.manager_pid), signal.SIGTERM)
    assert pool.wait() == 0
    assert gone(pool)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--no-wait"], "--no-wait: the command waits for a daemon only. Add --daemon."),
        (["--spawn-delay", "-1"], "--spawn-delay: give a number of milliseconds, 0 or more."),
        (["--swap-timeout", "0"], "--swap-timeout: give a number of seconds above 0."),
    ],
)
def test_options_that_make_no_sense_are_answered_by_a_sentence(start_pool, arguments, sentence):
    pool = start_pool("high=1", *arguments)
    assert pool.wait() == 1
    assert pool.text() == f"CommandError: {sentence}\n"
