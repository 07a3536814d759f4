"""Start hooks: has the project's ``before_start`` hooks run before the first worker is forked.

Rule of the room: nothing here waits. A hook may block, break or end its process, so each runs in
one that was forked for it. When it runs, and when again, is decided by `planning`.
"""

from __future__ import annotations

import logging
import math
import random
import signal
from collections.abc import Sequence
from dataclasses import replace

from .. import hooks
from ..ipc.assignment import HOOK_FINISHED
from ..ipc.reports import Event, Report
from ..planning.phases import STOPS, Phase
from ..planning.plan import Wanted
from ..planning.start_hooks import HookStep, StartHooks
from ..system import processes, stacks
from ..text import unvaried
from .spawner import Spawner

logger = logging.getLogger("django_rq_pool")


class StartHookRunner:
    """Runs each hook until it has finished once.

    Args:
        spawner: forks the processes.
        grace: seconds that a process may take to leave at a stop, before it is killed.

    Attributes:
        due: when to look again though nothing happens, on the monotonic clock, or None.
    """

    def __init__(self, spawner: Spawner, grace: float) -> None:
        self._spawner = spawner
        self._grace = grace
        self._state = StartHooks(tuple(hooks.before_start.names()))
        self._failure = ""  # the last one of the present hook, in a line
        self._told = ""
        self._report = ""  # what the present process says
        self._place = ""
        self.due: float | None = None

    def holds_up(self, phase: Phase) -> bool:
        """Whether the pool must not end yet: a hook is to run, or a process of one is left."""
        return self._state.process is not None or not (self._state.over or phase in STOPS)

    def restrict(self, wanted: Sequence[Wanted]) -> Sequence[Wanted]:
        """What of the wanted workers the pool may have now: none before all hooks have finished."""
        return wanted if self._state.over else [replace(want, workers=0) for want in wanted]

    def look(self, phase: Phase, now: float) -> None:
        """Does what is due.

        Args:
            phase: what the manager is doing.
            now: the monotonic clock, in seconds.
        """
        step, due = self._state.next_step(phase, now, self._grace)
        while step is not None:
            self._take(step, now)
            step, due = self._state.next_step(phase, now, self._grace)
        self.due = None if due == math.inf else due

    def _take(self, step: HookStep, now: float) -> None:
        if step is HookStep.RUN:
            self._run(now)
            return
        process = self._state.process
        if process is None:
            return
        if step is HookStep.SHOW:
            self._spawner.stack_file.ask(process.pid)
        elif step is HookStep.TELL:
            place = stacks.place(self._spawner.stack_file.read())
            self._place = f", now in {place}" if place else ""
            logger.warning("%s", self.obstacle(now))
        elif step is HookStep.ASK:
            processes.send(process.pid, signal.SIGTERM)
        elif step is HookStep.KILL:
            logger.warning("before_start: %s did not stop, killing it", self._state.name)
            processes.signal_process_group(process.pid, signal.SIGKILL)
            processes.send(process.pid, signal.SIGKILL)
        self._state = self._state.after(step, now)

    def _run(self, now: float) -> None:
        try:
            pid = self._spawner.fork_start_hook(self._state.done)
        except OSError as error:
            self._fail(f"its process cannot be forked: {error}", now)
            return
        self._state = self._state.forked(pid, now)
        self._report = self._place = ""
        logger.info("before_start: process %d runs %s", pid, self._state.name)

    # How it went

    def handle(self, report: Report) -> None:
        """Takes in what the process of a hook reports: why the hook has failed."""
        process = self._state.process
        if process is not None and process.pid == report.pid and report.event is Event.HOOK_FAILED:
            self._report = report.text.strip()

    def on_exit(self, death: processes.Death) -> None:
        """Handles the end of a child, if it was the process of a hook."""
        process, now = self._state.process, processes.monotonic()
        if process is None or process.pid != death.pid:
            return
        if death.exit_code == HOOK_FINISHED:
            seconds = now - process.began
            logger.info("before_start: %s finished after %.1f s", self._state.name, seconds)
            self._state = self._state.finished()
            self._failure = self._told = ""
        elif process.asked_at is not None:
            logger.warning("before_start: %s was ended by the stop: %s", self._state.name, death)
            self._state = replace(self._state, process=None)
        else:
            self._fail(self._report or f"its process ended with {death}", now)

    def _fail(self, cause: str, now: float) -> None:
        """Logs why a hook has failed, in full unless that has been logged before."""
        self._failure = cause.rpartition("\n")[2]
        self._state = self._state.failed(now, random.random())
        if unvaried(self._failure) != self._told:
            self._told = unvaried(self._failure)
            logger.error("before_start: %s has failed: %s", self._state.name, cause)
        logger.warning("%s", self.obstacle(now))

    def obstacle(self, now: float) -> str:
        """Why no worker is forked yet, as a line for people; empty if nothing keeps them."""
        state = self._state
        if state.over:
            return ""
        parts = []
        if state.failures:
            times = "time" if state.failures == 1 else "times"
            parts.append(f"has failed {state.failures} {times}, last with {self._failure}")
        if state.process is None:
            parts.append(f"is tried again in {max(0.0, state.not_before - now):.1f} s")
        else:
            seconds, pid = now - state.process.began, state.process.pid
            parts.append(f"runs for {seconds:.0f} s in process {pid}{self._place}")
        return f"before_start: {state.name} {'; '.join(parts)}"
