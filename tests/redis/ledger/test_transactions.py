"""Each step of a job is carried out once, and only for the worker that holds the job."""

from __future__ import annotations

import pytest
import redis
from redis.exceptions import ConnectionError, ResponseError
from rq import Queue, Retry
from rq.job import Dependency, Job, JobStatus
from rq.rate_limit import RateLimit, RateLimitRegistry
from rq.registry import DeferredJobRegistry, FinishedJobRegistry, StartedJobRegistry

from django_rq_pool.ledger.held import HeldJobs
from django_rq_pool.ledger.transactions import InHand, NotHeld, Transactions
from ledger_steps import (
    NAME,
    assert_nothing_held,
    begin,
    begin_taken,
    commands_of,
    settler,
    take,
    transactions,
)


def finish(valkey: redis.Redis, hand: InHand, name: str = NAME) -> None:
    """Settles a job as finished, as RQ writes it."""

    def write(pipeline: redis.client.Pipeline) -> None:
        hand.execution.delete(job=hand.job, pipeline=pipeline)
        hand.job._handle_success(500, pipeline)

    steps = transactions(valkey, name)
    steps.settle(hand, commands_of(valkey, write), JobStatus.FINISHED)


def retry(valkey: redis.Redis, hand: InHand, steps: Transactions | None = None) -> None:
    hand.job.retries_left = 3

    def write(pipeline: redis.client.Pipeline) -> None:
        hand.execution.delete(job=hand.job, pipeline=pipeline)
        hand.job.retry(hand.queue, pipeline)

    steps = steps or transactions(valkey)
    steps.settle(hand, commands_of(valkey, write), None)


# Who holds the job


def test_a_job_that_is_not_in_flight_is_not_begun(valkey, queue):
    job = queue.enqueue("jobs.some")
    with pytest.raises(NotHeld):
        begin_taken(valkey, queue, job)
    assert job.get_status() == JobStatus.QUEUED
    assert queue.job_ids == [job.id]


def test_beginning_again_because_the_answer_was_lost_is_no_error(valkey, queue):
    hand = begin(valkey, queue, queue.enqueue("jobs.some"))
    transactions(valkey).begin(hand, [])
    assert hand.job.get_status() == JobStatus.STARTED


def test_a_job_that_is_begun_twice_is_refused_the_second_time(valkey, queue):
    job = queue.enqueue("jobs.some")
    begin(valkey, queue, job)
    with pytest.raises(NotHeld):
        begin_taken(valkey, queue, job)


def test_a_retry_whose_answer_was_lost_is_in_the_queue_once(valkey, queue):
    hand = begin(valkey, queue, queue.enqueue("jobs.some"))
    steps = transactions(valkey)
    retry(valkey, hand, steps)
    retry(valkey, hand, steps)
    assert queue.job_ids == [hand.job.id]
    hand.job.refresh()
    assert hand.job.retries_left == 2
    assert_nothing_held(valkey)


def test_a_job_is_settled_though_everything_that_expires_has_expired(valkey, queue):
    hand = begin(valkey, queue, queue.enqueue("jobs.some"))
    valkey.delete(
        hand.execution.key, f"rq:worker:{NAME}:executions", f"rq:executions:{hand.job.id}"
    )
    finish(valkey, hand)
    assert hand.job.get_status() == JobStatus.FINISHED


def test_a_job_that_another_recovered_and_failed_is_not_settled_again(valkey, queue):
    hand = begin(valkey, queue, queue.enqueue("jobs.some"))
    settler(valkey).settle_all("It was lost.")
    with pytest.raises(NotHeld):
        finish(valkey, hand)
    assert hand.job.get_status() == JobStatus.FAILED
    assert FinishedJobRegistry("high", connection=valkey).get_job_ids() == []


def test_a_job_that_rqs_clean_up_has_called_abandoned_is_not_settled_again(valkey, queue):
    hand = begin(valkey, queue, queue.enqueue("jobs.some"))
    started = StartedJobRegistry("high", connection=valkey)
    started.cleanup(2**40)
    assert hand.job.get_status() == JobStatus.FAILED
    with pytest.raises(NotHeld):
        finish(valkey, hand)
    assert FinishedJobRegistry("high", connection=valkey).get_job_ids() == []
    assert_nothing_held(valkey)


def test_a_job_that_was_requeued_meanwhile_and_waits_is_taken_from_its_queue_and_settled(
    valkey, queue
):
    hand = begin(valkey, queue, queue.enqueue("jobs.some"))
    settler(valkey, interrupted="requeue").settle_all("It was lost.")
    assert queue.job_ids == [hand.job.id]
    hand.execution.id = hand.execution.id[::-1]  # the same run, of which the server knows nothing
    finish(valkey, hand)
    assert queue.job_ids == []
    assert hand.job.get_status() == JobStatus.FINISHED


