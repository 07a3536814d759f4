"""Hooks: the project's own code, run at moments of the pool's life.

Rule of the room: a list for each moment, which knows what becomes of an exception. Importable
without configured settings, Django and RQ, so that any module may register a hook.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

logger = logging.getLogger("django_rq_pool")

Hook = Callable[..., object]
AnyHook = TypeVar("AnyHook", bound=Hook)


class Hooks:
    """The hooks of one moment, in the order in which they run.

    It is the decorator that adds to it::

        @after_prefork
        def start_sentry(worker): ...

    Args:
        name: the name of the moment.
        must_succeed: what a hook raises goes to whoever runs the hooks. Otherwise it is logged
            with its traceback, and the next hook runs.
        first: a hook of the pool's own, which may be removed like any other.
        last: what always runs after the hooks, and is none.
    """

    def __init__(
        self,
        name: str,
        *,
        must_succeed: bool,
        first: Hook | None = None,
        last: Hook | None = None,
    ) -> None:
        self.name = name
        self._must_succeed = must_succeed
        self._hooks: list[Hook] = [] if first is None else [first]
        self._last = last

    def __call__(self, hook: AnyHook) -> AnyHook:
        """Adds a hook as the last one, and returns it unchanged."""
        self._hooks.append(hook)
        return hook

    def remove(self, hook: Hook) -> None:
        """Takes a hook off the list.

        Raises:
            ValueError: it is not there; the text names those that are.
        """
        try:
            self._hooks.remove(hook)
        except ValueError:
            raise ValueError(f"{_name(hook)} is no hook of {self!r}.") from None

    def replace(self, hooks: Iterable[Hook]) -> None:
        """Puts other hooks in the place of all that are there."""
        self._hooks = list(hooks)

    def __iter__(self) -> Iterator[Hook]:
        return iter(tuple(self._hooks))

    def __len__(self) -> int:
        return len(self._hooks)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(_name, self._hooks))})"

    def run(self, *arguments: object) -> None:
        """Calls every hook with the arguments.

        Raises:
            Exception: what a hook raises, if the hooks must succeed; the rest is not called then.
        """
        for hook in self:
            try:
                hook(*arguments)
            except (Exception, SystemExit):  # a library may leave when it is not content
                if self._must_succeed:
                    raise
                logger.exception("%s: the hook %s failed", self.name, _name(hook))
        if self._last is not None:
            self._last(*arguments)


def _name(hook: Hook) -> str:
    """Where to find a hook; one that is no function is shown as it shows itself."""
    try:
        return f"{hook.__module__}.{hook.__qualname__}"
    except AttributeError:
        return repr(hook)


def reopen_connections(worker: Any) -> None:
    """Connects the worker to the databases that the manager had open: those are in use."""
    from .connections import manager_connections

    manager_connections.reopen(worker.name)


def _close_connections() -> None:
    """Closes what hooks or loaders have opened in the manager."""
    from .connections import manager_connections

    manager_connections.close()


after_prefork = Hooks("after_prefork", must_succeed=True, first=reopen_connections)
"""Called in each worker with its RQ worker object, before the worker is ready. One that raises is
a boot failure: the worker leaves, and its group tries again later. What holds a socket or a thread
belongs here, for neither can be taken along through a fork."""

before_fork = Hooks("before_fork", must_succeed=False, last=_close_connections)
"""Called in the manager, without arguments, before each fork. The manager does nothing else until
its hooks have returned: it reaps no worker and heeds no signal. Databases and caches that they
open are closed again."""

after_spawn = Hooks("after_spawn", must_succeed=False)
"""Called in the manager after each fork of a worker, with the worker's `roster.WorkerRecord`, its
pid and the `roster.Roster`."""

siginfo = Hooks("siginfo", must_succeed=False)
"""Called in the manager with the `roster.Roster` when it is asked for a report by INFO."""


def discover() -> None:
    """Imports the module ``rqpool`` of each installed app that has one, as Django does ``admin``.

    Raises:
        Exception: whatever a module raises when it is imported.
    """
    from django.utils.module_loading import autodiscover_modules

    autodiscover_modules("rqpool")
