"""Bases: what a project's worker class finds beneath it when its override calls ``super()``.

Rule of the room: a method here stands in the place of RQ's, between the project's class and RQ's,
and only says what the pool does; the other rooms do it. `config.overrides` tells a project about
each. Read against RQ 3.0.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from types import FrameType
from typing import Any, cast

from rq import Queue, Worker
from rq.job import Job
from rq.worker import BaseWorker, HerokuWorker

from ..config.classes import clean_up_seconds, why_unusable
from ..config.overrides import left_out
from ..text import listed
from .pooled_worker import PooledWorker


def _pooled(worker: BaseWorker) -> PooledWorker:
    return cast(PooledWorker, worker)


class PooledBase(BaseWorker):
    """Beneath every worker class."""

    def check_for_suspension(self, burst: bool) -> None:
        """RQ sleeps while it is suspended, and would notice neither a stop nor that Redis is
        away."""
        _pooled(self).wait_until_allowed(burst)

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """RQ pops with BLPOP, which loses the job if the worker dies then; it blocks where no
        signal is handled, and backs off up to a minute when Redis is away."""
        return _pooled(self).take_job(timeout, max_idle_time)

    def request_stop(self, signum: Any, frame: FrameType | None) -> None:
        """RQ raises an exception wherever the worker is. Here it stops by itself, and calls this
        where no job can be lost."""
        self.handle_warm_shutdown_request()

    def setup_work_horse_signals(self) -> None:
        """RQ lets TERM kill a work horse, so that a signal to a whole process group or container
        fails jobs without their worker. `horse` has set the signals."""

    def warn_horse(self) -> float | None:
        """Tells the job by TERM, under TERM_CHILD. See `execution.ExecutionMixin.warn_horse`."""
        grace = _pooled(self)._link.stop_rules.term_child
        if grace is not None:
            os.kill(self.horse_pid, signal.SIGTERM)
        return grace

    def unsubscribe(self) -> None:
        """RQ ends its subscription thread and waits for it, up to a second. Here it just goes with
        the process, which is about to end."""

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """RQ signals the process group that the horse is in, which is its worker's just after the
        fork."""
        _pooled(self).signal_horse(sig)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """RQ blocks in wait4, where it handles no signal and does not notice that the manager is
        gone."""
        return _pooled(self).await_horse()


class PooledForkBase(Worker):
    """Beneath a worker class that forks work horses."""

    kill_horse = PooledBase.kill_horse
    wait_for_horse = PooledBase.wait_for_horse


class PooledHerokuBase(HerokuWorker):
    """Beneath RQ's `HerokuWorker`, which tells its job of the end some seconds before that comes.

    RQ tells the job at each stop, and ends whatever its process does some seconds later. Here it is
    told at an immediate stop, for a graceful one lets it finish; and its function is ended, but not
    the settling that follows.
    """

    def handle_warm_shutdown_request(self) -> None:
        """Only logs the request: it may be a graceful one. `warn_horse` tells the job."""
        BaseWorker.handle_warm_shutdown_request(self)

    def warn_horse(self) -> float | None:
        """Tells the job what is to come. See `execution.ExecutionMixin.warn_horse`."""
        link = _pooled(self)._link
        if not link.immediately:
            return None
        self.log.info("Worker %s: telling its work horse of the shutdown", self.name)
        self.kill_horse(signal.SIGRTMIN)
        return clean_up_seconds(link.assignment.group, link.stop_rules)

    def request_stop_sigrtmin(self, signum: int, frame: FrameType | None) -> None:
        """RQ's alarm is replaced by that of the time limit if the job has not begun yet."""
        _pooled(self).end_function_by(super().request_stop_sigrtmin, signum, frame)

    def request_force_stop_sigrtmin(self, signum: int, frame: FrameType | None) -> None:
        """RQ raises its exception while the job is settled, too."""
        _pooled(self).end_function_by(self._raise_in_function, signum, frame)

    def _raise_in_function(self, signum: int, frame: FrameType | None) -> None:
        _pooled(self).note_shutdown()
        super().request_force_stop_sigrtmin(signum, frame)


BASES = (PooledHerokuBase, PooledForkBase, PooledBase)
"""What may stand beneath a worker class, the most special first."""


SETTABLE = "own_look_seconds"
"""What a project's class may set."""


def _own_names() -> set[str]:
    """The names of what the pool adds to a worker, and RQ's classes do not have."""
    owners = PooledWorker.__mro__[:-1]
    names = {name for owner in owners for name in (*vars(owner), *owner.__annotations__)}
    rqs = {name for base in BASES for owner in base.__mro__[1:] for name in vars(owner)}
    set_by_rq = {*BaseWorker.__init__.__code__.co_names}
    special = {name for name in names if name.startswith("__")}
    return names - rqs - set_by_rq - special - {SETTABLE}


def refuse_shared_names(worker_class: type[Any], names: Iterable[str]) -> None:
    """Refuses a project's class that has attributes of the same names as the pool's.

    Args:
        worker_class: the project's class.
        names: the names of its attributes, or of those of a worker.

    Raises:
        TypeError: there are some; the text says which.
    """
    shared = sorted(_own_names().intersection(names))
    if shared:
        raise TypeError(
            f"{worker_class.__module__}.{worker_class.__qualname__}: the pool's workers have "
            f"attributes of the same names: {listed(shared)}. Rename those of the class."
        )


def pooled(worker_class: type[BaseWorker]) -> type[Any]:
    """The project's worker class with the pool's behaviour around it.

    Args:
        worker_class: the project's class.

    Returns:
        A class whose methods are looked up in `PooledWorker`, then in the project's class, then in
        these bases, and last in RQ's classes. Of the project's overrides, those are left out that
        would keep the bases from being reached.

    Raises:
        TypeError: the class cannot work in a pool; the text says why.
    """
    reason = why_unusable(worker_class)
    if reason is not None:
        raise TypeError(reason)
    theirs = [each for each in worker_class.__mro__ if each.__module__.partition(".")[0] != "rq"]
    refuse_shared_names(worker_class, {name for each in theirs[:-1] for name in vars(each)})
    bases = tuple(base for base in BASES if issubclass(worker_class, base.__mro__[1]))
    ours = {name: _found(bases, name) for name in left_out(worker_class)}
    # Where the project names RQ's own class, a base of that has to come before it.
    project = type(worker_class.__name__, (worker_class,), ours)
    return type(f"Pooled{worker_class.__name__}", (PooledWorker, project, *bases), {})


def _found(bases: tuple[type[Any], ...], name: str) -> Any:
    return next(vars(base)[name] for base in bases if name in vars(base))
