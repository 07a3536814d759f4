"""Manager: what the pool's manager costs as workers grow.

``manager_cpu`` is what an idle manager uses per second, over 10 s, read from its own clock, 3 s
after its workers have become ready. ``noticed`` is the time from SIGKILL for an idle worker until
the manager has reaped it (there is no such process any more), looked at every 0.2 ms: the median of
five. ``turn`` is the time of one turn of the loop in which nothing is to be done: the median of
200, in a manager with as many children that do nothing at all (`turns`).
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import trees
from figures import Effort, Measure, Numbers, Step
from life import Life, wait_until

_DEATHS = 5
_WINDOW = 10.0
_SETTLE = 3.0
_TURNS = Path(__file__).resolve().parent.parent / "turns.py"


def measure(life: Life, effort: Effort) -> Numbers:
    time.sleep(_SETTLE)
    before, began = trees.own_cpu(life.manager), time.monotonic()
    time.sleep(_WINDOW)
    cpu = (trees.own_cpu(life.manager) - before) / (time.monotonic() - began)
    return {
        "manager_cpu": cpu,
        "noticed": statistics.median(_kill_one(life) for _ in range(_DEATHS)),
        "turn": _turn(life.workers),
    }


def _kill_one(life: Life) -> float:
    pid = random.choice(list(life.worker_pids().values()))
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path("/proc", str(pid)).exists(), 60, 0.0002)
    seconds = time.monotonic() - began
    life.await_workers()
    return seconds


def _turn(workers: int) -> float:
    line = [sys.executable, str(_TURNS), str(workers)]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE)
    return float(json.loads(done.stdout))


STEP = Step(
    "manager",
    (
        Measure("manager_cpu", "manager, idle: CPU", "s/s"),
        Measure("turn", "manager: a turn of the loop", "s"),
        Measure("noticed", "manager: a death noticed", "s"),
    ),
    measure,
)
