"""Writes down the outcome of each of RQ's tests as it ends, for a run that may hang or die.

Rule of the room: one line for each event, so that what was written stays when the process is
killed. A plugin of pytest. What has an outcome already is not run again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

RECORD = Path(os.environ["RQ_SUITE_RECORD"])


def lines() -> list[list[str]]:
    """Every line that was written: a test, what became of it, and why."""
    return [json.loads(line) for line in RECORD.read_text().splitlines()]


def _note(test: str, outcome: str, why: str = "") -> None:
    with RECORD.open("a") as record:
        record.write(json.dumps([test, outcome, why]) + "\n")


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    done = {test for test, *_ in lines()}
    items[:] = [item for item in items if item.nodeid not in done]


def pytest_runtest_logstart(nodeid: str) -> None:
    _note(nodeid, "begun")


def pytest_runtest_logreport(report: Any) -> None:
    if report.skipped or report.failed or report.when == "call":
        _note(report.nodeid, report.outcome, "" if report.passed else _reason(report))


def _reason(report: Any) -> str:
    """The last line of what went wrong."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return str(crash.message).split("\n")[0]
    return str(report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr)
