"""Start hook: runs one ``before_start`` hook of the project, in the process forked for that.

Rule of the room: a hook has finished when it has returned. However else its process ends, the
manager has it run again.
"""

from __future__ import annotations

import signal
import sys
import traceback
from types import FrameType

from setproctitle import setproctitle

from .. import hooks
from ..config.stop_policy import STOP_SIGNALS
from ..connections import close_connections
from ..errors import ExitStatus
from ..ipc.assignment import HOOK_FINISHED
from ..ipc.lifeline import Lifeline
from ..ipc.reports import Event, Reports
from ..planning.phases import OTHER_SIGNALS
from ..system import parents, signals

_SOON = 0.05
"""Seconds until a stop is raised again. The object is deleted by then."""


def run_start_hook(pool: str, number: int, lifeline: Lifeline, reports: Reports) -> int:
    """Runs a hook. A stop raises ``SystemExit`` in it, so that it can clean up.

    Args:
        pool: the name of the pool.
        number: which of the hooks, from 0.
        lifeline: ends when the manager does.
        reports: where to tell the manager why the hook has failed.

    Returns:
        `HOOK_FINISHED` when it has returned.
    """
    inbox = signals.SignalInbox(OTHER_SIGNALS)  # which do not end it
    inbox.exit_on(STOP_SIGNALS)
    sys.unraisablehook = _raise_again
    setproctitle(f"rqpool-before-start[{pool}]: {hooks.before_start.names()[number]}")
    try:
        signals.unblock()
        parents.end_with_parent()
        if inbox.wait([lifeline.fileno()], 0):
            return ExitStatus.FAILED  # the manager has gone before that
        hooks.before_start.call(number)
        close_connections()
    except signals.Stopped as stopped:
        return int(str(stopped.code))
    except BaseException:  # a hook may raise anything, SystemExit included
        reports.send(Event.HOOK_FAILED, traceback.format_exc())
        return ExitStatus.FAILED
    return HOOK_FINISHED


def _raise_again(ignored: sys.UnraisableHookArgs) -> None:
    """Raises a stop once more, and soon, that Python ignores because it was deleting an object."""
    if not isinstance(ignored.exc_value, signals.Stopped):
        sys.__unraisablehook__(ignored)
        return
    stopped = ignored.exc_value

    def leave(number: int, frame: FrameType | None) -> None:
        raise stopped

    signal.signal(signal.SIGALRM, leave)
    signal.setitimer(signal.ITIMER_REAL, _SOON)
