"""Classes: checks that everything the counts and settings name can be imported and used.

Rule of the room: it imports, before the start, everything that a worker imports when it boots. A
wrong name is then one error of the command, and not a boot failure of every worker.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.conf import settings
from django_rq.jobs import get_job_class
from django_rq.queues import get_commit_mode, get_queue_class, get_queues
from django_rq.workers import get_exception_handlers, get_worker_class
from redis import Redis
from rq import Queue, SpawnWorker
from rq.job import Job
from rq.serializers import resolve_serializer
from rq.utils import import_attribute
from rq.worker import BaseWorker, HerokuWorker

from ..system.signals import Stopped
from . import declared, redis_clients
from .constructors import construct
from .groups import QueueGroup
from .options import WORKER_ARGUMENTS
from .overrides import override_problems
from .problems import Kind, Problem
from .stop_policy import StopRules
from .tracebacks import raised_at


def import_problems(group: QueueGroup, source: str) -> Iterator[Problem]:
    """Imports what the group's workers import when they boot.

    Args:
        group: the queue group.
        source: where the counts come from, for the messages.

    Returns:
        A problem for each class, serializer or setting that cannot be used.
    """
    options = group.options
    worker_class = options.worker_class or getattr(settings, "RQ", {}).get("WORKER_CLASS")

    def check_worker_class() -> None:
        reason = why_unusable(get_worker_class(worker_class))
        if reason is not None:
            raise TypeError(reason.rstrip("."))

    def check_job_class() -> None:
        _require(get_job_class(options.job_class), Job)

    def check_queue_classes() -> None:
        classes = {
            get_queue_class(dict(settings.RQ_QUEUES[queue]), options.queue_class)
            for queue in group.queues
        }
        for each in classes:
            _require(each, Queue)
        if len(classes) > 1:
            raise TypeError("the queues of a group must all have one class")

    def check_queue_serializers() -> None:
        for queue in group.queues:
            resolve_serializer(settings.RQ_QUEUES[queue].get("SERIALIZER"))

    path = "Give the dotted path of one that can be imported and used."
    setting = "Correct the setting; django-rq's documentation lists its values."
    checks: dict[str, tuple[object, Callable[[], object], str]] = {
        "worker_class": (worker_class, check_worker_class, path),
        "job_class": (options.job_class, check_job_class, path),
        "queue_class": (options.queue_class, check_queue_classes, path),
        "serializer": (options.serializer, lambda: resolve_serializer(options.serializer), path),
        "work_horse_killed_handler": (
            options.work_horse_killed_handler,
            lambda: _handler_of(group),
            "Give a function that takes four arguments, or its dotted path.",
        ),
        "Redis connection in RQ_QUEUES": (None, lambda: redis_clients.assemble(group), setting),
        "SERIALIZER in RQ_QUEUES": (None, check_queue_serializers, path),
        "exception handler of RQ_EXCEPTION_HANDLERS": (None, get_exception_handlers, path),
        "commit mode of RQ": (None, get_commit_mode, setting),
    }
    for what, (given, check, hint) in checks.items():
        try:
            check()
        except Stopped:
            raise
        except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
            yield Problem(
                Kind.IMPORT,
                f"{source}: {group.name!r}: the {what}{'' if given is None else f' {given!r}'} "
                f"cannot be used: {_reason(given, error)}.",
                hint,
            )


def override_warnings(groups: Iterable[QueueGroup]) -> tuple[Problem, ...]:
    """The overrides in the classes of queue groups that a pool does not call.

    Args:
        groups: queue groups without `import_problems`.

    Returns:
        A warning for each, once, however many groups have the class.
    """
    found: dict[Problem, None] = {}
    for group in groups:
        queue = dict(settings.RQ_QUEUES[group.queues[0]])
        queue_class = get_queue_class(queue, group.options.queue_class)
        found.update(dict.fromkeys(override_problems(worker_class_of(group), queue_class)))
    return tuple(found)


def _require(found: object, base: type) -> None:
    if not (isinstance(found, type) and issubclass(found, base)):
        raise TypeError(f"{found!r} is not a subclass of {base.__module__}.{base.__qualname__}")


def _reason(given: object, error: BaseException) -> str:
    """Why an import failed, in one sentence.

    RQ says *invalid attribute* even if the module itself raised. The module is imported again here
    to get the real exception.
    """
    module = given.rpartition(".")[0] if isinstance(given, str) else ""
    if module and isinstance(error, ValueError):
        try:
            importlib.import_module(module)
        except Exception as real:
            error = real
    return f"{type(error).__name__}: {error}{raised_at(error)}"


def why_unusable(worker_class: object) -> str | None:
    """Why a pool cannot use a worker class.

    Args:
        worker_class: the class that the counts or settings name.

    Returns:
        The reason as a sentence, or None if the class can be used.
    """
    if not (isinstance(worker_class, type) and issubclass(worker_class, BaseWorker)):
        return f"{worker_class!r} is not an RQ worker class."
    if issubclass(worker_class, SpawnWorker):
        return "SpawnWorker starts a new interpreter for every job, which shares no memory."
    if issubclass(worker_class, HerokuWorker) and not hasattr(signal, "SIGRTMIN"):
        return "HerokuWorker tells its jobs of a stop by SIGRTMIN, which this system does not have."
    return None


def clean_up_seconds(group: QueueGroup, rules: StopRules) -> float | None:
    """The seconds that a group's jobs have left when their worker is asked to stop immediately.

    Args:
        group: the queue group. RQ's `HerokuWorker` raises its exception after a while.
        rules: how the pool stops.

    Returns:
        The seconds; None: a job is not told, and ended at once.
    """
    worker_class = worker_class_of(group)
    if not issubclass(worker_class, HerokuWorker):
        return rules.term_child
    clean_up = rules.term_child or float(str(declared.TERM_TIMEOUT.default))
    return float(worker_class.imminent_shutdown_delay) + clean_up


def _handler_of(group: QueueGroup) -> Any:
    """The group's handler for work horses that were killed, or None."""
    given = group.options.work_horse_killed_handler
    found = import_attribute(given) if isinstance(given, str) else given
    if found is not None and not callable(found):
        raise TypeError(f"{found!r} cannot be called")
    return found


