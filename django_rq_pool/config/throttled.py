"""Throttled: for a loader whose answer is dear.

Rule of the room: standard library only, for it is imported with the package, by settings perhaps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .loaders import Loader


class Throttled:
    """A loader that asks another one at most once in a while, and repeats its answer meanwhile.

    The pool asks a loader about once a second. An exception is no answer: the next call asks again.
    The idea is resque-pool's.

    Args:
        loader: called with the environment, as any loader; its ``reset()`` is called if it has one.
        period: seconds for which an answer holds.
        clock: tells the time in seconds.

    Raises:
        TypeError: the loader cannot be called.
        ValueError: the period is not a number above 0.
    """

    def __init__(
        self, loader: Loader, period: float = 10.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not callable(loader):
            raise TypeError(f"Throttled() takes a loader that can be called, not {loader!r}")
        if not period > 0:
            raise ValueError(f"a period of {period!r} is none: give the seconds between two calls")
        self._loader = loader
        self._period = period
        self._clock = clock
        self._answers: dict[str | None, tuple[float, object]] = {}
        """By environment: until when the answer holds, and the answer."""

    def __call__(self, environment: str | None) -> object:
        now = self._clock()
        until, answer = self._answers.get(environment, (now, None))
        if now >= until:
            answer = self._loader(environment)
            self._answers[environment] = now + self._period, answer
        return answer

    def reset(self) -> None:
        """Forgets the answer, and has the wrapped loader forget what it keeps."""
        self._answers.clear()
        reset = getattr(self._loader, "reset", None)
        if reset is not None:
            reset()
