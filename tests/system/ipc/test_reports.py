"""Datagrams from workers to the manager, here from this process to itself."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from django_rq_pool.ipc.reports import Event, Report, Reports


@pytest.fixture
def reports() -> Iterator[Reports]:
    reports = Reports()
    yield reports
    reports.close()


def is_readable(reports: Reports) -> bool:
    return bool(select.select([reports.fileno()], [], [], 0)[0])


def test_without_reports_there_is_nothing_to_take_and_nothing_to_wait_for(reports):
    assert reports.take() == []
    assert not is_readable(reports)


def test_a_report_wakes_the_manager_and_says_whose_it_is(reports):
    reports.send(Event.READY)
    assert is_readable(reports)
    assert reports.take() == [Report(os.getpid(), Event.READY)]
    assert not is_readable(reports)


def test_reports_are_taken_once_and_in_the_order_in_which_they_were_sent(reports):
    for event in Event:
        reports.send(event, f"why {event.value}")
    assert [(report.event, report.text) for report in reports.take()] == [
        (event, f"why {event.value}") for event in Event
    ]
    assert reports.take() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "two\nlines",
        'a "quote" and a \\',
        "\0\x1b[31m",
        "日本語 é 😀",
        "cut \udcff",
        "x" * 16_000,
    ],
    ids=["empty", "lines", "quotes", "control", "unicode", "surrogate", "longest"],
)
def test_any_text_arrives_as_it_was_sent(reports, text):
    reports.send(Event.BOOT_FAILED, text)
    assert reports.take() == [Report(os.getpid(), Event.BOOT_FAILED, text)]


@pytest.mark.parametrize(
    "char",
    [
        "x",
        "é",
        "😀",
    ],
)
def test_a_long_text_loses_its_middle_and_keeps_both_ends(reports, char):
    reports.send(Event.BOOT_FAILED, "Traceback\n" + char * 40_000 + "ValueError")
    (report,) = reports.take()
    assert report.text.startswith("Traceback\n" + char * 100)
    assert report.text.endswith(char * 100 + "ValueError")
    assert "\n  ...\n" in report.text
    assert len(report.text) < 16_100


def test_a_worker_whose_manager_is_gone_is_not_disturbed(reports):
    reports.become_worker()
    reports.send(Event.READY)
    reports.send(Event.BOOT_FAILED, "nobody reads this")


def test_a_report_to_a_manager_that_is_gone_is_known_not_to_arrive():
    reports = Reports()
    assert reports.send(Event.CRASHED, "why")
    reports.become_worker()  # nobody holds the manager's end any more
    assert not reports.send(Event.CRASHED, "why")
    reports.close()
