"""The scaler: once a tick, from what the gauge reads and the manager says to each group's count.

Rule of the room: it remembers what the decisions need, and has them made; it decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ..config.groups import Counts
from ..ipc.counts_channel import ScaleResult, WorkerStats
from ..system import processes
from .allocation import Request, allocate
from .demand import State
from .metrics import Metrics
from .policy import Decision, decide

logger = logging.getLogger("django_rq_pool")


class Autoscaler:
    """Scales the groups of one pool that have bounds.

    Args:
        pool: the name of the pool.
        identity: tells this pool from others of its name, for as long as its manager lives.
        counts: the pool's groups.
    """

    def __init__(self, pool: str, identity: str, counts: Counts) -> None:
        self._groups = {group.name: group for group in counts.groups}
        self._max_total = counts.max_total
        self._metrics = Metrics(pool, identity, counts.groups)
        self._states = {group.name: State() for group in counts.bounded}
        self._failures: dict[str, str] = {}

    def scale(self, worker_stats: WorkerStats) -> ScaleResult:
        """Measures, and decides what the count of each group shall be now.

        Args:
            muster: what the manager says about its workers.
        """
        reading = self._metrics.measure(worker_stats.groups)
        self._say(reading.failures)
        decisions: dict[str, Decision] = {}
        now = processes.monotonic()
        for name, seen in reading.observations.items():
            target = self._groups[name].options.target_latency
            self._states[name], decisions[name] = decide(target, seen, self._states[name], now)
        if self._max_total is not None:
            requests = {
                name: Request(decision, worker_stats.live.get(name, 0))
                for name, decision in decisions.items()
            }
            decisions = allocate(requests, self._max_total - self._taken(decisions, worker_stats))
        self._metrics.show(decisions)
        return ScaleResult(
            {name: decision.count for name, decision in decisions.items()},
            {name: str(decision) for name, decision in decisions.items()},
        )

    def _taken(self, decisions: Mapping[str, Decision], worker_stats: WorkerStats) -> int:
        """How many workers go to groups that nothing is decided for."""
        stats = worker_stats.groups
        return sum(
            stats[name].count if name in stats else group.workers
            for name, group in self._groups.items()
            if name not in decisions
        )

    def _say(self, failures: Mapping[str, str]) -> None:
        for name, reason in failures.items():
            if name not in self._failures:
                logger.warning("group %s cannot be measured and keeps its count: %s", name, reason)
        for name in self._failures:
            if name not in failures:
                logger.info("group %s can be measured again", name)
        self._failures = dict(failures)

    def close(self) -> None:
        """Takes the pool from its peers."""
        self._metrics.close()
