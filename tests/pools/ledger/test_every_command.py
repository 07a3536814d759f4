"""A worker is stopped, or killed, at each Redis command of a job's way; no job is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rq import Retry
from rq.job import JobStatus
from rq.registry import ScheduledJobRegistry, StartedJobRegistry

from harness import eventually

ENDED = (JobStatus.FINISHED, JobStatus.FAILED)


@pytest.fixture
def interruptions(start_pool, valkey, tmp_path):
    """Starts a pool whose worker is interrupted at its first command, whose successor at its
    second, and so on. Yields a number whenever a worker waits for a job, until one has done a job
    and sent fewer commands than its number."""
    marks = tmp_path / "interrupted"
    marks.mkdir()

    def interrupt(what: str, queues: str) -> Iterator[int]:
        start_pool(
            yaml=f'"{queues}": {{workers: 1, worker_class: pool_jobs.Interrupted}}',
            env={"INTERRUPTED": str(marks), "INTERRUPTION": what},
        )

        def survives():
            """Whether the pool's worker waits for a job, and has not been interrupted."""
            latest = int(valkey.get("workers so far") or 0)
            waits = (tmp_path / f"waits-{latest}").exists()
            return waits and not (marks / str(latest)).exists()

        seen = 0
        for number in range(99):
            eventually(survives)
            if seen == int(valkey.get("workers so far")):
                break
            seen = int(valkey.get("workers so far"))
            yield number
            eventually(lambda: valkey.keys("rq:pool:in-flight:*") == [])
            started = StartedJobRegistry("high", connection=valkey)
            eventually(lambda started=started: started.get_job_ids(cleanup=False) == [])
        # Fewer would mean that the commands were not counted.
        numbers = sorted(int(path.name) for path in marks.iterdir())
        assert numbers == list(range(1, len(numbers) + 1))
        assert 5 < len(numbers) < 99

    return interrupt


@pytest.mark.parametrize("queues", ["high", "high,default"])
@pytest.mark.parametrize("what", ["quit", "kill", "kill-both"])
def test_no_job_is_lost_or_done_twice_whatever_command_a_worker_is_interrupted_at(
    interruptions, enqueue, valkey, queues, what
):
    outcomes = set()
    for number in interruptions(what, queues):
        mark = str(number)
        job = enqueue("high", "note", "ran", mark)
        eventually(lambda job=job: job.get_status() in ENDED)
        # A job that was begun, and whose horse was killed with its worker, may fail; no other may.
        assert what == "kill-both" or job.is_finished
        ran = valkey.lrange("ran", 0, -1).count(mark.encode())
        assert ran == 1 or (ran == 0 and job.is_failed)
        outcomes.add(job.get_status())
    if what == "kill-both":
        assert outcomes == set(ENDED)


@pytest.mark.parametrize("what", ["kill", "kill-both"])
def test_no_retry_is_lost_or_wasted_whatever_command_a_worker_is_interrupted_at(
    interruptions, enqueue, valkey, what
):
    scheduled = ScheduledJobRegistry("high", connection=valkey)
    for _ in interruptions(what, "high"):
        job = enqueue("high", "fail", retry=Retry(max=2, interval=3600))
        eventually(lambda job=job: job.id in scheduled)
        job.refresh()
        assert job.get_status() == JobStatus.SCHEDULED
        assert job.retries_left == 1
