"""Answers that are lost, and a Redis that goes away at a bad moment: each step is taken once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from rq import Callback, Queue, Repeat, Retry, Worker

from fault_proxy import FaultProxy
from fault_rules import Request
from harness import eventually
from marked_jobs import FOLDER, GATE, read_marks
from settled import assert_settled


@pytest.fixture
def marks(tmp_path):
    """The folder where jobs leave their marks."""
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


@pytest.fixture
def proxy(server) -> Iterator[FaultProxy]:
    with FaultProxy(server.connection_url) as proxy:
        yield proxy


class First:
    """Matches each script the first time, and each second of the transactions of one kind.

    A step of a job is sent again word for word. Of a transaction that was lost around a job, there
    is none that is the same: the worker begins anew.
    """

    def __init__(self) -> None:
        self._seen: set[object] = set()

    def __call__(self, request: Request) -> bool:
        if request.name not in ("EVALSHA", "EVAL", "EXEC"):
            return False
        what = (request.name, request.args, tuple(each.name for each in request.queued))
        is_new = what not in self._seen
        if is_new:
            self._seen.add(what)
        elif request.name == "EXEC":
            self._seen.remove(what)
        return is_new


@pytest.mark.parametrize("counts", ["high: 2", "high: {workers: 2, worker_class: rq.SimpleWorker}"])
def test_jobs_run_exactly_as_often_as_they_shall_when_the_first_answer_to_each_step_is_lost(
    start_pool, valkey, proxy, marks, counts
):
    first = First()
    rule = proxy.lose_answer(first)
    pool = start_pool(yaml=counts, env={"REDIS_URL": proxy.url, FOLDER: str(marks)})
    queue = Queue("high", connection=valkey)
    retried = [queue.enqueue("marked_jobs.fails_at_first", retry=Retry(max=2)) for _ in range(8)]
    repeated = [queue.enqueue("marked_jobs.plain", repeat=Repeat(times=2)) for _ in range(8)]
    plain = [queue.enqueue("marked_jobs.plain") for _ in range(8)]
    after = [queue.enqueue("marked_jobs.plain", depends_on=job) for job in plain]

    eventually(lambda: all(job.is_finished for job in [*retried, *repeated, *plain, *after]), 180)
    eventually(lambda: assert_settled(valkey, pool))
    times = {2: retried, 3: repeated, 1: [*plain, *after]}
    for number, jobs in times.items():
        begun = [len(read_marks(marks, job.id).begun) for job in jobs]
        assert begun == [number] * len(jobs)
    assert rule.hits >= 2 * sum(number * len(jobs) for number, jobs in times.items())
    assert pool.stop() == 0


def forget_what_expires(client: redis.Redis) -> None:
    """What a server does in the minutes for which nobody can reach it."""
    for key in client.keys("*"):
        if client.ttl(key) >= 0:
            client.delete(key)


@pytest.mark.parametrize("counts", ["high: 1", "high: {workers: 1, worker_class: rq.SimpleWorker}"])
def test_a_job_whose_callback_ends_while_redis_is_away_is_written_once_and_run_once(
    start_pool, own_server, marks, tmp_path, counts
):
    env = {"REDIS_URL": own_server.url, FOLDER: str(marks), GATE: str(tmp_path / "gate")}
    pool = start_pool(yaml=counts, env=env).expect_ready(1)
    with redis.Redis.from_url(own_server.url) as client:
        job = Queue("high", connection=client).enqueue(
            "marked_jobs.plain", on_success=Callback("marked_jobs.ended_and_waits")
        )
        eventually(lambda: read_marks(marks, job.id).told)
        forget_what_expires(client)
    own_server.stop()
    (tmp_path / "gate").touch()
    pool.expect("trying until Redis is back")
    own_server.start()
    with redis.Redis.from_url(own_server.url) as client:
        job = job.__class__(job.id, connection=client)
        eventually(lambda: job.is_finished)
        eventually(lambda: assert_settled(client, pool))
        assert len(job.results()) == 1
        done = read_marks(marks, job.id)
        assert (len(done.begun), done.ended, done.told) == (1, 1, 1)
        [worker] = Worker.all(connection=client)
        assert worker.successful_job_count == 1
    assert pool.stop() == 0