def _worker_arguments(group: QueueGroup) -> dict[str, Any]:
    """The arguments for the worker class that the group's options give. The others are left out: a
    class of the project's own may not take them."""
    given = group.options.given()
    arguments = {name: given[name] for name in WORKER_ARGUMENTS if name in given}
    if "work_horse_killed_handler" in arguments:
        arguments["work_horse_killed_handler"] = _handler_of(group)
    return arguments


def worker_class_of(group: QueueGroup) -> type[Any]:
    """The worker class of a group: its option ``worker_class``, else the one of the settings.

    Args:
        group: the queue group.

    Raises:
        Exception: whatever the import raises.
    """
    found: type[Any] = get_worker_class(group.options.worker_class)
    return found


def make_worker(
    worker_class: type[Any], group: QueueGroup, name: str, redis: Redis, *, works: bool = True
) -> Any:
    """Builds a group's RQ worker as ``manage.py rqworker`` does, from settings and options.

    Args:
        worker_class: the class of the object.
        group: the queue group.
        name: the worker's name in Redis.
        redis: a client of the group's server, which all queues share: left to itself, django-rq
            gives each queue a client of its own.
        works: whether this process is the worker; else the object only stands for it.

    Raises:
        Exception: whatever the project's classes raise.
    """
    options = group.options
    queues = get_queues(
        *group.queues,
        connection=redis,
        job_class=options.job_class,
        queue_class=options.queue_class,
    )
    return construct(
        worker_class,
        queues,
        name=name,
        connection=redis,
        exception_handlers=get_exception_handlers() or None,
        job_class=queues[0].job_class,
        queue_class=type(queues[0]),
        **_worker_arguments(group),
        serializer=options.serializer or queues[0].serializer,
        prepare_for_work=works,
    )
