"""Release: the older pool's side of a gradual takeover.

Rule of the room: it gives up workers only for as long as the newer pool's connection lasts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from ..ipc.identity_record import IdentityRecord
from ..ipc.swap_channel import SwapChannel, Workers, listen

logger = logging.getLogger("django_rq_pool")


class OutgoingPool:
    """This pool, as one that newer pools may take over from. It gives up workers as they become
    ready there. While it finishes its last jobs a third pool may want to take over from both.

    Args:
        record: tells newer pools which site this one is of.

    Attributes:
        keep: how many workers of a group may be kept; a group that is not here is not limited.
    """

    def __init__(self, record: IdentityRecord) -> None:
        self._record = record
        self.keep: Workers = {}
        self._channels: list[SwapChannel] = []
        self._listener = listen()

    def filenos(self) -> list[int]:
        """What the manager waits on."""
        return [each.fileno() for each in (self._listener, *self._channels) if each is not None]

    def look(self, have: Callable[[], Workers], *, leaving: bool) -> None:
        """Lets new pools in, tells them what workers there are, and hears what may be kept.

        Args:
            have: counts the workers of this pool, those that are leaving or to be forked included.
            leaving: whether this pool is stopping: nothing comes back then.
        """
        if self._listener is not None:
            self._channels += self._listener.accept()
        if not self._channels:
            return
        for channel in list(self._channels):
            channel.receive()
            if channel.ended:
                channel.close()
                self._channels.remove(channel)
                if channel.received and not leaving:
                    logger.warning(
                        "the newer pool is gone before it took over: forking the workers again"
                    )
        kept = [channel.received for channel in self._channels if channel.received is not None]
        groups = {group for each in kept for group in each}
        self.keep = {group: min(each[group] for each in kept if group in each) for group in groups}
        for channel in self._channels:
            channel.send(have())

    def serves(self, queues: Iterable[str]) -> None:
        """Tells newer pools what this one serves from now on.

        Args:
            queues: the names of its queues.
        """
        self._record.update(queues)

    def close(self) -> None:
        """Closes every connection, and the record."""
        self._record.close()
        for each in (self._listener, *self._channels):
            if each is not None:
                each.close()
