"""Plots: the numbers that a choice hangs on, drawn.

Rule of the room: bars are medians, whiskers the smallest and largest repetition; every scale begins
at zero, but that of a killed worker's replacement, which differs by orders.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes

from report import Results

mpl.use("svg")
mpl.rcParams.update({"svg.hashsalt": "django-rq-pool", "font.size": 9, "svg.fonttype": "none"})

COLOURS = {
    "rqworker": "#b8b8b8",
    "rqworker-pool": "#7d92b5",
    "preloading-pool": "#4f6a94",
    "rqpool": "#c8552d",
}
BARS = (
    ("ready", "all workers ready, s", 1.0, False),
    ("pss_worn", "memory per worker, worn, MB", 1e6, False),
    ("replaced", "killed worker replaced, s", 1.0, True),
    ("stop", "idle pool stopped, s", 1.0, False),
    ("noop_rate", "no-op jobs per second", 1.0, False),
    ("heavy_rate", "heavy-import jobs per second", 1.0, False),
)
CURVES = (
    ("manager_cpu", "manager, idle: CPU, ms/s", 1e-3),
    ("turn", "manager: a turn, ms", 1e-3),
    ("noticed", "manager: a death noticed, ms", 1e-3),
)


def draw_comparison(results: Results, path: Path) -> None:
    """Draws what was measured of all contenders, in bars grouped by the number of workers."""
    figure, axes = pyplot.subplots(2, 3, figsize=(10, 5.6), layout="constrained")
    for axis, (key, title, unit, logarithmic) in zip(axes.flat, BARS):
        _bars(axis, results, key, unit)
        axis.set_title(title, fontsize=9)
        if logarithmic:
            axis.set_yscale("log")
    names = _contenders(results)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=COLOURS[name]) for name in names]
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _contenders(results: Results) -> list[str]:
    measured = {name for name, _ in results.columns()}
    return [name for name in COLOURS if name in measured]


def _bars(axis: Axes, results: Results, key: str, unit: float) -> None:
    sizes = sorted({workers for measure, _, workers in results.numbers if measure == key})
    names = _contenders(results)
    width = 0.8 / len(names)
    for place, workers in enumerate(sizes):
        for side, name in enumerate(names):
            median = results.median(key, name, workers)
            if median is None:
                continue
            numbers = [n for n in results.numbers[key, name, workers] if n is not None]
            axis.bar(
                place + width * (side - (len(names) - 1) / 2),
                median / unit,
                0.9 * width,
                color=COLOURS[name],
                yerr=[[(median - min(numbers)) / unit], [(max(numbers) - median) / unit]],
                error_kw={"linewidth": 0.8},
            )
    axis.set_xticks(range(len(sizes)), [f"{workers} workers" for workers in sizes])
    axis.spines[["top", "right"]].set_visible(False)


def draw_manager(results: Results, path: Path) -> None:
    """Draws what the manager costs as workers grow."""
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
    for axis, (key, title, unit) in zip(axes, CURVES):
        found = sorted(
            (workers, results.median(key, name, workers))
            for measure, name, workers in results.numbers
            if measure == key
        )
        known = [(workers, number / unit) for workers, number in found if number is not None]
        if known:
            axis.plot(*zip(*known), "o-", color=COLOURS["rqpool"])
        axis.set(title=title, xlabel="workers", ylim=(0, None), xlim=(0, None))
        axis.title.set_fontsize(9)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
