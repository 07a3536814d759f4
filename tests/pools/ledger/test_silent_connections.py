"""Connections that have died without a word, as behind a firewall that has forgotten them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from rq import Queue

from fault_proxy import FaultProxy
from harness import eventually
from marked_jobs import FOLDER, read_marks
from settled import PATIENCE, assert_settled

SOON = "from django_rq_pool.ledger import sweep\nsweep.SWEEP_SECONDS = 2"
"""Settings by which a pool looks for what lost workers have left every two seconds."""


@pytest.fixture
def proxy(server) -> Iterator[FaultProxy]:
    with FaultProxy(server.connection_url) as proxy:
        yield proxy


@pytest.fixture
def start(start_with, proxy, tmp_path):
    """Starts a pool behind the proxy."""
    (tmp_path / "marks").mkdir()

    def start(*arguments: str, **options: str):
        env = {"REDIS_URL": proxy.url, FOLDER: str(tmp_path / "marks")}
        return start_with(SOON, *arguments, env=env, **options)

    return start


@pytest.fixture
def enqueue_marked(valkey, tmp_path):
    """Enqueues jobs past the proxy; the second function says how often each was begun."""

    def enqueue(number: int, queue: str = "high"):
        return [Queue(queue, connection=valkey).enqueue("marked_jobs.plain") for _ in range(number)]

    def begun(jobs):
        return [len(read_marks(tmp_path / "marks", job.id).begun) for job in jobs]

    return enqueue, begun


@pytest.mark.parametrize("groups", [["high=3"], ["high,low=3"]])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGQUIT])
def test_what_the_connections_of_workers_that_are_gone_still_move_is_run(
    start, enqueue_marked, valkey, proxy, groups, signum
):
    enqueue, begun = enqueue_marked
    pool = start(*groups).expect_ready(3)
    # Each worker waits on each of its queues.
    waits = 3 * len(groups[0].split(","))
    eventually(lambda: int(valkey.info("clients")["blocked_clients"]) == waits)
    pids = pool.worker_pids()
    assert len(proxy.blackhole_now()) >= waits
    jobs = enqueue(2) if signum == signal.SIGKILL else []
    for pid in pids:
        os.kill(pid, signum)
    jobs += enqueue(8)
    pool.expect("reaped", 3)
    jobs += enqueue(2)
    eventually(lambda: all(job.is_finished for job in jobs), PATIENCE)
    eventually(lambda: assert_settled(valkey, pool), PATIENCE)
    assert begun(jobs) == [1] * len(jobs)
    assert pool.stop() == 0


def test_a_worker_whose_connections_have_died_takes_the_job_that_waits(
    start, enqueue_marked, valkey, proxy
):
    enqueue, begun = enqueue_marked
    pool = start("high,low=1").expect_ready(1)
    eventually(lambda: int(valkey.info("clients")["blocked_clients"]) == 2)
    before = pool.worker_pids()
    proxy.blackhole_now()
    jobs = [*enqueue(3), *enqueue(1, "low")]
    eventually(lambda: all(job.is_finished for job in jobs), PATIENCE)
    eventually(lambda: assert_settled(valkey, pool), PATIENCE)
    assert begun(jobs) == [1] * len(jobs)
    assert pool.worker_pids() == before
    assert pool.stop() == 0


def test_a_job_whose_workers_connections_die_while_it_runs_is_written_once(
    start, valkey, proxy, tmp_path
):
    pool = start("high=1").expect_ready(1)
    queue = Queue("high", connection=valkey)
    job = queue.enqueue("marked_jobs.held", str(tmp_path / "gate"))
    marks = tmp_path / "marks"
    eventually(lambda: read_marks(marks, job.id).begun)
    proxy.blackhole_now()
    (tmp_path / "gate").touch()
    following = queue.enqueue("marked_jobs.plain")
    eventually(lambda: job.is_finished and following.is_finished, PATIENCE)
    eventually(lambda: assert_settled(valkey, pool), PATIENCE)
    assert [len(read_marks(marks, each.id).begun) for each in (job, following)] == [1, 1]
    assert pool.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGTERM])
@pytest.mark.parametrize("group", ["high=2", "high,low=2"])
def test_a_pool_whose_connections_have_died_can_be_stopped(start, valkey, proxy, group, signum):
    pool = start(group).expect_ready(2)
    waits = 2 * len(group.split(","))
    eventually(lambda: int(valkey.info("clients")["blocked_clients"]) == waits)
    proxy.blackhole_now()
    assert pool.stop(signum) == 0
    assert pool.processes() == []
    pool.expect("manager .* finished")
