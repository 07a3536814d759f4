"""Memory: the sum of the proportional set sizes (PSS) of all processes, per worker.

Of a page that several processes share, each has its part; so the sum counts each page once, and
also what a manager or RQ's scheduler processes have. The server is not in it. It is taken

- when the workers have just become ready, and
- worn, as a pool is after an hour: each worker has run a number of no-op jobs (200; the table says
  when it was another number), and then each process of the tree has done a full garbage collection,
  which the site lets a signal ask for. A few workers may have run more jobs than others.

``own`` is what a process has written to and shares with nobody, at the same two moments.
"""

from __future__ import annotations

import trees
from figures import Effort, Measure, Numbers, Step
from life import Life


def measure_fresh(life: Life, effort: Effort) -> Numbers:
    return _measure(life, "fresh")


def measure_worn(life: Life, effort: Effort) -> Numbers:
    life.run_jobs("clinic.jobs.nothing", effort.worn_jobs * life.workers)
    life.await_workers()
    life.collect_garbage()
    return {**_measure(life, "worn"), "worn_jobs": effort.worn_jobs}


def _measure(life: Life, state: str) -> Numbers:
    pids = life.tree.living()
    return {
        f"pss_{state}": trees.pss(pids) / life.workers,
        f"own_{state}": trees.own_memory(pids) / life.workers,
    }


FRESH = Step(
    "memory",
    (
        Measure("pss_fresh", "memory per worker, at once", "B"),
        Measure("own_fresh", "of that, shared with nobody", "B"),
    ),
    measure_fresh,
)
WORN = Step(
    "memory",
    (
        Measure("pss_worn", "memory per worker, worn", "B"),
        Measure("own_worn", "of that, shared with nobody", "B"),
        Measure("worn_jobs", "after jobs per worker", ""),
    ),
    measure_worn,
)
