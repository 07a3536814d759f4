"""A worker is stopped, or killed, at each Redis command of a job's way; no job is lost."""

from __future__ import annotations

import pytest
from rq.job import JobStatus
from rq.registry import StartedJobRegistry

from harness import eventually

ENDED = (JobStatus.FINISHED, JobStatus.FAILED)


@pytest.mark.parametrize("queues", ["high", "high,default"])
@pytest.mark.parametrize("what", ["quit", "kill", "kill-both"])
def test_no_job_is_lost_or_done_twice_whatever_command_a_worker_is_interrupted_at(
    start_pool, enqueue, valkey, tmp_path, queues, what
):
    interrupted = tmp_path / "interrupted"
    interrupted.mkdir()
    start_pool(
        yaml=f'"{queues}": {{workers: 1, worker_class: pool_jobs.Interrupted}}',
        env={"INTERRUPTED": str(interrupted), "INTERRUPTION": what},
    )

    def survives():
        """Whether the pool's worker waits for a job, and has not been interrupted."""
        waits = any("b" in client["flags"] for client in valkey.client_list())
        latest = int(valkey.get("workers so far") or 0)
        return waits and latest and not (interrupted / str(latest)).exists()

    outcomes = []
    seen = 0
    while len(outcomes) < 99:
        eventually(survives)
        if seen == int(valkey.get("workers so far")):
            break  # it has done a job and sent fewer commands than its number
        seen = int(valkey.get("workers so far"))
        mark = str(len(outcomes))
        job = enqueue("high", "note", "ran", mark)
        eventually(lambda job=job: job.get_status() in ENDED)
        outcomes.append(job.get_status())
        # A job that was begun, and whose horse was killed with its worker, may fail; no other may.
        assert what == "kill-both" or outcomes[-1] == JobStatus.FINISHED
        ran = valkey.lrange("ran", 0, -1).count(mark.encode())
        assert ran == 1 or (ran == 0 and outcomes[-1] == JobStatus.FAILED)
        eventually(lambda: valkey.keys("rq:pool:in-flight:*") == [])
        eventually(
            lambda: StartedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False) == []
        )
    # Fewer would mean that the commands were not counted.
    numbers = sorted(int(path.name) for path in interrupted.iterdir())
    assert numbers == list(range(1, len(numbers) + 1))
    assert 15 < len(numbers) < 99
    if what == "kill-both":
        assert set(outcomes) == set(ENDED)
