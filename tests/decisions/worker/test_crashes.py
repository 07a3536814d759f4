"""What ends a worker is told once, by the manager."""

from __future__ import annotations

import logging

from django_rq_pool.worker.crashes import CrashFilter


def logged(caplog, message: str) -> tuple[CrashFilter, logging.LogRecord]:
    kept = CrashFilter()
    log = logging.getLogger("tests.crashes")
    log.addFilter(kept)
    try:
        {}["no such key"]
    except KeyError:
        log.exception(message, "one")
    log.removeFilter(kept)
    return kept, caplog.records[-1]


def test_the_traceback_of_rqs_last_line_is_kept_for_the_manager(caplog):
    kept, record = logged(caplog, "Worker %s: found an unhandled exception, quitting...")
    assert kept.traceback.strip().endswith("KeyError: 'no such key'")
    assert record.exc_info is None
    assert record.getMessage() == "Worker one: found an unhandled exception, quitting..."


def test_another_traceback_is_written_where_it_is(caplog):
    kept, record = logged(caplog, "Worker %s: cannot load a job")
    assert kept.traceback == ""
    assert record.exc_info
