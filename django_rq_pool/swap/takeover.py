"""Takeover: once this pool is ready, the older pools of its site and name leave gracefully.

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
from . import handover, older_pools
from .discovery import RunningManager
from .older_pools import ThisPool

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


def starting_counts(pool: ThisPool, counts: Counts) -> Counts:
    """The counts with which to take over from the youngest of the older pools; see
    `handover.starting_counts`. To be called while nothing has been forked yet, because it waits.

    Args:
        pool: this pool.
        counts: as they were loaded.
    """
    older = older_pools.find_own(pool) if counts.bounded else []
    try:
        have = swap_channel.ask(older[-1].pid, ANSWER_LIMIT) if older else None
    finally:
        for manager in older:
            manager.close()
    return counts if have is None else handover.starting_counts(counts, have)


class NoTakeover:
    """What a pool does that replaces none: nothing. The base of those that do.

    Attributes:
        replaces: whether older pools are to leave.
        due: when to look again though nothing happened, on the monotonic clock, or None.
    """

    replaces = False

    def __init__(self) -> None:
        self.due: float | None = None

    @property
    def is_midway(self) -> bool:
        """Whether older pools have given up workers, and could have them back."""
        return False

    def restrict(self, wanted: Sequence[Wanted]) -> Sequence[Wanted]:
        """What of the wanted workers this pool may have now."""
        return wanted

    def begin(self) -> None:
        """The start has succeeded: older pools may be asked to leave."""

    def look(self, wanted: Sequence[Wanted], roster: Roster) -> None:
        """Looks what has become of the older pools.

        Args:
            wanted: for each queue group, whatever this pool may have of it now.
            roster: this pool's processes.
        """

    def filenos(self) -> list[int]:
        """What the manager waits on."""
        return []

    def give_up(self) -> None:
        """This pool is stopping: no older pool is asked to leave any more."""

    def close(self) -> None:
        """Closes what is open, in the manager or in a process that it has forked."""


class Takeover(NoTakeover):
    """This pool takes the place of older ones all at once: both are complete for a moment.

    Args:
        pool: this pool.
        timeout: seconds that an older pool may have been starting, unseen, when this one is ready.
            For so long others are looked for again, so that of two swaps at once one pool is left.
    """

    replaces = True

    def __init__(self, pool: ThisPool, timeout: float) -> None:
        super().__init__()
        self._pool = pool
        self._timeout = timeout
        self._search_at = self._search_until = 0.0
        self._pause = LOOK_AGAIN
        self._leaving: list[RunningManager] = []

    def begin(self) -> None:
        """Asks every older pool to leave when its workers have finished their jobs."""
        self._search_until = processes.monotonic() + self._timeout
        self._search()

    def _search(self) -> None:
        """Asks those that have not been asked."""
        asked = {manager.pid for manager in self._leaving}
        for manager in older_pools.find_own(self._pool):
            if manager.pid in asked:
                manager.close()
            else:
                self._ask(manager)
        self._search_at = processes.monotonic() + self._pause
        self._pause = min(2 * self._pause, SELDOM)

    def _ask(self, manager: RunningManager) -> None:
        if manager.send(signal.SIGQUIT):
            logger.info("pool %s of manager %d is asked to leave", manager.name, manager.pid)
            self._leaving.append(manager)
        else:
            manager.close()

    def filenos(self) -> list[int]:
        """Descriptors that are readable when an older pool has gone."""
        return self._watched()

    def _watched(self) -> list[int]:
        return [fd for manager in self._leaving if (fd := manager.fileno()) is not None]

    def look(self, wanted: Sequence[Wanted], roster: Roster) -> None:
        """Notes who has gone, and searches again when it is time."""
        for manager in [manager for manager in self._leaving if manager.is_gone()]:
            logger.info("pool %s of manager %d has gone", manager.name, manager.pid)
            self._leaving.remove(manager)
            manager.close()
        now = processes.monotonic()
        searches = now < self._search_until
        if searches and now >= self._search_at:
            self._search()
        unwatched = len(self._leaving) > len(self._watched())
        dues = [now + LOOK_AGAIN] if unwatched else []
        dues += [self._search_at] if searches else []
        self.due = min(dues, default=None)

    def give_up(self) -> None:
        """Asks no other pool to leave."""
        self._search_until = 0.0

    def close(self) -> None:
        """Stops watching those that are still leaving; they finish on their own."""
        for manager in self._leaving:
            manager.close()
        self._leaving.clear()


class GradualTakeover(Takeover):
    """The same worker by worker: no queue group ever has more than one worker too many.

    An older pool that does not answer (an earlier version's, perhaps) is asked to leave as a whole
    when this one is complete.
    """

    def __init__(self, pool: ThisPool, timeout: float) -> None:
        super().__init__(pool, timeout)
        self._channels: list[tuple[RunningManager, SwapChannel]] = []
        self._silent_until = processes.monotonic() + SILENCE
        self._ceilings: dict[str, int] = {}
        self._begun = False
        for manager in older_pools.find_own(pool):
            channel = swap_channel.connect(manager.pid)
            if channel is None:
                logger.warning("pool of manager %d cannot be taken over gradually", manager.pid)
                manager.close()
            else:
                self._channels.append((manager, channel))

    @property
    def is_midway(self) -> bool:
        """Whether the older pools have been told to give up workers, and not yet to leave."""
        return self._begun

    def restrict(self, wanted: Sequence[Wanted]) -> Sequence[Wanted]:
        """What the older pools' workers leave of the ceiling; nothing before they have said how
        many these are."""
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
        """Those of the channels too."""
        return [*self._watched(), *(channel.fileno() for _, channel in self._channels)]

    def look(self, wanted: Sequence[Wanted], roster: Roster) -> None:
        """Hears what the older pools have, and tells them what they may keep."""
        late = processes.monotonic() >= self._silent_until
        for manager, channel in list(self._channels):
            channel.receive()
            if channel.ended or (late and channel.received is None):
                self._drop(manager, channel)
        have = self._have()
        complete = self._begun and all_ready(wanted, roster)
        if self._begun and have is not None:
            ready = ready_workers(wanted, roster)
            kept = handover.keeps(self._ceilings, ready, have, whole=complete)
            for (_, channel), keep in zip(self._channels, kept):
                channel.send(keep)
        if complete:
            self._begun = False
            # The channels stay until their pools have gone: their ends would bring workers back.
            for manager, _ in self._channels:
                self._ask(manager)
            super().begin()
        super().look(wanted, roster)
        if self._channels and have is None:
            self.due = min(self._silent_until, self.due or self._silent_until)

    def _drop(self, manager: RunningManager, channel: SwapChannel) -> None:
        self._channels.remove((manager, channel))
        channel.close()
        if manager not in self._leaving:
            manager.close()

    def give_up(self) -> None:
        """What the older pools have given up comes back, unless they have been asked to leave."""
        super().give_up()
        self._begun = False
        for manager, channel in list(self._channels):
            self._drop(manager, channel)

    def _have(self) -> list[Mapping[str, int]] | None:
        """What each older pool has; None while one has not said it."""
        received = [channel.received for _, channel in self._channels]
        return None if None in received else [each for each in received if each is not None]

    def close(self) -> None:
        """Closes the channels too."""
        super().close()
        for manager, channel in self._channels:
            channel.close()
            manager.close()
