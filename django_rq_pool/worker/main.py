"""Main: what a worker's process does from its fork to its end.

Rule of the room: build the group's worker as ``rqworker`` would, let it work, say how it ended.
"""

from __future__ import annotations

import logging
import traceback

from redis.exceptions import NoPermissionError
from rq.worker import DequeueStrategy
from setproctitle import setproctitle

from .. import hooks, log
from ..config import redis_clients
from ..config.classes import make_worker, worker_class_of
from ..config.redis_clients import UNREACHABLE
from ..config.redis_errors import Trouble, trouble
from ..errors import ExitStatus
from ..ipc.assignment import Assignment
from . import crashes
from .bases import pooled, refuse_shared_names
from .crashes import CrashFilter
from .execution import FORBIDDEN
from .manager_link import ManagerLink
from .pooled_worker import PooledWorker

logger = logging.getLogger("django_rq_pool")


def run_worker(assignment: Assignment) -> int:
    """Runs a worker, in the process forked for it.

    Args:
        assignment: what the manager hands to the worker.

    Returns:
        0 when it left because it was asked to, or because its options said so; else 1.
    """
    link = ManagerLink(assignment)
    setproctitle(f"rq:worker:{assignment.name}: Starting")
    worker: PooledWorker | None = None
    try:
        while link.await_redis():
            try:
                if worker is None:
                    worker = _prepare(assignment, link)
                else:
                    # Its registration may be incomplete.
                    worker.unregister()
                return _work(worker, assignment, link)
            except link.unavailable as error:
                if link.ready:
                    logger.warning("worker %s could not unregister: %s", assignment.name, error)
                    link.note_end()
                    return ExitStatus.FAILED
        if worker is None:
            assignment.slot.leave()  # it has not begun to register
        link.note_end()
        return ExitStatus.ENDED
    except BaseException as error:  # a project's class may raise anything, SystemExit included
        crashes.report(assignment, _why(error), ready=link.ready)
        return ExitStatus.FAILED


def _why(error: BaseException) -> str:
    """A sentence for what a server refuses; the traceback of anything else."""
    if isinstance(error, NoPermissionError):
        return FORBIDDEN % error
    if trouble(error) is Trouble.DATABASE:
        return f"{Trouble.DATABASE.value}: {error}. Look at DB, or the URL, in RQ_QUEUES."
    return "".join(traceback.format_exception(error))


def _prepare(assignment: Assignment, link: ManagerLink) -> PooledWorker:
    group = assignment.group
    project_class = worker_class_of(group)
    redis = redis_clients.client(group, link.stop_aware)
    worker: PooledWorker = make_worker(pooled(project_class), group, assignment.name, redis)
    refuse_shared_names(project_class, vars(worker))
    worker.attach(link)
    try:
        hooks.after_prefork.run(worker)
    except UNREACHABLE as error:  # some server, and not the one that is waited for
        raise RuntimeError("an after_prefork hook cannot reach its server") from error
    return worker


def _work(worker: PooledWorker, assignment: Assignment, link: ManagerLink) -> int:
    options = assignment.group.options
    kept = CrashFilter()
    worker.log.addFilter(kept)
    worker.work(
        burst=assignment.burst,
        logging_level=None,
        date_format=log.DATE_FORMAT,
        log_format=log.FORMAT,
        max_jobs=options.max_jobs,
        max_idle_time=options.max_idle_time,
        with_scheduler=options.with_scheduler,
        dequeue_strategy=DequeueStrategy(options.dequeue_strategy),
    )
    crash = worker.crashed or kept.traceback
    if crash:
        crashes.report(assignment, crash, ready=link.ready)
    entitled = assignment.burst or options.max_jobs or options.max_idle_time
    left_well = worker.asked_to_stop or (entitled and not crash)
    return ExitStatus.ENDED if left_well else ExitStatus.FAILED
