"""Replacement: a worker is killed.

Begins with SIGKILL for one idle worker. ``forked`` ends when the manager has the child that becomes
its successor, ``replaced``, for another one, when there is a worker registered that was not before
and as many connections wait for jobs as before; looked at about every millisecond. N x
``rqworker`` has nobody who would do it: how soon a supervisor does is its own business.
"""

from __future__ import annotations

import os
import random
import signal
import time

from figures import Effort, Measure, Numbers, Step
from life import PATIENCE, Life, wait_until


def measure(life: Life, effort: Effort) -> Numbers:
    if not life.contender.replaces:
        return {"forked": None, "replaced": None}
    workers = life.worker_pids()
    forked = _seconds_until_forked(life, workers)
    wait_until(lambda: _is_replaced(life, workers), PATIENCE, 0.001)
    workers = life.worker_pids()
    replaced = _kill_one(workers)
    wait_until(lambda: _is_replaced(life, workers), PATIENCE, 0.001)
    return {"forked": forked, "replaced": time.monotonic() - replaced}


def _seconds_until_forked(life: Life, workers: dict[str, int]) -> float:
    seen = dict.fromkeys(life.tree.children(life.manager), 0.0)
    began = _kill_one(workers)

    def is_known() -> bool:
        """Whether one of the manager's new children, each noted as soon as it is seen, is known as
        the successor: there may be others, which account for the dead worker."""
        now = time.monotonic()
        seen.update(dict.fromkeys(life.tree.children(life.manager) - seen.keys(), now))
        return bool(life.server.registered() - workers.keys())

    wait_until(is_known, PATIENCE, 0.001)
    now = time.monotonic()
    pids = life.worker_pids()
    (successor,) = pids.keys() - workers.keys()
    # One that registered while the children were read was not among them: it was forked by now.
    return seen.get(pids[successor], now) - began


def _kill_one(workers: dict[str, int]) -> float:
    pid = random.choice([pid for pid in workers.values() if _exists(pid)])
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return began


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _is_replaced(life: Life, before: dict[str, int]) -> bool:
    return bool(life.server.registered() - before.keys()) and (
        life.server.waiting() >= life.contender.blocked(life.queues, life.workers)
    )


STEP = Step(
    "replacement",
    (
        Measure("forked", "killed worker: successor forked", "s"),
        Measure("replaced", "killed worker: successor ready", "s"),
    ),
    measure,
)
