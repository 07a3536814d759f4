"""Caller: gives a process back as it was found when the pool that ran in it has ended.

Rule of the room: only what the pool changes in a process that goes on afterwards. Signals are given
back by their inbox, and loggers by `log`.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

from setproctitle import getproctitle, setproctitle

from ..connections import in_transaction
from ..errors import StartError
from ..system import parents, sd_notify
from ..system.logfiles import LogFiles

_FROZEN_BY_PYTHON = 1_000
"""CPython 3.12 freezes some 400 objects when it starts. A project that freezes has far more."""


def require_no_transaction() -> None:
    """Refuses to run while the caller is in a database transaction. The pool closes each connection
    before it forks, and that would take the transaction back.

    Raises:
        StartError: that is so.
    """
    alias = in_transaction()
    if alias is not None:
        raise StartError(
            f"database {alias!r} is in a transaction, which the pool would end when it closes the "
            "connection before it forks. Start the pool outside of transaction.atomic()."
        )


@contextlib.contextmanager
def given_back(logfiles: LogFiles) -> Iterator[None]:
    """Restores, when the block ends in whatever way, what the start and the manager change:

    the process title, who adopts orphans, the garbage collector and what is frozen, the variables
    of sd_notify(3), and the standard streams.

    Args:
        logfiles: the files that the streams are redirected to in the block.
    """
    title, adopts = getproctitle(), parents.adopts_orphans()
    frozen, collects = gc.get_freeze_count(), gc.isenabled()
    variables = {name: os.environ[name] for name in sd_notify.VARIABLES if name in os.environ}
    try:
        with logfiles.streams_kept():
            yield
    finally:
        os.environ.update(variables)
        if frozen < _FROZEN_BY_PYTHON:
            gc.unfreeze()
        (gc.enable if collects else gc.disable)()
        parents.adopt_orphans(adopts)
        setproctitle(title)
