"""Throttled: limits how often a slow or expensive loader is called.

Rule of the room: it imports the standard library only, because settings modules may import it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .loaders import Loader


class Throttled:
    """A loader that calls another loader at most once per period, and returns the last counts else.

    The pool calls a loader about once a second. If the other loader raises, nothing is kept: the
    next call calls it again. The idea is from resque-pool.

    Args:
        loader: the other loader. It takes the environment's name or None, and returns the counts.
            Its method ``reset()`` is used if it has one.
        period: how long counts are kept, in seconds.
        clock: returns a monotonic time in seconds.

    Raises:
        TypeError: the loader cannot be called.
        ValueError: the period is not above 0.
    """

    def __init__(
        self, loader: Loader, period: float = 10.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not callable(loader):
            raise TypeError(f"Throttled: {loader!r} cannot be called. Give a loader.")
        if not period > 0:
            raise ValueError(f"Throttled: {period!r} is not a period. Give seconds above 0.")
        self._loader = loader
        self._period = period
        self._clock = clock
        self._answers: dict[str | None, tuple[float, object]] = {}
        """By environment: until when the counts are kept, and the counts."""

    def __call__(self, environment: str | None) -> object:
        """Returns the counts, kept or new.

        Args:
            environment: the environment's name or None.

        Raises:
            Exception: whatever the other loader raises.
        """
        now = self._clock()
        until, answer = self._answers.get(environment, (now, None))
        if now >= until:
            answer = self._loader(environment)
            self._answers[environment] = now + self._period, answer
        return answer

    def reset(self) -> None:
        """Forgets the counts, and resets the other loader."""
        self._answers.clear()
        reset = getattr(self._loader, "reset", None)
        if reset is not None:
            reset()
