"""Handlers: the signal handlers of one process, which what it forks does not inherit.

Rule of the room: a forked process starts with the actions that a new Python has. A handler that
somebody else has set meanwhile is theirs, and is inherited as usual.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from types import FrameType

Number = int
"""The number of a signal."""

Handler = Callable[[Number, FrameType | None], object]

Action = Handler | int | None
"""What a signal does: a function, the default (SIG_DFL), nothing (SIG_IGN), or a handler that
Python does not know (None), such as one of ``faulthandler``."""


def do_nothing(number: Number, frame: FrameType | None) -> None:
    """Handles a signal by doing nothing. A signal that is ignored by the system stays so in every
    program that the process starts."""


class Handlers:
    """Handlers of this process, until they are reset.

    Args:
        in_child: called in each forked process before any of the signals reaches it.
    """

    def __init__(self, in_child: Callable[[], object] = lambda: None) -> None:
        self._ours: dict[Number, Action] = {}
        self._before: dict[Number, Action] = {}
        self._in_child = in_child

    def install(self, numbers: Iterable[Number], handler: Handler) -> None:
        """Has a handler called for signals.

        Args:
            numbers: the signals.
            handler: the same object for all.
        """
        _forks.add(self)
        for number in numbers:
            self._ours[number] = handler
            before = signal.signal(number, handler)
            self._before.setdefault(number, before)

    def install_where_default(self, numbers: Iterable[Number], handler: Handler) -> None:
        """Has a handler called for those of the signals that have their default action.

        Args:
            numbers: the signals.
            handler: the same object for all.
        """
        unhandled = [each for each in numbers if signal.getsignal(each) == signal.SIG_DFL]
        self.install(unhandled, handler)

    def adopt(self, number: Number) -> None:
        """Treats the handler that a signal has now as one of these.

        Args:
            number: the signal.
        """
        _forks.add(self)
        self._ours[number] = signal.getsignal(number)

    def reset(self, afterwards: signal.Handlers | None = None) -> None:
        """Takes back every handler that is still in its place.

        Args:
            afterwards: the new action of each signal except SIGCHLD; None: the one that a new
                Python has.
        """
        for number, handler in self._ours.items():
            if signal.getsignal(number) is handler:
                is_kept = afterwards is None or number == signal.SIGCHLD
                signal.signal(number, _default(number) if is_kept else afterwards)
        self._forget()

    def give_back(self) -> None:
        """Takes back every handler that is still in its place: its signal does again what it did
        before. What Python did not know cannot be put back, and becomes the default action."""
        for number, handler in self._ours.items():
            if signal.getsignal(number) is handler:
                before = self._before.get(number)
                signal.signal(number, signal.SIG_DFL if before is None else before)
        self._forget()

    def _forget(self) -> None:
        self._ours.clear()
        self._before.clear()
        _forks.remove(self)

    def numbers(self) -> Iterable[Number]:
        """The signals that have one of these handlers, or had."""
        return tuple(self._ours)

    def become_child(self) -> None:
        """Resets them in a forked process."""
        self.reset()
        self._in_child()


def _default(number: Number) -> Handler | signal.Handlers:
    return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL


class _Forks:
    """Resets handlers in each process that Python code forks.

    From before the fork until then the handled signals are blocked: one that comes for the child
    would be caught by the child's copy of the handler, wake the parent, and be lost. A program that
    ``subprocess`` starts needs none of this, because it has no handlers.
    """

    def __init__(self) -> None:
        self._handlers: list[Handlers] = []
        self._of_thread = threading.local()  # each thread may fork

    def add(self, handlers: Handlers) -> None:
        if handlers not in self._handlers:
            self._handlers.append(handlers)

    def remove(self, handlers: Handlers) -> None:
        if handlers in self._handlers:
            self._handlers.remove(handlers)

    def before(self) -> None:
        numbers = [number for each in list(self._handlers) for number in each.numbers()]
        self._masks().append(signal.pthread_sigmask(signal.SIG_BLOCK, numbers))

    def in_parent(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks().pop())

    def in_child(self) -> None:
        for each in list(self._handlers):
            each.become_child()
        self.in_parent()

    def _masks(self) -> list[set[Number]]:
        """The masks before each fork under way; a fork handler of others may fork, too."""
        masks: list[set[Number]] = vars(self._of_thread).setdefault("masks", [])
        return masks


# The system's list of fork handlers is the process's own, and cannot be shortened.
_forks = _Forks()
os.register_at_fork(
    before=_forks.before, after_in_parent=_forks.in_parent, after_in_child=_forks.in_child
)
