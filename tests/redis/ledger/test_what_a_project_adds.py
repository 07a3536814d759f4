"""What a project's overrides add to a step does not keep the step from being whole."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError
from rq.job import JobStatus

from django_rq_pool.ledger.recogniser import Recogniser
from ledger_steps import assert_nothing_held, begin, commands_of, transactions


def test_a_command_that_fails_does_not_keep_the_others_from_being_carried_out(valkey, queue):
    job = queue.enqueue("jobs.some")
    hand = begin(valkey, queue, job)
    valkey.set("text", "no list")

    def write(pipeline):
        pipeline.lpush("text", 1)
        hand.execution.delete(job=job, pipeline=pipeline)
        job._handle_success(500, pipeline)

    with pytest.raises(ResponseError):
        transactions(valkey).settle(hand, commands_of(valkey, write), JobStatus.FINISHED)
    assert job.get_status() == JobStatus.FINISHED
    assert job.id in queue.finished_job_registry
    assert_nothing_held(valkey)


def test_a_command_of_more_words_than_a_script_can_carry_out_follows(valkey, queue):
    job = queue.enqueue("jobs.some")
    hand = begin(valkey, queue, job)
    recogniser = Recogniser(transactions(valkey))
    arguments = (valkey.connection_pool, valkey.response_callbacks, True, None)
    with recogniser.settling(hand, None), recogniser.pipeline(*arguments) as pipeline:
        pipeline.sadd("ids", *range(10_000))
        hand.execution.delete(job=job, pipeline=pipeline)
        job._handle_success(500, pipeline)
        pipeline.execute()
    assert valkey.scard("ids") == 10_000
    assert job.get_status() == JobStatus.FINISHED
    assert_nothing_held(valkey)
