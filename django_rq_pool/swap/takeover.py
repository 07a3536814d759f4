"""Hot swap: once this pool is ready, the older pools of its name leave gracefully.

Rule of the room: an older pool is told to leave only when this one can do its work, and is watched
until it has gone; nothing of it is ever killed.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..config.groups import Counts
from ..ipc import swap_channel
from ..ipc.swap_channel import SwapChannel
from ..planning.plan import Wanted
from ..planning.progress import all_ready, ready_workers
from ..planning.roster import Roster
from ..system import processes
from . import discovery, handover

logger = logging.getLogger("django_rq_pool")

LOOK_AGAIN = 1.0
"""Seconds until older pools are looked for again, the first time; and between two looks at one
where the system does not tell of a process's end."""

SELDOM = 8.0
"""Seconds between two searches at most: each reads the title of every process."""

SILENCE = 5.0
"""Seconds after which an older pool that does not say what it has is asked to leave as a whole."""


ANSWER_LIMIT = 2.0
"""Seconds that a pool waits at its start to hear what workers there are in the older one."""


def inherit(name: str, counts: Counts) -> Counts:
    """The counts with which to take over from the youngest of the older pools; see
    `handover.inherit`. To be called while nothing has been forked yet, for it waits.

    Args:
        name: the name of the pool.
        counts: as they were loaded.
    """
    older = discovery.find_older(name) if counts.bounded else []
    try:
        have = swap_channel.ask(older[-1].pid, ANSWER_LIMIT) if older else None
    finally:
        for other in older:
            other.close()
    return counts if have is None else handover.inherit(counts, have)


