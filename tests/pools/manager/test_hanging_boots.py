"""Workers that hang in their boot: they are told, ended and counted as failures to boot."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from django_rq_pool.planning.phases import INFO
from harness import eventually

HANGING = "pool_jobs.HangsAtBoot"
QUICK = "boot_timeout: 0.5"


def test_a_worker_that_hangs_is_killed_where_it_hung_is_told_once_and_another_is_forked(
    start_pool, enqueue
):
    yaml = f"high: {{workers: 2, worker_class: {HANGING}, {QUICK}}}\nlow: 1"
    pool = start_pool(yaml=yaml).expect_ready(1)
    log = pool.until("group high: not ready in time; next fork in", 3)
    assert "is not ready after 0.5 s (boot_timeout), killing it" in log
    assert log.count("in await_nobody\n") == 1  # the stack is written once
    pool.send(INFO)
    report = pool.expect(
        r"    workers fail to boot: not ready after 0\.5 s \(boot_timeout\), in await_nobody, "
        r"\S+pool_jobs\.py line \d+$"
    )
    assert report
    job = enqueue("low", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


@pytest.mark.parametrize("where", ["a lock in a hook", "a fork handler"])
def test_a_lock_that_was_held_at_the_fork_is_named(start_with, tmp_path, where):
    source = HELD_LOCK if where == "a lock in a hook" else FORK_HANDLER
    (tmp_path / "shelf").mkdir()
    pool = start_with(
        "INSTALLED_APPS = [*INSTALLED_APPS, 'shelf']",
        yaml=f"high: {{workers: 1, {QUICK}}}",
        modules={"shelf/__init__": "", "shelf/rqpool": source},
    )
    pool.expect(r"not ready after 0\.5 s \(boot_timeout\), in connect, \S+shelf/rqpool\.py line 9$")
    pool.expect("next fork in", 2)
    assert pool.stop(signal.SIGTERM) == 0


HELD_LOCK = """
import threading
from django_rq_pool import hooks

lock = threading.Lock()
lock.acquire()
@hooks.after_prefork
def connect(worker):
    lock.acquire()
"""
FORK_HANDLER = """
import os, threading

lock = threading.Lock()
lock.acquire()


def connect():
    lock.acquire()
os.register_at_fork(after_in_child=lambda: connect())
"""


def test_a_reload_whose_workers_hang_keeps_the_good_ones_and_says_so(start_pool, enqueue):
    pool = start_pool(yaml="high: 3").expect_ready(3)
    before = set(pool.worker_pids())
    hangs = f"high: {{workers: 3, worker_class: {HANGING}, {QUICK}}}"
    (pool.cwd / "rqpool.yml").write_text(hangs)
    pool.send(signal.SIGHUP)
    pool.expect("group high: keeping 2 from before the reload until a new worker is ready", 2)
    assert len(before & set(pool.worker_pids())) == 2
    pool.send(INFO).expect(r"high: 3 wanted, 2 ready, \d stopping, 2 from before the reload")
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


def test_a_worker_that_hangs_never_takes_the_only_good_one_with_it_at_a_reload(
    start_pool, enqueue, valkey
):
    yaml = "high: {workers: 2, worker_class: pool_jobs.HangsButOne}"
    pool = start_pool(yaml=yaml).expect_ready(1)
    [ready] = pool.expect(r"worker (\d+) of high ready$")
    good = int(ready[1])
    [hanging] = eventually(lambda: set(children(pool)) - {good})
    pool.send(signal.SIGHUP)
    pool.expect(rf"worker {hanging} of high reaped")
    pool.expect("of high forked", 3)  # its successor hangs as well
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert not pool.found(f"worker {good} of high reaped")
    assert psutil.pid_exists(good)
    assert pool.stop() == 0


def children(pool) -> list[int]:
    return [child.pid for child in pool.manager.children()]


def test_a_worker_that_waits_for_redis_is_alive_and_is_measured_when_redis_is_back(
    start_pool, own_server
):
    own_server.stop()
    yaml = f"""
    high: {{workers: 2, boot_timeout: 5}}
    low: {{workers: 1, boot_timeout: 5, worker_class: {HANGING}}}
    """
    pool = start_pool(yaml=yaml, env={"REDIS_URL": own_server.url})
    pool.expect("Redis cannot be reached", 2)
    since, waiting = time.monotonic(), children(pool)
    eventually(lambda: time.monotonic() > since + 7)
    assert children(pool) == waiting
    assert "is not ready after" not in pool.text()
    own_server.start()
    pool.expect_ready(2)
    pool.expect(r"of low is not ready after 5 s")
    assert pool.stop() == 0


LOOKS_COUNT_LITTLE = "from django_rq_pool.planning import watch_clock as clock"
LOOKS_COUNT_LITTLE += "\nclock.LONGEST_LOOK = 0.01"
"""Settings by which a worker has two hundred looks of the manager, and not two seconds."""


def test_a_manager_that_was_stopped_for_a_while_kills_nobody_for_that(start_with, valkey):
    yaml = "high: {workers: 1, worker_class: pool_jobs.BootsAtASign, boot_timeout: 2}"
    pool = start_with(LOOKS_COUNT_LITTLE, yaml=yaml)
    eventually(lambda: valkey.llen("boots"))
    [worker] = children(pool)
    manager, stopped_at = pool.manager_pid, time.monotonic()
    os.kill(worker, signal.SIGSTOP)
    os.kill(manager, signal.SIGSTOP)
    eventually(lambda: time.monotonic() > stopped_at + 3)
    os.kill(manager, signal.SIGCONT)
    pool.send(INFO).expect("1 wanted, 0 ready")
    os.kill(worker, signal.SIGCONT)
    valkey.rpush("boot", 1)
    pool.expect_ready(1)
    assert not pool.found("is not ready after")
    assert pool.stop() == 0


BUSY_MACHINE = "from django_rq_pool.system import processes\nprocesses.cpu_wait = lambda pid: 2.0"
"""Settings by which each worker has waited two seconds for a processor."""


def test_a_worker_on_a_busy_machine_has_the_time_that_it_waited_for_a_processor(start_with):
    yaml = f"high: {{workers: 1, worker_class: {HANGING}, {QUICK}}}"
    pool = start_with(BUSY_MACHINE, yaml=yaml)
    [killed] = pool.expect(r"of high reaped: SIGKILL after (\d+\.\d) s")[:1]
    assert float(killed[1]) >= 0.5 + 2.0
    assert pool.stop() == 0


def test_a_hot_swap_to_workers_that_hang_fails_with_the_reason_and_changes_nothing(start_pool):
    name = f"hang-{os.getpid()}"
    old = start_pool("--name", name, yaml="high: 1").expect_ready(1)
    before = old.worker_pids()
    new = start_pool(
        "--daemon",
        "--hot-swap",
        "--name",
        name,
        yaml=f"high: {{workers: 2, worker_class: {HANGING}, {QUICK}}}",
    )
    assert new.wait() == 1
    assert "not ready after 0.5 s (boot_timeout), in await_nobody, " in new.text()
    assert new.text().splitlines()[-1] == "Workers of high cannot boot."
    eventually(lambda: not new.processes())
    assert old.worker_pids() == before
    assert old.stop() == 0
