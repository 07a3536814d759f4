"""QUIT, INT and TERM, the end of the manager, and what a single worker is told."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from rq import Worker
from rq.command import send_kill_horse_command, send_shutdown_command, send_stop_job_command
from rq.job import JobStatus

from harness import eventually


def running(valkey, gate, times=1):
    """Waits until jobs hold at a gate; returns the pids of their horses."""
    eventually(lambda: valkey.llen(f"{gate}:running") >= times)
    return [int(pid) for pid in valkey.lrange(f"{gate}:running", 0, -1)]


def test_quit_finishes_the_job_in_flight_and_takes_no_other(start_pool, enqueue, valkey):
    pool = start_pool("high,default=1").expect_ready(1)
    first = enqueue("high", "hold", "gate")
    running(valkey, "gate")
    second = enqueue("high", "note", "trace", "second")

    pool.send(signal.SIGQUIT)
    pool.expect("signal QUIT")
    valkey.rpush("gate:open", 1)

    assert pool.wait() == 0
    assert first.get_status() == JobStatus.FINISHED
    assert second.get_status() == JobStatus.QUEUED
    assert valkey.lrange("rq:queue:high", 0, -1) == [second.id.encode()]
    assert pool.processes() == []
    assert Worker.all(connection=valkey) == []


def test_quit_stops_an_idle_pool(start_pool, valkey):
    pool = start_pool("high=2", "high,default=2").expect_ready(4)
    assert pool.stop(signal.SIGQUIT) == 0
    assert not pool.found("finish their job")
    assert len(pool.found(r"reaped: exit code 0")) == 4
    assert valkey.keys("rq:worker:*:executions") == []


def test_int_makes_the_manager_leave_at_once_and_workers_finish_on_their_own(
    start_pool, enqueue, valkey
):
    pool = start_pool("high=2").expect_ready(2)
    job = enqueue("high", "hold", "gate")
    running(valkey, "gate")

    assert pool.stop(signal.SIGINT) == 0
    assert job.get_status() == JobStatus.STARTED
    [told] = pool.found(r"workers that finish their job and then leave: (\d+) \(job (\S+)\)$")
    assert told[2] == job.id
    assert "rq:worker:" in " ".join(psutil.Process(int(told[1])).cmdline())
    valkey.rpush("gate:open", 1)
    eventually(lambda: not pool.processes())
    assert job.get_status() == JobStatus.FINISHED
    assert Worker.all(connection=valkey) == []


def test_term_ends_jobs_and_accounts_for_them_and_leaves_no_process_behind(
    start_patient, enqueue, valkey
):
    pool = start_patient("high=2").expect_ready(2)
    job = enqueue("high", "hold", "gate")
    with_child = enqueue("high", "hold_with_child", "gate")
    running(valkey, "gate", 2)

    assert pool.stop(signal.SIGTERM) == 0
    eventually(lambda: not pool.processes())  # what a job had started is killed, and dies soon
    assert {job.get_status(), with_child.get_status()} == {JobStatus.FAILED}
    assert "was asked to stop immediately" in job.latest_result().exc_string
    assert Worker.all(connection=valkey) == []


@pytest.mark.parametrize("harder", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_can_be_made_harder(start_pool, enqueue, valkey, harder):
    pool = start_pool("high=1").expect_ready(1)
    enqueue("high", "hold", "gate")
    running(valkey, "gate")

    pool.send(signal.SIGQUIT)
    pool.expect("signal QUIT")
    assert pool.stop(harder) == 0


def test_a_stop_cannot_be_made_softer(start_pool, valkey, enqueue):
    pool = start_pool("high=1").expect_ready(1)
    enqueue("high", "hold", "gate")
    running(valkey, "gate")
    # Held still, the manager finds both signals together, whatever their order.
    pool.send(signal.SIGSTOP)
    eventually(lambda: pool.manager.status() == psutil.STATUS_STOPPED)
    pool.send(signal.SIGTERM).send(signal.SIGQUIT).send(signal.SIGCONT)

    assert pool.wait() == 0
    assert valkey.llen("gate:done") == 0
    assert pool.processes() == []


def test_term_kills_workers_that_cannot_stop_themselves(start_pool, enqueue, valkey):
    pool = start_pool(
        yaml="high: {workers: 1, worker_class: pool_jobs.InProcessWorker}"
    ).expect_ready(1)
    enqueue("high", "hold", "gate")
    running(valkey, "gate")

    assert pool.stop(signal.SIGTERM) == 0
    assert pool.found("did not stop, killing it")
    assert pool.processes() == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_workers_leave_when_the_manager_is_gone(start_pool, enqueue, valkey, how):
    pool = start_pool("high,default=2", "low=1").expect_ready(3)
    job = enqueue("low", "hold", "gate")
    [horse] = running(valkey, "gate")
    idle = [pid for pid in pool.worker_pids() if pid != psutil.Process(horse).ppid()]
    assert len(idle) == 2

    pool.send(how)
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in idle))
    assert job.get_status() == JobStatus.STARTED
    valkey.rpush("gate:open", 1)
    eventually(lambda: not pool.processes())
    assert job.get_status() == JobStatus.FINISHED
    assert Worker.all(connection=valkey) == []


def test_suspended_workers_leave_when_the_manager_is_gone_or_asks(start_pool, valkey):
    valkey.set("rq:suspended", 1)
    asked = start_pool("high=1").expect_ready(1)
    asked.expect("suspended$")
    assert asked.stop() == 0
    gone = start_pool("high=1").expect_ready(1)
    gone.expect("suspended$")
    gone.send(signal.SIGKILL)
    eventually(lambda: not gone.processes())


@pytest.mark.parametrize("name", ["HUP", "USR1", "CONT"])
def test_signals_that_ask_nothing_of_an_idle_worker_do_not_end_it(start_pool, enqueue, name):
    pool = start_pool("high,default=1").expect_ready(1)
    [worker] = pool.worker_pids()

    os.kill(worker, getattr(signal, f"SIG{name}"))
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.worker_pids() == [worker]
    assert pool.stop() == 0


def test_usr1_to_a_worker_ends_its_job_and_it_goes_on(start_pool, enqueue, valkey):
    pool = start_pool("high=1").expect_ready(1)
    [worker] = pool.worker_pids()
    ended = enqueue("high", "hold", "gate")
    running(valkey, "gate")

    os.kill(worker, signal.SIGUSR1)
    eventually(lambda: ended.get_status() == JobStatus.FAILED)
    assert "was asked by USR1 to end the job" in ended.latest_result().exc_string
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.worker_pids() == [worker]
    assert pool.stop() == 0


def test_usr2_pauses_one_worker_until_cont(start_pool, enqueue, valkey):
    pool = start_pool("high,default=1", "low=1").expect_ready(2)
    [paused] = [w for w in Worker.all(connection=valkey) if len(w.queues) == 2]

    os.kill(paused.pid, signal.SIGUSR2)
    eventually(lambda: Worker.find_by_key(paused.key, valkey).get_state() == "suspended")
    waits, runs = enqueue("default", "note", "trace"), enqueue("low", "note", "trace")
    eventually(lambda: runs.is_finished)
    assert waits.get_status() == JobStatus.QUEUED
    os.kill(paused.pid, signal.SIGCONT)
    eventually(lambda: waits.is_finished)
    assert Worker.find_by_key(paused.key, valkey).get_state() in ("idle", "busy")
    os.kill(paused.pid, signal.SIGUSR2)
    eventually(lambda: Worker.find_by_key(paused.key, valkey).get_state() == "suspended")
    assert pool.stop() == 0


def test_signals_to_a_horse_do_not_end_its_job(start_pool, enqueue, valkey):
    pool = start_pool("high=1").expect_ready(1)
    job = enqueue("high", "hold", "gate")
    [horse] = running(valkey, "gate")

    for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        os.kill(horse, signum)
    valkey.rpush("gate:open", 1)
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


def test_rqs_remote_shutdown_stops_a_worker_gracefully_and_it_is_replaced(
    start_pool, enqueue, valkey
):
    pool = start_pool("high=1").expect_ready(1)
    job = enqueue("high", "hold", "gate")
    running(valkey, "gate")
    [worker] = Worker.all(connection=valkey)

    send_shutdown_command(valkey, worker.name)
    pool.expect("shutdown command received")
    valkey.rpush("gate:open", 1)
    pool.expect_ready(2)
    assert job.get_status() == JobStatus.FINISHED
    assert pool.stop() == 0


def test_rqs_remote_stop_of_a_job_works(start_pool, enqueue, valkey):
    pool = start_pool("high=1").expect_ready(1)
    job = enqueue("high", "hold", "gate")
    running(valkey, "gate")

    send_stop_job_command(valkey, job.id)
    eventually(lambda: job.get_status() == JobStatus.STOPPED)
    assert pool.stop() == 0


def test_rqs_remote_kill_of_a_horse_works(start_pool, enqueue, valkey):
    pool = start_pool("high=1").expect_ready(1)
    job = enqueue("high", "hold", "gate")
    running(valkey, "gate")
    [worker] = Worker.all(connection=valkey)

    send_kill_horse_command(valkey, worker.name)
    eventually(lambda: job.get_status() == JobStatus.FAILED)
    assert pool.stop() == 0


@pytest.mark.parametrize(
    ("asked", "said"), [("SIGQUIT", "reaped: exit code 0"), ("SIGUSR2", "suspended")]
)
def test_a_worker_that_is_asked_just_before_it_waits_for_a_job_does_not_wait(
    start_with, asked, said
):
    pool = start_with(
        "from django_rq_pool.worker import fetch\nfetch.LOOK_AGAIN = 600.0",
        yaml="high: {workers: 1, worker_class: pool_jobs.AskedInMaintenance}",
        env={"ASKED": asked},
    )
    pool.expect(said)
    assert pool.stop() == 0
