"""What becomes of each job that a worker holds, in a real server and without any worker."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.exceptions import ConnectionError
from rq import Retry
from rq.job import Dependency, Job, JobStatus
from rq.rate_limit import RateLimit
from rq.registry import FailedJobRegistry, ScheduledJobRegistry

from django_rq_pool.ledger.held import Fetched
from django_rq_pool.ledger.settle import Settler
from ledger_steps import (
    NAME,
    assert_nothing_held,
    begin,
    commands_of,
    member,
    note_execution,
    settler,
    take,
    transactions,
)

CAUSE = "Its worker was killed."


def test_jobs_that_were_not_begun_are_first_in_their_queue_again_in_their_order(valkey, queue):
    first, second, third = (queue.enqueue("jobs.some") for _ in range(3))
    take(valkey, queue, first)
    take(valkey, queue, second)
    settler(valkey).settle_all(CAUSE)
    assert queue.job_ids == [first.id, second.id, third.id]
    assert_nothing_held(valkey)


def test_a_job_whose_execution_was_noted_and_that_was_not_begun_is_put_back(valkey, queue):
    job = queue.enqueue("jobs.some")
    take(valkey, queue, job)
    note_execution(job)
    settler(valkey, interrupted="requeue").settle_all(CAUSE)
    assert queue.job_ids == [job.id]
    assert job.get_status() == JobStatus.QUEUED
    assert not valkey.hexists(job.key, "pool_interrupted")
    assert_nothing_held(valkey)


def test_a_job_that_was_canceled_while_it_was_in_flight_is_dropped(valkey, queue):
    job = queue.enqueue("jobs.some")
    take(valkey, queue, job)
    job.cancel()
    settler(valkey).settle_all(CAUSE)
    assert queue.job_ids == []
    assert job.get_status() == JobStatus.CANCELED
    assert_nothing_held(valkey)


def test_a_job_that_was_begun_is_failed_with_the_reason_and_its_worker(valkey, queue):
    job = queue.enqueue("jobs.some")
    execution = begin(valkey, queue, job).execution
    settler(valkey).settle_all(CAUSE)
    assert job.get_status() == JobStatus.FAILED
    assert job.id in FailedJobRegistry("high", connection=valkey)
    result = job.latest_result()
    assert (result.exc_string, result.worker_name) == (CAUSE, NAME)
    assert result.execution_id == execution.id
    assert_nothing_held(valkey)


def test_settling_again_changes_nothing(valkey, queue):
    failed, put_back = queue.enqueue("jobs.some"), queue.enqueue("jobs.some")
    begin(valkey, queue, failed)
    take(valkey, queue, put_back)
    for _ in range(3):
        settler(valkey).settle_all(CAUSE)
    assert queue.job_ids == [put_back.id]
    assert len(failed.results()) == 1


def test_a_job_with_retries_left_is_retried_once(valkey, queue):
    job = queue.enqueue("jobs.some", retry=Retry(max=2))
    begin(valkey, queue, job)
    for _ in range(2):
        settler(valkey).settle_all(CAUSE)
    assert queue.job_ids == [job.id]
    job.refresh()
    assert job.retries_left == 1
    assert_nothing_held(valkey)


def test_a_retry_with_an_interval_is_scheduled(valkey, queue):
    job = queue.enqueue("jobs.some", retry=Retry(max=1, interval=3600))
    begin(valkey, queue, job)
    settler(valkey).settle_all(CAUSE)
    assert job.id in ScheduledJobRegistry("high", connection=valkey)
    assert_nothing_held(valkey)


def test_a_job_that_is_called_scheduled_and_is_not_is_settled(valkey, queue):
    job = queue.enqueue("jobs.some", retry=Retry(max=1, interval=3600))
    begin(valkey, queue, job)
    job.set_status(JobStatus.SCHEDULED)
    settler(valkey).settle_all(CAUSE)
    assert job.id in ScheduledJobRegistry("high", connection=valkey)


def test_a_job_that_had_ended_stays_as_it_is(valkey, queue):
    job = queue.enqueue("jobs.some")
    begin(valkey, queue, job)
    job.set_status(JobStatus.FINISHED)
    settler(valkey).settle_all(CAUSE)
    assert job.get_status() == JobStatus.FINISHED
    assert job.results() == []
    assert_nothing_held(valkey)


def test_a_job_that_was_deleted_while_it_ran_leaves_nothing(valkey, queue):
    job = queue.enqueue("jobs.some")
    execution = begin(valkey, queue, job).execution
    valkey.delete(job.key)
    settler(valkey).settle_all(CAUSE)
    assert not valkey.exists(execution.key)
    assert_nothing_held(valkey)


def test_with_requeue_a_job_comes_first_and_fails_when_it_was_cut_short_too_often(valkey, queue):
    job = queue.enqueue("jobs.some", retry=Retry(max=5))
    queue.enqueue("jobs.some")
    for _ in range(2):
        begin(valkey, queue, job)
        settler(valkey, interrupted="requeue", interrupted_limit=2).settle_all(CAUSE)
        assert queue.job_ids[0] == job.id
        assert job.get_status() == JobStatus.QUEUED
        assert_nothing_held(valkey)
    begin(valkey, queue, job)
    settler(valkey, interrupted="requeue", interrupted_limit=2).settle_all(CAUSE)
    assert job.get_status() == JobStatus.FAILED
    assert "cut short too often" in job.latest_result().exc_string


def test_dependents_of_a_job_that_is_failed_are_enqueued_if_they_allow_it(valkey, queue):
    job = queue.enqueue("jobs.some")
    anyway = queue.enqueue("jobs.some", depends_on=Dependency(job, allow_failure=True))
    never = queue.enqueue("jobs.some", depends_on=job)
    begin(valkey, queue, job)
    settler(valkey).settle_all(CAUSE)
    assert queue.job_ids == [anyway.id]
    assert never.get_status() == JobStatus.DEFERRED


class Notice:
    """Notes who is told, in the place of the project."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool]] = []

    def send(self, job: Job) -> None:
        self.told.append((job.id, job.ended_at is not None))


