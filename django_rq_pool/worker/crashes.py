"""Crashes: an error of the code that ends a worker is told by its manager, once for all workers.

Rule of the room: what would be written to the log for each worker that dies of it is kept here, and
handed over in one piece. Read against RQ 3.0.
"""

from __future__ import annotations

import logging
import traceback

from ..ipc.assignment import Assignment
from ..ipc.reports import Event

logger = logging.getLogger("django_rq_pool")

_OF_RQ = "Worker %s: found an unhandled exception, quitting..."
"""What RQ's loop logs, with a traceback, before it leaves as if its work were done."""


class CrashFilter(logging.Filter):
    """Takes the traceback out of RQ's line on the error that ends its worker.

    Attributes:
        traceback: the traceback, or an empty text.
    """

    def __init__(self) -> None:
        super().__init__()
        self.traceback = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every line pass.

        Args:
            record: the line.
        """
        if record.msg == _OF_RQ and record.exc_info:
            self.traceback = "".join(traceback.format_exception(*record.exc_info))
            record.exc_info = None
        return True


def report(assignment: Assignment, text: str, *, ready: bool) -> None:
    """Tells the manager why this worker leaves; logs it if there is no manager any more.

    Args:
        assignment: what the manager handed to the worker.
        text: a sentence, or a traceback.
        ready: whether the worker has been ready.
    """
    event = Event.CRASHED if ready else Event.BOOT_FAILED
    if not assignment.reports.send(event, text):
        logger.error("worker %s crashed: %s", assignment.name, text.strip())
