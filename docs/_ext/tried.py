"""Tried: the tables of what was tried outside of the tests, with the code of others.

Rule of the room: what was seen comes from a file that a run has written, and what is expected from
the list that a run compares with; none is written here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from differences import DIFFERENCES
from tables import Table

TRIALS = Path(__file__).resolve().parent.parent.parent / "tests" / "trials"


def third_parties() -> list[Table]:
    """What ``tests/trials/third_parties.py`` has seen."""
    rows = json.loads((TRIALS / "third_parties" / "seen.json").read_text())
    heading = ("Package", "What was tried", "What to write", "What was seen")
    return [
        Table(
            heading,
            tuple(
                (name, tried, write, f"{seen[0].upper()}{seen[1:]}.")
                for name, tried, write, seen in rows
            ),
        )
    ]


def rq_suite() -> list[Table]:
    """RQ's tests that end otherwise with pooled workers, by their reasons."""
    reasons: dict[str, list[str]] = {}
    for each in DIFFERENCES:
        reasons.setdefault(each.reason, []).append(each.test)
    rows = [
        (reason, "\n".join(f"| ``{_short(test)}``" for test in tests))
        for reason, tests in reasons.items()
    ]
    return [Table(("What a pooled worker does", "Tests of RQ"), tuple(rows))]


def _short(test: str) -> str:
    """The file and the name of a test."""
    file, _, name = re.sub(r"^tests/", "", test).partition("::")
    return f"{file}: {name.rpartition('::')[2]}"


TABLES: dict[str, Callable[[], Iterable[Table]]] = {
    "third-parties": third_parties,
    "rq-suite-differences": rq_suite,
}
"""The directives, each with what collects its tables."""
