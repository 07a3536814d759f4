"""Allocation: divides ``max_total`` among scaled groups that together want more workers.

Rule of the room: requests go in, decisions with lower counts come out. It keeps no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .policy import Decision

HOLDER_WEIGHT = 1.25
"""The factor by which a group that already has a worker comes before another one that wants it."""


@dataclass(frozen=True)
class Request:
    """What one group asks for.

    Attributes:
        decision: the count that it would have without a limit, and how many workers it could use.
        held: how many live workers it has, stopping ones included.
    """

    decision: Decision
    held: int

    @property
    def least(self) -> int:
        """How many workers it gets in any case."""
        return min(self.decision.bounds.min, self.decision.count)


def allocate(requests: Mapping[str, Request], room: int) -> dict[str, Decision]:
    """Divides the workers that a pool may have among its scaled groups.

    Each group gets its minimum first. The other workers are given out one by one, each to the
    group that is furthest from its need. This is Sainte-Laguë's method of apportionment: with more
    workers to divide, no group gets fewer. A group keeps a worker that it has until another group
    needs it more by `HOLDER_WEIGHT`, so that groups with equal needs do not swap workers.

    Above the minima, a worker is given out only if no other group still has it: a group that shall
    grow waits until workers of other groups have left.

    Args:
        requests: what each group asks for, by name.
        room: how many workers these groups may have together: ``max_total`` minus the fixed counts
            of the other groups.

    Returns:
        The decisions, by group name.
    """
    counts = {name: request.decision.count for name, request in requests.items()}
    if sum(counts.values()) > room:
        counts = _apportion(requests, room)
    free = max(0, room - sum(max(request.held, request.least) for request in requests.values()))
    decisions: dict[str, Decision] = {}
    for name, request in requests.items():
        has = max(request.held, request.least)
        more = min(max(0, counts[name] - has), free)
        free -= more
        decisions[name] = _lower(request.decision, min(counts[name], has + more))
    return decisions


def _apportion(requests: Mapping[str, Request], room: int) -> dict[str, int]:
    counts = {name: request.least for name, request in requests.items()}

    def strength(name: str) -> float:
        request = requests[name]
        weight = HOLDER_WEIGHT if counts[name] < request.held else 1.0
        return (
            weight
            * (request.decision.need - request.least)
            / (2 * (counts[name] - request.least) + 1)
        )

    for _ in range(room - sum(counts.values())):
        takers = [name for name in requests if counts[name] < requests[name].decision.count]
        counts[max(takers, key=strength)] += 1
    return counts


def _lower(decision: Decision, count: int) -> Decision:
    if count == decision.count:
        return decision
    return replace(
        decision,
        count=count,
        coming=max(0, decision.coming - (decision.count - count)),
        why=f"{decision.why}, limited by max_total",
    )
