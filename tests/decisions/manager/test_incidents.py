"""Each cause is logged in full once."""

from __future__ import annotations

import logging

import pytest

from django_rq_pool.ipc.reports import Event, Report
from django_rq_pool.manager.incidents import CALM, Incident, Incidents

TRACEBACK = "Traceback:\n  File one\nKeyError: 'A'"
OTHER = "Traceback:\n  File one\nKeyError: 'B'"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="django_rq_pool")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def test_the_first_time_a_cause_is_told_in_full(lines):
    Incidents().begin("high", Incident.BOOT, TRACEBACK + "\n")
    assert lines() == [("ERROR", f"group high: workers fail to boot: {TRACEBACK}")]


def test_the_same_failure_to_boot_is_told_again_in_one_line(lines):
    incidents = Incidents()
    incidents.begin("high", Incident.BOOT, TRACEBACK)
    incidents.begin("high", Incident.BOOT, TRACEBACK.replace("one", "two"))
    assert lines()[1:] == [("ERROR", "group high: workers fail to boot: again KeyError: 'A'")]


def test_a_cause_that_names_another_worker_is_the_same(lines):
    incidents = Incidents()
    for name in ("shop.vm.high.1-6f510a12", "shop.vm.high.2-c3d4e5f6"):
        incidents.begin("high", Incident.BOOT, f"Traceback:\n  File one\nRuntimeError: no: {name}")
    assert "again RuntimeError" in lines()[1][1]


def test_another_cause_is_told_in_full(lines):
    incidents = Incidents()
    incidents.begin("high", Incident.BOOT, TRACEBACK)
    incidents.begin("high", Incident.BOOT, OTHER)
    assert OTHER in lines()[1][1]


def test_another_group_is_told_in_full(lines):
    incidents = Incidents()
    incidents.begin("high", Incident.BOOT, TRACEBACK)
    incidents.begin("low", Incident.BOOT, TRACEBACK)
    assert lines()[1] == ("ERROR", f"group low: workers fail to boot: {TRACEBACK}")


def test_a_lost_redis_is_told_once_however_many_workers_lose_it(lines):
    incidents = Incidents()
    for _ in range(5):
        incidents.begin("high", Incident.REDIS, "connection refused")
    assert len(lines()) == 1


def test_what_a_user_may_not_run_is_told_once_whatever_command_each_worker_meets_first(lines):
    incidents = Incidents()
    for command in ("lmove", "blmove", "acl|whoami", "lmove"):
        text = f"User worker has no permissions to run the '{command}' command"
        incidents.begin("high", Incident.REDIS, text)
    assert len(lines()) == 1


def test_causes_that_take_turns_are_told_once_each(lines):
    incidents = Incidents()
    for cause in ("connection refused", "READONLY no", "connection refused", "READONLY no"):
        incidents.begin("high", Incident.REDIS, cause)
    assert len(lines()) == 2


def test_the_end_of_a_trouble_is_told_once(lines):
    incidents = Incidents()
    incidents.begin("high", Incident.REDIS, "connection refused")
    incidents.end("high", Incident.REDIS)
    incidents.end("high", Incident.REDIS)
    assert lines()[1:] == [("INFO", "group high: Redis is back")]


def test_the_end_of_what_was_not_told_is_not_told(lines):
    incidents = Incidents()
    incidents.begin("high", Incident.REDIS, "connection refused")
    incidents.end("high", Incident.BOOT)
    incidents.end("low", Incident.REDIS)
    assert len(lines()) == 1


def test_what_a_group_suffers_from_is_known_until_it_is_over():
    incidents = Incidents()
    incidents.begin("high", Incident.BOOT, TRACEBACK)
    incidents.begin("high", Incident.REDIS, "connection refused")
    incidents.begin("low", Incident.REDIS, "time out")
    incidents.end("high", Incident.BOOT)
    assert incidents.of("high", 0.0) == ["connection refused"]


def test_a_trouble_that_comes_back_is_told_in_full_again(lines):
    incidents = Incidents()
    incidents.begin("high", Incident.BOOT, TRACEBACK)
    incidents.end("high", Incident.BOOT)
    incidents.begin("high", Incident.BOOT, TRACEBACK)
    assert lines()[0] == lines()[2]


def crash(incidents: Incidents, now: float, text: str = TRACEBACK) -> None:
    for event in (Event.READY, Event.CRASHED):
        incidents.handle("high", Report(1, event, text), now)


def test_a_crash_loop_is_told_in_full_once_and_then_in_one_line(lines):
    incidents = Incidents()
    for now in range(3):
        crash(incidents, now)
    again = ("ERROR", "group high: workers crash: again KeyError: 'A'")
    assert lines() == [("ERROR", f"group high: workers crash: {TRACEBACK}"), again, again]
    assert incidents.of("high", 3.0) == ["workers crash: KeyError: 'A'"]


def test_a_crash_long_after_the_last_one_is_told_in_full(lines):
    incidents = Incidents()
    crash(incidents, 0.0)
    crash(incidents, CALM + 1)
    assert [line for _, line in lines()] == [
        f"group high: workers crash: {TRACEBACK}",
        "group high: workers have stopped crashing",
        f"group high: workers crash: {TRACEBACK}",
    ]


def test_crashes_that_are_long_ago_are_not_reported_any_more(lines):
    incidents = Incidents()
    crash(incidents, 0.0)
    assert incidents.of("high", CALM + 1) == []