def test_a_job_that_was_requeued_and_runs_elsewhere_is_left_to_that_worker(valkey, queue):
    hand = begin(valkey, queue, queue.enqueue("jobs.some"))
    settler(valkey, interrupted="requeue").settle_all("It was lost.")
    other = begin(valkey, queue, hand.job, "other")
    with pytest.raises(NotHeld):
        finish(valkey, hand)
    assert hand.job.get_status() == JobStatus.STARTED
    finish(valkey, other, "other")
    assert hand.job.get_status() == JobStatus.FINISHED


def test_a_job_that_enqueued_itself_while_it_ran_is_settled_and_runs_again(valkey, queue):
    hand = begin(valkey, queue, queue.enqueue("jobs.some"))
    queue.enqueue_job(Job.fetch(hand.job.id, connection=valkey))
    finish(valkey, hand)
    assert queue.job_ids == [hand.job.id]
    assert hand.job.get_status() == JobStatus.FINISHED


def test_a_job_that_the_server_has_forgotten_to_have_begun_is_settled_from_where_it_stands(
    valkey, queue
):
    job = queue.enqueue("jobs.some")
    hand = begin(valkey, queue, job)
    # A failover took back what came after the job was enqueued.
    valkey.delete(f"rq:pool:begun:{NAME}", f"rq:wip:{queue.name}")
    valkey.hset(job.key, "status", "queued")
    valkey.rpush(queue.key, job.id)
    finish(valkey, hand)
    assert queue.job_ids == []
    assert job.get_status() == JobStatus.FINISHED


def test_a_full_server_lets_a_job_be_settled(valkey, queue):
    hand = begin(valkey, queue, queue.enqueue("jobs.some"))
    valkey.config_set("maxmemory", 1)
    try:
        with pytest.raises(ResponseError, match=r"memory|OOM"):
            valkey.set("something", 1)
        finish(valkey, hand)
    finally:
        valkey.config_set("maxmemory", 0)
    assert hand.job.get_status() == JobStatus.FINISHED


def test_a_step_is_sent_until_the_server_has_answered(valkey, queue, monkeypatch):
    hand = begin(valkey, queue, queue.enqueue("jobs.some"))
    steps = transactions(valkey)
    send, answers = steps._send, iter([True, False])

    def lose_the_first_answer(*arguments: object) -> int:
        answer = send(*arguments)
        if next(answers):
            raise ConnectionError("the answer is lost")
        return answer

    def again(step):
        try:
            return step()
        except ConnectionError:
            return step()

    monkeypatch.setattr(steps, "_send", lose_the_first_answer)
    monkeypatch.setattr(steps, "_repeat", again)
    steps.settle(hand, [("RPUSH", queue.key, hand.job.id)], None)
    assert queue.job_ids == [hand.job.id]


def test_no_replica_is_waited_for_where_nothing_was_written(valkey, queue):
    nobodys = Job("nobodys", connection=valkey)
    held = HeldJobs(valkey, NAME, [queue.key])
    Transactions(valkey, held, lambda step: step(), replicas=1).rehearse(nobodys, queue)
    hand = begin(valkey, queue, queue.enqueue("jobs.some"))
    with pytest.raises(ConnectionError, match="0 of 1 replicas"):
        Transactions(valkey, held, lambda step: step(), replicas=1).settle(hand, [])


# Dependents


def test_a_dependent_is_enqueued_in_the_step_that_settles_its_dependency(valkey, queue):
    low = Queue("low", connection=valkey, default_timeout=77)
    parent = queue.enqueue("jobs.some")
    here, there = (each.enqueue("jobs.some", depends_on=parent) for each in (queue, low))
    finish(valkey, begin(valkey, queue, parent))
    assert (queue.job_ids, low.job_ids) == ([here.id], [there.id])
    for job, name in ((here, "high"), (there, "low")):
        job.refresh()
        assert job.get_status() == JobStatus.QUEUED
        assert job.enqueued_at is not None
        assert DeferredJobRegistry(name, connection=valkey).get_job_ids() == []
    assert not valkey.exists(parent.dependents_key)


def test_what_rq_and_the_step_write_for_a_dependent_is_the_same(valkey, queue):
    def run(enqueue_dependents: bool) -> dict[bytes, bytes]:
        valkey.flushall()
        parent = queue.enqueue("jobs.some", job_id="parent")
        dependency = Dependency(parent, enqueue_at_front=True)
        job = queue.enqueue(
            "jobs.some", 1, depends_on=dependency, job_id="it", ttl=60, meta={"a": 1}
        )
        hand = begin(valkey, queue, parent)
        if enqueue_dependents:
            finish(valkey, hand)
        else:
            transactions(valkey).settle(
                hand, commands_of(valkey, lambda p: parent._handle_success(500, p)), None
            )
            queue.enqueue_dependents(parent)
        assert queue.job_ids == ["it"]
        assert 0 < valkey.ttl(job.key) <= 60
        state = valkey.hgetall(job.key)
        for varies in (b"enqueued_at", b"created_at", b"last_heartbeat", b"started_at", b"data"):
            state.pop(varies, None)
        return state

    assert run(enqueue_dependents=True) == run(enqueue_dependents=False)


