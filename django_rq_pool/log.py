"""Log: one form for every line that the pool and its workers write.

Rule of the room: what the project's ``LOGGING`` says about a logger wins.
"""

from __future__ import annotations

import logging
import sys

from rq.logutils import colorizer, setup_loghandlers

FORMAT = "%(asctime)s [%(process)d] %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"

LOGGERS = ("django_rq_pool", "rq.worker", "rq.job")


def set_up(verbosity: int) -> None:
    """Sends the pool's and RQ's loggers to the console, unless they go somewhere already.

    Args:
        verbosity: Django's option: 0 warnings and errors, 1 what happens, 2 and 3 the details;
            the levels that ``rqworker`` has for them.
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    for name in LOGGERS:
        # The level is left alone at the default verbosity where the project has set one.
        chosen = logging.getLogger(name).level
        keep = chosen != logging.NOTSET and verbosity == 1
        setup_loghandlers(chosen if keep else level, DATE_FORMAT, FORMAT, name=name)


def follow_output() -> None:
    """Has RQ colour its lines only if standard output is a terminal now: it looks when it is
    imported, before the stream may have been sent to a file."""
    colorizer.notty = not sys.stdout.isatty()
