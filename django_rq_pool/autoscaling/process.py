"""Process: loads the counts and measures the queues, so that the manager does not have to.

Rule of the room: whatever a loader opens, starts, blocks on or breaks stays in this process. If the
process ends, the manager forks another one.
"""

from __future__ import annotations

import faulthandler
import traceback
from collections.abc import Callable
from functools import partial

from django.db import close_old_connections, reset_queries
from setproctitle import setproctitle

from ..config import declared, settings
from ..config.groups import Counts
from ..config.loaders import Source
from ..config.problems import CountsError
from ..config.settings import Configuration
from ..ipc.counts_channel import CountsChannel
from ..ipc.counts_records import LoadResult, StatsRequest, WorkerStats, require_sendable
from ..ipc.lifeline import Lifeline
from ..ipc.stop_listener import StopListener
from ..system import processes
from ..text import unvaried
from .autoscaler import Autoscaler

TICK = 1.0
"""Seconds between two calls of a loader and between two measurements."""


def run_autoscaling(
    configuration: Configuration,
    identity: str,
    channel: CountsChannel,
    lifeline: Lifeline,
    counts: Counts,
    load: bool,
) -> int:
    """Loads and measures until the pool ends. It runs in a process forked for it.

    Args:
        configuration: the configuration of the pool. Counts are loaded from its source.
        identity: see `Autoscaler`.
        channel: the channel to the manager.
        lifeline: ends when the manager does.
        counts: the present counts. They stay while new ones cannot be loaded.
        load: whether to load the counts at once, because of a reload (HUP).

    Returns:
        The exit status, 0.
    """
    channel.become_child()
    setproctitle(f"rqpool-autoscaling[{configuration.name}]: loading the counts")
    process = _AutoscalingProcess(configuration, identity, channel, lifeline, counts)
    try:
        process.work(load)
    finally:
        process.close()
    return 0


class _AutoscalingProcess:
    def __init__(
        self,
        configuration: Configuration,
        identity: str,
        channel: CountsChannel,
        lifeline: Lifeline,
        counts: Counts,
    ) -> None:
        self._listener = StopListener(lifeline)
        self._source = configuration.source
        self._load_counts = partial(
            settings.load,
            configuration.source,
            configuration.environment,
            requires_environment=configuration.requires_environment,
        )
        self._name = configuration.name
        self._identity = identity
        self._channel = channel
        self._counts = counts
        self._last_result: LoadResult | None = None
        self._failures = 0
        self._autoscaler: Autoscaler | None = None

    def work(self, load: bool) -> None:
        """Loads and measures until the process shall leave or there is nothing more to do."""
        if load:
            self._load(reset=True)
        while self._goes_on():
            due = processes.monotonic() + TICK
            if self._counts.bounded:
                worker_stats = self._ask()
                if worker_stats is None:
                    return
                self._scale(worker_stats)
            if self._listener.wait(due - processes.monotonic()):
                return
            if self._source.dynamic:
                self._load(reset=False)

    def close(self) -> None:
        """Ends measuring."""
        if self._autoscaler is not None:
            self._autoscaler.close()

    def _goes_on(self) -> bool:
        return self._source.dynamic or bool(self._counts.bounded)

    # Loading

    def _load(self, *, reset: bool) -> None:
        """Loads the counts, and sends the result to the manager if it is a new one."""
        counts, error = _load_once(self._load_counts, self._source, reset=reset)
        if counts is not None and counts != self._counts:
            self._counts = counts
            self.close()
            self._autoscaler = None
        last = self._last_result
        if last is None or last.counts != counts or unvaried(last.error) != unvaried(error):
            failures = 0 if counts is None else self._failures
            self._last_result = LoadResult(counts, error, failures, self._goes_on())
            self._channel.send(self._last_result)
        self._failures = self._failures + 1 if counts is None else 0

    # Measuring

    def _ask(self) -> WorkerStats | None:
        """Asks the manager about its workers. Returns None if the process shall leave."""
        self._channel.send(StatsRequest())
        while True:
            received = self._channel.receive()
            for record in received.records:
                if isinstance(record, WorkerStats):
                    return record
            if received.ended or self._listener.wait(TICK, [self._channel.fileno()]):
                return None

    def _scale(self, worker_stats: WorkerStats) -> None:
        if self._autoscaler is None:
            self._autoscaler = Autoscaler(self._name, self._identity, self._counts)
        self._channel.send(self._autoscaler.scale(worker_stats))


def _load_once(
    load: Callable[[], Counts], source: Source, *, reset: bool
) -> tuple[Counts | None, str]:
    """Loads the counts once.

    A loader that blocks outside of Python cannot be interrupted. After twice its time limit, it
    ends this process with a traceback.

    Returns:
        The counts and an empty text, or None and why they cannot be used.
    """
    faulthandler.dump_traceback_later(2 * declared.LOADER_TIMEOUT.usable(), exit=True)
    try:
        if reset:
            source.reset()
        counts = load()
        require_sendable(counts, source.name)
        return counts, ""
    except CountsError as error:
        return None, _in_full(error, source.dynamic)
    finally:
        faulthandler.cancel_dump_traceback_later()
        reset_queries()
        close_old_connections()


def _in_full(error: CountsError, with_traceback: bool) -> str:
    """The problems as text, with the traceback of what a loader of the project raised."""
    if not with_traceback or error.__cause__ is None:
        return str(error)
    return f"{error}\n{''.join(traceback.format_exception(error.__cause__)).rstrip()}"
