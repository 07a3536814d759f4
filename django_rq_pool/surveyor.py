"""The surveyor: a process that loads the counts, so that the manager need not.

Rule of the room: it says what it found when that differs from what it said before. Whatever a
loader opens, starts, blocks on or breaks stays in here; the manager forks another surveyor.
"""

from __future__ import annotations

import faulthandler
import logging
import signal
import traceback
from dataclasses import replace

from django.db import close_old_connections, reset_queries
from setproctitle import setproctitle

from . import conf, unix_signals
from .conf import Configuration
from .lifeline import Lifeline
from .problems import CountsError
from .survey import Finding, SurveyLine

logger = logging.getLogger("django_rq_pool")

TICK = 1.0
"""Seconds between two calls of a loader."""

_LEAVE = (signal.SIGQUIT, signal.SIGINT, signal.SIGTERM)
_HEED_NOT = (signal.SIGHUP, signal.SIGWINCH, signal.SIGUSR1, signal.SIGUSR2)


def run_surveyor(configuration: Configuration, line: SurveyLine, lifeline: Lifeline) -> int:
    """Lives a surveyor's life, in the process forked for it.

    Args:
        configuration: what the pool was started with; its source is asked again.
        line: where findings are sent.
        lifeline: ends when the manager does.
    """
    line.become_surveyor()
    setproctitle(f"rqpool-surveyor[{configuration.name}]: loading the counts")
    inbox = unix_signals.SignalInbox((*_LEAVE, *_HEED_NOT))
    unix_signals.unblock()
    said: Finding | None = None
    failures = 0
    while True:
        finding = _load(configuration, reset=said is None)
        if said is None or finding != replace(said, failures=0):
            line.send(replace(finding, failures=0 if finding.groups is None else failures))
            said = finding
        failures = failures + 1 if finding.groups is None else 0
        if not configuration.source.dynamic:
            return 0
        ended = inbox.wait([lifeline.fileno()], TICK)
        if ended or any(signum in _LEAVE for signum in inbox.take()):
            return 0


def _load(configuration: Configuration, *, reset: bool) -> Finding:
    """Loads the counts once. A loader that cannot even be interrupted ends the process."""
    faulthandler.dump_traceback_later(2 * conf.LOADER_LIMIT, exit=True)
    try:
        if reset:
            configuration.source.reset()
        counts = conf.load(configuration.source, configuration.environment)
    except CountsError as error:
        return Finding(None, error=_in_full(error, configuration.source.dynamic))
    finally:
        faulthandler.cancel_dump_traceback_later()
        reset_queries()
        close_old_connections()
    return Finding(counts.groups, tuple(map(str, counts.warnings)))


def _in_full(error: CountsError, with_traceback: bool) -> str:
    """The problems in sentences, with the traceback of what a project's loader raised."""
    if not with_traceback or error.__cause__ is None:
        return str(error)
    return f"{error}\n{''.join(traceback.format_exception(error.__cause__)).rstrip()}"