class Takeover:
    """This pool in the place of older ones, all at once: both are there in full for a moment.

    Args:
        name: the name of the pool.
        timeout: seconds that an older pool may have been starting, unseen, when this one is ready:
            for so long others are looked for again, so that of two swaps at once one pool is left.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self._name = name
        self._timeout = timeout
        self._search_at = self._search_until = 0.0
        self._pause = LOOK_AGAIN
        self._leaving: list[discovery.RunningManager] = []
        self.due: float | None = None
        """When to look again, though nothing happened."""

    @property
    def is_midway(self) -> bool:
        """Whether older pools have given up workers, and could have them back."""
        return False

    def restrict(self, wanted: Sequence[Wanted]) -> Sequence[Wanted]:
        """What of the wanted this pool may have now."""
        return wanted

    def begin(self) -> None:
        """This pool is ready: every older pool may be asked to leave when its workers have
        finished their jobs."""
        self._search_until = processes.monotonic() + self._timeout
        self._search()

    def _search(self) -> None:
        """Asks those that have not been asked."""
        asked = {other.pid for other in self._leaving}
        for other in discovery.find_older(self._name):
            if other.pid in asked:
                other.close()
            else:
                self._ask(other)
        self._search_at = processes.monotonic() + self._pause
        self._pause = min(2 * self._pause, SELDOM)

    def _ask(self, other: discovery.RunningManager) -> None:
        if other.send(signal.SIGQUIT):
            logger.info("pool %s of manager %d is asked to leave", self._name, other.pid)
            self._leaving.append(other)
        else:
            other.close()

    def filenos(self) -> list[int]:
        """What the manager waits on: descriptors that are readable when an older pool has gone."""
        return [fd for other in self._leaving if (fd := other.fileno()) is not None]

    def look(self, wanted: Sequence[Wanted], roster: Roster) -> None:
        """Looks who has gone.

        Args:
            wanted: for each queue group, whatever this pool may have of it now.
            roster: this pool's processes.
        """
        for other in [other for other in self._leaving if other.is_gone()]:
            logger.info("pool %s of manager %d has gone", self._name, other.pid)
            self._leaving.remove(other)
            other.close()
        now = processes.monotonic()
        searches = now < self._search_until
        if searches and now >= self._search_at:
            self._search()
        blind = len(self._leaving) > len(Takeover.filenos(self))
        dues = [now + LOOK_AGAIN] if blind else []
        dues += [self._search_at] if searches else []
        self.due = min(dues, default=None)

    def give_up(self) -> None:
        """This pool is stopping: nobody else is asked to leave."""
        self._search_until = 0.0

    def close(self) -> None:
        """Lets go of those that are still leaving; they finish on their own."""
        for other in self._leaving:
            other.close()
        self._leaving.clear()


class GradualTakeover(Takeover):
    """The same worker by worker: no queue group ever has more than one too many.

    An older pool that does not answer (an earlier version's, perhaps) is asked to leave as a whole
    when this one is whole.
    """

    def __init__(self, name: str, timeout: float) -> None:
        super().__init__(name, timeout)
        self._channels: list[tuple[discovery.RunningManager, SwapChannel]] = []
        self._silent_until = processes.monotonic() + SILENCE
        self._ceilings: dict[str, int] = {}
        self._begun = False
        for other in discovery.find_older(name):
            channel = swap_channel.connect(other.pid)
            if channel is None:
                logger.warning("pool of manager %d cannot be taken over step by step", other.pid)
                other.close()
            else:
                self._channels.append((other, channel))

    @property
    def is_midway(self) -> bool:
        return self._begun

    def restrict(self, wanted: Sequence[Wanted]) -> Sequence[Wanted]:
        """What is left of the ceiling by those that the older pools have; nothing before they have
        said what that is."""
        if not self._channels:
            return wanted
        have = self._have()
        if have is None:
            return [replace(want, workers=0) for want in wanted]
        counts = {want.group: want.workers for want in wanted}
        # Counts may be raised meanwhile, on either side.
        for group, ceiling in handover.ceilings(counts, have).items():
            self._ceilings[group] = max(ceiling, self._ceilings.get(group, 0))
        return [
            replace(want, workers=min(want.workers, self._allowance(want, have))) for want in wanted
        ]

    def _allowance(self, want: Wanted, have: Sequence[Mapping[str, int]]) -> int:
        taken = [pool.get(want.group, 0) for pool in have]
        return handover.allowance(self._ceilings[want.group], taken)

    def begin(self) -> None:
        """Each queue group has a worker that is ready: the older pools may give up theirs."""
        self._begun = True

    def filenos(self) -> list[int]:
        return [*super().filenos(), *(channel.fileno() for _, channel in self._channels)]

    def look(self, wanted: Sequence[Wanted], roster: Roster) -> None:
        late = processes.monotonic() >= self._silent_until
        for other, channel in list(self._channels):
            channel.receive()
            if channel.ended or (late and channel.received is None):
                self._drop(other, channel)
        have = self._have()
        whole = self._begun and all_ready(wanted, roster)
        if self._begun and have is not None:
            ready = ready_workers(wanted, roster)
            given = handover.keeps(self._ceilings, ready, have, whole=whole)
            for (_, channel), keep in zip(self._channels, given):
                channel.send(keep)
        if whole:
            self._begun = False
            # The lines stay until their pools have gone: their ends would bring workers back.
            for other, _ in self._channels:
                self._ask(other)
            super().begin()
        super().look(wanted, roster)
        if self._channels and have is None:
            self.due = min(self._silent_until, self.due or self._silent_until)

    def _drop(self, other: discovery.RunningManager, channel: SwapChannel) -> None:
        self._channels.remove((other, channel))
        channel.close()
        if other not in self._leaving:
            other.close()

    def give_up(self) -> None:
        """What the older pools have given up comes back, unless they have been asked to leave."""
        super().give_up()
        self._begun = False
        for other, channel in list(self._channels):
            self._drop(other, channel)

    def _have(self) -> list[Mapping[str, int]] | None:
        """What each older pool has; None while one has not said it."""
        heard = [channel.received for _, channel in self._channels]
        return None if None in heard else [counts for counts in heard if counts is not None]

    def close(self) -> None:
        super().close()
        for other, channel in self._channels:
            channel.close()
            other.close()
