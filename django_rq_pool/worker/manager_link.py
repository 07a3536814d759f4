"""Manager link: what ties a worker to its manager, and the one place where it waits.

Rule of the room: signals, the lifeline and an absent Redis are handled here; what they mean for a
job is the business of `execution` and `pooled_worker`. It exists before the RQ worker does, so that
a worker that still waits for Redis can be stopped.
"""

from __future__ import annotations

import os
import signal

from redis.exceptions import NoPermissionError, RedisError

from ..config.redis_clients import REDIS_RETRY, UNAVAILABLE, UNREACHABLE, Probe, probe
from ..config.redis_errors import Trouble, told, trouble
from ..config.stop_aware import StopAware
from ..config.stop_policy import (
    INFO,
    TIMER_SIGNALS,
    WORKER_SIGNALS,
    TermPolicy,
)
from ..ipc.assignment import Assignment
from ..ipc.reports import Event
from ..system import signals, stacks
from ..system.handlers import Handlers, do_nothing

_WITHOUT_EFFECT = (INFO, *TIMER_SIGNALS)


class ManagerLink:
    """The worker's side of its assignment.

    Args:
        assignment: what the manager handed to the worker.

    Attributes:
        assignment: the same.
        slot: where the worker shows what it is doing.
        stop_rules: what signals mean.
        ready: the worker has listened.
        stopping: it was asked to stop, or the manager is gone. A running job is finished.
        immediately: it was asked to stop now. A running job is ended.
        end_job: the running job shall be ended and the worker go on (USR1).
        paused: no new job shall be taken (USR2) until CONT.
        stop_signal: by which it was asked to stop; QUIT when the manager is gone.
        handlers: what handles signals while a job runs. The processes of the job have none of it.
        stop_aware: how the worker waits for answers of Redis: while it has no job in hand, a stop
            ends that soon.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.slot = assignment.slot
        self.stop_rules = assignment.stop_rules
        self.ready = False
        self.stopping = False
        self.immediately = False
        self.end_job = False
        self.paused = False
        self.stop_signal = signal.SIGQUIT
        self._pause(assignment.paused)
        self._trouble: Trouble | None = None
        self._is_denied = False
        self._probe: Probe | None = None
        self._inbox = signals.SignalInbox(WORKER_SIGNALS, _WITHOUT_EFFECT)
        self.handlers = Handlers()
        self.stop_aware = StopAware(
            self.wait, self._is_leaving, self._inbox.interruptible, lambda: self.slot.busy
        )
        signals.unblock()

    def _is_leaving(self) -> bool:
        self.handle_signals()
        return self.stopping

    def wait(self, fds: list[int], seconds: float | None) -> set[int]:
        """Waits for descriptors, signals and the end of the manager, and handles the latter two.

        Args:
            fds: descriptors to watch.
            seconds: how long at most; None waits for ever.

        Returns:
            Which of ``fds`` are readable.
        """
        lifeline = [] if self.stopping else [self.assignment.lifeline.fileno()]
        readable = self._inbox.wait([*fds, *lifeline], seconds)
        self.handle_signals()
        if readable.intersection(lifeline):
            self.stopping = True
        return readable.intersection(fds)

    def wait_for_job(self, fds: list[int], seconds: float) -> set[int]:
        """Waits like `wait`, and not at all if the worker shall take no job: the signal that says
        so may have come, and have been handled, while an answer of Redis was waited for.

        Args:
            fds: descriptors to watch.
            seconds: how long at most.

        Returns:
            Which of ``fds`` are readable.
        """
        self.handle_signals()
        return self.wait(fds, 0.0 if self.stopping or self.paused else seconds)

    def handle_signals(self) -> None:
        """Does what the signals that have arrived say."""
        for signum in self._inbox.take():
            if signum == signal.SIGUSR1:
                self.end_job = True
            elif signum in (signal.SIGUSR2, signal.SIGCONT):
                self._pause(signum == signal.SIGUSR2)
            elif signum == signal.SIGHUP:
                self.assignment.reopen_logs()
            else:
                self.stopping = True
                self.stop_signal = signum
                if self._is_immediate(signum):
                    self.immediately = True

    def _pause(self, paused: bool) -> None:
        self.paused = paused
        self.slot.pause(paused)

    def _is_immediate(self, signum: signal.Signals) -> bool:
        if signum == signal.SIGTERM:
            return self.stop_rules.term is TermPolicy.IMMEDIATE
        return signum == signal.SIGINT

    def report_ready(self) -> None:
        """Reports that the worker listens, the first time it is called."""
        if not self.ready:
            self.ready = True
            stacks.forget()  # a job may set a limit of CPU time, which has the same signal
            self.assignment.reports.send(Event.READY)

    def report_allowed(self) -> None:
        """To be called when Redis has let the worker look for a job: reports that Redis is back
        where something had been forbidden."""
        self._is_denied = False
        self._report_back()

    @property
    def unavailable(self) -> tuple[type[RedisError], ...]:
        """The errors on which the worker waits for Redis. What is forbidden to one that has never
        been ready will not be allowed by waiting: it leaves, and its pool does not replace
        another."""
        return UNAVAILABLE if self.ready else UNREACHABLE

    def report_imported(self, modules: list[str]) -> None:
        """Reports modules that a job had to import."""
        if modules:
            self.assignment.reports.send(Event.IMPORTED, " ".join(modules))

    def await_redis(self, error: BaseException | None = None) -> bool:
        """Waits until Redis accepts writes, and reports to the manager when it has to wait.

        Args:
            error: what a command has raised, if one has. The write by which this looks may be
                allowed while that command is forbidden: then it waits for a moment all the same.

        Returns:
            True once it does; False when the worker was asked to stop before.

        Raises:
            NoPermissionError: the worker has never been ready, and may not write.
        """
        if self._probe is None:
            self._probe = probe(self.assignment.group, self.stop_aware)
        self.handle_signals()
        if isinstance(error, NoPermissionError):
            self._is_denied = True
            self._report_lost(error)
            if self.stopping:
                return False
            self.wait([], REDIS_RETRY)
        while True:
            try:
                self._probe.check()
            except self.unavailable as raised:
                if self.stopping:
                    return False
                self._report_lost(raised)
                self.wait([], REDIS_RETRY)
            else:
                if not self._is_denied:
                    self._report_back()
                return True

    def _report_lost(self, error: BaseException) -> None:
        found = trouble(error)
        if found is not self._trouble:
            self._trouble = found
            self.assignment.reports.send(Event.REDIS_LOST, told(error))

    def _report_back(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self.assignment.reports.send(Event.REDIS_BACK)

    def note_end(self) -> None:
        """Notes on the scoreboard if Redis has not answered the worker when it left. To be called
        by one that could not unregister."""
        if self.stop_aware.gave_up and not self.slot.busy:
            self.slot.cut_off()

    def become_scheduler(self) -> signals.SignalInbox:
        """Handles signals in a scheduler process, which was forked while they were blocked.

        Returns:
            An inbox of its own for the signals that a worker handles.
        """
        inbox = signals.SignalInbox(WORKER_SIGNALS, _WITHOUT_EFFECT)
        signals.unblock()
        return inbox

    def become_horse(self) -> None:
        """Keeps the worker's signals from the job, in a work horse that was forked while they were
        blocked. Whatever the job forks or starts has their default actions."""
        self.handlers.install(WORKER_SIGNALS, do_nothing)
        self.handlers.install_where_default(_WITHOUT_EFFECT, do_nothing)
        self.slot.horse(os.getpid())
        signals.unblock()
