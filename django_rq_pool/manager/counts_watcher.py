"""Counts watcher: how the manager learns what the counts are after its start.

Rule of the room: nothing here waits. Loading may take long, open connections or end its process, so
it happens in the autoscaling process; its results come by the counts channel.
"""

from __future__ import annotations

import logging
import random
import signal
from collections.abc import Callable

from ..ipc.counts_channel import CountsChannel
from ..ipc.counts_records import LoadResult, ScaleResult, WorkerStats
from ..planning.backoff import Backoff
from ..system import processes

logger = logging.getLogger("django_rq_pool")

_END_LIMIT = 1.0
"""Seconds that a killed process may take to end: longer only where a disk does not answer."""

Fork = Callable[[bool], tuple[int, CountsChannel]]


class CountsWatcher:
    """The manager's side: one autoscaling process at most, and what it has said.

    Args:
        fork: forks an autoscaling process, which loads the counts at once if the argument is true;
            returns its pid and its channel, and raises OSError when there can be none.
        goes_on: whether such a process works until it is ended; one that does not leaves after its
            first result. Later results say so themselves.

    Attributes:
        scaled: what was measured last, until it is taken.
        asked: whether the process waits for `WorkerStats`; see `answer`.
    """

    def __init__(self, fork: Fork, *, goes_on: bool) -> None:
        self._fork = fork
        self._goes_on = goes_on
        self._pid = 0
        self._channel: CountsChannel | None = None
        self._unanswered = False
        self._results: list[LoadResult] = []
        self._backoff = Backoff()
        self._killed: set[int] = set()
        self._leaves_at: float | None = None
        self._fork_at: float | None = None
        self.scaled: ScaleResult | None = None
        self.asked = False

    def begin(self, *, load: bool = True) -> None:
        """Forks a new process in the place of the one that works.

        Args:
            load: whether it loads the counts at once. At least one result follows then.
        """
        self.end()
        self._unanswered = load
        self._start()

    def filenos(self) -> list[int]:
        """What the manager waits on."""
        return [] if self._channel is None else [self._channel.fileno()]

    def take(self) -> list[LoadResult]:
        """Every result since the last call."""
        if self._fork_at is not None and processes.monotonic() >= self._fork_at:
            self._start()
        self._read()
        results, self._results = self._results, []
        return results

    def answer(self, stats: WorkerStats) -> None:
        """Tells the process what it has asked for."""
        self.asked = False
        if self._channel is not None:
            self._channel.send(stats)

    def on_exit(self, death: processes.Death) -> None:
        """Handles the end of a child, if it was the autoscaling process."""
        self._killed.discard(death.pid)
        if death.pid == self._pid:
            self._read()
            self._pid = 0
            if self._unanswered or self._goes_on:
                self._fail(f"the autoscaling process ended: {death}")

    def end(self) -> None:
        """Kills the process, with what a loader has started, and forgets its results. It holds
        nothing that would be lost. The loop reaps it: that takes time where a disk does not
        answer."""
        self._kill()
        if self._channel is not None:
            self._channel.close()
        if self._pid:
            self._killed.add(self._pid)
        self._pid, self._channel = 0, None
        self._fork_at = None
        self.asked, self.scaled = False, None
        self._results.clear()

    def has_left(self) -> bool:
        """Ends the process if that has not been done. True when it is reaped: it is no zombie of
        whoever goes on in this process. True as well when that takes too long."""
        self.end()
        now = processes.monotonic()
        if self._killed and self._leaves_at is None:
            self._leaves_at = now + _END_LIMIT
        return not self._killed or now >= (self._leaves_at or now)

    @property
    def due(self) -> float | None:
        """When to look again though nothing happens: to fork the next process, after the one before
        has ended unasked, or because one that was killed has not ended; None: no such time."""
        return self._leaves_at if self._killed and self._leaves_at else self._fork_at

    def _kill(self) -> None:
        if self._pid:
            processes.signal_process_group(self._pid, signal.SIGKILL)
            processes.send(self._pid, signal.SIGKILL)

    def _start(self) -> None:
        self._fork_at = None
        try:
            self._pid, self._channel = self._fork(self._unanswered)
        except OSError as error:
            self._fail(f"the autoscaling process cannot be forked: {error}")

    def _read(self) -> None:
        if self._channel is None:
            return
        received = self._channel.receive()
        if received.broken:
            self._kill()  # it would go on and be heard by nobody; `on_exit` follows
        if received.ended:
            self._channel.close()
            self._channel = None
        for record in received.records:
            if isinstance(record, LoadResult):
                self._results.append(record)
                self._goes_on = record.goes_on
                self._unanswered = False
                self._backoff = Backoff()
            elif isinstance(record, ScaleResult):
                self.scaled = record
            else:
                self.asked = True

    def _fail(self, reason: str) -> None:
        if self._unanswered:
            self._unanswered = False
            self._results.append(LoadResult(None, error=f"{reason[0].upper()}{reason[1:]}."))
        if self._goes_on:
            now = processes.monotonic()
            self._backoff = self._backoff.boot_failed(now, now, random.random())
            self._fork_at = self._backoff.not_before
            logger.warning("counts: %s; next fork in %.1f s", reason, self._fork_at - now)
