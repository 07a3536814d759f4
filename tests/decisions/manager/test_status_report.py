"""The report that INFO asks for."""

from __future__ import annotations

import pytest

from django_rq_pool.manager.status_report import Activity, age, status_report
from django_rq_pool.planning.backoff import Backoff
from django_rq_pool.planning.plan import Wanted
from django_rq_pool.planning.recoveries import RecoveryProcess, UnrecoveredWorker
from django_rq_pool.planning.roster import Orphan, Roster, Stop, WorkerRecord

NOW = 1000.0
IDLE = Activity("", paused=False, memory=None)


def lines_of(
    *records: WorkerRecord, wanted=None, backoffs=None, reasons=None, troubles=(), **activities
):
    roster = Roster()
    for record in records:
        roster.add(record)
    known = {record.pid: activities.get(record.name, IDLE) for record in records}
    wanted = wanted or [Wanted("high", 2)]
    return status_report(
        "the pool",
        wanted,
        roster,
        backoffs or {},
        known,
        reasons or {},
        {"high": "SIGSEGV"},
        lambda _: troubles,
        NOW,
    )


def worker(name: str, group: str = "high", **more) -> WorkerRecord:
    return WorkerRecord(ord(name), group, 1, name, NOW - 125, **{"ready_at": NOW, **more})


def test_a_group_shows_how_many_are_wanted_ready_and_stopping():
    lines = lines_of(worker("a"), worker("b", ready_at=None), worker("c", stop=Stop.GRACEFUL))
    assert lines[:2] == ["the pool", "  high: 2 wanted, 1 ready, 1 stopping"]
    assert len(lines) == 5


def test_a_group_without_workers_is_shown_and_one_that_is_no_longer_wanted_too():
    lines = lines_of(worker("a", "old"), wanted=[Wanted("high", 0)])
    assert lines[1:3] == [
        "  high: 0 wanted, 0 ready, 0 stopping",
        "  old: 0 wanted, 1 ready, 0 stopping",
    ]


def test_a_group_that_waits_says_until_when_and_after_what():
    [_, line] = lines_of(backoffs={"high": Backoff(boot_failures=1, not_before=NOW + 1.24)})
    assert line.endswith(", next fork in 1.2 s after SIGSEGV")


def test_a_group_whose_count_moves_says_why_it_is_what_it_is():
    [_, line] = lines_of(reasons={"high": "2 of 1..10, in time"})
    assert line == "  high: 2 wanted, 0 ready, 0 stopping (2 of 1..10, in time)"


def test_a_reload_that_stands_still_shows_how_many_workers_are_kept():
    records = worker("a", generation=1), worker("b", generation=2, ready_at=None)
    lines = lines_of(*records, wanted=[Wanted("high", 2, generation=2)])
    assert lines[1] == "  high: 2 wanted, 1 ready, 0 stopping, 1 from before the reload"


def test_what_a_group_suffers_from_is_shown_before_its_workers():
    lines = lines_of(worker("a", ready_at=None), troubles=["Redis is away: refused"])
    assert lines[2:] == ["    Redis is away: refused", "    97 a: starting, 2 min 5 s old"]


@pytest.mark.parametrize(
    ("record", "activity", "state"),
    [
        ({}, IDLE, "idle"),
        ({"ready_at": None}, IDLE, "starting"),
        ({"ready_at": None, "awaits_redis": True}, IDLE, "starting, waits for Redis"),
        ({"ready_at": None, "overdue": True}, IDLE, "starting, not ready in time"),
        ({}, Activity("j1", False, None), "busy with job j1"),
        ({"stop": Stop.GRACEFUL}, Activity("j1", False, None), "stopping, busy with job j1"),
        ({}, Activity("j1", True, None), "paused, busy with job j1"),
    ],
)
def test_a_worker_shows_its_state(record, activity, state):
    assert lines_of(worker("a", **record), a=activity)[2] == f"    97 a: {state}, 2 min 5 s old"


def test_a_worker_shows_its_memory_where_it_is_known():
    assert lines_of(worker("a"), a=Activity("", False, 5 * 2**20 // 2))[2].endswith(", 2.5 MB")


def test_who_is_left_of_dead_workers_is_shown():
    roster = Roster()
    roster.adopt(Orphan(7, "high", "j1"))
    roster.recoveries[8] = RecoveryProcess(8, "shop.web1.high.1")
    roster.unrecovered["a"] = UnrecoveredWorker("a", 2, NOW, NOW + 1.0)
    roster.unrecovered["b"] = UnrecoveredWorker("b")
    assert status_report("the pool", [], roster, {}, {}, {}, {}, lambda _: (), NOW)[1:] == [
        "  horse 7 of high outlives its worker: j1",
        "  recovery process 8 for shop.web1.high.1",
        "  worker a is dead and not recovered, 2 tries have failed, next in 1.0 s",
        "  worker b is dead and not recovered, 0 tries have failed, next in 0.0 s",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.9, "0 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (3_599, "59 min 59 s"),
        (3_600, "1 h 0 min"),
        (86_399, "23 h 59 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_an_age_is_told_in_its_two_largest_units(seconds, shown):
    assert age(seconds) == shown
