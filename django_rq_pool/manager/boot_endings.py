"""Boot endings: ends workers that hang in their boot, and says where they hung.

Rule of the room: when a worker has had its time is the plan's business.
"""

from __future__ import annotations

import logging
import signal

from ..planning.boots import EndBoot
from ..planning.roster import Roster, WorkerRecord
from ..system import processes, stacks
from .incidents import Incident, Incidents

logger = logging.getLogger("django_rq_pool")

_WORTH_WAITING = 0.1
"""Seconds of waiting for a processor that are worth another look."""


class BootEndings:
    """Carries out `EndBoot`.

    Args:
        roster: the live processes.
        stack_file: where one worker at a time shows its stack. Of several that hang at once, one
            is asked.
        incidents: where the operator reads why.
    """

    def __init__(self, roster: Roster, stack_file: stacks.StackFile, incidents: Incidents) -> None:
        self._roster = roster
        self._stack_file = stack_file
        self._incidents = incidents
        self._asked = 0

    def act(self, action: EndBoot) -> None:
        """Has a worker show where it hangs, or kills it."""
        record = self._roster.get(action.pid)
        if record is None:
            return
        cpu_wait = processes.cpu_wait(record.pid)
        if not action.kill and cpu_wait >= record.cpu_wait + _WORTH_WAITING:
            self._roster.mark_cpu_wait(record.pid, cpu_wait)
            return
        self._roster.mark_overdue(record.pid, killed=action.kill)
        if action.kill:
            self._kill(record)
        elif self._roster.get(self._asked) is None:
            self._asked = record.pid
            self._stack_file.ask(record.pid)

    def log_kept(self, failed: WorkerRecord) -> None:
        """Says that a reload stands still, if a worker has failed to boot that was forked for it.

        Args:
            failed: the worker.
        """
        kept = self._roster.older(failed.group, failed.generation)
        if kept:
            logger.warning(
                "group %s: keeping %d from before the reload until a new worker is ready",
                failed.group,
                kept,
            )

    def _kill(self, record: WorkerRecord) -> None:
        late = f"not ready after {record.boot_timeout:g} s (boot_timeout)"
        logger.warning("worker %d of %s is %s, killing it", record.pid, record.group, late)
        stack = self._stack_file.read() if record.pid == self._asked else ""
        place = stacks.place(stack)
        if place:
            self._incidents.begin(record.group, Incident.BOOT, f"{stack}\n{late}, in {place}")
        elif not self._incidents.of(record.group, processes.monotonic()):
            self._incidents.begin(record.group, Incident.BOOT, late)
        processes.signal_process_group(record.pid, signal.SIGKILL)
        processes.send(record.pid, signal.SIGKILL)
