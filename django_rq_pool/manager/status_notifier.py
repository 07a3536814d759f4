"""Status notifier: tells the outside how the pool is doing.

Rule of the room: the command that waits for a daemon hears once how its start ended; systemd hears
what its protocol asks for. Whether the start has succeeded is decided elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..planning.phases import STOPS, Phase
from ..planning.plan import Wanted
from ..planning.progress import all_ready, summary
from ..planning.roster import Roster
from ..swap import discovery
from ..system.launch import Launch
from ..system.sd_notify import Notifier

logger = logging.getLogger("django_rq_pool")


class StatusNotifier:
    """Tells a waiting command and systemd.

    Args:
        name: the name of the pool.
        launch: the way to the command that waits, if one does.
        notifier: the way to systemd, if it is there.

    Attributes:
        due: when to look again though nothing happened, on the monotonic clock, or None.
    """

    def __init__(self, name: str, launch: Launch, notifier: Notifier) -> None:
        self._name = name
        self._launch = launch
        self._notifier = notifier
        self._failure = ""
        self._unready = True
        self._loading = False
        self._stopping = False
        self.due: float | None = None

    def look(
        self, phase: Phase, wanted: Sequence[Wanted], roster: Roster, now: float, obstacle: str
    ) -> None:
        """Looks at the pool and tells systemd what is new.

        Args:
            phase: what the manager is doing.
            wanted: for each queue group.
            roster: the live processes.
            now: the monotonic clock, in seconds.
            obstacle: why no worker is forked yet, or nothing.
        """
        if not self._notifier.enabled:
            self.due = None
            return
        self._notify(phase, wanted, roster, obstacle)
        waited_for = self._unready or self._loading or phase in STOPS
        self.due = self._notifier.tick(now, extending=waited_for)

    def start_succeeded(self) -> None:
        """The start has succeeded, and what depended on it has been done."""
        self._launch.succeed()

    def start_failed(self, reason: str) -> None:
        """The start has failed. That is told by `conclude`, when nothing is left of the pool."""
        self._failure = reason

    def reloading(self) -> None:
        """A reload begins."""
        self._notifier.reloading()
        self._loading = True

    def reloaded(self) -> None:
        """The counts have been loaded, and workers are being replaced."""
        self._loading, self._unready = False, True

    def take_over(self, pid: int) -> None:
        """The process with this pid is the service's main one from now on."""
        self._notifier.main_pid(pid)

    def conclude(self) -> None:
        """The pool has ended. A start that has failed is told now."""
        if self._failure:
            self._launch.fail(self._failure)
            logger.error("%s", self._failure)

    def _notify(
        self, phase: Phase, wanted: Sequence[Wanted], roster: Roster, obstacle: str
    ) -> None:
        if phase in STOPS and not self._stopping:
            self._stopping = True
            if discovery.has_younger(self._name):
                self._notifier.mute()
            else:
                self._notifier.stopping()
        elif (
            self._unready
            and not self._loading
            and phase is Phase.RUNNING
            and not obstacle
            and all_ready(wanted, roster)
        ):
            self._unready = False
            self._notifier.ready()
        self._notifier.status(f"{phase.value}: {obstacle or summary(wanted, roster)}")
