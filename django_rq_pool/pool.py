"""The pool put together: the steps from a configuration to a running manager.

Rule of the room: order only. Configure, load, let go of connections, freeze, fork.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial

from . import hooks, phases, unix_signals
from .accountant import run_accountant
from .assignment import Lives
from .audit import ForkError, audit
from .conf import Configuration
from .connections import manager_connections
from .logfiles import LogFiles
from .manager import Manager
from .preload import freeze_heap, import_jobs
from .surveyor import run_surveyor
from .worker import run_worker

logger = logging.getLogger("django_rq_pool")


def run(
    configure: Callable[[], Configuration],
    *,
    burst: bool = False,
    preload: Iterable[str] | None = None,
    strict_fork: bool = False,
    logfiles: LogFiles | None = None,
) -> int:
    """Runs a pool until a signal ends it.

    Args:
        configure: finds out what the pool shall be.
        burst, preload, strict_fork: see `django_rq_pool.run_pool`.
        logfiles: where the standard streams go; None leaves them alone.

    Returns:
        An exit status.

    Raises:
        CountsError: the counts cannot be used.
        LogFileError: a log file cannot be opened.
        ForkError: ``strict_fork``, and there is something that does not bear a fork.
    """
    # From here on no signal that asks for something else ends the process; one that stops it does
    # so at once, until the manager takes over.
    inbox = unix_signals.SignalInbox(phases.OTHER_SIGNALS)
    inbox.exit_on(phases.STOP_SIGNALS)
    try:
        configuration = configure()
        logfiles = logfiles or LogFiles()
        logfiles.redirect()
        for warning in configuration.warnings:
            logger.warning("%s", warning)
        import_jobs(configuration.preload if preload is None else preload)
        hooks.discover()
        manager_connections.close()
        findings = audit()
        if findings and strict_fork:
            raise ForkError("\n".join(findings))
        for finding in findings:
            logger.warning("%s", finding)
        freeze_heap()
        manager = Manager(
            configuration.name,
            configuration.groups,
            Lives(run_worker, run_accountant, partial(run_surveyor, configuration)),
            inbox,
            rules=configuration.rules,
            burst=burst,
            watches_counts=configuration.source.dynamic,
            reopen_logs=logfiles.reopen,
        )
        return manager.run()
    finally:
        inbox.close()
