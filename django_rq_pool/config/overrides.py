"""Overrides: which methods of a project's worker and queue classes RQ calls and a pool does not.

Rule of the room: the tables are the only list, for the checks, the workers and the documentation.
Whether an override calls ``super()`` is read from its code; nothing of the project is called. Read
against RQ 3.0.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import CodeType, FunctionType
from typing import Any

from .problems import Kind, Problem


class Called(Enum):
    """Whether the pool calls a project's override."""

    YES = "yes"
    IF_SUPER = "if it calls ``super()``"
    NEVER = "no"


@dataclass(frozen=True)
class Override:
    """A method of RQ in whose place the pool does something else.

    Attributes:
        called: whether the pool calls a project's override of it.
        pool: what the pool does in its place; it continues *the pool*.
        instead: what a project does instead, as a sentence.
    """

    called: Called
    pool: str
    instead: str


_SETTLES = "enqueues dependents in the step that settles the job"
_POPS_NONE = "moves each job to a list of its worker and pops none"
_ORDERS = "Use the option dequeue_strategy, or reorder_queues of the worker class."
_CONNECTS = "connects with the limits that RQ_QUEUES gives"
_TRIES_AGAIN = "tries again every half second while Redis is away"
_SCHEDULES = "has a scheduler class of its own"
_DEQUEUES = Override(Called.NEVER, _POPS_NONE, _ORDERS)

WORKER_METHODS: Mapping[str, Override] = {
    "check_for_suspension": Override(
        Called.IF_SUPER,
        "stops and sends heartbeats there",
        "Call super() in it.",
    ),
    "dequeue_job_and_maintain_ttl": Override(
        Called.IF_SUPER, _POPS_NONE, "Call super() in it, or override reorder_queues."
    ),
    "wait_for_horse": Override(
        Called.IF_SUPER,
        "waits for signals and for the end of the manager too",
        "Call super() in it, or override handle_work_horse_killed.",
    ),
    "kill_horse": Override(
        Called.IF_SUPER, "signals the process group that the horse leads", "Call super() in it."
    ),
    "request_stop": Override(
        Called.IF_SUPER,
        "stops where no job is in hand, and not in the signal's handler",
        "Call super() in it, or override handle_warm_shutdown_request.",
    ),
    "setup_work_horse_signals": Override(
        Called.YES,
        "sets what signals mean to a work horse before it calls it",
        "Install handlers for what the job shall hear.",
    ),
    "unsubscribe": Override(
        Called.YES,
        "leaves the subscription to the end of the process",
        "Wait for nothing in it.",
    ),
    "set_shutdown_requested_date": Override(
        Called.NEVER,
        "writes the date with the next heartbeat",
        "Override request_stop and call super() in it.",
    ),
    "_shutdown": Override(
        Called.NEVER,
        "stops where no job is in hand",
        "Override handle_warm_shutdown_request.",
    ),
    "request_force_stop": Override(
        Called.NEVER,
        "ends the job, settles it and unregisters the worker",
        "Set TERM_CHILD, which tells the job, or override handle_work_horse_killed.",
    ),
    "_install_signal_handlers": Override(
        Called.NEVER,
        "handles its signals where no job is in hand",
        "Install handlers for other signals in an after_prefork hook.",
    ),
    "_set_connection": Override(Called.NEVER, _CONNECTS, "Set the limits in RQ_QUEUES."),
    "connection_timeout": Override(Called.NEVER, _CONNECTS, "Set the limits in RQ_QUEUES."),
    "exponential_backoff_factor": Override(Called.NEVER, _TRIES_AGAIN, "Remove it."),
    "max_connection_wait_time": Override(Called.NEVER, _TRIES_AGAIN, "Remove it."),
    "_start_scheduler": Override(Called.NEVER, _SCHEDULES, "Use the option with_scheduler."),
    "stop_scheduler": Override(Called.NEVER, _SCHEDULES, "Use the option with_scheduler."),
    "_enqueue_dependents_safely": Override(Called.NEVER, _SETTLES, "Use a callback of the job."),
}
"""The methods and attributes of RQ's worker classes."""

QUEUE_METHODS: Mapping[str, Override] = {
    "dequeue_any": _DEQUEUES,
    "lpop": _DEQUEUES,
    "lmove": _DEQUEUES,
    "enqueue_dependents": Override(Called.NEVER, _SETTLES, "Use a callback of the job."),
}
"""The methods of RQ's queue class."""

