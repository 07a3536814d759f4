"""Allotment: what the groups of a pool get when together they ask for more than it may have.

Rule of the room: claims come in, decisions with lower counts come out; it remembers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .policy import Decision

HOLDS = 1.25
"""By so much the claim to a worker is stronger for the group that has it already."""


@dataclass(frozen=True)
class Request:
    """What one group asks for.

    Attributes:
        decision: the count that it shall have, and how many it could use.
        held: its live workers, those included that have been asked to leave.
    """

    decision: Decision
    held: int

    @property
    def least(self) -> int:
        """What it gets in any case."""
        return min(self.decision.bounds.min, self.decision.count)


def allocate(requests: Mapping[str, Request], room: int) -> dict[str, Decision]:
    """Shares what a pool may have among groups whose counts have bounds.

    Each has its minimum first. The rest goes, one worker after another, to the group that is
    furthest from what it needs: Sainte-Laguë's method of apportionment, by which nobody gets less
    because there is more to share. A group that holds a worker keeps it until another's claim is
    stronger by a quarter, so that equal needs do not pass workers to and fro. And beyond the minima
    nothing is given out that somebody still has: who shall have more waits until others have left.

    Args:
        claims: by group.
        room: how many workers these groups may have together: ``max_total`` less the fixed counts
            of the other groups.

    Returns:
        The decisions, by group.
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
        holds = HOLDS if counts[name] < request.held else 1.0
        return (
            holds
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
        why=f"{decision.why}, and the pool may have no more",
    )