def test_the_project_is_told_of_a_failure_once_though_the_record_is_repeated(
    valkey, queue, monkeypatch
):
    notice = Notice()
    job = queue.enqueue("jobs.some")
    begin(valkey, queue, job)
    again = settler(valkey, notice)
    with monkeypatch.context() as patch:
        patch.setattr(again, "_record_failure", unreachable)
        for _ in range(2):
            with pytest.raises(ConnectionError):
                again.settle_all(CAUSE)
    again.settle_all(CAUSE)
    assert notice.told == [(job.id, True)]
    assert job.get_status() == JobStatus.FAILED


def unreachable(*arguments: object) -> None:
    raise ConnectionError("no answer")


def test_a_job_that_is_requeued_has_not_failed_and_nobody_is_told(valkey, queue):
    notice = Notice()
    job = queue.enqueue("jobs.some")
    begin(valkey, queue, job)
    settler(valkey, notice, interrupted="requeue").settle_all(CAUSE)
    assert notice.told == []


def test_a_job_whose_data_cannot_be_read_is_among_the_failed_ones(valkey, queue):
    job = queue.enqueue("jobs.some")
    take(valkey, queue, job)
    settler(valkey).fail_unusable(Fetched(queue.key, job.id), "It makes no sense.")
    failed = FailedJobRegistry("high", connection=valkey)
    assert failed.get_job_ids(cleanup=False) == [job.id]
    assert job.latest_result().exc_string == "It makes no sense."
    assert_nothing_held(valkey)


def test_a_retry_that_is_not_held_changes_no_status(valkey, queue):
    job = queue.enqueue("jobs.some", retry=Retry(max=1, interval=3600))
    hand = begin(valkey, queue, job)
    one = settler(valkey)
    found = one.put_back_and_list_begun()

    def write(pipeline):  # the horse ends it meanwhile
        hand.execution.delete(job=job, pipeline=pipeline)
        job._handle_success(500, pipeline)

    transactions(valkey).settle(hand, commands_of(valkey, write), JobStatus.FINISHED)
    for each in found:
        one.end(each, CAUSE)
    assert job.get_status() == JobStatus.FINISHED
    assert job.id not in ScheduledJobRegistry("high", connection=valkey)


def test_an_execution_of_which_a_late_heartbeat_is_left_is_settled(valkey, queue):
    job = queue.enqueue("jobs.some")
    execution = begin(valkey, queue, job).execution
    valkey.delete(execution.key)  # expired, while Redis was away
    with valkey.pipeline() as pipeline:
        execution.heartbeat(queue.started_job_registry, 90, pipeline)
        pipeline.execute()
    settler(valkey).settle_all(CAUSE)
    assert job.get_status() == JobStatus.FAILED
    assert_nothing_held(valkey)


