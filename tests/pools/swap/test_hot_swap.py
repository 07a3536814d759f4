"""Hot swap: a new pool takes the place of an older one, or changes nothing."""

from __future__ import annotations

import secrets
import signal
import subprocess

import psutil
import pytest
from rq import Worker
from rq.job import JobStatus

from harness import Pool, eventually


@pytest.fixture
def name() -> str:
    """A name that no other pool on this machine has."""
    return f"swap-{secrets.token_hex(4)}"


@pytest.fixture
def deploy(start_pool, name):
    """Starts a pool as a deploy does, in a folder of its own, and waits for the command."""

    def deploy(*arguments: str, **options) -> Pool:
        pool = start_pool("--daemon", "--hot-swap", "--name", name, *arguments, **options)
        pool.wait()
        return pool

    return deploy


def alive(pool: Pool) -> bool:
    return psutil.pid_exists(pool.manager_pid) and pool.manager.status() != psutil.STATUS_ZOMBIE


def index(pool: Pool, pattern: str) -> int:
    """The line of the log that has the pattern first."""
    lines = pool.text().splitlines()
    return next(number for number, line in enumerate(lines) if pattern in line)


def test_a_deploy_under_load_loses_nothing_repeats_nothing_and_leaves_no_gap(
    deploy, enqueue, valkey
):
    old = deploy("high,default=3").become_daemon()
    jobs = [enqueue(queue, "short") for queue in ("high", "default") * 30]
    for _ in range(3):
        new = deploy("high,default=3").become_daemon()
        jobs += [enqueue(queue, "short") for queue in ("high", "default") * 30]
        assert (
            index(new, "is asked to leave")
            > [
                number
                for number, line in enumerate(new.text().splitlines())
                if line.endswith("ready")
            ][2]
        )
        eventually(lambda old=old: not alive(old))
        assert not old.found("SIGKILL|SIGTERM|SIGINT")
        new.expect("has gone$")
        old = new

    eventually(lambda: all(job.is_finished for job in jobs), 120)
    done = [job_id.decode() for job_id in valkey.lrange("done", 0, -1)]
    assert sorted(done) == sorted(job.id for job in jobs)
    eventually(lambda: Worker.count(connection=valkey) == len(old.workers()) == 3)


