"""Autoscaler: turns measurements and the manager's figures into a count for each scaled group.

Rule of the room: it keeps the state of the groups and calls `policy` and `allocation`, which
decide.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ..config.groups import Counts
from ..ipc.counts_records import ScaleResult, WorkerStats
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
        identity: a text that no other pool of this name has, on any host. It stays the same for
            as long as the manager lives.
        counts: the pool's groups.
    """

    def __init__(self, pool: str, identity: str, counts: Counts) -> None:
        self._groups = {group.name: group for group in counts.groups}
        self._max_total = counts.max_total
        self._metrics = Metrics(pool, identity, counts.groups)
        self._states = {group.name: State() for group in counts.bounded}
        self._failures: dict[str, str] = {}

    def scale(self, worker_stats: WorkerStats) -> ScaleResult:
        """Measures the queues and decides the count of each scaled group.

        Args:
            worker_stats: what the manager says about its workers.

        Returns:
            The counts and their reasons. Groups that could not be measured are left out.
        """
        measurement = self._metrics.measure(worker_stats.groups)
        self._log_failures(measurement.failures)
        decisions: dict[str, Decision] = {}
        now = processes.monotonic()
        for name, seen in measurement.observations.items():
            target = self._groups[name].options.target_latency
            self._states[name], decisions[name] = decide(target, seen, self._states[name], now)
        if self._max_total is not None:
            requests = {
                name: Request(decision, worker_stats.live.get(name, 0))
                for name, decision in decisions.items()
            }
            decisions = allocate(requests, self._max_total - self._taken(decisions, worker_stats))
        self._metrics.publish(decisions)
        return ScaleResult(
            {name: decision.count for name, decision in decisions.items()},
            {name: str(decision) for name, decision in decisions.items()},
        )

    def _taken(self, decisions: Mapping[str, Decision], worker_stats: WorkerStats) -> int:
        """How many workers the other groups have: those with fixed counts or not measured."""
        stats = worker_stats.groups
        return sum(
            stats[name].count if name in stats else group.workers
            for name, group in self._groups.items()
            if name not in decisions
        )

    def _log_failures(self, failures: Mapping[str, str]) -> None:
        for name, reason in failures.items():
            if name not in self._failures:
                logger.warning("group %s cannot be measured and keeps its count: %s", name, reason)
        for name in self._failures:
            if name not in failures:
                logger.info("group %s can be measured again", name)
        self._failures = dict(failures)

    def close(self) -> None:
        """Removes the pool from its peers' view and closes the Redis connections."""
        self._metrics.close()
