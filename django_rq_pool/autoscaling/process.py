"""Process: where the counts are loaded and the queues measured, so that the manager need not.

Rule of the room: whatever a loader opens, starts, blocks on or breaks stays in here, and so does
what measuring needs. If the process ends, the manager forks another.
"""

from __future__ import annotations

import faulthandler
import traceback

from django.db import close_old_connections, reset_queries
from setproctitle import setproctitle

from ..config import settings
from ..config.groups import Counts
from ..config.loaders import Source
from ..config.problems import CountsError
from ..config.settings import Configuration
from ..ipc.counts_channel import (
    CountsChannel,
    LoadResult,
    StatsRequest,
    WorkerStats,
    require_sendable,
)
from ..ipc.lifeline import Lifeline
from ..ipc.stop_listener import StopListener
from ..system import processes
from ..text import unvaried
from .autoscaler import Autoscaler

TICK = 1.0
"""Seconds between two calls of a loader, and between two measurements."""


def run_autoscaling(
    configuration: Configuration,
    identity: str,
    channel: CountsChannel,
    lifeline: Lifeline,
    counts: Counts,
    load: bool,
) -> int:
    """Loads and measures until the pool ends, in the process forked for it.

    Args:
        configuration: what the pool was started with; its source is asked again.
        identity: see `Autoscaler`.
        channel: to the manager.
        lifeline: ends when the manager does.
        counts: those that hold now, and go on to hold while others cannot be loaded.
        load: whether they are to be loaded anew at once.
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
        self._environment = configuration.environment
        self._name = configuration.name
        self._identity = identity
        self._channel = channel
        self._counts = counts
        self._said: LoadResult | None = None
        self._failures = 0
        self._autoscaler: Autoscaler | None = None

    def work(self, load: bool) -> None:
        """Loads, says what is new, and measures, until there is nothing more to do."""
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
        if self._autoscaler is not None:
            self._autoscaler.close()

    def _goes_on(self) -> bool:
        return self._source.dynamic or bool(self._counts.bounded)

    # Loading

    def _load(self, *, reset: bool) -> None:
        """Loads the counts, and tells the manager if that came out otherwise than before."""
        counts, error = _load_counts(self._source, self._environment, reset=reset)
        if counts is not None and counts != self._counts:
            self._counts = counts
            self.close()
            self._autoscaler = None
        said = self._said
        if said is None or said.counts != counts or unvaried(said.error) != unvaried(error):
            failures = 0 if counts is None else self._failures
            self._said = LoadResult(counts, error, failures, self._goes_on())
            self._channel.send(self._said)
        self._failures = self._failures + 1 if counts is None else 0

    # Measuring

    def _ask(self) -> WorkerStats | None:
        """What the manager says about its workers; None when it is time to leave."""
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


def _load_counts(
    source: Source, environment: str | None, *, reset: bool
) -> tuple[Counts | None, str]:
    """Loads the counts once: they, or why they cannot be used. A loader that cannot even be
    interrupted ends the process."""
    faulthandler.dump_traceback_later(2 * settings.loader_timeout(), exit=True)
    try:
        if reset:
            source.reset()
        counts = settings.load(source, environment)
        require_sendable(counts, source.name)
        return counts, ""
    except CountsError as error:
        return None, _in_full(error, source.dynamic)
    finally:
        faulthandler.cancel_dump_traceback_later()
        reset_queries()
        close_old_connections()


def _in_full(error: CountsError, with_traceback: bool) -> str:
    """The problems in sentences, with the traceback of what a project's loader raised."""
    if not with_traceback or error.__cause__ is None:
        return str(error)
    return f"{error}\n{''.join(traceback.format_exception(error.__cause__)).rstrip()}"
