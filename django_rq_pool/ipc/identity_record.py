"""Identity record: what a manager tells others about its pool, at any moment of its life.

Rule of the room: a file of the manager's own that only this user's processes can read (Linux). It
is answered by the system, so a manager that is loading, or stopped, can be asked too.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from ..config.identity import Identity, Site
from ..system import process_files
from ..system.messages import MessageError, decode, encode

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
        self.update(queues)

    def update(self, queues: Iterable[str]) -> None:
        """Puts what the pool serves now in the place of what was said before.

        Args:
            queues: the names of its queues.
        """
        if not process_files.available():
            return
        site = self._identity.site(queues)
        line = encode({"folder": site.folder, "serves": sorted(site.serves)})
        try:
            new = process_files.make_file(_FILE, line)
        except OSError as error:  # a full disk, perhaps; what was said before stays
            logger.warning("other pools cannot read which site this one is of: %s", error)
        else:
            self.close()
            self._fd = new

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
    line = process_files.read_file(pid, _FILE)
    try:
        said = decode(line or b"")
        return Site(said.text("folder"), frozenset(said.texts("serves")))
    except MessageError:  # nothing, or a later version's
        return None
