"""Stops while Redis accepts connections and does not answer, or does not even accept them.

The pools here would wait for ten minutes for each answer, and as long before they kill a worker. So
a pool that ends within a test has not waited for one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest
from rq import Queue

from fault_proxy import FaultProxy
from fault_rules import Direction, command
from harness import eventually
from marked_jobs import FOLDER, read_marks
from settled import PATIENCE, assert_settled

FOR_EVER = """
from django_rq_pool.config import redis_clients
from django_rq_pool.planning import plan
from django_rq_pool.worker import scheduler_process
redis_clients.COMMAND_TIMEOUT = 600.0
plan.IMMEDIATE_STOP_GRACE = 600.0
scheduler_process._STOP_LIMIT = 600.0
"""
"""Settings by which whatever is waited for is waited for in vain."""

GROUPS = {
    "one queue": "high: 2",
    "two queues": "'high,low': 2",
    "SimpleWorker": "high: {workers: 2, worker_class: rq.SimpleWorker}",
    "scheduler": "'high,low': {workers: 2, with_scheduler: true}",
    "bounds": "high: {workers: {min: 2, max: 4}}",
}
STOPS = [signal.SIGQUIT, signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def proxy(server) -> Iterator[FaultProxy]:
    with FaultProxy(server.connection_url) as proxy:
        yield proxy


@pytest.fixture
def start(start_with, proxy, tmp_path):
    """Starts a pool behind the proxy, or with another URL."""
    (tmp_path / "marks").mkdir()

    def start(yaml: str, settings: str = FOR_EVER, url: str = proxy.url):
        env = {"REDIS_URL": url, FOLDER: str(tmp_path / "marks")}
        return start_with(settings, yaml=yaml, env=env)

    return start


def anything(request) -> bool:
    return True


def assert_stops(pool, signum):
    assert pool.stop(signum) == 0
    eventually(lambda: not pool.processes())
    assert not pool.found("worker .* killing it")


@pytest.mark.parametrize("signum", STOPS)
@pytest.mark.parametrize("group", GROUPS)
def test_idle_workers_leave_a_server_that_has_fallen_silent(start, proxy, valkey, group, signum):
    pool = start(GROUPS[group]).expect_ready(2)
    waits = 4 if "low" in GROUPS[group] else 2
    eventually(lambda: int(valkey.info("clients")["blocked_clients"]) >= waits)
    if group == "scheduler":
        eventually(lambda: valkey.exists("rq:scheduler-lock:low"))
    proxy.blackhole(anything)
    proxy.blackhole_now()
    assert_stops(pool, signum)


@pytest.mark.parametrize("signum", STOPS)
@pytest.mark.parametrize("asked", ["SET", "HSET", "EVALSHA", None])
def test_workers_leave_a_server_that_does_not_answer_while_they_begin(start, proxy, asked, signum):
    """The write that shows whether there is Redis, the registration, the first look for a job, and
    the very first thing that a connection says."""
    matches = anything if asked is None else command(asked, "EXEC")
    matches = command(queued="HSET") if asked == "HSET" else matches
    rule = proxy.blackhole(matches)
    pool = start("high: 2")
    eventually(lambda: rule.hits >= 2)
    proxy.blackhole(anything)
    assert_stops(pool, signum)
    assert not pool.found("ready$")


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """A port where connections are neither accepted nor refused."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            client = stack.enter_context(socket.socket())
            client.settimeout(0.5)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                yield listener.getsockname()[1]
                return


@pytest.mark.parametrize("signum", STOPS)
@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_workers_leave_while_they_open_a_connection(start, scheme, signum):
    """Which is not accepted, or whose other side does not answer for TLS."""
    with contextlib.ExitStack() as stack:
        if scheme == "redis":
            port = stack.enter_context(full_backlog())
        else:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = listener.getsockname()[1]
        pool = start("high: 2", url=f"{scheme}://127.0.0.1:{port}")
        eventually(lambda: connecting(pool, port) == 2)
        assert_stops(pool, signum)


def connecting(pool, port: int) -> int:
    """How many of the workers have a connection to the port, opened or about to be."""
    found = 0
    for worker in pool.workers():
        found += any(each.raddr and each.raddr.port == port for each in worker.net_connections())
    return found


@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGTERM])
def test_many_workers_leave_as_fast_as_one(start, proxy, valkey, signum):
    pool = start("'high,low': 40").expect_ready(40)
    eventually(lambda: int(valkey.info("clients")["blocked_clients"]) == 80)
    proxy.blackhole(anything)
    proxy.blackhole_now()
    assert_stops(pool, signum)
    # Those for which nobody asks any more are not forgotten.
    assert len(pool.found("is not recovered; the next pool does it")) == 40


@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGTERM])
def test_a_job_that_such_a_worker_has_just_taken_is_run_by_the_next_pool(
    start, proxy, valkey, tmp_path, signum
):
    pool = start("high: 1").expect_ready(1)
    eventually(lambda: int(valkey.info("clients")["blocked_clients"]) == 1)
    # The server moves the job, and nobody hears of it.
    proxy.hold(anything, Direction.TO_CLIENT)
    proxy.hold_now(direction=Direction.TO_CLIENT)
    job = Queue("high", connection=valkey).enqueue("marked_jobs.plain")
    eventually(lambda: valkey.keys("rq:pool:in-flight:*"))
    assert_stops(pool, signum)
    assert valkey.keys("rq:pool:in-flight:*")

    proxy.heal()
    # Its registration has expired, and it has been missed for long enough.
    [gone] = valkey.hkeys("rq:pool:members")
    valkey.delete(gone)
    valkey.hset("rq:pool:suspects", gone, valkey.time()[0] - 61)
    valkey.delete("rq:pool:swept:own_settings")
    pool = start("high: 1", settings="").expect_ready(1)
    eventually(lambda: job.is_finished, PATIENCE)
    eventually(lambda: assert_settled(valkey, pool), PATIENCE)
    assert len(read_marks(tmp_path / "marks", job.id).begun) == 1
    assert pool.stop() == 0


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_a_worker_with_a_job_waits_for_its_end_and_settles_it(
    start, proxy, valkey, tmp_path, worker_class
):
    group = f"high: {{workers: 1, worker_class: {worker_class}}}"
    pool = start(group, settings="").expect_ready(1)
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    job = Queue("high", connection=valkey).enqueue("marked_jobs.held", str(gate))
    eventually(lambda: read_marks(marks, job.id).begun)
    proxy.hold(anything)
    proxy.hold_now()
    pool.send(signal.SIGQUIT)
    pool.expect("signal QUIT")
    gate.touch()
    eventually(lambda: read_marks(marks, job.id).ended)
    assert pool.process.poll() is None
    proxy.heal()
    assert pool.wait() == 0
    assert job.is_finished
    assert len(read_marks(marks, job.id).begun) == 1


def test_a_worker_that_is_replaced_meanwhile_is_recovered_when_redis_is_back(start, proxy, valkey):
    pool = start("high: 1", settings="").expect_ready(1)
    before = pool.worker_pids()
    eventually(lambda: int(valkey.info("clients")["blocked_clients"]) == 1)
    proxy.hold(anything)
    proxy.hold_now()
    os.kill(before[0], signal.SIGQUIT)
    pool.expect("worker .* reaped")
    proxy.heal()
    pool.expect_ready(2)
    eventually(lambda: assert_settled(valkey, pool), PATIENCE)
    assert pool.worker_pids() != before
    assert pool.stop() == 0
