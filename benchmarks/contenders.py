"""Contenders: the ways to run RQ workers for a Django site, each as its documentation says.

Rule of the room: commands and signals only; nothing is started here.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MANAGE = Path(__file__).resolve().parent / "site" / "manage.py"


@dataclass(frozen=True)
class Contender:
    """One way to run workers.

    Attributes:
        name: what tables call it.
        commands: from queues and a number of workers, the arguments of ``manage.py`` for each
            command to start.
        stop: the signal that asks each of them to stop gracefully.
        waits_per_queue: whether an idle worker has a blocked connection for each queue, or one.
        replaces: whether it replaces workers that die.
    """

    name: str
    commands: Callable[[list[str], int], list[list[str]]]
    stop: signal.Signals
    waits_per_queue: bool
    replaces: bool

    def command_lines(self, queues: list[str], workers: int) -> list[list[str]]:
        return [[sys.executable, str(MANAGE), *each] for each in self.commands(queues, workers)]

    def blocked(self, queues: list[str], workers: int) -> int:
        """How many connections are blocked when all workers are idle."""
        return workers * (len(queues) if self.waits_per_queue else 1)


RQWORKER = Contender(
    "rqworker",
    lambda queues, workers: [["rqworker", *queues]] * workers,
    signal.SIGTERM,
    waits_per_queue=False,
    replaces=False,
)
RQWORKER_POOL = Contender(
    "rqworker-pool",
    lambda queues, workers: [["rqworker-pool", *queues, "--num-workers", str(workers)]],
    signal.SIGTERM,
    waits_per_queue=False,
    replaces=True,
)
RQPOOL = Contender(
    "rqpool",
    lambda queues, workers: [["rqpool", f"{','.join(queues)}={workers}"]],
    signal.SIGQUIT,
    waits_per_queue=True,
    replaces=True,
)
IMMORTAL_RQPOOL = Contender(
    "rqpool-immortal",
    lambda queues, workers: [
        ["rqpool", f"{','.join(queues)}={workers}", "--settings", "clinic.immortal_settings"]
    ],
    signal.SIGQUIT,
    waits_per_queue=True,
    replaces=True,
)
"""The pool with ``RQ_POOL_IMMORTAL``. Not among those that are measured unless it is asked for."""
PRELOADING_POOL = Contender(
    "preloading-pool",
    lambda queues, workers: [
        [
            "rqworker-pool",
            *queues,
            "--num-workers",
            str(workers),
            "--worker-class",
            "clinic.workers.Preloading",
        ]
    ],
    signal.SIGTERM,
    waits_per_queue=False,
    replaces=True,
)
"""RQ's pool as somebody would run it who knows that a worker class may import what jobs need. Not
among those that are measured unless it is asked for."""
DEFAULT = (RQWORKER.name, RQWORKER_POOL.name, RQPOOL.name)
CONTENDERS = {
    each.name: each for each in (RQWORKER, RQWORKER_POOL, PRELOADING_POOL, RQPOOL, IMMORTAL_RQPOOL)
}
