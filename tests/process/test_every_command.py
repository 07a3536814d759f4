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
    fired = tmp_path / "fired"
    valkey.rpush("plan", f"1 {what}")
    pool = start_pool(
        yaml=f'"{queues}": {{workers: 1, worker_class: pool_jobs.Interrupted}}',
        env={"FIRED": str(fired)},
    )
    outcomes = []
    for number in range(1, 100):
        pool.expect_ready(number)
        eventually(lambda: waits(valkey))
        valkey.rpush("plan", f"{number + 1} {what}")
        fired.unlink(missing_ok=True)
        job = enqueue("high", "note", "ran", str(number))
        eventually(lambda job=job: job.get_status() in ENDED)
        outcomes.append(job.get_status())
        # A job that was begun, and whose horse was killed with its worker, may fail; no other may.
        assert what == "kill-both" or outcomes[-1] == JobStatus.FINISHED
        ran = valkey.lrange("ran", 0, -1).count(str(number).encode())
        assert ran == 1 or (ran == 0 and outcomes[-1] == JobStatus.FAILED)
        eventually(lambda: valkey.keys("rq:pool:in-flight:*") == [])
        eventually(
            lambda: StartedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False) == []
        )
        if not has_fired(fired, valkey):
            break
    # Fewer would mean that the commands were not counted.
    assert 15 < number < 99
    if what == "kill-both":
        assert set(outcomes) == {JobStatus.FINISHED, JobStatus.FAILED}


def waits(valkey):
    """Whether a worker waits for a job."""
    return any("b" in client["flags"] for client in valkey.client_list())


def has_fired(fired, valkey):
    """Whether the interruption came; it did not, once the worker waits again after its job."""
    eventually(lambda: fired.exists() or waits(valkey))
    return fired.exists()