_MONITOR = "monitor_work_horse"
_WAIT = "wait_for_horse"


def override_problems(worker_class: type[Any], queue_class: type[Any]) -> Iterator[Problem]:
    """Finds the overrides that a pool does not call.

    Args:
        worker_class: the worker class of a queue group.
        queue_class: its queue class.

    Returns:
        A warning for each.
    """
    for found, methods in ((worker_class, WORKER_METHODS), (queue_class, QUEUE_METHODS)):
        for name, owner in _not_called(found, methods).items():
            override = methods[name]
            why = "it does not call super(), so " if override.called is Called.IF_SUPER else ""
            if _is_rqs(owner):
                why = "it is not RQ's own method any more, and "
            yield Problem(
                Kind.OVERRIDE,
                f"{_path(owner)}.{name}: {why}the pool does not use it. The pool {override.pool}.",
                override.instead,
            )
    monitor = _defined(worker_class, _MONITOR)
    if monitor and not _calls_super(monitor[1], _MONITOR) and _WAIT not in _names(monitor[1]):
        yield Problem(
            Kind.OVERRIDE,
            f"{_path(monitor[0])}.{_MONITOR}: it waits for a work horse itself, so that its worker "
            "cannot be stopped while a job runs.",
            f"Call super() in it, or {_WAIT}, which is ended by a stop.",
        )


def left_out(worker_class: type[Any]) -> frozenset[str]:
    """The methods of a worker class in whose place a worker of the pool has the pool's own."""
    return frozenset(
        name
        for name in _not_called(worker_class, WORKER_METHODS)
        if WORKER_METHODS[name].called is Called.IF_SUPER
    )


def _not_called(found: type[Any], methods: Mapping[str, Override]) -> dict[str, type[Any]]:
    """The overrides that are not called, each with the class that has it."""
    owners: dict[str, type[Any]] = {}
    for name, override in methods.items():
        for owner, attribute in _chain(found, name):
            if (
                override.called is Called.NEVER
                or _is_rqs(owner)  # something has put it there, where the pool's own hides it
                or (override.called is Called.IF_SUPER and not _calls_super(attribute, name))
            ):
                owners[name] = owner
                break
    return owners


def _chain(found: type[Any], name: str) -> Iterator[tuple[type[Any], Any]]:
    """The classes that have an attribute of the name which is not RQ's, in the order of calls."""
    for owner in found.__mro__:
        if name in vars(owner):
            attribute = vars(owner)[name]
            if not (_is_rqs(owner) and _is_written_by_rq(attribute)):
                yield owner, attribute


def _defined(found: type[Any], name: str) -> tuple[type[Any], Any] | None:
    return next(_chain(found, name), None)


def _is_rqs(owner: type[Any]) -> bool:
    return owner.__module__.partition(".")[0] == "rq"


def _is_written_by_rq(attribute: Any) -> bool:
    function = _function(attribute)
    if function is None:
        return not callable(attribute)  # a plain value of RQ's class
    return str(function.__globals__.get("__name__")).partition(".")[0] == "rq"


def _function(attribute: Any) -> FunctionType | None:
    """The function of an attribute of a class, wrappers not removed."""
    if isinstance(attribute, property):
        attribute = attribute.fget
    attribute = getattr(attribute, "__func__", attribute)
    return attribute if isinstance(attribute, FunctionType) else None


def _calls_super(attribute: Any, name: str) -> bool:
    """Whether the code of an override, or what that decorates, calls the same method of
    ``super()``. ``Worker.request_stop(self, ...)`` does not: it reaches RQ's and not the pool's."""
    return {"super", name} <= _names(attribute)


def _names(attribute: Any) -> set[str]:
    """Every name in the code of a function, in functions inside of it and in those it wraps."""
    names: set[str] = set()
    todo, seen = [_function(attribute)], set[int]()
    wrapped = inspect.unwrap(getattr(attribute, "__func__", attribute))
    todo.append(_function(wrapped))
    while todo:
        function = todo.pop()
        if function is None or id(function) in seen:
            continue
        seen.add(id(function))
        for code in _codes(function.__code__):
            names.update(code.co_names)
        for cell in function.__closure__ or ():
            try:
                todo.append(_function(cell.cell_contents))
            except ValueError:  # not assigned yet
                continue
    return names


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _path(owner: type[Any]) -> str:
    return f"{owner.__module__}.{owner.__qualname__}"
