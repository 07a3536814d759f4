"""Accounts: what has become of each job of a storm.

Rule of the room: what a job did is read from its marks on disk, for a server may forget; only
where it stands is asked of the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis
from rq import Queue, Worker
from rq.job import Job, JobStatus
from rq.utils import as_text

from marked_jobs import Marks, read_marks

SETTLED = (JobStatus.FINISHED, JobStatus.FAILED)


@dataclass(frozen=True)
class Enqueued:
    """A job whose enqueueing the server has acknowledged.

    Attributes:
        job_id: which.
        runs: how often it shall begin: twice if it fails at first and retries, or is repeated.
        at: when, in seconds of the monotonic clock.
    """

    job_id: str
    runs: int
    at: float


@dataclass(frozen=True)
class Forgotten:
    """What a failover took back.

    Attributes:
        since: when it began, in seconds of the monotonic clock.
        until: when it was over.
        writes: what was acknowledged and is known to no server any more.
    """

    since: float
    until: float
    writes: bytes


@dataclass
class History:
    """What happened in a storm.

    Attributes:
        jobs: those that were enqueued.
        killed: the processes that were killed while they may have run a job.
        forgotten: what failovers took back.
    """

    jobs: list[Enqueued] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)
    forgotten: list[Forgotten] = field(default_factory=list)


@dataclass
class Outcome:
    """What a storm did to the jobs."""

    jobs: int = 0
    events: int = 0
    finished: int = 0
    failed: int = 0
    lost: int = 0
    """In no queue and no registry."""
    stuck: int = 0
    """Noted as taken or started, with nobody alive who runs it; or in its queue, though the pool
    has had `PATIENCE` for it. A job that waits for a worker which is still to be forked is not."""
    twice: int = 0
    """Begun more often than it shall be, not counting those who were killed while they ran it."""
    dead: int = 0
    """Registered workers that do not live, when the pool has ended."""
    taken_back: int = 0
    """Of no other column's fault: begun again, at most as often as it shall be for each failover
    that took back what was acknowledged of it, or lost because its enqueueing was taken back."""
    ended: bool = False
    """Whether the pool ended by itself within a minute of being told to."""


def look_up(
    client: redis.Redis, queues: Sequence[str], marks: Path, history: History, outcome: Outcome
) -> None:
    """Fills in what has become of the jobs.

    Args:
        client: of the server on which they stand now.
        queues: all that they can stand in.
        marks: the folder of what they left.
        history: what happened to them.
        outcome: where it is noted.
    """
    outcome.jobs = len(history.jobs)
    places = _places(client, queues)
    ids = [job.job_id for job in history.jobs]
    found = Job.fetch_many(ids, connection=client)
    for enqueued, job in zip(history.jobs, found, strict=True):
        status = None if job is None else job.get_status(refresh=False)
        if status == JobStatus.FINISHED:
            outcome.finished += 1
        elif status == JobStatus.FAILED:
            outcome.failed += 1
        elif _was_never_known(enqueued, history.forgotten):
            outcome.taken_back += 1
            continue
        elif enqueued.job_id not in places:
            outcome.lost += 1
        else:
            outcome.stuck += 1
        excess = begun_in_excess(enqueued, read_marks(marks, enqueued.job_id), history)
        # One failover can take back every run of a job that is retried or repeated.
        if excess > enqueued.runs * times_forgotten(enqueued, history.forgotten):
            outcome.twice += 1
        elif excess > 0:
            outcome.taken_back += 1
    outcome.dead = Worker.count(connection=client)


def begun_in_excess(job: Enqueued, marks: Marks, history: History) -> int:
    """How often it was begun beyond what it shall be, those who were killed at it not counted."""
    return len([pid for pid in marks.begun if pid not in history.killed]) - job.runs


def times_forgotten(job: Enqueued, forgotten: Sequence[Forgotten]) -> int:
    """How many failovers took back something that was acknowledged of it."""
    return sum(job.job_id.encode() in each.writes for each in forgotten)


def _was_never_known(job: Enqueued, forgotten: Sequence[Forgotten]) -> bool:
    """Whether a failover took back its enqueueing."""
    return any(
        each.since <= job.at <= each.until and job.job_id.encode() in each.writes
        for each in forgotten
    )


def _places(client: redis.Redis, queues: Sequence[str]) -> set[str]:
    places: set[str] = set()
    for name in queues:
        queue = Queue(name, connection=client)
        places.update(queue.get_job_ids())
        for registry in (queue.started_job_registry, queue.failed_job_registry):
            places.update(registry.get_job_ids(cleanup=False))
        places.update(map(as_text, client.lrange(queue.intermediate_queue_key, 0, -1)))
    return places


def statuses(client: redis.Redis, jobs: Sequence[Enqueued]) -> Mapping[str, str]:
    """The status of each job that the server knows."""
    with client.pipeline(transaction=False) as pipeline:
        for job in jobs:
            pipeline.hget(f"rq:job:{job.job_id}", "status")
        found = pipeline.execute()
    return {
        job.job_id: as_text(status)
        for job, status in zip(jobs, found, strict=True)
        if status is not None
    }
