"""Parts: what a manager is made of.

Rule of the room: records only; `startup` fills them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config.stop_policy import StopRules
from ..planning.plan import PlanOptions
from ..planning.progress import StartGoal
from ..swap.release import OutgoingPool
from ..swap.takeover import NoTakeover
from ..system.signals import SignalInbox
from .spawner import Spawner
from .status_notifier import StatusNotifier


@dataclass(frozen=True)
class ManagerOptions:
    """How a manager behaves.

    Attributes:
        name: the name of the pool, in titles and logs.
        stop_rules: how the pool stops.
        plan: how the pool plans.
        watches_counts: whether the counts may change by themselves, and not on HUP only.
        may_hold: whether WINCH makes the pool hold; it does in a daemon only.
        start_goal: what the start has to reach, or None for a pool that tries for ever.
    """

    name: str
    stop_rules: StopRules = StopRules()
    plan: PlanOptions = PlanOptions()
    watches_counts: bool = False
    may_hold: bool = False
    start_goal: StartGoal | None = None


@dataclass(frozen=True)
class Parts:
    """What a manager is made of.

    Attributes:
        inbox: has caught `phases.OTHER_SIGNALS` since the start.
        spawner: forks the pool's processes.
        status: tells the outside how the pool is doing.
        outgoing: lets a newer pool take over gradually.
        takeover: takes the place of older pools once the start has succeeded.
    """

    inbox: SignalInbox
    spawner: Spawner
    status: StatusNotifier
    outgoing: OutgoingPool
    takeover: NoTakeover
