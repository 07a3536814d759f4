"""Hooks: code of the project that runs at certain moments of the pool's life.

Rule of the room: one list for each moment, which also knows what an exception does. It can be
imported without Django, RQ and settings, so that any module may register a hook.
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

    The object is also the decorator that adds a hook::

        @after_prefork
        def start_sentry(worker): ...

    Args:
        name: the name of the moment, such as ``after_prefork``.
        must_succeed: True: an exception in a hook leaves `run`. False: it is logged with its
            traceback, and the next hook runs.
        first: a hook of the pool. It can be removed like any other.
        last: a function that always runs after the hooks. It cannot be removed.

    Attributes:
        name: the name of the moment.
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
        """Adds a hook at the end of the list.

        Args:
            hook: the function to add.

        Returns:
            The same function, so that this works as a decorator.
        """
        self._hooks.append(hook)
        return hook

    def remove(self, hook: Hook) -> None:
        """Removes a hook from the list.

        Args:
            hook: the function to remove.

        Raises:
            ValueError: it is not in the list. The message names the hooks that are.
        """
        try:
            self._hooks.remove(hook)
        except ValueError:
            raise ValueError(f"{_name(hook)} is not a hook of {self!r}.") from None

    def replace(self, hooks: Iterable[Hook]) -> None:
        """Replaces all hooks.

        Args:
            hooks: the new hooks, in the order in which they shall run.
        """
        self._hooks = list(hooks)

    def __iter__(self) -> Iterator[Hook]:
        return iter(tuple(self._hooks))

    def __len__(self) -> int:
        return len(self._hooks)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(_name, self._hooks))})"

    def names(self) -> list[str]:
        """The dotted paths of the hooks, in their order."""
        return list(map(_name, self))

    def call(self, number: int) -> None:
        """Calls one hook, without arguments.

        Args:
            number: which, from 0.

        Raises:
            Exception: what the hook raises.
        """
        self._hooks[number]()

    def run(self, *arguments: object) -> None:
        """Calls every hook.

        Args:
            arguments: what each hook is called with; the text of each list says what that is.

        Raises:
            Exception: what a hook raises, if the hooks must succeed. Later hooks do not run then.
        """
        for hook in self:
            try:
                hook(*arguments)
            except (Exception, SystemExit):  # some libraries call sys.exit() on an error
                if self._must_succeed:
                    raise
                logger.exception("%s: the hook %s failed", self.name, _name(hook))
        if self._last is not None:
            self._last(*arguments)


def _name(hook: Hook) -> str:
    """The dotted path of a hook; the ``repr`` of an object that has none."""
    try:
        return f"{hook.__module__}.{hook.__qualname__}"
    except AttributeError:
        return repr(hook)


def reopen_connections(worker: Any) -> None:
    """Connects a worker to the databases that the manager had open, because the project uses them.

    Args:
        worker: the RQ worker.
    """
    from .connections import manager_connections

    manager_connections.reopen(worker.name)


def _close_connections() -> None:
    """Closes the connections that hooks or the project's code opened in the manager."""
    from .connections import manager_connections

    manager_connections.close()


before_start = Hooks("before_start", must_succeed=True)
"""Runs once for each start of a pool, in a process of its own, before the first worker is forked;
without arguments. A stop raises ``SystemExit`` in it. Wait for a database here, or enqueue what the
site always needs."""

after_prefork = Hooks("after_prefork", must_succeed=True, first=reopen_connections)
"""Runs in each worker before it is ready, with the RQ worker as argument. An exception is a boot
failure: the worker ends, and the pool forks another one later. Start what holds a socket or a
thread here, because neither survives a fork."""

before_fork = Hooks("before_fork", must_succeed=False, last=_close_connections)
"""Runs in the manager before each fork, without arguments. Until the hooks return, the manager
reaps no worker and handles no signal. Database and cache connections that hooks open are closed
again before the fork."""

after_spawn = Hooks("after_spawn", must_succeed=False)
"""Runs in the manager after each fork of a worker, with three arguments: the worker's
`planning.roster.WorkerRecord`, its pid and the `planning.roster.Roster`."""

siginfo = Hooks("siginfo", must_succeed=False)
"""Runs in the manager when the signal INFO asks for a report, with the `planning.roster.Roster`."""
