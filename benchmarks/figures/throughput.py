"""Throughput: jobs per second of N workers that are ready, and what a job costs.

The jobs are put on the queues in turns, by one transaction; the time begins before it and ends when
the last of them is in a finished (or failed) registry, looked at every 10 ms. Jobs of both kinds do
nothing: no-op jobs are of a module that imports nothing, heavy-import jobs of one that imports
numpy, pandas, requests and Pillow. CPU per job is that of all processes of the contender, horses
included; commands per job is what the server counted, without those of the benchmark.
"""

from __future__ import annotations

from figures import Effort, Measure, Numbers, Step
from life import Life

_FEWEST_HEAVY_JOBS = 16


def measure(life: Life, effort: Effort) -> Numbers:
    nothing = _measure(life, "clinic.jobs.nothing", effort.jobs, "noop")
    heavy = _measure(
        life, "clinic.tasks.nothing", max(_FEWEST_HEAVY_JOBS, effort.heavy_jobs), "heavy"
    )
    return {**nothing, **heavy}


def _measure(life: Life, function: str, jobs: int, name: str) -> Numbers:
    cpu, commands = life.tree.cpu(), life.server.count().commands
    seconds = life.run_jobs(function, jobs)
    life.await_workers()  # what workers do after a job is part of its cost
    return {
        f"{name}_rate": jobs / seconds,
        f"{name}_cpu": (life.tree.cpu() - cpu) / jobs,
        f"{name}_commands": (life.server.count().commands - commands) / jobs,
    }


STEP = Step(
    "throughput",
    (
        Measure("noop_rate", "no-op jobs", "/s", more_is_better=True),
        Measure("noop_cpu", "CPU per no-op job", "s"),
        Measure("noop_commands", "commands per no-op job", ""),
        Measure("heavy_rate", "heavy-import jobs", "/s", more_is_better=True),
        Measure("heavy_cpu", "CPU per heavy-import job", "s"),
    ),
    measure,
)
