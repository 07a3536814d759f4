"""A hot swap worker by worker."""

from __future__ import annotations

import contextlib
import secrets
import signal
import socket

import psutil
import pytest
from rq.job import JobStatus

from django_rq_pool.system import process_files
from harness import DEADLINE, Pool, eventually

LOGGING = """
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"exact": {"format": "%(created).6f %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "exact"}},
    "loggers": {"django_rq_pool": {"handlers": ["console"], "level": "INFO"}},
}
"""


@pytest.fixture
def start(start_with):
    """Starts pools of one name that no other has, with exact times in their logs."""
    name = f"step-{secrets.token_hex(4)}"

    def start(*arguments: str) -> Pool:
        return start_with(LOGGING, "--name", name, *arguments)

    return start


def lives(*pools: Pool) -> list[tuple[float, str, int]]:
    """Every fork (1) and end (-1) of a worker, with its group, in the order of time."""
    return sorted(
        (float(line[1]), line[2], 1 if line[3] == "forked" else -1)
        for pool in pools
        for line in pool.found(r"^(\d+\.\d+) worker \d+ of (\S+) (forked|reaped)")
    )


def most_together(group: str, *pools: Pool) -> int:
    alive = most = 0
    for _, of, change in lives(*pools):
        alive += change if of == group else 0
        most = max(most, alive)
    return most


def test_no_group_ever_has_more_than_one_worker_too_many_and_no_job_is_lost(start, enqueue, valkey):
    old = start("high=3", "low,default=2").expect_ready(5)
    jobs = [enqueue(queue, "short") for queue in ("high", "default") * 40]
    new = start("--swap-step", "high=3", "low,default=2").expect_ready(5)
    jobs += [enqueue(queue, "short") for queue in ("high", "default") * 20]
    assert old.wait() == 0
    new.expect("has gone$")
    assert most_together("high", old, new) == 4
    assert most_together("low,default", old, new) == 3

    eventually(lambda: all(job.is_finished for job in jobs), 120)
    done = [job_id.decode() for job_id in valkey.lrange("done", 0, -1)]
    assert sorted(done) == sorted(job.id for job in jobs)
    assert new.stop() == 0


def test_a_long_job_keeps_its_worker_and_the_new_pool_waits_for_the_place(start, enqueue, valkey):
    old = start("high=2").expect_ready(2)
    held = [enqueue("high", "hold", "gate") for _ in range(2)]
    eventually(lambda: valkey.llen("gate:running") == 2)
    new = start("--swap-step", "high=2").expect_ready(1)
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)  # by the one worker too many
    assert len(new.workers()) == 1
    assert {each.get_status() for each in held} == {JobStatus.STARTED}

    valkey.rpush("gate:open", 1, 1)
    new.expect_ready(2)
    assert old.wait() == 0
    assert all(each.is_finished for each in held)
    assert most_together("high", old, new) == 3
    assert new.stop() == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_new_pool_that_ends_midway_gives_the_places_back(start, enqueue, valkey, how):
    old = start("high=3").expect_ready(3)
    jobs = [enqueue("high", "hold", "gate") for _ in range(2)]
    eventually(lambda: valkey.llen("gate:running") == 2)
    new = start("--swap-step", "high=3").expect_ready(2)
    eventually(lambda: len(old.workers()) == 2)  # the busy ones, whose places it waits for

    new.send(how)
    old.expect("the newer pool is gone before it took over: forking the workers again")
    eventually(lambda: len(old.workers()) == 3)
    valkey.rpush("gate:open", 1, 1)
    eventually(lambda: all(job.is_finished for job in jobs))
    assert old.stop() == 0


def test_a_new_pool_that_cannot_boot_costs_the_old_one_no_worker(start):
    old = start("high=2", "low=1").expect_ready(3)
    before = old.worker_pids()
    new = start("--swap-step", "--config", "bad.yml")
    assert new.wait() == 1
    (new.cwd / "bad.yml").write_text(
        "high: 1\nlow: {workers: 2, worker_class: pool_jobs.FailsToBoot}"
    )
    newer = start("--swap-step", "--config", str(new.cwd / "bad.yml"))
    assert newer.wait() == 1
    assert "Workers of low cannot boot." in newer.text()
    assert old.worker_pids() == before
    assert not old.found("reaped|signal")
    assert old.stop() == 0


