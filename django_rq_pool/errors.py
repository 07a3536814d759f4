"""Errors: the exceptions and exit statuses that users of this package meet.

Rule of the room: standard library only, for `__init__` offers them.
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
    """The command line has an unknown option or a value that is none; argparse says so."""
    SIGNAL = 128
    """Plus the signal's number: a signal ended the command before the pool was running."""


class StartError(Exception):
    """A pool cannot be started. The text says why, and what would help; nothing was started."""


class TermException(BaseException):
    """Raised in a running job when its worker is asked to stop immediately under TERM_CHILD.

    It is not an ``Exception``, so that a job which catches those does not swallow it. A job that
    leaves it uncaught ends, and is then retried, failed or requeued.
    """
