"""Report: the numbers of a run as tables for people, and as JSON.

    python benchmarks/report.py benchmarks/results/results.json

prints the tables of a run that was kept. Rule of the room: every number is printed, whoever has the
better one; the tables are made from the JSON and not kept beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from figures import Measure

NOT_MEASURED = "-"
NEVER = "never"


@dataclass
class Results:
    """The repetitions of every number, by measure, contender and number of workers.

    Attributes:
        facts: what machine and versions they come from.
    """

    facts: dict[str, str]
    measures: dict[str, Measure] = field(default_factory=dict)
    numbers: dict[tuple[str, str, int], list[float | None]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> Results:
        """The results that `as_json` has written."""
        data = json.loads(text)
        results = cls(data["facts"])
        for each in data["measured"]:
            measure = Measure(each["measure"], each["title"], each["unit"])
            for number in each["repetitions"]:
                results.add(measure, each["contender"], each["workers"], number)
        return results

    def add(self, measure: Measure, contender: str, workers: int, number: float | None) -> None:
        self.measures.setdefault(measure.key, measure)
        self.numbers.setdefault((measure.key, contender, workers), []).append(number)

    def median(self, key: str, contender: str, workers: int) -> float | None:
        """None when it was not measured, or could not be had at least every second time."""
        numbers = self.numbers.get((key, contender, workers), [])
        known = [number for number in numbers if number is not None]
        return statistics.median(known) if 2 * len(known) > len(numbers) else None

    def columns(self) -> list[tuple[str, int]]:
        """Every contender at every number of workers, the smallest first."""
        pairs = dict.fromkeys((contender, workers) for _, contender, workers in self.numbers)
        return sorted(pairs, key=lambda pair: pair[1])

    def as_json(self) -> str:
        measured = [
            {
                "measure": key,
                "title": self.measures[key].title,
                "unit": self.measures[key].unit,
                "contender": contender,
                "workers": workers,
                "median": self.median(key, contender, workers),
                "repetitions": numbers,
            }
            for (key, contender, workers), numbers in self.numbers.items()
        ]
        return json.dumps({"facts": self.facts, "measured": measured}, indent=1) + "\n"


def tables(results: Results) -> list[list[list[str]]]:
    """One table for each number of workers: a row for each measure, a column for each contender."""
    found = []
    for workers in sorted({workers for _, workers in results.columns()}):
        names = [name for name, each in results.columns() if each == workers]
        rows = [[f"{workers} workers", *names]]
        for measure in results.measures.values():
            cells = [_cell(results, measure, name, workers) for name in names]
            if any(cell != NOT_MEASURED for cell in cells):
                rows.append([measure.title, *cells])
        found.append(rows)
    return found


def _cell(results: Results, measure: Measure, contender: str, workers: int) -> str:
    numbers = results.numbers.get((measure.key, contender, workers), [])
    known = [number for number in numbers if number is not None]
    median = results.median(measure.key, contender, workers)
    if median is None:
        # A number that cannot be had is None every time; a stop that does not end is told as such.
        return NEVER if numbers and measure.key.startswith("stop") else NOT_MEASURED
    show = _FORMS.get(measure.unit, _plainly)
    text = show(median)
    if len(numbers) > 1:
        text += f" ({show(min(known))} to {show(max(known))})"
    return text


def _plainly(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _seconds(number: float) -> str:
    return f"{number * 1000:.3g} ms" if number < 0.1 else f"{_plainly(number)} s"


_FORMS: dict[str, Callable[[float], str]] = {
    "s": _seconds,
    "s/s": lambda number: f"{number * 1000:.3g} ms/s",
    "/s": lambda number: f"{_plainly(number)}/s",
    "B": lambda number: f"{number / 1e6:.1f} MB",
}


def as_text(table: Sequence[Sequence[str]]) -> str:
    """A table in columns."""
    lines = []
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, _widths(table)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_page(results: Results) -> str:
    """Every table, and what machine and versions they come from."""
    return "\n\n".join([*map(as_text, tables(results)), f"{circumstances(results)}\n"])


def circumstances(results: Results) -> str:
    """What machine and versions the numbers come from, in parentheses."""
    return "(" + ", ".join(f"{name} {value}" for name, value in results.facts.items()) + ")"


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[column]) for row in table) for column in range(len(table[0]))]


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints the tables of a run of the suite.")
    parser.add_argument("results", type=Path, metavar="FILE", help="a results.json")
    print(as_page(Results.from_json(parser.parse_args().results.read_text())), end="")


if __name__ == "__main__":
    main()
