"""Who recovers a worker that is gone, and who is gone, in a real server."""

from __future__ import annotations

import json

import pytest
import redis
from rq import Worker
from rq.job import Job, JobStatus

from django_rq_pool.ledger.members import join, leave, member_of
from django_rq_pool.ledger.recovery import Recovery
from django_rq_pool.ledger.sweep import lost_members, sweep_left
from ledger_steps import NAME, assert_nothing_held, begin, member, settler, take
from pool_jobs import note_killed

CAUSE = "Its worker was killed."


def recovery(valkey: redis.Redis, holder: str = "a") -> Recovery:
    return Recovery(settler(valkey), holder)


def names(valkey: redis.Redis) -> list[str]:
    return [lost.name for lost in lost_members(valkey, "shop")]


def test_one_process_recovers_a_worker_and_no_other(valkey):
    assert recovery(valkey).lock()
    assert not recovery(valkey, "b").lock()
    recovery(valkey).finish(CAUSE)
    assert recovery(valkey, "b").lock()


def test_the_successor_of_a_recovery_goes_on_at_once_because_it_knows_the_token(valkey):
    assert recovery(valkey).lock()
    assert recovery(valkey).lock()


def test_a_recovery_leaves_nothing_of_the_worker(valkey, queue):
    worker = Worker([queue], name=NAME, connection=valkey)
    worker.register_birth()
    join(valkey, member())
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
    assert not valkey.exists("rq:pool:members")
    assert not valkey.exists("rq:workers:high")


def test_what_a_dead_worker_had_under_way_is_ended_before_its_jobs_are_settled(valkey, queue):
    options = valkey.connection_pool.connection_kwargs
    waiting = redis.Redis(host=options["host"], port=options["port"])
    connection = waiting.connection_pool.get_connection()
    for command in (("CLIENT", "SETNAME", NAME), ("CLIENT", "ID")):
        connection.send_command(*command)
        connection.read_response()
    connection.send_command(
        "BLMOVE", queue.key, f"rq:pool:in-flight:{NAME}:{queue.key}", "LEFT", "RIGHT", 60
    )
    lost = recovery(valkey)
    assert lost.lock()
    lost.unregister()
    lost.finish(CAUSE)
    job = queue.enqueue("jobs.some")
    assert queue.job_ids == [job.id]
    waiting.close()


def test_a_job_that_comes_to_a_worker_which_has_left_goes_back_to_its_queue(valkey, queue):
    leave(valkey, member())
    job = queue.enqueue("jobs.some")
    take(valkey, queue, job)
    sweep_left(valkey)
    assert queue.job_ids == [job.id]
    assert valkey.hexists("rq:pool:left", member().key)
    since, record = json.loads(valkey.hget("rq:pool:left", member().key))
    valkey.hset("rq:pool:left", member().key, json.dumps([since - 61, record]))
    sweep_left(valkey)
    assert not valkey.exists("rq:pool:left")


def test_a_member_that_is_not_registered_is_suspected_first_and_lost_after_a_minute(valkey, queue):
    Worker([queue], name="alive", connection=valkey).register_birth()
    for name in ("alive", NAME):
        join(valkey, member(name))
    assert names(valkey) == []
    assert names(valkey) == []
    valkey.hset("rq:pool:suspects", member().key, valkey.time()[0] - 61)
    assert names(valkey) == [NAME]


def test_a_worker_of_another_pool_is_left_to_its_own_for_longer(valkey, queue):
    join(valkey, member())
    valkey.hset("rq:pool:suspects", member().key, valkey.time()[0] - 61)
    assert lost_members(valkey, "another") == []
    valkey.hset("rq:pool:suspects", member().key, valkey.time()[0] - 121)
    assert [lost.name for lost in lost_members(valkey, "another")] == [NAME]


def test_a_suspect_that_is_registered_again_is_no_suspect(valkey, queue):
    join(valkey, member())
    assert names(valkey) == []
    assert valkey.exists("rq:pool:suspects")
    Worker([queue], name=NAME, connection=valkey).register_birth()
    assert names(valkey) == []
    assert not valkey.exists("rq:pool:suspects")


def test_a_lost_worker_is_settled_by_its_own_groups_rules(valkey, queue):
    theirs = member(interrupted="requeue", interrupted_limit=7)
    join(valkey, theirs)
    found = member_of(theirs.key, valkey.hget("rq:pool:members", theirs.key))
    assert found == theirs


@pytest.mark.parametrize("handler", [note_killed, "pool_jobs.note_killed"])
def test_a_handler_is_written_as_its_dotted_path(handler):
    theirs = member(work_horse_killed_handler=handler, disable_default_exception_handler=True)
    found = member_of(theirs.key, theirs.record()).group.options
    assert found.work_horse_killed_handler == "pool_jobs.note_killed"
    assert found.disable_default_exception_handler


def test_a_class_of_another_project_is_replaced_by_one_with_its_prefix(valkey):
    class Their(Job):
        redis_job_namespace_prefix = "their:job:"

    Their.__module__ = "another_project.jobs"
    theirs = member()
    record = json.loads(theirs.record())
    record.update(job_class="another_project.jobs.Their", job_prefix="their:job:")
    found = member_of(theirs.key, json.dumps(record))
    assert found.classes.job.key_for("a") == "their:job:a"


def test_a_record_that_is_none_is_dropped_and_the_others_are_found(valkey):
    join(valkey, member())
    valkey.hset("rq:pool:members", "rq:worker:broken", "{")
    long_ago = valkey.time()[0] - 61
    valkey.hset("rq:pool:suspects", mapping={"rq:worker:broken": long_ago, member().key: long_ago})
    assert names(valkey) == [NAME]
    assert not valkey.hexists("rq:pool:members", "rq:worker:broken")


def test_a_worker_that_was_recovered_and_is_back_keeps_the_job_that_it_has_begun(valkey, queue):
    leave(valkey, member())  # somebody has recovered it
    join(valkey, member())
    job = queue.enqueue("jobs.some")
    begin(valkey, queue, job)
    sweep_left(valkey)
    assert job.get_status() == JobStatus.STARTED
    assert settler(valkey).held.begun()


def test_what_a_worker_begins_while_others_forget_it_stays_its_own(valkey, queue):
    settled, job = queue.enqueue("jobs.some"), queue.enqueue("jobs.some")
    begin(valkey, queue, settled)
    settler(valkey).settle_all(CAUSE)
    begin(valkey, queue, job)
    leave(valkey, member())
    assert [each.execution.job_id for each in settler(valkey).held.begun()] == [job.id]
    settler(valkey).settle_all(CAUSE)
    leave(valkey, member())
    assert not valkey.exists(f"rq:pool:begun:{NAME}")
