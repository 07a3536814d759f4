"""The manager's book of its workers."""

from __future__ import annotations

import pytest

from django_rq_pool.planning.recoveries import RecoveryProcess, UnrecoveredWorker
from django_rq_pool.planning.roster import Orphan, Roster, Stop, WorkerRecord


def record(pid: int) -> WorkerRecord:
    return WorkerRecord(pid, "high", pid, f"worker-{pid}", forked_at=1.0)


@pytest.fixture
def roster() -> Roster:
    roster = Roster()
    for pid in (30, 10, 20):
        roster.add(record(pid))
    return roster


def test_workers_are_listed_in_the_order_of_their_forks(roster):
    roster.mark_ready(30, 2.0)
    roster.mark_asked(10, Stop.GRACEFUL, 3.0)
    assert roster.pids() == [30, 10, 20]
    assert [worker.pid for worker in roster.workers()] == [30, 10, 20]
    assert len(roster) == 3


def test_a_worker_gets_ready_once(roster):
    ready = roster.mark_ready(10, 2.0)
    assert ready is not None
    assert ready.ready_at == 2.0
    assert roster.mark_ready(10, 5.0) is None
    assert roster.get(10).ready_at == 2.0


def test_a_stranger_never_gets_ready(roster):
    assert roster.mark_ready(99, 2.0) is None
    assert 99 not in roster


def test_a_request_is_noted_with_its_time_and_the_rest_is_kept(roster):
    roster.mark_ready(10, 2.0)
    roster.mark_asked(10, Stop.IMMEDIATE, 4.0)
    asked = roster.get(10)
    assert (asked.stop, asked.asked_at, asked.ready_at) == (Stop.IMMEDIATE, 4.0, 2.0)


def test_a_worker_is_removed_once(roster):
    assert roster.remove(10) == record(10)
    assert roster.remove(10) is None
    assert 10 not in roster
    assert roster.pids() == [30, 20]


def test_an_orphan_is_no_worker_and_is_released_once(roster):
    roster.adopt(Orphan(50, "high", "job"))
    assert 50 not in roster
    roster.mark_ended(50)
    assert roster.release_orphan(50) == Orphan(50, "high", "job", ended=True)
    assert roster.release_orphan(50) is None


def test_a_roster_is_empty_when_nothing_of_the_pool_is_left():
    assert Roster().is_empty(leaves=False)
    with_worker, with_orphan, with_dead, with_recovery = (Roster() for _ in range(4))
    with_worker.add(record(1))
    with_orphan.adopt(Orphan(50, "high", "job"))
    with_dead.unrecovered["dead"] = UnrecoveredWorker("dead")
    with_recovery.recoveries[60] = RecoveryProcess(60, "dead")
    for roster in (with_worker, with_orphan, with_dead, with_recovery):
        assert not roster.is_empty(leaves=True)


def test_a_pool_that_leaves_does_so_without_workers_that_redis_did_not_answer():
    roster = Roster()
    roster.unrecovered["cut off"] = UnrecoveredWorker("cut off", cut_off=True)
    assert roster.is_empty(leaves=True)
    assert not roster.is_empty(leaves=False)
    roster.unrecovered["dead"] = UnrecoveredWorker("dead")
    assert not roster.is_empty(leaves=True)


def test_stops_are_ordered_by_hardness():
    assert Stop.GRACEFUL < Stop.IMMEDIATE < Stop.KILL
