"""A server that another replaces: each job is begun once, unless the server forgot that it was."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from rq import Queue
from rq.job import Job, JobStatus

from failover import SentinelGroup
from fault_proxy import FaultProxy
from harness import eventually
from marked_jobs import FOLDER, read_marks
from settled import PATIENCE, assert_settled


@pytest.fixture
def group(tmp_path) -> Iterator[SentinelGroup]:
    with SentinelGroup(tmp_path / "group") as group:
        yield group


@pytest.fixture
def marks(tmp_path):
    """The folder where jobs leave their marks."""
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


class Jobs:
    """Jobs of a group of servers, whichever is the master now.

    Args:
        group: the servers.
        marks: where the jobs leave their marks.
    """

    def __init__(self, group: SentinelGroup, marks: Path) -> None:
        self._group = group
        self._marks = marks
        self.ids: list[str] = []

    @property
    def master(self) -> redis.Redis:
        return self._group.to(self._group.master)

    def enqueue(self, number: int) -> None:
        queue = Queue("high", connection=self.master)
        self.ids += [queue.enqueue("marked_jobs.plain").id for _ in range(number)]

    def begun(self, job_id: str) -> int:
        """How often a job was begun."""
        return len(read_marks(self._marks, job_id).begun)

    def are_finished(self) -> bool:
        return self.failed() == []

    def failed(self) -> list[str] | None:
        """The jobs that have failed, when all the others are finished; until then None."""
        found = Job.fetch_many(self.ids, connection=self.master)
        if not all(job is not None and (job.is_finished or job.is_failed) for job in found):
            return None
        return [job.id for job in found if job is not None and job.is_failed]


@pytest.fixture
def jobs(group, marks) -> Jobs:
    return Jobs(group, marks)


SENTINEL, ADDRESS = "behind Sentinel", "behind an address"
SIMPLE = "high: {workers: 3, worker_class: rq.SimpleWorker}"


@pytest.mark.parametrize("way", [SENTINEL, ADDRESS])
@pytest.mark.parametrize("counts", ["high: 3", "high,low: 3", SIMPLE])
def test_each_job_is_begun_once_when_a_server_hands_over_to_another(
    start_pool, group, jobs, marks, way, counts
):
    with FaultProxy(f"redis://127.0.0.1:{group.master}") as proxy:
        where = {"REDIS_SENTINELS": group.sentinels} if way == SENTINEL else {}
        env = {"REDIS_URL": proxy.url, FOLDER: str(marks), **where}
        pool = start_pool(yaml=counts, env=env).expect_ready(3)
        for _ in range(2):  # and back
            jobs.enqueue(40)
            eventually(lambda: jobs.begun(jobs.ids[-30]))
            proxy.move(f"redis://127.0.0.1:{group.failover(coordinated=True).new}")
        jobs.enqueue(5)
        eventually(jobs.are_finished, PATIENCE)
        eventually(lambda: assert_settled(jobs.master, pool), PATIENCE)
        assert [jobs.begun(each) for each in jobs.ids] == [1] * len(jobs.ids)
        assert pool.stop() == 0
    assert not pool.found("Traceback")


def test_only_what_a_failover_has_made_a_server_forget_is_begun_twice(
    start_pool, group, jobs, marks
):
    env = {"REDIS_SENTINELS": group.sentinels, "REDIS_URL": "redis://nowhere", FOLDER: str(marks)}
    pool = start_pool("high=3", env=env).expect_ready(3)
    forgotten = b""
    for _ in range(2):  # and back
        jobs.enqueue(40)
        jobs.master.wait(1, 0)
        eventually(lambda: jobs.begun(jobs.ids[-30]))
        forgotten += group.failover().forgotten
    eventually(lambda: jobs.failed() is not None, PATIENCE)
    eventually(lambda: assert_settled(jobs.master, pool), PATIENCE)
    for each in jobs.failed() or ():  # it ended, and the server has forgotten how
        assert each.encode() in forgotten
    for each in jobs.ids:
        assert jobs.begun(each) == 1 or (jobs.begun(each) <= 3 and each.encode() in forgotten)
    assert pool.stop() == 0
    assert not pool.found("Traceback")


@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGTERM])
def test_a_pool_that_waits_for_a_replica_can_be_stopped(start_with, enqueue, valkey, signum):
    yaml = "high: {workers: 1, worker_class: rq.SimpleWorker}"
    pool = start_with("RQ_POOL_WAIT_REPLICAS = 1", yaml=yaml).expect_ready(1)
    job = enqueue("high", "note", "trace")
    pool.expect("0 of 1 replicas confirm what is written")
    assert pool.stop(signum) == 0
    assert job.get_status() in (JobStatus.QUEUED, JobStatus.FAILED)
    assert valkey.lrange("trace", 0, -1) == []


def test_with_wait_replicas_no_job_runs_before_a_replica_knows_of_it(
    start_with, group, jobs, marks
):
    env = {"REDIS_SENTINELS": group.sentinels, "REDIS_URL": "redis://nowhere", FOLDER: str(marks)}
    pool = start_with("RQ_POOL_WAIT_REPLICAS = 1", "high=2", env=env).expect_ready(2)
    replica = group.to(int(jobs.master.info("replication")["slave0"]["port"]))
    replica.replicaof("127.0.0.1", 1)
    eventually(lambda: jobs.master.info("replication")["connected_slaves"] == 0)
    jobs.enqueue(1)
    pool.expect("0 of 1 replicas confirm what is written")
    assert jobs.begun(jobs.ids[0]) == 0
    replica.replicaof("127.0.0.1", group.master)
    eventually(jobs.are_finished, PATIENCE)
    assert jobs.begun(jobs.ids[0]) == 1
    eventually(lambda: assert_settled(jobs.master, pool), PATIENCE)
    assert pool.stop() == 0
    assert not pool.found("Traceback")
