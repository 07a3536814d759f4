"""The herald: tells those outside how the pool is doing.

Rule of the room: the command that waits for a launch hears how it ended, once; systemd hears what
its protocol asks for. What the pool does is decided elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from ..planning.backoff import Backoff
from ..planning.phases import STOPS, Phase
from ..planning.plan import Wanted
from ..planning.progress import StartGoal, StartResult, all_ready, judge, shown
from ..planning.roster import Roster
from ..swap import discovery
from ..system.launch import Launch
from ..system.sd_notify import Notifier

logger = logging.getLogger("django_rq_pool")


class StatusNotifier:
    """
    Args:
        name: the name of the pool.
        launch: the line to the command that waits, if one does.
        notifier: the line to systemd, if it is there.
        aim: what the start has to reach; None for a pool that tries for ever.
    """

    def __init__(
        self, name: str, launch: Launch, notifier: Notifier, goal: StartGoal | None
    ) -> None:
        self._name = name
        self._launch = launch
        self._notifier = notifier
        self._goal = goal
        self._failure = ""
        self._unready = True
        self._loading = False
        self._stopping = False
        self.due: float | None = None
        """When to look again, though nothing happened."""

    def look(
        self,
        phase: Phase,
        wanted: Sequence[Wanted],
        roster: Roster,
        backoffs: Mapping[str, Backoff],
        now: float,
    ) -> StartResult | None:
        """Looks at the pool and tells what there is to tell.

        Returns:
            How the start went, at the one time when that becomes known.
        """
        result = None
        if self._goal is not None:
            result = judge(self._goal, phase, wanted, roster, backoffs, now)
        if result is not None:
            self._goal = None
            self._failure = result.text
        dues = [] if self._goal is None else [self._goal.until]
        if self._notifier.is_heard:
            self._notify(phase, wanted, roster)
            waited_for = self._unready or self._loading or phase in STOPS
            ping = self._notifier.tick(now, extending=waited_for)
            dues += [] if ping is None else [ping]
        self.due = min(dues, default=None)
        return result

    def succeed(self) -> None:
        """The start has succeeded, and what depended on it has been done."""
        self._launch.succeed()

    def reloading(self) -> None:
        """A reload begins."""
        self._notifier.reloading()
        self._loading = True

    def reloaded(self) -> None:
        """The counts have been loaded, and workers are being replaced."""
        self._loading, self._unready = False, True

    def take_over(self, pid: int) -> None:
        """This process, of the given pid, is the service's from now on."""
        self._notifier.main_pid(pid)

    def conclude(self) -> None:
        """The pool has ended. A start that has failed is told now, when nothing is left of it."""
        if self._failure:
            self._launch.fail(self._failure)
            logger.error("%s", self._failure)

    def _notify(self, phase: Phase, wanted: Sequence[Wanted], roster: Roster) -> None:
        if phase in STOPS and not self._stopping:
            self._stopping = True
            if discovery.has_younger(self._name):
                self._notifier.hand_over()
            else:
                self._notifier.stopping()
        elif (
            self._unready
            and not self._loading
            and phase is Phase.RUNNING
            and all_ready(wanted, roster)
        ):
            self._unready = False
            self._notifier.ready()
        self._notifier.status(f"{phase.value}: {shown(wanted, roster)}")
