"""Figures: what is measured, one module for each; the module's docstring defines it.

Rule of the room: a figure says what it measures of a contender that is alive and ready. A number
that cannot be had is None, and why is said in the module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from life import Life

Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Effort:
    """How much is done for a figure.

    Attributes:
        jobs: no-op jobs for the throughput.
        heavy_jobs: jobs with heavy imports for it, as many for each worker that may run at a time.
        worn_jobs: jobs of each worker until memory counts as worn.
        stop_limit: seconds after which a stop counts as one that does not end.
    """

    jobs: int
    heavy_jobs: int
    worn_jobs: int
    stop_limit: float


@dataclass(frozen=True)
class Measure:
    """One number of a figure.

    Attributes:
        key: its name in the JSON file.
        title: what tables and plots call it.
        unit: of the number as it is stored.
        more_is_better: whether a larger one is better.
    """

    key: str
    title: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True)
class Step:
    """One thing that is done in a life and what it yields.

    Attributes:
        figure: the name of the figure that it belongs to.
        measures: its numbers.
        measure: does it.
    """

    figure: str
    measures: tuple[Measure, ...]
    measure: Callable[[Life, Effort], Numbers]
