"""The berth: a worker's ties to its pool, and the one place where it waits.

Rule of the room: signals, the lifeline and Redis being away are heeded here; what they mean for a
job is the business of `running` and `pooled`. It exists before the RQ worker does, so that a stop
is heeded while Redis is awaited.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

from redis import Redis

from ..config.redis_clients import REDIS_RETRY, UNREACHABLE, probe
from ..config.stop_policy import TermPolicy
from ..ipc.assignment import Assignment
from ..ipc.reports import Event
from ..system import signals

WORKER_SIGNALS = (
    signal.SIGQUIT,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
)


class ManagerLink:
    """The worker's side of its assignment.

    Attributes:
        ready: the worker has listened.
        stopping: it was asked to stop, or the manager is gone; a running job is finished.
        immediately: it was asked to stop now; a running job is ended.
        end_job: the running job shall be ended and the worker go on (USR1).
        paused: no new job shall be taken (USR2) until CONT.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.slot = assignment.slot
        self.rules = assignment.rules
        self.ready = False
        self.stopping = False
        self.immediately = False
        self.end_job = False
        self.paused = False
        self._pause(assignment.paused)
        self._lost = False
        self._probe: Redis | None = None
        self._inbox = signals.SignalInbox(WORKER_SIGNALS)
        signals.unblock()

    def wait(self, fds: list[int], seconds: float | None) -> set[int]:
        """Waits for descriptors, signals and the end of the manager, and heeds the latter two.

        Args:
            fds: descriptors to watch.
            seconds: at most so long, None for ever.

        Returns:
            Which of ``fds`` are readable.
        """
        lifeline = [] if self.stopping else [self.assignment.lifeline.fileno()]
        readable = self._inbox.wait([*fds, *lifeline], seconds)
        self.handle()
        if readable.intersection(lifeline):
            self.stopping = True
        return readable.intersection(fds)

    def handle(self) -> None:
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
                if self._is_immediate(signum):
                    self.immediately = True

    def _pause(self, paused: bool) -> None:
        self.paused = paused
        self.slot.pause(paused)

    def _is_immediate(self, signum: signal.Signals) -> bool:
        if signum == signal.SIGTERM:
            return self.rules.term is TermPolicy.IMMEDIATE
        return signum == signal.SIGINT

    def report_ready(self) -> None:
        """Reports that the worker listens, the first time it is called."""
        if not self.ready:
            self.ready = True
            self.assignment.reports.send(Event.READY)

    def report_imported(self, modules: list[str]) -> None:
        """Reports modules that a job had to import."""
        if modules:
            self.assignment.reports.send(Event.IMPORTED, " ".join(modules))

    def await_redis(self) -> bool:
        """Waits until Redis answers, and tells the manager if it has to.

        Returns:
            True once it answers, False when the worker was asked to stop before.
        """
        if self._probe is None:
            self._probe = probe(self.assignment.group)
        self.handle()
        while True:
            try:
                self._probe.ping()
                self._probe.connection_pool.disconnect()  # no connection more for each worker
            except UNREACHABLE as error:
                if not self._lost:
                    self._lost = True
                    self.assignment.reports.send(Event.REDIS_LOST, str(error))
                if self.stopping:
                    return False
                self.wait([], REDIS_RETRY)
            else:
                if self._lost:
                    self._lost = False
                    self.assignment.reports.send(Event.REDIS_BACK)
                return True

    def become_horse(self) -> None:
        """In a forked horse: the worker's signals are no business of the job's.

        A handler that does nothing, for a signal that is ignored stays so in every program that
        the job starts, and ``Popen.terminate`` would do nothing.
        """
        self._inbox.close()
        for signum in WORKER_SIGNALS:
            signal.signal(signum, _ignore)
        self.slot.horse(os.getpid())


def _ignore(signum: int, frame: FrameType | None) -> None:
    """Handles a signal by doing nothing."""
