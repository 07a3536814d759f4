"""Worker, job and queue classes of projects do in a pool what they do in RQ's own worker."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest
import redis
from rq import Queue
from rq.command import send_kill_horse_command
from rq.job import Job, JobStatus
from rq_scheduler import Scheduler

from harness import DEADLINE, eventually
from own_classes import CALLED, TenantJob, TenantQueue


def yaml(worker_class: str, **options: object) -> str:
    given = {"worker_class": f"own_classes.{worker_class}", **options}
    return f"high: {{workers: 1, {', '.join(f'{n}: {v}' for n, v in given.items())}}}"


def words(valkey, key: str) -> list[str]:
    return [word.decode() for word in valkey.lrange(key, 0, -1)]


def called(valkey) -> set[str]:
    return set(words(valkey, CALLED))


def put(valkey, function: str, *arguments: object) -> Job:
    """Puts a job of `own_classes` on the queue."""
    return Queue("high", connection=valkey).enqueue(f"own_classes.{function}", *arguments)


def worker_key(valkey) -> bytes:
    (key,) = valkey.smembers("rq:workers")
    return key


# Just before a job starts


@pytest.mark.parametrize("worker_class", ["PreparesJobs", "PreparesJobsInPlace", "PreparesNothing"])
def test_what_a_class_does_just_before_a_job_starts_is_done_once_in_the_job_s_process(
    start_pool, enqueue, valkey, worker_class
):
    pool = start_pool(yaml=yaml(worker_class)).expect_ready(1)
    for _ in range(2):
        job = put(valkey, "note_process", "trace")
        eventually(lambda job=job: job.is_finished)
        prepared, ran = words(valkey, "trace")
        assert prepared == f"prepared in {ran.removeprefix('ran in ')}"
        valkey.delete("trace")
    assert valkey.keys("rq:pool:in-flight:*") == []
    assert pool.stop() == 0


def test_a_job_that_a_class_begins_without_rq_s_writing_counts_as_begun_when_it_is_cut_short(
    start_pool, enqueue, valkey
):
    pool = start_pool(yaml=yaml("PreparesNothing")).expect_ready(1)
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    pool.send(signal.SIGUSR1)
    eventually(lambda: job.is_failed)
    assert valkey.llen("gate:running") == 1
    assert pool.stop() == 0


# Overrides of what the pool does its own way


def test_what_a_class_adds_to_each_method_is_called(start_pool, enqueue, valkey):
    pool = start_pool(yaml=yaml("AddsToAll")).expect_ready(1)
    eventually(lambda: "check_for_suspension" in called(valkey))
    good = enqueue("high", "note", "trace")
    eventually(lambda: good.is_finished)
    killed = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    send_kill_horse_command(valkey, worker_key(valkey).decode().removeprefix("rq:worker:"))
    eventually(lambda: killed.is_failed)
    running = enqueue("high", "hold", "last")
    eventually(lambda: valkey.llen("last:running"))

    pool.send(signal.SIGQUIT)
    eventually(lambda: valkey.hget(worker_key(valkey), "shutdown_requested_date"))
    valkey.rpush("last:open", 1)
    assert pool.wait() == 0
    assert running.get_status() == JobStatus.FINISHED
    assert called(valkey) == {
        "check_for_suspension",
        "dequeue_job_and_maintain_ttl",
        "wait_for_horse",
        "kill_horse",
        "setup_work_horse_signals",
        f"request_stop {int(signal.SIGQUIT)}",
        "handle_warm_shutdown_request",
        "unsubscribe",
    }
    stop = [word for word in words(valkey, CALLED) if "stop" in word or "shutdown" in word]
    assert stop == [f"request_stop {int(signal.SIGQUIT)}", "handle_warm_shutdown_request"]
    assert not pool.found("WARNING.*own_classes")


@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGTERM])
def test_what_a_class_replaces_is_told_and_does_not_break_its_workers(
    start_pool, enqueue, valkey, signum
):
    pool = start_pool(yaml=yaml("ReplacesAll", queue_class="own_classes.PopsItself")).expect_ready(
        1
    )
    good, running = enqueue("high", "note", "trace"), enqueue("high", "hold", "gate")
    eventually(lambda: good.is_finished and valkey.llen("gate:running"))

    pool.send(signum)
    if signum == signal.SIGQUIT:
        pool.expect("signal QUIT")
        valkey.rpush("gate:open", 1)
    assert pool.wait() == 0
    outcome = JobStatus.FINISHED if signum == signal.SIGQUIT else JobStatus.FAILED
    assert running.get_status() == outcome
    assert called(valkey) == set()
    for method in ("check_for_suspension", "wait_for_horse", "_install_signal_handlers"):
        assert pool.found(rf"WARNING.*own_classes\.ReplacesAll\.{method}: .*the pool does not use")
    assert pool.found(r"WARNING.*own_classes\.PopsItself\.dequeue_any: ")


def test_a_class_that_does_not_bear_a_stop_stops_after_its_job(start_pool, enqueue, valkey):
    pool = start_pool(yaml=yaml("FailsWhenStopped")).expect_ready(1)
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    pool.send(signal.SIGQUIT)
    pool.expect("its class failed when asked to stop")
    valkey.rpush("gate:open", 1)
    assert pool.wait() == 0
    assert job.get_status() == JobStatus.FINISHED
    assert valkey.smembers("rq:workers") == set()


def test_a_job_that_a_class_has_popped_by_itself_is_run_and_held_like_any_other(
    start_pool, enqueue, valkey
):
    popped, held = enqueue("low", "note", "trace", "low"), enqueue("low", "hold", "gate")
    own = enqueue("high", "note", "trace", "high")
    pool = start_pool(yaml=yaml("PopsToo"))
    eventually(lambda: valkey.llen("gate:running"))
    assert popped.is_finished
    pool.send(signal.SIGUSR1)
    eventually(lambda: held.is_failed and own.is_finished)
    assert words(valkey, "trace") == ["low", "high"]
    assert valkey.keys("rq:pool:in-flight:*") == []
    assert pool.stop() == 0


def test_so_is_one_that_the_pool_has_just_taken_by_itself(start_pool, enqueue, valkey):
    pool = start_pool(yaml=yaml("PopsToo"))
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    valkey.rpush("rq:queue:low", job.id)  # it looks there next
    valkey.rpush("gate:open", 1, 1)
    eventually(lambda: valkey.llen("gate:done") == 2)
    eventually(lambda: not valkey.keys("rq:pool:in-flight:*"))
    assert pool.stop() == 0


@pytest.mark.parametrize("end", ["stop", "licence", "kill"])
def test_a_class_that_waits_for_something_else_may_ask_whether_it_has_to_stop(
    start_pool, enqueue, valkey, end
):
    pool = start_pool(yaml=yaml("WaitsForLicence"))
    eventually(lambda: valkey.llen(CALLED))
    if end == "licence":
        valkey.set("licence", 1)
        job = enqueue("high", "note", "trace")
        eventually(lambda: job.is_finished)
    if end == "kill":
        pool.manager.kill()
        eventually(lambda: not pool.processes())
    else:
        assert pool.stop() == 0
    assert valkey.smembers("rq:workers") == set()


# The date of a stop


def test_a_worker_with_a_job_shows_at_once_when_it_was_asked_to_stop(start_pool, enqueue, valkey):
    pool = start_pool("high=1").expect_ready(1)
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    key = worker_key(valkey)
    assert not valkey.hexists(key, "shutdown_requested_date")
    pool.send(signal.SIGQUIT)
    asked = eventually(lambda: valkey.hget(key, "shutdown_requested_date"))
    assert job.get_status() == JobStatus.STARTED
    valkey.rpush("gate:open", 1)
    assert pool.wait() == 0
    assert asked <= valkey.hget(key, "death")
    assert valkey.hget(key, "shutdown_requested_date") == asked


@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGTERM])
def test_so_does_an_idle_worker_that_has_left(start_pool, valkey, signum):
    pool = start_pool("high=1").expect_ready(1)
    key = worker_key(valkey)
    assert pool.stop(signum) == 0
    assert valkey.hget(key, "shutdown_requested_date") <= valkey.hget(key, "death")


def test_a_stop_while_redis_is_away_ends_when_the_job_has(start_pool, own_server, tmp_path):
    pool = start_pool("high=1", env={"REDIS_URL": own_server.url}).expect_ready(1)
    gate = tmp_path / "gate"
    running = tmp_path / "running"
    with redis.Redis.from_url(own_server.url) as client:
        job_id = put(client, "touch_and_wait", str(running), str(gate)).id
    eventually(running.exists)
    own_server.stop()
    pool.send(signal.SIGQUIT)
    pool.expect("heartbeat of job .*: ")
    gate.touch()
    own_server.start()
    assert pool.wait() == 0
    with redis.Redis.from_url(own_server.url) as client:
        assert client.hget(f"rq:job:{job_id}", "status") == b"finished"


# Signals to a work horse


def test_a_signal_to_a_work_horse_and_its_group_arrives_once(start_pool, enqueue, valkey):
    pool = start_pool(yaml=yaml("SignalsItsHorse")).expect_ready(1)
    job = put(valkey, "count_signals", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    pool.send(signal.SIGQUIT)
    eventually(lambda: valkey.llen("told"))
    valkey.rpush("gate:open", 1)
    assert pool.wait() == 0
    assert job.return_value() == 1


# Heroku


def holding(enqueue, valkey, function="hold_and_clean_up", gate="gate", **options):
    job = enqueue("high", function, gate, **options)
    eventually(lambda: valkey.llen(f"{gate}:running"))
    return job


@pytest.mark.parametrize("worker_class", ["ToldAtOnce", "ToldSoon"])
def test_at_an_immediate_stop_heroku_s_worker_tells_its_job_of_the_shutdown(
    start_patient, enqueue, valkey, worker_class
):
    pool = start_patient(yaml=yaml(worker_class)).expect_ready(1)
    job = holding(enqueue, valkey)
    assert pool.stop(signal.SIGTERM) == 0
    assert words(valkey, "gate:clean") == ["ShutDownImminentException"]
    assert job.get_status() == JobStatus.FAILED
    record = job.latest_result().exc_string
    assert "ShutDownImminentException" in record
    assert "was asked to stop immediately" in record
    assert pool.processes() == []


def test_a_job_that_ends_well_when_it_is_told_has_succeeded(start_patient, enqueue, valkey):
    pool = start_patient(yaml=yaml("ToldSoon")).expect_ready(1)
    job = put(valkey, "hold_and_finish", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    assert pool.stop(signal.SIGTERM) == 0
    assert job.get_status() == JobStatus.FINISHED
    assert job.return_value() == "in time"


def test_a_job_that_heroku_s_worker_has_told_may_be_requeued(start_patient, enqueue, valkey):
    pool = start_patient(yaml=yaml("ToldAtOnce", interrupted="requeue")).expect_ready(1)
    job = holding(enqueue, valkey)
    assert pool.stop(signal.SIGTERM) == 0
    assert job.get_status() == JobStatus.QUEUED
    assert words(valkey, "rq:queue:high") == [job.id]


def test_a_dyno_s_term_to_every_process_ends_a_job_as_one_to_the_manager_does(
    start_patient, enqueue, valkey
):
    pool = start_patient(yaml=yaml("ToldSoon"), env={"DYNO": "worker.1"}).expect_ready(1)
    job = holding(enqueue, valkey)
    for process in pool.processes():
        os.kill(process.pid, signal.SIGTERM)
    assert pool.wait() == 0
    assert words(valkey, "gate:clean") == ["ShutDownImminentException"]
    assert job.get_status() == JobStatus.FAILED
    assert not pool.found("TERM_CHILD")


def test_a_graceful_stop_lets_a_job_of_heroku_s_worker_finish_and_a_term_then_tells_it(
    start_patient, enqueue, valkey
):
    pool = start_patient(yaml=yaml("ToldAtOnce")).expect_ready(1)
    job = holding(enqueue, valkey)
    pool.send(signal.SIGQUIT)
    key = worker_key(valkey)
    eventually(lambda: valkey.hget(key, "shutdown_requested_date"))
    assert not pool.found("telling its work horse")
    assert job.get_status() == JobStatus.STARTED
    assert pool.stop(signal.SIGTERM) == 0
    assert words(valkey, "gate:clean") == ["ShutDownImminentException"]


def test_a_job_that_is_told_before_its_function_begins_is_ended_when_that_begins(
    start_patient, enqueue, valkey
):
    pool = start_patient(yaml=yaml("ToldBeforeItBegins")).expect_ready(1)
    job = enqueue("high", "hold_and_clean_up", "gate")
    eventually(lambda: valkey.llen("before:running"))
    pool.send(signal.SIGTERM)
    pool.expect("telling its work horse of the shutdown")
    valkey.rpush("before:open", 1)
    assert pool.wait() == 0
    assert job.get_status() == JobStatus.FAILED
    assert "ShutDownImminentException" in job.latest_result().exc_string


def test_a_job_that_goes_on_whatever_it_is_told_is_killed_in_time(start_pool, enqueue, valkey):
    pool = start_pool(yaml=yaml("ToldAtOnce")).expect_ready(1)
    job = holding(enqueue, valkey, "hold_stubbornly")
    assert pool.stop(signal.SIGTERM) == 0
    assert job.get_status() == JobStatus.FAILED
    assert not pool.found("did not stop, killing it")


# Constructors and names


def test_a_worker_that_names_itself_has_its_job_recovered_when_it_dies(start_pool, enqueue, valkey):
    pool = start_pool(yaml=yaml("NamesItself")).expect_ready(1)
    assert pool.found("own_classes.NamesItself calls its worker '.*@here'; the pool calls it")
    assert b".high.1" in worker_key(valkey)
    job = enqueue("high", "hold", "gate")
    horse = int(valkey.blpop(["gate:running"], DEADLINE)[1])
    (worker,) = pool.worker_pids()
    os.kill(worker, signal.SIGKILL)
    os.kill(horse, signal.SIGKILL)
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    pool.expect_ready(2)
    assert valkey.scard("rq:workers") == 1
    assert pool.stop() == 0


@pytest.mark.parametrize("worker_class", ["TakesFew", "PassesOn", "PassesOnPositions"])
def test_a_lifetime_that_a_constructor_does_not_take_is_the_worker_s(
    start_pool, enqueue, valkey, worker_class
):
    pool = start_pool(yaml=yaml(worker_class, worker_ttl=1000)).expect_ready(1)
    assert 1000 < valkey.ttl(worker_key(valkey)) <= 1060
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


@pytest.mark.parametrize(
    ("worker_class", "reason"),
    [
        ("KeepsItsName", "its name is 'mine' and cannot be changed"),
        ("HasAGroup", "attributes of the same names: 'group'"),
    ],
)
def test_a_class_that_cannot_be_a_pool_s_is_told_in_words(start_pool, worker_class, reason):
    pool = start_pool(yaml=yaml(worker_class))
    pool.expect(rf"own_classes\.{worker_class}: .*{reason}")
    pool.stop()


# Signs of life


def test_a_class_whose_heartbeat_registers_again_stays_registered(start_pool, enqueue, valkey):
    pool = start_pool(yaml=yaml("RegistersAgain")).expect_ready(1)
    key = worker_key(valkey)
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    valkey.delete(key)
    valkey.srem("rq:workers", key)
    eventually(lambda: "register_birth" in called(valkey))
    eventually(lambda: "maintain_heartbeats" in called(valkey))
    assert valkey.hexists(key, "birth")
    assert valkey.smembers("rq:workers") == {key}
    valkey.rpush("gate:open", 1)
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0
    assert valkey.smembers("rq:workers") == set()


# Classes as big sites have them


def test_a_class_that_notes_what_becomes_of_its_jobs_notes_each_once(start_pool, enqueue, valkey):
    pool = start_pool(yaml=yaml("LimitsItself")).expect_ready(1)
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished and valkey.llen("succeeded"))
    assert words(valkey, "executed") == words(valkey, "monitored") == [job.id]
    assert valkey.llen("succeeded") == 1
    assert pool.stop() == 0


@pytest.mark.parametrize("worker_class", ["OwnLoop", "RunsInPlace"])
def test_a_class_that_begins_its_loop_its_own_way_works(start_pool, enqueue, valkey, worker_class):
    pool = start_pool(yaml=yaml(worker_class, with_scheduler="true")).expect_ready(1)
    good, bad = enqueue("high", "note", "trace"), enqueue("high", "fail")
    eventually(lambda: good.is_finished and bad.is_failed)
    assert valkey.llen("works") == 1
    assert not valkey.exists("rq:scheduler-lock:high")
    assert pool.stop() == 0


WRAPS = """
import functools
from rq import Worker
from rq.job import Job
from django_rq_pool import hooks
from pool_jobs import note

