"""The accounts of a storm: a job is in one column for where it stands, and has run as it shall."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rq import Queue
from rq.job import JobStatus

from harness import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from accounts import Enqueued, Forgotten, History, Outcome, look_up

KILLED = 99


@pytest.fixture
def job(valkey):
    return Queue("high", connection=valkey).enqueue("marked_jobs.plain")


def account(valkey, folder: Path, job, *begun: int, runs: int = 1, **history) -> Outcome:
    (folder / job.id).write_text("".join(f"begun {pid}\n" for pid in begun))
    outcome = Outcome()
    what = History([Enqueued(job.id, runs, at=5.0)], **history)
    look_up(valkey, ["high"], folder, what, outcome)
    assert outcome.jobs == 1
    return outcome


def forgotten(job, since: float) -> Forgotten:
    return Forgotten(since, since + 2, b"HSET\r\n$44\r\nrq:job:%b\r\n" % job.id.encode())


def test_a_job_in_no_queue_is_lost_and_one_that_waits_for_ever_is_stuck(valkey, tmp_path, job):
    assert account(valkey, tmp_path, job).stuck == 1
    valkey.delete("rq:queue:high")
    assert account(valkey, tmp_path, job).lost == 1


@pytest.mark.parametrize(("begun", "runs", "twice"), [(1, 1, 0), (2, 1, 1), (2, 2, 0), (3, 2, 1)])
def test_a_job_that_is_begun_more_often_than_it_shall_be_counts(
    valkey, tmp_path, job, begun, runs, twice
):
    job.set_status(JobStatus.FINISHED)
    outcome = account(valkey, tmp_path, job, *range(begun), runs=runs)
    assert (outcome.finished, outcome.twice, outcome.taken_back) == (1, twice, 0)


def test_who_was_killed_at_it_does_not_count(valkey, tmp_path, job):
    assert account(valkey, tmp_path, job, KILLED, 1, killed={KILLED}).twice == 0
    assert account(valkey, tmp_path, job, KILLED, 1, 2, killed={KILLED}).twice == 1


def test_each_failover_that_took_something_back_accounts_for_one_more(valkey, tmp_path, job):
    once = [forgotten(job, since=10.0), Forgotten(20.0, 22.0, b"others")]
    outcome = account(valkey, tmp_path, job, 1, 2, forgotten=once)
    assert (outcome.twice, outcome.taken_back) == (0, 1)
    outcome = account(valkey, tmp_path, job, 1, 2, 3, forgotten=once)
    assert (outcome.twice, outcome.taken_back) == (1, 0)


def test_a_job_is_lost_unless_its_enqueueing_was_taken_back(valkey, tmp_path, job):
    valkey.flushall()
    later, meanwhile = forgotten(job, since=10.0), forgotten(job, since=4.0)
    outcome = account(valkey, tmp_path, job, forgotten=[later])
    assert (outcome.lost, outcome.taken_back) == (1, 0)
    outcome = account(valkey, tmp_path, job, forgotten=[meanwhile])
    assert (outcome.lost, outcome.taken_back) == (0, 1)