def test_with_no_older_pool_it_is_a_start_like_any_other(start):
    pool = start("--swap-step", "high=2").expect_ready(2)
    assert pool.stop() == 0


def test_a_group_that_the_new_pool_lacks_leaves_when_the_new_one_is_whole(start):
    old = start("high=1", "low=1").expect_ready(2)
    new = start("--swap-step", "high=2").expect_ready(2)
    assert old.wait() == 0
    assert psutil.pid_exists(new.manager_pid)
    assert new.stop() == 0


def test_a_third_pool_takes_over_though_the_first_still_finishes_a_job(start, enqueue, valkey):
    first = start("high=2").expect_ready(2)
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    second = start("--swap-step", "high=2").expect_ready(2)
    first.expect("signal QUIT")
    third = start("--swap-step", "high=2").expect_ready(1)
    valkey.rpush("gate:open", 1)
    assert first.wait() == 0
    assert job.is_finished
    third.expect_ready(2)
    assert second.wait() == 0
    assert most_together("high", first, second, third) <= 4
    assert third.stop() == 0


def test_counts_that_are_raised_midway_are_reached(start, enqueue, valkey):
    old = start("high=2").expect_ready(2)
    held = [enqueue("high", "hold", "gate") for _ in range(2)]
    eventually(lambda: valkey.llen("gate:running") == 2)
    new = start("--swap-step", "--config", "own.yml")
    assert new.wait() == 1
    (new.cwd / "own.yml").write_text("high: 2")
    newer = start("--swap-step", "--config", str(new.cwd / "own.yml")).expect_ready(1)
    (new.cwd / "own.yml").write_text("high: 4")
    newer.send(signal.SIGHUP)
    newer.expect("counts: high=4")
    valkey.rpush("gate:open", 1, 1)
    assert old.wait() == 0
    eventually(lambda: len(newer.workers()) == 4)
    assert all(job.is_finished for job in held)
    assert newer.stop() == 0


def test_a_worker_that_cannot_boot_midway_gives_the_places_back(start):
    old = start("high=4").expect_ready(4)
    new = start("--swap-step", "--config", "own.yml")
    assert new.wait() == 1
    (new.cwd / "own.yml").write_text("high: {workers: 4, worker_class: pool_jobs.BootsTwice}")
    newer = start("--swap-step", "--config", str(new.cwd / "own.yml"))
    newer.expect("workers cannot boot: the older pool gets its workers back")
    assert newer.wait() == 1
    old.expect("the newer pool is gone before it took over: forking the workers again")
    eventually(lambda: len(old.workers()) == 4)
    assert old.stop() == 0


def closed_after(manager: int, sent: bytes) -> bool:
    """Whether a manager closes the connection on which it was sent something."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(process_files.path_of(manager, "swap"))
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(sent)
        try:
            while connection.recv(65_536):
                pass  # it says what workers it has
        except ConnectionResetError:
            pass
        return True


def test_what_is_no_message_closes_its_connection_and_nothing_else(start, enqueue):
    pool = start("high=2").expect_ready(2)
    for sent in (
        b"no JSON\n",
        b"[1, 2]\n",
        b"\xff\xfe\n",
        b'{"workers": {"high": -1}}\n',
        b'{"workers": {"high": "all"}}\n',
        b'{"workers": null}\n',
        b'{"worker": {}}\n',
        b"x" * 2**23,
        b'{"workers": {"high": 0}}\nno JSON\n',
    ):
        assert closed_after(pool.manager_pid, sent)
    pool.expect("a swap channel is closed, for what came cannot be read", 9)
    job = enqueue("high", "short")
    eventually(lambda: job.is_finished)
    new = start("--swap-step", "high=2").expect_ready(2)
    assert pool.wait() == 0
    assert new.stop() == 0
