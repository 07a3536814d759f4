"""Each cause is told in full once."""

from __future__ import annotations

import logging

import pytest

from django_rq_pool.manager.troubles import Trouble, Troubles

TRACEBACK = "Traceback:\n  File one\nKeyError: 'A'"
OTHER = "Traceback:\n  File one\nKeyError: 'B'"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="django_rq_pool")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def test_the_first_time_a_cause_is_told_in_full(lines):
    Troubles().tell("high", Trouble.BOOT, TRACEBACK + "\n")
    assert lines() == [("ERROR", f"group high: its workers fail to boot: {TRACEBACK}")]


def test_the_same_failure_to_boot_is_told_again_in_one_line(lines):
    troubles = Troubles()
    troubles.tell("high", Trouble.BOOT, TRACEBACK)
    troubles.tell("high", Trouble.BOOT, TRACEBACK.replace("one", "two"))
    assert lines()[1:] == [("ERROR", "group high: its workers fail to boot: again KeyError: 'A'")]


def test_a_cause_that_names_another_worker_is_the_same(lines):
    troubles = Troubles()
    for name in ("shop.vm.high.1-6f510a12", "shop.vm.high.2-c3d4e5f6"):
        troubles.tell("high", Trouble.BOOT, f"Traceback:\n  File one\nRuntimeError: no: {name}")
    assert "again RuntimeError" in lines()[1][1]


def test_another_cause_is_told_in_full(lines):
    troubles = Troubles()
    troubles.tell("high", Trouble.BOOT, TRACEBACK)
    troubles.tell("high", Trouble.BOOT, OTHER)
    assert OTHER in lines()[1][1]


def test_another_group_is_told_in_full(lines):
    troubles = Troubles()
    troubles.tell("high", Trouble.BOOT, TRACEBACK)
    troubles.tell("low", Trouble.BOOT, TRACEBACK)
    assert lines()[1] == ("ERROR", f"group low: its workers fail to boot: {TRACEBACK}")


def test_a_lost_redis_is_told_once_however_many_workers_lose_it(lines):
    troubles = Troubles()
    for _ in range(5):
        troubles.tell("high", Trouble.REDIS, "connection refused")
    assert len(lines()) == 1


def test_the_end_of_a_trouble_is_told_once(lines):
    troubles = Troubles()
    troubles.tell("high", Trouble.REDIS, "connection refused")
    troubles.end("high", Trouble.REDIS)
    troubles.end("high", Trouble.REDIS)
    assert lines()[1:] == [("INFO", "group high: Redis is back")]


def test_the_end_of_what_was_not_told_is_not_told(lines):
    troubles = Troubles()
    troubles.tell("high", Trouble.REDIS, "connection refused")
    troubles.end("high", Trouble.BOOT)
    troubles.end("low", Trouble.REDIS)
    assert len(lines()) == 1


def test_what_a_group_suffers_from_is_known_until_it_is_over():
    troubles = Troubles()
    troubles.tell("high", Trouble.BOOT, TRACEBACK)
    troubles.tell("high", Trouble.REDIS, "connection refused")
    troubles.tell("low", Trouble.REDIS, "time out")
    troubles.end("high", Trouble.BOOT)
    assert troubles.of("high") == [f"{Trouble.REDIS.value}: connection refused"]


def test_a_trouble_that_comes_back_is_told_in_full_again(lines):
    troubles = Troubles()
    troubles.tell("high", Trouble.BOOT, TRACEBACK)
    troubles.end("high", Trouble.BOOT)
    troubles.tell("high", Trouble.BOOT, TRACEBACK)
    assert lines()[0] == lines()[2]
