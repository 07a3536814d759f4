"""Troubles: what is wrong with each group, told in full once and in one line while it lasts.

Rule of the room: an operator reads each cause once, however many workers run into it.
"""

from __future__ import annotations

import logging
from enum import Enum

from ..text import unvaried

logger = logging.getLogger("django_rq_pool")


class Trouble(Enum):
    """What a group can suffer from; the value says it."""

    BOOT = "its workers fail to boot"
    REDIS = "Redis cannot be reached, its workers keep trying"


_OVER = {Trouble.BOOT: "its workers boot again", Trouble.REDIS: "Redis is back"}


class Troubles:
    def __init__(self) -> None:
        self._told: dict[tuple[str, Trouble], str] = {}

    def tell(self, group: str, trouble: Trouble, text: str) -> None:
        """Logs a trouble, with the whole text unless the same cause has been told already.

        Args:
            group: the queue group.
            trouble: what it suffers from.
            text: why; a traceback's last line tells two causes apart.
        """
        cause = text.strip().rpartition("\n")[2]
        known = self._told.get((group, trouble))
        self._told[group, trouble] = cause
        if known is None or unvaried(cause) != unvaried(known):
            logger.error("group %s: %s: %s", group, trouble.value, text.strip())
        elif trouble is Trouble.BOOT:
            logger.error("group %s: %s: again %s", group, trouble.value, cause)

    def of(self, group: str) -> list[str]:
        """What a group suffers from now, a line for each."""
        return [
            f"{trouble.value}: {cause}"
            for (sufferer, trouble), cause in self._told.items()
            if sufferer == group
        ]

    def end(self, group: str, trouble: Trouble) -> None:
        """Logs that a trouble is over, if it had been told."""
        if self._told.pop((group, trouble), None) is not None:
            logger.info("group %s: %s", group, _OVER[trouble])
