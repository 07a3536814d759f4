"""A server that refuses writes for a while: nothing is lost, and all is settled afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from rq import Queue, Retry, Worker
from rq.job import Job, JobStatus

from harness import OwnServer, Pool, eventually
from marked_jobs import FOLDER, read_marks
from refusals import full, replica, without_replicas
from settled import assert_settled

SIMPLE = "high: {workers: 4, worker_class: rq.SimpleWorker}"


@pytest.fixture
def admin(own_server: OwnServer) -> Iterator[redis.Redis]:
    """A client whom nothing is refused."""
    with redis.Redis.from_url(own_server.url) as client:
        client.acl_setuser(
            "worker",
            enabled=True,
            nopass=True,
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
        )
        yield client


@contextlib.contextmanager
def cannot_save(admin: redis.Redis) -> Iterator[None]:
    """Where the file should be is a folder that is not empty."""
    inside = Path(admin.config_get("dir")["dir"], admin.config_get("dbfilename")["dbfilename"], "x")
    inside.parent.mkdir()
    inside.touch()
    admin.config_set("save", "3600 1000000")
    save(admin, "err")
    yield
    inside.unlink()
    inside.parent.rmdir()
    save(admin, "ok")


def save(admin: redis.Redis, status: str) -> None:
    def is_done() -> bool:
        told = admin.info("persistence")
        if not told["rdb_bgsave_in_progress"] and told["rdb_last_bgsave_status"] != status:
            with contextlib.suppress(redis.ResponseError):  # the log is being rewritten
                admin.bgsave()
        return bool(told["rdb_last_bgsave_status"] == status)

    eventually(is_done)


@contextlib.contextmanager
def without_permission(admin: redis.Redis) -> Iterator[None]:
    admin.acl_setuser("worker", enabled=True, categories=["-@write"])
    yield
    admin.acl_setuser("worker", enabled=True, categories=["+@all"])


STATES = [
    (full, "OOM command not allowed"),
    (without_replicas, "NOREPLICAS Not enough good replicas"),
    (replica, "READONLY You can't write"),
    (cannot_save, "MISCONF .* unable to persist"),
    (without_permission, "(Redis refuses it: )?User worker has no permissions"),
]
each_state = pytest.mark.parametrize(
    ("state", "words"), STATES, ids=lambda each: getattr(each, "__name__", "")
)


class Site:
    """A pool and its jobs, each of which waits for its gate, a file.

    Args:
        start_pool: starts it.
        server: its server.
        folder: where gates and marks are.
    """

    def __init__(self, start_pool: Callable[..., Pool], server: OwnServer, folder: Path) -> None:
        self._start_pool = start_pool
        self._url = server.url.replace("unix://", "unix://worker:any@")
        self._folder = folder
        (folder / "marks").mkdir()
        self.queue = Queue("high", connection=redis.Redis.from_url(server.url))

    def start(self, *arguments: str, **options: str) -> Pool:
        env = {"REDIS_URL": self._url, FOLDER: str(self._folder / "marks")}
        return self._start_pool(*arguments, env=env, **options)

    def hold(self, gate: str, **options: object) -> tuple[Job, Worker, int]:
        """Enqueues a job; returns it, its worker and the pid of its process once it runs."""
        job = self.queue.enqueue("marked_jobs.held", str(self._folder / gate), **options)
        [pid] = eventually(lambda: self.begun(job))
        job.refresh()
        worker = Worker.find_by_key(f"rq:worker:{job.worker_name}", self.queue.connection)
        return job, worker, pid

    def open(self, gate: str) -> None:
        (self._folder / gate).touch()

    def begun(self, job: Job) -> tuple[int, ...]:
        """The processes that have begun a job."""
        return read_marks(self._folder / "marks", job.id).begun


@pytest.fixture
def site(start_pool, own_server, tmp_path) -> Site:
    return Site(start_pool, own_server, tmp_path)


def expect_ends(pool: Pool, state: object, words: str, *jobs: Job) -> None:
    """Jobs have ended, and wait for being settled. A full server lets a worker settle: a script
    whose first write needs no memory is let through."""
    if state is full:
        eventually(
            lambda: all(job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED) for job in jobs)
        )
    else:
        pool.expect(rf"Worker \S+: {words}.*; trying until Redis is back", len(jobs))


@each_state
def test_jobs_that_end_or_are_killed_while_writes_are_refused_are_settled_soon_after(
    site, admin, state, words
):
    pool = site.start("high=4").expect_ready(4)
    ends, *_ = site.hold("ends")
    horse_killed, _, horse = site.hold("never")
    worker_killed, worker, _ = site.hold("later")
    both_killed, lost, its_horse = site.hold("never", retry=Retry(max=1))
    waits = site.queue.enqueue("marked_jobs.plain")
    with state(admin):
        site.open("ends")
        os.kill(horse, signal.SIGKILL)
        os.kill(worker.pid, signal.SIGKILL)
        os.kill(lost.pid, signal.SIGKILL)
        os.kill(its_horse, signal.SIGKILL)
        pool.expect(f"workers keep trying: {words}")
        expect_ends(pool, state, words, ends, horse_killed)
        pool.expect(rf"recovery of worker {worker.name}.*: {words}")
        pool.expect(rf"recovery of worker {lost.name}.*: {words}")
        site.open("later")
        expect_ends(pool, state, words, ends, horse_killed, worker_killed)

    eventually(lambda: ends.is_finished and worker_killed.is_finished and waits.is_finished)
    eventually(lambda: horse_killed.is_failed and len(site.begun(both_killed)) == 2)
    site.open("never")
    eventually(lambda: both_killed.is_finished)
    for job in (ends, horse_killed, worker_killed, waits):
        assert len(site.begun(job)) == 1
    eventually(lambda: assert_settled(admin, pool))
    assert "signal 9" in horse_killed.latest_result().exc_string
    told = [found[0] for found in pool.found("workers keep trying: .*")]
    assert len(told) == len(set(told)), "each cause is told once"
    assert not pool.found("Traceback")
    assert pool.stop() == 0


@each_state
def test_simple_workers_settle_their_jobs_when_writes_are_not_refused_any_more(
    site, admin, state, words
):
    pool = site.start(yaml=SIMPLE).expect_ready(4)
    ends, *_ = site.hold("ends")
    killed, worker, _ = site.hold("never")
    waits = [site.queue.enqueue("marked_jobs.plain", at_front=True) for _ in range(2)]
    eventually(lambda: all(job.is_finished for job in waits))
    with state(admin):
        os.kill(worker.pid, signal.SIGKILL)
        site.open("ends")
        pool.expect(f"workers keep trying: {words}")
        expect_ends(pool, state, words, ends)
        pool.expect(rf"recovery of worker {worker.name}.*: {words}")
    eventually(lambda: ends.is_finished and killed.get_status() == JobStatus.FAILED)
    eventually(lambda: assert_settled(admin, pool))
    assert len(site.begun(ends)) == len(site.begun(killed)) == 1
    assert not pool.found("Traceback")
    assert pool.stop() == 0


@each_state
def test_idle_workers_wait_and_take_jobs_when_writes_are_not_refused_any_more(
    site, admin, state, words
):
    pool = site.start("high,low=2").expect_ready(2)
    with state(admin):
        pool.expect(f"workers keep trying: {words}")
    job = site.queue.enqueue("marked_jobs.plain")
    eventually(lambda: job.is_finished)
    pool.expect("Redis is back")
    eventually(lambda: assert_settled(admin, pool))
    assert len(pool.found(f"workers keep trying: {words}")) == 1
    assert not pool.found("Traceback")
    assert pool.stop() == 0


@each_state
def test_a_pool_whose_server_refuses_writes_can_be_stopped(site, admin, state, words):
    pool = site.start("high=2").expect_ready(2)
    with state(admin):
        assert pool.stop() == 0
        assert pool.processes() == []
    assert not pool.found("Traceback")
