"""Errors: the exceptions and exit statuses that users of this package may see.

Rule of the room: it imports the standard library only, because the package itself imports it.
"""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """How ``manage.py rqpool`` and its workers end. The documentation's table is made of it."""

    ENDED = 0
    """The pool was told to end, has finished a burst, or (with ``--daemon``) is running and ready.
    A worker: it was asked to stop, or its options made it leave."""
    FAILED = 1
    """The pool cannot be started: wrong counts or options, a module that does not import, a worker
    that cannot boot, a hot swap that was not ready in time. Nothing is left running. A worker: it
    crashed."""
    USAGE = 2
    """The command line has an unknown option or a bad value. The message is argparse's."""
    SIGNAL = 128
    """Plus the signal's number: a signal ended the command before the pool was running."""


class StartError(Exception):
    """A pool cannot be started. The message says why and what would help. Nothing was started."""


class TermException(BaseException):
    """Raised in a running job if its worker must stop immediately and ``TERM_CHILD`` is set.

    It is not an ``Exception``, so that ``except Exception`` in a job does not catch it. A job that
    does not catch it ends, and is then retried, failed or requeued.
    """
