"""Measured: the tables of the benchmarks' results, and of the simulations of the autoscaling.

Rule of the room: figures come from a file that a run has written, or from a simulation that is run
now; none is written here.
"""

from __future__ import annotations

import re
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


def storm_results(path: Path) -> list[Table]:
    """The table that a run of ``benchmarks/storm.py`` has printed.

    Args:
        path: the file that its output was sent to.
    """
    heading, *rows = (_storm_cells(line) for line in path.read_text().splitlines() if line)
    return [Table(heading, tuple(rows))]


def _storm_cells(line: str) -> tuple[str, ...]:
    """Three columns of text, which may have spaces in them, then numbers."""
    *words, numbers = re.split(r"  +", line, maxsplit=3)
    return (*words, *numbers.split())


def simulations() -> list[Table]:
    """What the autoscaling does under the loads of ``tests/simulation.py``."""
    heading, *rows = scaling.table()
    return [Table(heading, tuple(rows))]
