"""Errors: the exceptions that users of this package meet.

Rule of the room: standard library only, for `__init__` offers them.
"""

from __future__ import annotations


class StartError(Exception):
    """A pool cannot be started. The text says why, and what would help; nothing was started."""


class TermException(BaseException):
    """Raised in a running job when its worker is asked to stop immediately under TERM_CHILD.

    It is not an ``Exception``, so that a job which catches those does not swallow it. A job that
    leaves it uncaught ends, and is then retried, failed or requeued.
    """