BROKEN = {
    "bad counts": (["high=x"], {}, "'x' is not a count"),
    "cannot be imported": ([], {"yaml": "high: {workers: 1, worker_class: no.Such}"}, "no.Such"),
    "crashes at boot": (
        [],
        {"yaml": "high: 1\nlow: {workers: 2, worker_class: pool_jobs.FailsToBoot}"},
        "RuntimeError: this worker class raises at boot",
    ),
    "dies at boot": (
        [],
        {"yaml": "high: 1\nlow: {workers: 1, worker_class: pool_jobs.DiesAtBoot}"},
        "Workers of low cannot boot.",
    ),
    "has no counts": ([], {}, "there is no queue group."),
    "has no counts and may": (["--allow-empty"], {}, "Nothing is replaced."),
    "is for an unknown environment": (
        ["-E", "prod"],
        {"yaml": "high: 1\nproduction:\n  high: 2"},
        "there is no environment 'prod'",
    ),
    "is for an unknown environment of other tools": (
        [],
        {"yaml": "high: 1\nproduction:\n  high: 2", "env": {"DJANGO_ENV": "prod"}},
        "Nothing is replaced.",
    ),
    "is empty": (["high=0"], {}, "Nothing is replaced."),
    "has no Redis": (
        ["high=1", "--swap-timeout", "1"],
        {"env": {"REDIS_URL": "redis://127.0.0.1:1"}},
        "The pool was not ready in time: high 0 of 1.",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_deploy_changes_nothing(deploy, enqueue, broken):
    arguments, options, sentence = BROKEN[broken]
    old = deploy("high=2").become_daemon().expect_ready(2)
    before = old.worker_pids()

    new = deploy(*arguments, **options)
    assert new.process.returncode == 1
    assert sentence in new.text()
    eventually(lambda: not new.processes())
    assert old.worker_pids() == before
    assert not old.found("reaped|signal")
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)


def test_a_deploy_whose_modules_do_not_import_changes_nothing(start_with, deploy, name):
    old = deploy("high=1").become_daemon()
    before = old.worker_pids()
    new = start_with(
        "RQ_POOL_PRELOAD = ['broken']",
        *["--daemon", "--hot-swap", "--name", name, "high=1"],
        modules={"broken": "import no_such_module"},
    )
    assert new.wait() == 1
    assert "No module named 'no_such_module'" in new.text()
    assert old.worker_pids() == before
    assert "signal" not in old.text()


def test_a_hot_swap_works_in_the_foreground_too(start_pool, name):
    old = start_pool("high=1", "--name", name).expect_ready(1)
    new = start_pool("high=1", "--name", name, "--hot-swap").expect_ready(1)
    assert old.wait() == 0
    new.expect("has gone$")
    assert new.stop() == 0

    old = start_pool("high=1", "--name", name).expect_ready(1)
    broken = start_pool("high=x", "--name", name, "--hot-swap")
    assert broken.wait() == 1
    assert old.stop() == 0


def test_two_deploys_at_once_leave_exactly_one_pool(start_pool, deploy, name, valkey):
    old = deploy("high=2").become_daemon()
    both = [start_pool("--daemon", "--hot-swap", "--name", name, "high=2") for _ in range(2)]
    # One that is not ready when the other is may be told to stop before it is.
    statuses = [pool.wait() for pool in both]
    ready = [pool.become_daemon() for pool, status in zip(both, statuses) if status == 0]
    eventually(lambda: not alive(old))
    eventually(lambda: sum(alive(pool) for pool in ready) == 1)
    eventually(lambda: Worker.count(connection=valkey) == 2)
    [left] = [pool for pool in ready if alive(pool)]
    assert len(left.workers()) == 2


def test_an_old_pool_stays_until_its_last_job_is_done(deploy, enqueue, valkey):
    old = deploy("high=2").become_daemon()
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    new = deploy("high=2").become_daemon()
    old.expect("reaped: exit code 0")
    assert alive(old)
    assert job.get_status() == JobStatus.STARTED
    assert not new.found("has gone")
    other = enqueue("high", "note", "trace")
    eventually(lambda: other.is_finished)

    valkey.rpush("gate:open", 1)
    new.expect("has gone$")
    assert job.is_finished
    assert not old.processes()


def test_workers_of_a_killed_manager_finish_beside_the_new_pool(deploy, enqueue, valkey):
    old = deploy("high=1").become_daemon()
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    old.send(signal.SIGKILL)
    new = deploy("high=1").become_daemon()
    assert job.get_status() == JobStatus.STARTED
    valkey.rpush("gate:open", 1)
    eventually(lambda: job.is_finished and not old.processes())
    assert len(new.workers()) == 1


def test_only_older_pools_of_the_same_name_are_asked(start_pool, deploy, name, tmp_path):
    other = start_pool("high=1", "--name", f"{name}-too").expect_ready(1)
    title = f"rqpool-manager[{name}]: managing [1]"
    editor = subprocess.Popen(["bash", "-c", f"exec -a 'vi {title}' sleep 60"], cwd=tmp_path)
    try:
        old = deploy("high=1").become_daemon()
        new = deploy("high=1").become_daemon()
        eventually(lambda: not alive(old))
        assert alive(new)
        assert editor.poll() is None
        assert len(other.workers()) == 1
        assert "signal" not in other.text()
    finally:
        editor.kill()
        editor.wait()


def test_kill_others_asks_older_pools_to_leave_without_waiting_for_every_worker(start_pool, name):
    old = start_pool("high=1", "--name", name).expect_ready(1)
    new = start_pool("high=1", "--name", name, "--kill-others").expect_ready(1)
    assert old.wait() == 0
    new.expect("has gone$")
    assert new.stop() == 0


WAITS = """
import os, select
open("loading", "w").close()
while not os.path.exists("go on"):
    select.select([], [], [], 0.01)
"""


def test_a_pool_that_loads_slowly_is_ended_by_a_younger_one_that_is_ready_first(
    start_with, deploy, name
):
    slow = start_with(
        "RQ_POOL_PRELOAD = ['waits']",
        *["--daemon", "--hot-swap", "--name", name, "high=1"],
        modules={"waits": WAITS},
    )
    eventually((slow.cwd / "loading").exists)
    quick = deploy("high=1").become_daemon()
    assert slow.wait() == 128 + signal.SIGQUIT
    assert "The pool ended before it was ready." in slow.text()
    assert alive(quick)
    assert len(quick.workers()) == 1


def test_a_name_that_cannot_be_told_in_a_title_is_refused(start_pool):
    pool = start_pool("high=1", "--name", "shop]: managing")
    assert pool.wait() == 1
    assert "--name: 'shop]: managing' is not a name of 1 to 100 printable characters" in pool.text()


def test_a_deploy_takes_no_job_before_it_is_known_to_be_good(deploy, start_pool, name, enqueue):
    old = deploy("high=1").become_daemon()
    old.send(signal.SIGUSR2)  # so that every job waits for a worker of the new pool
    old.expect("signal USR2")
    job = enqueue("high", "note", "trace")
    broken = deploy(
        yaml="high: 1\nlow: {workers: 1, worker_class: pool_jobs.BootsSlowly}",
    )
    assert broken.process.returncode == 1
    assert broken.found("of high ready") == []  # what a daemon says goes to its log
    assert "of high ready" in (broken.cwd / "log/rqpool.stdout.log").read_text()
    assert job.get_status() == JobStatus.QUEUED

    deploy("high=1").become_daemon()
    eventually(lambda: job.is_finished)


@pytest.mark.parametrize("how", ["--hot-swap", "--swap-step"])
def test_a_group_that_is_scaled_begins_with_the_workers_it_has_in_the_older_pool(
    start_pool, name, enqueue, valkey, how
):
    yaml = "high: {workers: {min: 1, max: 6}, target_latency: 0.2}\nlow: 1"
    old = start_pool("--daemon", "--name", name, yaml=yaml).become_daemon()
    jobs = [enqueue("high", "hold", "gate") for _ in range(3)]
    eventually(lambda: valkey.llen("gate:running") == 3)
    counts = r"group high: (\d) of 1\.\.6"
    before = len(old.found(counts))
    new = start_pool("--daemon", how, "--name", name, yaml=yaml).become_daemon()
    [begins] = new.found(r"started: high=(\d) of 1\.\.6, low=1$")
    assert begins[1] in {had[1] for had in old.found(counts)[before - 1 :]}
    valkey.rpush("gate:open", 1, 1, 1)
    eventually(lambda: all(job.is_finished for job in jobs))
    eventually(lambda: not alive(old))
    assert new.stop() == 0
