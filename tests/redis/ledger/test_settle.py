"""What becomes of each job that a worker holds, in a real server and without any worker."""

from __future__ import annotations

import pytest
import redis
from redis.exceptions import ConnectionError
from rq import Queue, Retry, Worker
from rq.executions import Execution
from rq.job import Dependency, Job, JobStatus
from rq.registry import FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry
from rq.serializers import DefaultSerializer

from django_rq_pool.config.options import GroupOptions
from django_rq_pool.ledger.held import Fetched
from django_rq_pool.ledger.recovery import Recovery, join, lost_members
from django_rq_pool.ledger.settle import JobClasses, Settler

NAME = "shop.web1.high.1-00000000"
CAUSE = "Its worker was killed."


@pytest.fixture
def queue(valkey: redis.Redis) -> Queue:
    return Queue("high", connection=valkey)


def settler(valkey: redis.Redis, notice: Notice | None = None, **options: object) -> Settler:
    classes = JobClasses(Job, Queue, DefaultSerializer)
    return Settler(valkey, NAME, GroupOptions(**options), classes, notice)


def take(valkey: redis.Redis, queue: Queue, job: Job) -> None:
    """The job goes to the in-flight list of the worker."""
    assert valkey.lrem(queue.key, 1, job.id) == 1
    valkey.rpush(f"rq:pool:in-flight:{NAME}", job.id)


def note_execution(job: Job) -> Execution:
    """The worker notes that it is about to fork a work horse."""
    with job.connection.pipeline() as pipeline:
        execution = Execution.create(job, 90, pipeline, worker_name=NAME)
        pipeline.execute()
    return execution


def begin(valkey: redis.Redis, queue: Queue, job: Job) -> Execution:
    """A work horse makes the job a started one."""
    take(valkey, queue, job)
    execution = note_execution(job)
    with valkey.pipeline() as pipeline:
        job.prepare_for_execution(NAME, pipeline=pipeline)
        pipeline.lrem(f"rq:pool:in-flight:{NAME}", 1, job.id)
        pipeline.execute()
    return execution


def assert_nothing_held(valkey: redis.Redis) -> None:
    assert valkey.keys(f"*{NAME}*") == []
    assert StartedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False) == []
    assert valkey.keys("rq:execution:*") == []


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
    execution = begin(valkey, queue, job)
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
    execution = begin(valkey, queue, job)
    valkey.delete(job.key)
    settler(valkey).settle_all(CAUSE)
    assert not valkey.exists(execution.key)
    assert valkey.keys(f"*{NAME}*") == []


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
    settler(valkey).fail_unreadable(Fetched(queue.key, job.id))
    failed = FailedJobRegistry("high", connection=valkey)
    assert failed.get_job_ids(cleanup=False) == [job.id]
    assert_nothing_held(valkey)


# Recovery


def recovery(valkey: redis.Redis) -> Recovery:
    return Recovery(settler(valkey), "shop", ["high"])


def test_one_process_recovers_a_worker_and_no_other(valkey):
    assert recovery(valkey).lock()
    assert not recovery(valkey).lock()
    recovery(valkey).finish(CAUSE)
    assert recovery(valkey).lock()


def test_a_recovery_leaves_nothing_of_the_worker(valkey, queue):
    worker = Worker([queue], name=NAME, connection=valkey)
    worker.register_birth()
    join(valkey, "shop", NAME, "high")
    job = queue.enqueue("jobs.some")
    begin(valkey, queue, job)
    lost = recovery(valkey)
    assert lost.lock()
    lost.unregister()
    assert Worker.all(connection=valkey) == []
    lost.keep_alive(60)
    assert job.get_status() == JobStatus.STARTED
    lost.finish(CAUSE)
    assert job.get_status() == JobStatus.FAILED
    assert_nothing_held(valkey)
    assert not valkey.exists("rq:pool:members:shop")
    assert not valkey.exists("rq:workers:high")


def test_a_member_that_is_not_registered_is_suspected_first_and_lost_after_a_minute(valkey, queue):
    Worker([queue], name="alive", connection=valkey).register_birth()
    for name in ("alive", NAME):
        join(valkey, "shop", name, "high")
    assert lost_members(valkey, "shop") == ([], True)
    assert lost_members(valkey, "shop") == ([], True)
    valkey.hset("rq:pool:suspects:shop", NAME, valkey.time()[0] - 61)
    assert lost_members(valkey, "shop") == ([NAME], False)


def test_a_suspect_that_is_registered_again_is_no_suspect(valkey, queue):
    join(valkey, "shop", NAME, "high")
    assert lost_members(valkey, "shop") == ([], True)
    Worker([queue], name=NAME, connection=valkey).register_birth()
    assert lost_members(valkey, "shop") == ([], False)
    assert not valkey.exists("rq:pool:suspects:shop")
