"""Constructors: builds a worker of a project's class, whatever its constructor takes.

Rule of the room: a constructor gets what it takes, by keyword where that can be. What it does not
take is set on the worker afterwards, under RQ's name for it.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from redis.exceptions import ResponseError
from rq.serializers import resolve_serializer
from rq.worker import BaseWorker

logger = logging.getLogger("django_rq_pool")

_DEFAULTS = {
    each.name: each.default
    for each in list(inspect.signature(BaseWorker.__init__).parameters.values())[2:]
}
"""What RQ's own constructor takes after the queues, in its order, each with its default."""

_ATTRIBUTES = {"work_horse_killed_handler": "_work_horse_killed_handler"}
"""Where RQ keeps what its constructor is given, if not under the same name."""

_ONLY_FOR_CONSTRUCTORS = ("connection", "prepare_for_work")
"""What is of no use afterwards; left out, RQ takes the connection of the queues."""

_OURS = "django_rq_pool."


def construct(worker_class: type[Any], queues: Sequence[Any], *, name: str, **given: Any) -> Any:
    """Builds a worker.

    Args:
        worker_class: its class.
        queues: its queues.
        name: its name, which it has whatever its constructor does with it.
        given: what else RQ's constructor takes; None leaves the choice to RQ.

    Raises:
        TypeError: the class gives its workers names that cannot be changed.
        Exception: whatever the project's class raises.
    """
    given["name"] = name
    parameters = _own_parameters(worker_class)
    positions = _positions(parameters)
    places = [given.get(each, _DEFAULTS[each]) for each in positions]
    taken = _keywords(worker_class) - {*positions}
    keywords = {each: value for each, value in given.items() if each in taken}
    if "queues" in taken and parameters[0].name != "queues":
        worker = worker_class(queues=queues, **keywords)
    else:
        worker = worker_class(queues, *places, **keywords)
    _rename(worker, name)
    for left in given.keys() - keywords.keys() - {*positions, *_ONLY_FOR_CONSTRUCTORS, "name"}:
        if given[left] is not None:
            _set(worker, left, given[left])
    return worker


def _own_parameters(worker_class: type[Any]) -> list[inspect.Parameter]:
    """The parameters of a constructor, without the worker itself."""
    return list(inspect.signature(worker_class.__init__).parameters.values())[1:]


def _positions(parameters: Iterable[inspect.Parameter]) -> tuple[str, ...]:
    """The names of what is given by position after the queues, because there is no other way."""
    kinds = {each.kind for each in parameters}
    takes_all = inspect.Parameter.VAR_POSITIONAL in kinds
    if takes_all and inspect.Parameter.VAR_KEYWORD not in kinds:
        return tuple(_DEFAULTS)
    only = [each.name for each in parameters if each.kind is each.POSITIONAL_ONLY]
    return tuple(each for each in only[1:] if each in _DEFAULTS)


def _keywords(worker_class: type[Any]) -> set[str]:
    """What is taken by keyword, by a constructor or by those to which it passes on the rest."""
    names: set[str] = set()
    for owner in worker_class.__mro__:
        if "__init__" not in vars(owner):
            continue
        parameters = _own_parameters(owner)
        names |= {
            each.name
            for each in parameters
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        }
        if all(each.kind is not each.VAR_KEYWORD for each in parameters):
            break
    return names


def _rename(worker: Any, name: str) -> None:
    """Gives a worker its name. The pool knows it, and recovers its jobs, by that."""
    if worker.name == name:
        return
    logger.warning("%s calls its worker %r; the pool calls it %r", _of(worker), worker.name, name)
    worker.name = name
    if worker.name != name:
        raise TypeError(
            f"{_of(worker)}: its name is {worker.name!r} and cannot be changed. The pool has to "
            "name its workers."
        )
    with contextlib.suppress(ResponseError):  # then nobody may end its connections by name either
        worker.connection.client_setname(name)


def _set(worker: Any, option: str, value: Any) -> None:
    """Sets what the constructor did not take."""
    if option == "exception_handlers":
        for handler in value:
            worker.push_exc_handler(handler)
        return
    try:
        setattr(
            worker,
            _ATTRIBUTES.get(option, option),
            resolve_serializer(value) if option == "serializer" else value,
        )
    except AttributeError:
        logger.warning("%s takes no %s, so that %r has no effect", _of(worker), option, value)


def _of(worker: Any) -> str:
    """The project's class of a worker, which the pool's may stand on."""
    owners = (each for each in type(worker).__mro__ if not each.__module__.startswith(_OURS))
    return next(f"{each.__module__}.{each.__qualname__}" for each in owners)