def test_a_job_with_two_dependencies_is_enqueued_once_when_the_last_is_settled(valkey, queue):
    parents = [queue.enqueue("jobs.some") for _ in range(2)]
    child = queue.enqueue("jobs.some", depends_on=parents)
    hands = [begin(valkey, queue, parent) for parent in parents]
    finish(valkey, hands[0])
    assert queue.job_ids == []
    assert child.get_status() == JobStatus.DEFERRED
    finish(valkey, hands[1])
    assert queue.job_ids == [child.id]


def test_dependents_wait_when_their_dependency_has_failed_unless_they_allow_it(valkey, queue):
    parent = queue.enqueue("jobs.some")
    anyway = queue.enqueue("jobs.some", depends_on=Dependency(parent, allow_failure=True))
    never = queue.enqueue("jobs.some", depends_on=parent)
    hand = begin(valkey, queue, parent)
    transactions(valkey).settle(hand, [], JobStatus.FAILED)
    assert queue.job_ids == [anyway.id]
    assert never.get_status() == JobStatus.DEFERRED


def test_dependents_wait_when_their_dependency_was_canceled_as_it_ran_and_has_succeeded(
    valkey, queue
):
    parent = queue.enqueue("jobs.some")
    allowing = Dependency(parent, allow_failure=True)
    waiting = [
        queue.enqueue("jobs.some", depends_on=dependency) for dependency in (parent, allowing)
    ]
    hand = begin(valkey, queue, parent)
    Job.fetch(parent.id, connection=valkey).cancel()
    finish(valkey, hand)
    assert [job.get_status() for job in waiting] == [JobStatus.DEFERRED] * 2
    assert queue.job_ids == []


def test_a_canceled_dependent_stays_canceled(valkey, queue):
    parent = queue.enqueue("jobs.some")
    child = queue.enqueue("jobs.some", depends_on=parent)
    child.cancel()
    finish(valkey, begin(valkey, queue, parent))
    assert queue.job_ids == []
    assert child.get_status() == JobStatus.CANCELED


def test_a_dependent_of_a_job_whose_result_is_not_kept_is_enqueued(valkey, queue):
    parent = queue.enqueue("jobs.some", result_ttl=0)
    child = queue.enqueue("jobs.some", depends_on=parent)
    hand = begin(valkey, queue, parent)
    deletion = commands_of(valkey, lambda pipeline: parent.delete(pipeline=pipeline))
    transactions(valkey).settle(hand, deletion, JobStatus.FINISHED)
    assert queue.job_ids == [child.id]
    assert not valkey.exists(parent.key)


# Rate limits


def test_a_slot_is_freed_and_given_to_the_job_that_waits_longest(valkey, queue):
    limit = RateLimit("partner", 1)
    first, second, third = (queue.enqueue("jobs.some", rate_limit=limit) for _ in range(3))
    assert queue.job_ids == [first.id]
    valkey.zadd("rq:rl:partner:rate_limited", {second.id: 1, third.id: 2})  # seconds of the clock
    finish(valkey, begin(valkey, queue, first))
    assert queue.job_ids == [second.id]
    assert second.get_status() == JobStatus.QUEUED
    registry = RateLimitRegistry("partner", connection=valkey)
    assert registry.get_allowed_job_ids() == [second.id]
    assert registry.get_rate_limited_job_ids() == [third.id]


def test_a_job_that_is_retried_at_once_keeps_its_slot(valkey, queue):
    limit = RateLimit("partner", 1)
    first, second = (
        queue.enqueue("jobs.some", rate_limit=limit, retry=Retry(max=3)) for _ in range(2)
    )
    retry(valkey, begin(valkey, queue, first))
    assert queue.job_ids == [first.id]
    assert second.get_status() == JobStatus.RATE_LIMITED


def test_a_dependent_with_a_rate_limit_waits_for_its_slot(valkey, queue):
    limit = RateLimit("partner", 1)
    holder = queue.enqueue("jobs.some", rate_limit=limit)
    parent = queue.enqueue("jobs.some")
    child = queue.enqueue("jobs.some", rate_limit=limit, depends_on=parent)
    finish(valkey, begin(valkey, queue, parent))
    assert child.get_status() == JobStatus.RATE_LIMITED
    assert queue.job_ids == [holder.id]
    finish(valkey, begin(valkey, queue, holder))
    assert queue.job_ids == [child.id]


def test_a_job_is_put_back_in_vain_only_so_often(valkey, queue):
    job = queue.enqueue("jobs.some")
    one = settler(valkey, interrupted_limit=2)
    outcomes = []
    for _ in range(3):
        take(valkey, queue, job)
        (fetched,) = one.held.taken()
        outcomes.append(one.put_back(fetched, [], counted=True))
    assert outcomes == [True, True, False]
    assert queue.job_ids == []
    assert one.held.taken() == [fetched]
