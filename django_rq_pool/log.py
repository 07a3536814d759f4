"""Log: one format for every line that the pool and its workers write.

Rule of the room: the project's setting ``LOGGING`` takes precedence.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from rq.logutils import colorizer, setup_loghandlers

FORMAT = "%(asctime)s [%(process)d] %(levelname)s %(message)s"
"""Such as ``2026-11-28 06:00:00 [123] INFO manager 123 of pool shop started``."""
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"

LOGGERS = ("django_rq_pool", "rq.worker", "rq.job")
"""The logger of this package and those of RQ."""


@contextlib.contextmanager
def set_up(verbosity: int) -> Iterator[None]:
    """Gives each of `LOGGERS` RQ's console handlers, unless it has a handler already.

    When the block ends, they have the handlers and levels that they had.

    RQ's handlers write ERROR and above to standard error, and everything else to standard output.

    Args:
        verbosity: Django's option ``--verbosity``: 0 logs warnings and errors, 1 events, 2 and 3
            details. ``rqworker`` uses the same levels.
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    before = {each: (each.level, list(each.handlers)) for each in map(logging.getLogger, LOGGERS)}
    notty = colorizer.notty
    for name in LOGGERS:
        # At the default verbosity, a level that the project has set stays.
        chosen = logging.getLogger(name).level
        keep = chosen != logging.NOTSET and verbosity == 1
        setup_loghandlers(chosen if keep else level, DATE_FORMAT, FORMAT, name=name)
    try:
        yield
    finally:
        colorizer.notty = notty
        for logger, (chosen, handlers) in before.items():
            logger.setLevel(chosen)
            logger.handlers[:] = handlers


def follow_output() -> None:
    """Makes RQ colour its lines only if standard output is a terminal now.

    RQ decides when it is imported. Standard output may have been redirected to a file since.
    """
    colorizer.notty = not sys.stdout.isatty()
