"""Identity record: what a manager tells others about its pool, at any moment of its life.

Rule of the room: a file of the manager's own that only this user's processes can read (Linux). It
is answered by the system, so a manager that is loading, or stopped, can be asked too.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from ..config.identity import Identity, Site
from ..system import process_files
from ..system.messages import MessageError, MessageReader, encode

logger = logging.getLogger("django_rq_pool")

_FILE = "identity"
"""The name of the file among the manager's process files."""


class IdentityRecord:
    """This pool's record, for as long as it is not closed.

    Args:
        identity: which pool this is.
        queues: the names of the queues that it serves.
    """

    def __init__(self, identity: Identity, queues: Iterable[str]) -> None:
        self._identity = identity
        self._fd: int | None = None
        if process_files.available():
            try:
                self._fd = process_files.make_file(_FILE)
            except OSError as error:
                logger.debug("other pools cannot read which site this one is of: %s", error)
        self.update(queues)

    def update(self, queues: Iterable[str]) -> None:
        """Writes what the pool serves now.

        Args:
            queues: the names of its queues.
        """
        if self._fd is None:
            return
        site = self._identity.site(queues)
        line = encode({"folder": site.folder, "serves": sorted(site.serves)})
        try:
            os.pwrite(self._fd, line, 0)  # who reads meanwhile takes the first line only
            os.ftruncate(self._fd, len(line))
        except OSError as error:  # a full disk; a pool of another site would not be told from ours
            logger.warning("other pools cannot read which site this one is of: %s", error)
            self.close()

    def close(self) -> None:
        """Closes the record, in the manager or in a process that it has forked."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def read(pid: int) -> Site | None:
    """What another manager tells about its pool.

    Args:
        pid: its process.

    Returns:
        Its site; None when it says nothing: it is an earlier version's, or this is not Linux.
    """
    path = process_files.path_of(pid, _FILE)
    if path is None:
        return None
    try:
        first, *_ = MessageReader().feed(Path(path).read_bytes())
        return Site(first.text("folder"), frozenset(first.texts("serves")))
    except (OSError, MessageError, ValueError):  # it has ended meanwhile, or is of a later version
        return None
