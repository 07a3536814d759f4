"""Time limits: RQ's limits for jobs and callbacks, in a process that outlives them.

Rule of the room: a limit itself is RQ's business, or that of the project's class. Here is only what
it leaves behind, and where the pool needs none.
"""

from __future__ import annotations

import signal
from typing import Any

from rq.timeouts import BaseDeathPenalty, HorseMonitorTimeoutException

from ..system.handlers import Handlers, do_nothing


def pooled_limit(limit_class: type[BaseDeathPenalty], handlers: Handlers) -> type[BaseDeathPenalty]:
    """A class of time limits ("death penalties") for a pooled worker.

    RQ's ends by giving SIGALRM its default action, so that the next one kills the worker. What a
    job forks inherits its handler. And while the worker waits for a work horse, it raises an
    exception wherever the worker is; in a pool `wait_for_horse` watches the time itself.

    Args:
        limit_class: RQ's class, or the project's.
        handlers: those of the worker, and of its horse.
    """

    class PooledLimit(limit_class):  # type: ignore[misc, valid-type]
        _has_alarm = False

        def __enter__(self) -> None:
            if self._watches_horse():
                return
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
            before = signal.getsignal(signal.SIGALRM)
            super().__enter__()
            self._has_alarm = signal.getsignal(signal.SIGALRM) is not before
            if self._has_alarm:
                handlers.adopt(signal.SIGALRM)

        def __exit__(self, *exc_info: Any) -> bool:
            if self._watches_horse():
                return False
            if not self._has_alarm:
                return bool(super().__exit__(*exc_info))
            try:
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
                return bool(super().__exit__(*exc_info))
            finally:
                handlers.install([signal.SIGALRM], do_nothing)
                signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

        def _watches_horse(self) -> bool:
            return getattr(self, "_exception", None) is HorseMonitorTimeoutException

    return PooledLimit