@pytest.mark.parametrize("status", ["finished", "failed", "created"])
def test_whoever_pushed_a_job_gets_it_back_into_the_queue_whatever_its_status(
    valkey, queue, status
):
    job = queue.enqueue("jobs.some")
    valkey.hset(job.key, "status", status)
    take(valkey, queue, job)
    settler(valkey).settle_all(CAUSE)
    assert queue.job_ids == [job.id]
    assert job.get_status() == JobStatus.QUEUED


@pytest.mark.parametrize("end", [Job.cancel, Job.delete])
def test_a_job_that_was_taken_and_is_not_wanted_any_more_does_not_come_back(valkey, queue, end):
    job = queue.enqueue("jobs.some")
    take(valkey, queue, job)
    end(job)
    settler(valkey).settle_all(CAUSE)
    assert queue.job_ids == []
    assert_nothing_held(valkey)


def test_a_dependent_without_end_of_life_is_enqueued_with_its_data(valkey, queue):
    parent = queue.enqueue("jobs.some")
    dependent = Job.create("jobs.some", connection=valkey, depends_on=parent, ttl=-1)
    dependent.allow_dependency_failures = True
    queue.enqueue_job(dependent)
    begin(valkey, queue, parent)
    settler(valkey).settle_all(CAUSE)
    assert queue.job_ids == [dependent.id]
    assert Job.fetch(dependent.id, connection=valkey).func_name == "jobs.some"


def test_a_job_that_cannot_be_used_holds_up_no_other(valkey, queue):
    limit = RateLimit("partner", 1)
    broken = queue.enqueue("jobs.some", rate_limit=limit)
    waits = queue.enqueue("jobs.some", rate_limit=limit)
    then = queue.enqueue("jobs.some", depends_on=Dependency(broken, allow_failure=True))
    others = [queue.enqueue("jobs.some") for _ in range(3)]
    for job in (others[0], broken, others[1]):
        begin(valkey, queue, job)
    take(valkey, queue, others[2])
    valkey.hset(broken.key, "created_at", "nonsense")
    settler(valkey).settle_all(CAUSE)
    failed = FailedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False)
    assert set(failed) == {broken.id, others[0].id, others[1].id}
    assert set(queue.job_ids) == {others[2].id, then.id, waits.id}
    assert valkey.hget(broken.key, "status") == b"failed"
    assert "nonsense" in broken.latest_result().exc_string
    assert_nothing_held(valkey)


class RefusesToFail(Job):
    """Raises where its failure is recorded."""

    def _handle_failure(self, *args, **kwargs):
        raise ValueError("this job class is broken")


def test_a_job_whose_class_raises_where_it_is_settled_is_failed_with_that(valkey, queue):
    refuses, other = queue.enqueue("jobs.some"), queue.enqueue("jobs.some")
    for job in (refuses, other):
        begin(valkey, queue, job)
    theirs = replace(member(), classes=replace(member().classes, job=RefusesToFail))
    with_class = Settler(valkey, theirs)
    with_class.settle_all(CAUSE)
    for job in (refuses, other):
        assert job.get_status() == JobStatus.FAILED
        assert "this job class is broken" in job.latest_result().exc_string
    assert_nothing_held(valkey)


def test_what_redis_cannot_do_now_is_no_reason_to_fail_a_job(valkey, queue, monkeypatch):
    job = queue.enqueue("jobs.some")
    begin(valkey, queue, job)
    again = settler(valkey)
    with monkeypatch.context() as patch:
        patch.setattr(again, "job_of", unreachable)
        with pytest.raises(ConnectionError):
            again.settle_all(CAUSE)
    assert job.get_status() == JobStatus.STARTED


def test_the_project_is_told_of_a_failure_by_one_process_only(valkey, queue):
    told = Notice()
    job = queue.enqueue("jobs.some")
    begin(valkey, queue, job)

    class Ends(Notice):
        def send(self, job: Job) -> None:
            super().send(job)
            raise SystemExit(0)

    first = Ends()
    with pytest.raises(SystemExit):
        settler(valkey, first).settle_all(CAUSE)
    assert job.get_status() == JobStatus.STARTED
    settler(valkey, told).settle_all(CAUSE)
    assert (len(first.told), len(told.told)) == (1, 0)
    assert job.get_status() == JobStatus.FAILED
