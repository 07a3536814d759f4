"""Scaling: draws what the autoscaling does under the loads that its tests use.

    python benchmarks/scaling.py [--folder FOLDER] [SCENARIO ...]

For each scenario of `tests/simulation.py` it writes `benchmarks/curves/scaling-<name>.svg`: the
offered load and the count, the jobs that wait, and the age of the oldest beside the target. The
same code gives the same files.

Needs the dependency group `plots`: pip install -e . --group plots
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from simulation import SCENARIOS, Scenario  # noqa: E402

TITLES = {
    "step": "A step: one-second jobs for 8 workers, from one moment to the next (1..20)",
    "ramp": "A ramp: half-second jobs, for 10 workers in the end, then none (1..20)",
    "burst": "A burst: 1000 jobs of 0.1 s at once (1..10)",
    "sawtooth": "A sawtooth: from nothing to 6 workers' work every minute (1..10)",
    "long jobs": "Long jobs: one minute each, by chance, work for 3 workers (1..10)",
    "steady": "A steady load: 0.2 s jobs by chance, work for 4 workers (1..10)",
    "stuck": "A stuck queue: 40 jobs that never end (1..10)",
    "suspended": "A suspended queue: nobody may take jobs from 50 s to 150 s (1..10)",
    "from zero": "From zero: one job, then 300 of 0.1 s at once (0..10)",
    "ten hosts": "Ten hosts: half-second jobs for 30 workers, then for 2 (1..10 each)",
}

STYLE = {
    "backend": "svg",
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "django-rq-pool",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def draw(name: str, scenario: Scenario, path: Path) -> None:
    """Runs a scenario and writes its picture."""
    world = scenario.run()
    samples = world.samples
    from matplotlib import pyplot  # `table` needs none

    figure, (counts, waiting, age) = pyplot.subplots(
        3, 1, sharex=True, figsize=(7.2, 4.6), height_ratios=(2, 1, 1), layout="constrained"
    )
    counts.set_title(TITLES[name], loc="left", fontsize=10)
    load = [(sample.time, scenario.load(sample.time)) for sample in samples]
    if any(workers for _, workers in load):
        counts.plot(*corners(load), color="0.55", linestyle="--", label="load")
    for what, colour, width in (("busy", "C0", 0.8), ("count", "C3", 1.6)):
        line = steps([(sample.time, getattr(sample, what)) for sample in samples])
        counts.plot(*line, color=colour, lw=width, label=what)
    counts.set_ylabel("workers")
    counts.legend(loc="upper right", ncols=3)
    waiting.fill_between(*steps([(s.time, s.waiting) for s in samples]), color="C1", lw=0)
    waiting.set_ylabel("jobs waiting")
    age.plot(*steps([(s.time, round(s.oldest, 1)) for s in samples]), color="C2", lw=1.2)
    age.axhline(world.target, color="0.3", linestyle=":", lw=1)
    age.annotate(
        "target", (1, world.target), xycoords=("axes fraction", "data"), va="bottom", ha="right"
    )
    age.set_ylabel("oldest, s")
    age.set_xlabel("seconds")
    for axes in (counts, waiting, age):
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, scenario.until)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def table() -> list[tuple[str, ...]]:
    """What the autoscaling does under each load, as the cells of a table with its heading."""
    rows: list[tuple[str, ...]] = [("Load", "Workers, at most", "Longest wait", "Rises", "Falls")]
    for name, scenario in SCENARIOS.items():
        world = scenario.run()
        rows.append(
            (
                TITLES[name],
                str(max(sample.count for sample in world.samples)),
                f"{max(wait for _, wait in world.waits):.1f} s",
                str(sum(change.after > change.before for change in world.changes)),
                str(sum(change.after < change.before for change in world.changes)),
            )
        )
    return rows


Line = list[tuple[float, float]]


def steps(points: Line) -> tuple[list[float], list[float]]:
    """The corners of a line that keeps each value until the next."""
    line = points[:1]
    for before, after in itertools.pairwise(points):
        if after[1] != before[1]:
            line += [(after[0], before[1]), after]
    line.append(points[-1])
    return [time for time, _ in line], [value for _, value in line]


def corners(points: Line) -> tuple[list[float], list[float]]:
    """A line without the points that lie between two others on the same slope."""
    line = points[:1]
    for before, here, after in zip(points, points[1:], points[2:]):
        if abs((here[1] - before[1]) - (after[1] - here[1])) > 1e-9:
            line.append(here)
    line.append(points[-1])
    return [time for time, _ in line], [value for _, value in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "curves")
    arguments = parser.parse_args()
    unknown = set(arguments.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"there is no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    arguments.folder.mkdir(exist_ok=True)
    import matplotlib

    with matplotlib.rc_context(STYLE):
        for name in arguments.scenarios or SCENARIOS:
            path = arguments.folder / f"scaling-{name.replace(' ', '-')}.svg"
            draw(name, SCENARIOS[name], path)
            print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