def wrapped(owner, name):
    real = getattr(owner, name)
    @functools.wraps(real)
    def wrapper(self, *args, **kwargs):
        note("wrapped", f"{name} begins")
        try:
            return real(self, *args, **kwargs)
        finally:
            note("wrapped", f"{name} ends")
    setattr(owner, name, wrapper)

@hooks.after_prefork
def wrap(worker):
    wrapped(Worker, "perform_job")
    wrapped(Worker, "handle_exception")
    wrapped(Job, "perform")
"""


def test_what_a_library_wraps_in_rq_s_classes_when_a_worker_starts_is_wrapped(
    start_with, enqueue, valkey, tmp_path
):
    (tmp_path / "shelf").mkdir()
    pool = start_with(
        "INSTALLED_APPS = [*INSTALLED_APPS, 'shelf']",
        "high=1",
        modules={"shelf/__init__": "", "shelf/rqpool": WRAPS},
    ).expect_ready(1)
    good = enqueue("high", "note", "trace")
    eventually(lambda: good.is_finished and valkey.llen("wrapped") == 4)
    assert words(valkey, "wrapped") == [
        "perform_job begins",
        "perform begins",
        "perform ends",
        "perform_job ends",
    ]
    bad = enqueue("high", "fail")
    eventually(lambda: bad.is_failed and "handle_exception ends" in words(valkey, "wrapped"))
    assert not pool.found("the pool does not use it")
    assert pool.stop() == 0


def test_a_job_that_rq_scheduler_has_put_on_a_queue_runs(start_pool, valkey):
    pool = start_pool("high=1").expect_ready(1)
    scheduler = Scheduler("high", connection=valkey)
    job = scheduler.enqueue_in(timedelta(0), "pool_jobs.note", "trace", "later")
    scheduler.enqueue_jobs()
    eventually(lambda: job.is_finished)
    assert words(valkey, "trace") == ["later"]
    assert pool.stop() == 0


def test_jobs_of_tenants_run_with_their_classes_prefixes_and_constructors(start_pool, valkey):
    classes = {"job_class": "own_classes.TenantJob", "queue_class": "own_classes.TenantQueue"}
    pool = start_pool(yaml=yaml("TenantWorker", **classes)).expect_ready(1)
    queue = TenantQueue("high", connection=valkey)
    job = queue.enqueue("pool_jobs.note", "trace", meta={"tenant": "blue"})
    assert isinstance(job, TenantJob)
    eventually(lambda: job.is_finished)
    assert words(valkey, "tenant") == ["blue"]
    assert valkey.scard("tenant:workers") == 1
    assert not valkey.keys("rq:job:*") + valkey.keys("rq:queue:*") + valkey.keys("rq:worker:*")
    running = queue.enqueue("pool_jobs.hold", "gate", meta={"tenant": "red"})
    horse = int(valkey.blpop(["gate:running"], DEADLINE)[1])
    os.kill(pool.worker_pids()[0], signal.SIGKILL)
    os.kill(horse, signal.SIGKILL)
    eventually(lambda: running.is_failed)
    pool.expect_ready(2)
    assert pool.stop() == 0
