"""What a group's options and the project's settings make of its workers."""

from __future__ import annotations

import os

import pytest
from rq import Worker
from rq.serializers import JSONSerializer

from django_rq_pool.config.pool_redis import COMMAND_TIMEOUT
from harness import DEADLINE, eventually


def test_jobs_of_all_queues_of_a_group_run_in_the_order_of_its_priorities(
    start_pool, enqueue, valkey
):
    for queue in ("low", "default", "high") * 3:
        enqueue(queue, "note", "trace", queue)
    pool = start_pool("high,default,low=1")
    eventually(lambda: valkey.llen("trace") == 9)
    order = [name.decode() for name in valkey.lrange("trace", 0, -1)]
    assert order == ["high"] * 3 + ["default"] * 3 + ["low"] * 3
    assert pool.stop() == 0


def test_an_idle_worker_takes_a_job_from_whichever_queue_it_comes_to(start_pool, enqueue):
    pool = start_pool("high,default,low=1").expect_ready(1)
    for queue in ("low", "high", "default", "low", "high"):
        job = enqueue(queue, "note", "trace", queue)
        eventually(lambda job=job: job.is_finished)
    assert pool.stop() == 0


def test_round_robin_takes_from_the_queues_in_turn(start_pool, enqueue, valkey):
    for queue in ("low", "default", "high") * 3:
        enqueue(queue, "note", "trace", queue)
    pool = start_pool(yaml='"high,default,low": {workers: 1, dequeue_strategy: round_robin}')
    eventually(lambda: valkey.llen("trace") == 9)
    order = [name.decode() for name in valkey.lrange("trace", 0, -1)]
    assert order == ["high", "default", "low"] * 3
    assert pool.stop() == 0


def test_max_jobs_recycles_a_worker_at_once(start_pool, enqueue, valkey):
    pool = start_pool(yaml="high: {workers: 1, max_jobs: 2}").expect_ready(1)
    for number in range(6):
        enqueue("high", "note", "trace", str(number))
    eventually(lambda: valkey.llen("trace") == 6)
    pool.expect_ready(4)
    assert not pool.found("next fork")
    assert pool.stop() == 0


def test_max_idle_time_ends_an_idle_worker_and_it_is_replaced(start_pool):
    pool = start_pool(yaml="high: {workers: 1, max_idle_time: 1}").expect_ready(2)
    assert pool.found("reaped: exit code 0")
    assert pool.stop() == 0


@pytest.mark.parametrize("worker_class", ["pool_jobs.CustomWorker", "rq.SimpleWorker"])
def test_a_group_may_have_a_worker_class_of_its_own(start_pool, enqueue, valkey, worker_class):
    pool = start_pool(yaml=f"high: {{workers: 1, worker_class: {worker_class}}}").expect_ready(1)
    good, bad = enqueue("high", "note", "trace"), enqueue("high", "no_such_function")
    eventually(lambda: good.is_finished and bad.is_failed)
    if worker_class == "pool_jobs.CustomWorker":
        assert valkey.lrange("custom", 0, -1) == [good.id.encode(), bad.id.encode()]
    assert pool.stop() == 0


def test_the_worker_class_of_the_settings_is_used_when_the_group_names_none(
    start_with, enqueue, valkey
):
    pool = start_with('RQ = {"WORKER_CLASS": "pool_jobs.CustomWorker"}', "high=1").expect_ready(1)
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert valkey.lrange("custom", 0, -1) == [job.id.encode()]
    assert pool.stop() == 0


def test_exception_handlers_of_the_settings_are_called(start_with, enqueue, valkey):
    pool = start_with('RQ_EXCEPTION_HANDLERS = ["pool_jobs.handle"]', "high=1").expect_ready(1)
    job = enqueue("high", "no_such_function")
    eventually(lambda: job.is_failed)
    assert valkey.lrange("handled", 0, -1) == [job.id.encode()]
    assert pool.stop() == 0


def test_counts_and_options_can_come_from_the_settings(start_with, enqueue):
    pool = start_with(
        "from pool_jobs import CustomJob\n"
        'RQ_POOL = {"high": {"workers": 2, "job_class": CustomJob}, "production": {"high": 3}}',
        "-E",
        "production",
    )
    pool.expect_ready(3)
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


@pytest.mark.parametrize("where", ["group", "settings"])
def test_a_serializer_can_be_the_groups_or_the_queues(start_with, enqueue, where):
    path = "rq.serializers.JSONSerializer"
    if where == "group":
        pool = start_with("", yaml=f"high: {{workers: 1, serializer: {path}}}")
    else:
        pool = start_with(f'RQ_QUEUES["high"]["SERIALIZER"] = "{path}"', "high=1")
    job = enqueue("high", "note", "trace", "as JSON", serializer=JSONSerializer)
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


def test_a_job_that_was_deleted_while_it_waited_is_passed_over(start_pool, enqueue, valkey):
    gone, there = enqueue("high", "note", "trace"), enqueue("high", "note", "trace")
    valkey.delete(gone.key)
    pool = start_pool("high=1")
    eventually(lambda: there.is_finished)
    assert valkey.keys("rq:pool:in-flight:*") == []
    assert pool.stop() == 0


def test_each_worker_and_each_horse_leads_a_process_group_of_its_own(start_pool, enqueue, valkey):
    pool = start_pool("high=1").expect_ready(1)
    enqueue("high", "process_state", "state")
    horse, worker, horse_group = map(int, valkey.blpop(["state"], DEADLINE)[1].split())
    assert horse_group == horse
    assert os.getpgid(worker) == worker
    assert pool.stop() == 0


def test_no_two_processes_of_an_idle_pool_share_a_socket_to_redis(start_pool, valkey):
    pool = start_pool("high,default=3").expect_ready(3)
    eventually(lambda: len(Worker.all(connection=valkey)) == 3)
    inodes = [{c.laddr for c in process.net_connections() if c.raddr} for process in pool.workers()]
    assert all(inodes)
    assert len(set().union(*inodes)) == sum(map(len, inodes))
    assert not [c for c in pool.manager.net_connections() if c.raddr]
    assert pool.stop() == 0


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_rq_does_not_have_a_worker_wait_minutes_for_a_silent_server(
    start_pool, enqueue, worker_class
):
    start_pool(
        yaml=f"high: {{workers: 1, worker_class: {worker_class}, with_scheduler: true}}"
    ).expect_ready(1)
    job = enqueue("high", "answer_limit")
    eventually(lambda: job.is_finished)
    assert job.return_value() == COMMAND_TIMEOUT
