"""What becomes of a job when something ends its worker, its horse, both, or Redis."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
import redis
from rq import Callback, Queue, Retry, Worker
from rq.command import send_stop_job_command
from rq.job import Dependency, JobStatus
from rq.registry import FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry

from django_rq_pool.ledger.members import join
from harness import eventually
from ledger_steps import member, take


def hold(enqueue, valkey, gate="gate", **options):
    """Enqueues a job that holds; returns it, its worker's pid and its horse's once it runs."""
    before = valkey.llen(f"{gate}:running")
    job = enqueue("high", "hold", gate, **options)
    eventually(lambda: valkey.llen(f"{gate}:running") > before)
    horse = int(valkey.lindex(f"{gate}:running", -1))
    return job, psutil.Process(horse).ppid(), horse


def assert_nothing_left(valkey):
    """No trace of a dead worker or an unsettled job."""
    assert valkey.keys("rq:pool:in-flight:*") == []
    assert valkey.keys("rq:pool:recovery:*") == []
    assert valkey.hlen("rq:pool:members") == Worker.count(connection=valkey)
    assert StartedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False) == []


def assert_registered(valkey, pool):
    """Exactly the live workers are registered."""
    registered = {worker.pid for worker in Worker.all(connection=valkey)}
    assert registered == set(pool.worker_pids())
    assert len(valkey.keys("rq:worker:*.*-????????")) == len(registered)
    assert valkey.hlen("rq:pool:members") >= len(registered)


KILL_HORSE, KILL_WORKER, KILL_BOTH = "horse", "worker", "both"


def kill(what, worker, horse):
    if what in (KILL_WORKER, KILL_BOTH):
        os.kill(worker, signal.SIGKILL)
    if what in (KILL_HORSE, KILL_BOTH):
        os.kill(horse, signal.SIGKILL)


@pytest.mark.parametrize("what", [KILL_HORSE, KILL_BOTH])
@pytest.mark.parametrize("queues", ["high", "high,default"])
def test_a_job_whose_horse_is_killed_is_failed_with_the_reason(
    start_pool, enqueue, valkey, what, queues
):
    pool = start_pool(f"{queues}=1").expect_ready(1)
    job, worker, horse = hold(enqueue, valkey)

    kill(what, worker, horse)
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    assert job.id in FailedJobRegistry("high", connection=valkey)
    reason = job.latest_result().exc_string
    assert ("SIGKILL" if what == KILL_BOTH else "signal 9") in reason
    other = enqueue("high", "note", "trace")
    eventually(lambda: other.is_finished)
    eventually(lambda: assert_registered(valkey, pool) is None)
    eventually(lambda: assert_nothing_left(valkey) is None)
    assert pool.stop() == 0


@pytest.mark.parametrize("what", [KILL_HORSE, KILL_BOTH])
def test_a_job_with_retries_left_is_retried(start_pool, enqueue, valkey, what):
    pool = start_pool("high=1").expect_ready(1)
    job, worker, horse = hold(enqueue, valkey, retry=Retry(max=1))

    kill(what, worker, horse)
    eventually(lambda: valkey.llen("gate:running") == 2)
    valkey.rpush("gate:open", 1)
    eventually(lambda: job.is_finished)
    job.refresh()
    assert job.retries_left == 0
    assert pool.stop() == 0


def test_a_job_whose_worker_is_killed_is_left_to_its_horse(start_pool, enqueue, valkey):
    pool = start_pool("high=1").expect_ready(1)
    job, worker, _ = hold(enqueue, valkey)

    kill(KILL_WORKER, worker, 0)
    pool.expect_ready(2)
    eventually(lambda: assert_registered(valkey, pool) is None)
    assert job.get_status() == JobStatus.STARTED
    assert job.id in StartedJobRegistry("high", connection=valkey)
    valkey.rpush("gate:open", 1)
    eventually(lambda: job.is_finished)
    eventually(lambda: assert_nothing_left(valkey) is None)
    assert valkey.llen("gate:running") == 1
    assert pool.stop() == 0


def test_a_job_whose_horse_dies_after_its_worker_is_settled_then(start_pool, enqueue, valkey):
    pool = start_pool("high=1").expect_ready(1)
    job, worker, horse = hold(enqueue, valkey)

    kill(KILL_WORKER, worker, 0)
    pool.expect_ready(2)
    assert job.get_status() == JobStatus.STARTED
    os.kill(horse, signal.SIGKILL)
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    eventually(lambda: assert_nothing_left(valkey) is None)
    assert pool.stop() == 0


def interrupt(pool, how, worker, horse):
    if how == "usr1":
        os.kill(worker, signal.SIGUSR1)
    elif how == "int":
        os.kill(worker, signal.SIGINT)
    else:
        kill(how, worker, horse)


REQUEUE = "high: {workers: 1, interrupted: requeue, interrupted_limit: 2}"


@pytest.mark.parametrize("how", [KILL_HORSE, KILL_BOTH, "usr1", "int"])
def test_requeued_jobs_come_first_again_and_fail_when_cut_short_too_often(
    start_pool, enqueue, valkey, how
):
    pool = start_pool(yaml=REQUEUE).expect_ready(1)
    job, worker, horse = hold(enqueue, valkey, retry=Retry(max=5))
    enqueue("high", "note", "trace", "after")

    for times in (2, 3):
        interrupt(pool, how, worker, horse)
        eventually(lambda times=times: valkey.llen("gate:running") == times)
        # A worker's successor may be there before the recovery process has put the job back.
        assert valkey.llen("trace") == 0 or how == KILL_BOTH
        horse = int(valkey.lindex("gate:running", -1))
        worker = psutil.Process(horse).ppid()
    interrupt(pool, how, worker, horse)
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    assert "cut short too often" in job.latest_result().exc_string
    eventually(lambda: valkey.llen("trace") == 1)
    assert pool.stop() == 0


def test_a_job_that_fails_by_itself_is_not_requeued(start_pool, enqueue):
    pool = start_pool(yaml=REQUEUE).expect_ready(1)
    job = enqueue("high", "no_such_function")
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    assert pool.stop() == 0


def test_a_job_that_fails_by_itself_in_a_simple_worker_is_not_requeued(start_pool, enqueue):
    pool = start_pool(
        yaml="high: {workers: 1, interrupted: requeue, worker_class: rq.SimpleWorker}"
    ).expect_ready(1)
    job = enqueue("high", "no_such_function")
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    assert pool.stop() == 0


def test_the_job_of_a_simple_worker_that_is_killed_is_failed(start_pool, enqueue, valkey):
    pool = start_pool(yaml="high: {workers: 1, worker_class: rq.SimpleWorker}").expect_ready(1)
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))

    [worker] = Worker.all(connection=valkey)
    os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    pool.expect_ready(2)
    eventually(lambda: assert_registered(valkey, pool) is None)
    assert pool.stop() == 0


def test_dependents_and_failure_callbacks_happen_for_a_job_that_was_killed(
    start_pool, enqueue, valkey
):
    pool = start_pool("high=1").expect_ready(1)
    job, worker, horse = hold(enqueue, valkey, on_failure=Callback("pool_jobs.failed"))
    then = enqueue(
        "high", "note", "trace", "dependent", depends_on=Dependency(job, allow_failure=True)
    )

    kill(KILL_BOTH, worker, horse)
    eventually(lambda: then.is_finished)
    assert valkey.lrange("failed", 0, -1) == [job.id.encode()]
    assert pool.stop() == 0


@pytest.mark.parametrize("what", [KILL_HORSE, KILL_BOTH])
def test_the_handler_for_killed_horses_is_called(start_pool, enqueue, valkey, what):
    pool = start_pool(yaml="high: {workers: 1, worker_class: pool_jobs.CustomWorker}").expect_ready(
        1
    )
    job, worker, horse = hold(enqueue, valkey)

    kill(what, worker, horse)
    eventually(lambda: job.is_failed)
    assert valkey.lrange("horse killed", 0, -1) == [job.id.encode()]
    # Those that the class has of its own are told where no horse and no worker could settle it.
    handled = [job.id.encode()] if what == KILL_BOTH else []
    assert valkey.lrange("handled", 0, -1) == handled
    assert pool.stop() == 0


@pytest.mark.parametrize("interrupted", ["fail", "requeue"])
def test_a_job_that_the_user_has_stopped_stays_so_though_redis_goes_away_around_it(
    start_pool, enqueue, valkey, interrupted
):
    options = f"workers: 1, interrupted: {interrupted}"
    pool = start_pool(
        yaml=f"high: {{{options}, worker_class: pool_jobs.StoppedWhileRedisGoes}}"
    ).expect_ready(1)
    job, _, _ = hold(enqueue, valkey, retry=Retry(max=5))

    send_stop_job_command(valkey, job.id)
    pool.expect("Redis went away around job")
    eventually(lambda: job.get_status() == JobStatus.STOPPED)
    other = enqueue("high", "note", "trace")
    eventually(lambda: other.is_finished)
    assert valkey.llen("gate:running") == 1
    eventually(lambda: assert_nothing_left(valkey) is None)
    assert pool.stop() == 0


def test_a_worker_that_loses_redis_in_its_first_maintenance_stays(start_pool, enqueue, valkey):
    pool = start_pool(yaml="high: {workers: 1, worker_class: pool_jobs.LosesRedis}").expect_ready(1)
    pool.expect("WARNING Worker .*: maintenance: gone")
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert len(pool.found("forked")) == 1
    assert pool.stop() == 0


def test_a_pool_recovers_what_a_vanished_pool_of_its_name_had_fetched(start_pool, enqueue, valkey):
    # What a host leaves that loses its power: a member that is not registered, and a job in flight.
    lost = enqueue("high", "note", "trace", "lost")
    gone = member("shop.gone.high.1-00000000")
    take(valkey, Queue("high", connection=valkey), lost, gone.name)
    join(valkey, gone)
    # It has been missed for longer than a live worker can be silent.
    valkey.hset("rq:pool:suspects", gone.key, valkey.time()[0] - 61)

    pool = start_pool("high=1").expect_ready(1)
    eventually(lambda: lost.is_finished)
    assert not valkey.exists("rq:pool:suspects")
    eventually(lambda: assert_registered(valkey, pool) is None)
    eventually(lambda: assert_nothing_left(valkey) is None)
    assert pool.stop() == 0


def test_a_worker_that_is_missed_for_the_first_time_is_only_suspected(start_pool, enqueue, valkey):
    # A live worker that could not reach Redis looks the same until its next heartbeat.
    silent = member("shop.silent.high.1-00000000")
    in_flight = f"rq:pool:in-flight:{silent.name}:rq:queue:high"
    valkey.rpush(in_flight, "its-job")
    join(valkey, silent)
    pool = start_pool("high=1").expect_ready(1)
    eventually(lambda: valkey.hexists("rq:pool:suspects", silent.key))
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert valkey.lrange(in_flight, 0, -1) == [b"its-job"]
    assert pool.stop() == 0

    valkey.hset(silent.key, "last_heartbeat", "now")
    valkey.delete("rq:pool:swept:shop")
    start_pool("high=1").expect_ready(1)
    eventually(lambda: not valkey.hexists("rq:pool:suspects", silent.key))
    assert valkey.hexists("rq:pool:members", silent.key)


def test_a_job_that_a_worker_has_and_does_not_know_of_is_run(start_pool, enqueue, valkey):
    pool = start_pool(yaml='"high,default": {workers: 1, worker_class: pool_jobs.LooksOften}')
    pool.expect_ready(1)
    [worker] = Worker.all(connection=valkey)
    # What a failover can leave: the job is in the worker's list, and it does not know.
    lost = enqueue("default", "note", "trace", "lost")
    eventually(lambda: lost.is_finished)
    with valkey.pipeline() as pipeline:
        pipeline.hset(lost.key, "status", "queued")
        pipeline.rpush(f"rq:pool:in-flight:{worker.name}:rq:queue:default", lost.id)
        pipeline.execute()
    enqueue("high", "note", "trace", "next")
    eventually(lambda: valkey.lrange("trace", 0, -1).count(b"lost") == 2)
    eventually(lambda: assert_nothing_left(valkey) is None)
    assert pool.stop() == 0


def test_a_job_whose_data_cannot_be_read_is_failed_and_harms_no_other(start_pool, enqueue, valkey):
    broken = enqueue("high", "note", "trace")
    valkey.hset(broken.key, "created_at", "nonsense")
    pool = start_pool("high=1").expect_ready(1)
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert broken.id in FailedJobRegistry("high", connection=valkey).get_job_ids(cleanup=False)
    assert len(pool.found("forked")) == 1
    eventually(lambda: assert_nothing_left(valkey) is None)
    assert pool.stop() == 0


def test_where_client_unblock_is_forbidden_the_pool_works_and_says_so(
    start_pool, enqueue, valkey, pool_environment
):
    valkey.acl_setuser(
        "shy",
        enabled=True,
        passwords=["+pw"],
        keys=["*"],
        channels=["*"],
        commands=["+@all", "-client|unblock"],
    )
    url = pool_environment["REDIS_URL"].replace("redis://", "redis://shy:pw@")
    pool = start_pool("high,default=1", env={"REDIS_URL": url}).expect_ready(1)
    pool.expect("Redis refuses CLIENT UNBLOCK")
    for queue in ("high", "default"):
        job = enqueue(queue, "note", "trace")
        eventually(lambda job=job: job.is_finished)
    assert pool.stop() == 0
    valkey.acl_deluser("shy")


@pytest.mark.parametrize("queue_count", [1, 2])
def test_a_job_that_ends_while_redis_is_away_is_settled_when_it_is_back(
    start_pool, own_server, queue_count
):
    pool = start_pool(
        "high,default=1" if queue_count == 2 else "high=1",
        env={"REDIS_URL": own_server.url},
    ).expect_ready(1)
    with redis.Redis.from_url(own_server.url) as client:
        job = Queue("high", connection=client).enqueue(
            "pool_jobs.wait_for_file", str(pool.cwd / "open")
        )
        eventually(lambda: job.get_status() == JobStatus.STARTED)
        own_server.stop()
        (pool.cwd / "open").touch()
        pool.expect("trying until Redis is back")
        own_server.start()
        eventually(lambda: job.is_finished)
        eventually(lambda: assert_nothing_left(client) is None)
        next_job = Queue("high", connection=client).enqueue("pool_jobs.note", "trace")
        eventually(lambda: next_job.is_finished)
    assert pool.stop() == 0


def test_a_retry_that_was_called_scheduled_and_was_not_is_not_lost(start_pool, enqueue, valkey):
    start_pool(yaml="high: {workers: 1, job_class: pool_jobs.KilledOnTheWay}").expect_ready(1)
    job = enqueue("high", "fail", retry=Retry(max=1, interval=3600))
    eventually(lambda: valkey.exists("shot"))
    eventually(lambda: job.id in ScheduledJobRegistry("high", connection=valkey))
    eventually(lambda: assert_nothing_left(valkey) is None)
