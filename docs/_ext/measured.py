"""Measured: the tables of the benchmarks' results, and of the simulations of the autoscaling.

Rule of the room: figures come from a file that a run has written, or from a simulation that is run
now; none is written here.
"""

from __future__ import annotations

from pathlib import Path

import report
import scaling
from tables import Table


def suite_results(path: Path) -> list[Table]:
    """The tables of a run of ``benchmarks/suite.py``, one for each number of workers.

    Args:
        path: its ``results.json``.
    """
    results = report.Results.from_json(path.read_text())
    return [
        Table(tuple(heading), tuple(tuple(map(_cell, row)) for row in rows))
        for heading, *rows in report.tables(results)
    ]


def _cell(text: str) -> str:
    """A dash alone would begin a list."""
    return rf"\{text}" if text == report.NOT_MEASURED else text


def circumstances(path: Path) -> str:
    """On which machine, and with which versions, a run of ``benchmarks/suite.py`` was made."""
    return report.circumstances(report.Results.from_json(path.read_text()))


def simulations() -> list[Table]:
    """What the autoscaling does under the loads of ``tests/simulation.py``."""
    heading, *rows = scaling.table()
    return [Table(heading, tuple(rows))]
