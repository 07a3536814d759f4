"""The manager: one loop that waits, reaps, plans and acts.

Rule of the room: it decides nothing that plan, phases or backoff can decide, knows nothing of RQ,
starts no thread, and never sleeps or blocks but in the one wait at the end of a turn.
"""

from __future__ import annotations

import logging
import os
import random
import signal
from collections.abc import Sequence

from setproctitle import setproctitle

from . import phases, processes, unix_signals
from .assignment import Assignment, RunWorker, worker_name
from .backoff import QUICK, Backoff
from .groups import QueueGroup
from .lifeline import Lifeline
from .phases import Phase
from .plan import Action, Ask, Fork, Plan, make_plan
from .reports import Event, Report, Reports
from .roster import Orphan, Roster, Stop, WorkerRecord
from .scoreboard import Scoreboard, Slot
from .troubles import Trouble, Troubles

logger = logging.getLogger("django_rq_pool")

_HOW = {Stop.GRACEFUL: signal.SIGQUIT, Stop.IMMEDIATE: signal.SIGTERM}


class Manager:
    """Keeps every queue group at its count until a signal ends it.

    Args:
        name: the name of the pool, in titles, logs and workers' names.
        groups: the queue groups wanted.
        run_worker: lives a worker's life in a forked process.
        burst: end when every worker has found its queues empty.
    """

    def __init__(
        self, name: str, groups: Sequence[QueueGroup], run_worker: RunWorker, burst: bool = False
    ) -> None:
        self.name = name
        self.groups = {group.name: group for group in groups}
        self.burst = burst
        self.phase = Phase.RUNNING
        self.roster = Roster()
        self._run_worker = run_worker
        self._backoffs: dict[str, Backoff] = {}
        self._slots: dict[int, Slot] = {}
        self._scoreboard = Scoreboard()
        self._troubles = Troubles()
        self._titled: list[int] | None = None

    def run(self) -> int:
        """Runs the pool until it has ended.

        Returns:
            The exit status of the command: 0, for a pool that was told to end or has finished.
        """
        self._inbox = unix_signals.SignalInbox(phases.MANAGER_SIGNALS)
        self._reports = Reports()
        self._lifeline = Lifeline()
        processes.adopt_orphans()
        self._show_title()
        wanted = ", ".join(f"{group.name}={group.workers}" for group in self.groups.values())
        logger.info("manager %d of pool %s started: %s", os.getpid(), self.name, wanted or "empty")
        try:
            while not self._turn():
                pass
        finally:
            self._inbox.close()
            self._reports.close()
            self._lifeline.close()
        logger.info("manager %d of pool %s finished", os.getpid(), self.name)
        return 0

    def _turn(self) -> bool:
        """One turn of the loop; True when the pool has ended."""
        for report in self._reports.take():
            self._heed_report(report)
        for death in processes.reap(before=self._release_group):
            self._bury(death)
        for signum in self._inbox.take():
            self._heed_signal(signum)
        plan = self._plan()
        for action in plan.actions:
            self._act(action)
        self._show_title()
        if plan.finished:
            return True
        if plan.actions:
            timeout: float | None = 0.0  # what was done may call for more, or may have failed
        elif plan.due is None:
            timeout = None
        else:
            timeout = max(0.0, plan.due - processes.monotonic())
        self._inbox.wait([self._reports.fileno()], timeout)
        return False

    def _plan(self) -> Plan:
        return make_plan(
            self.phase,
            self.groups.values(),
            self.roster,
            self._backoffs,
            {pid for pid, slot in self._slots.items() if slot.busy},
            processes.monotonic(),
            self.burst,
        )

    # Signals and reports

    def _heed_signal(self, signum: signal.Signals) -> None:
        before = self.phase
        self.phase = phases.TRANSITIONS[before, signum]
        if self.phase is before:
            logger.info("signal %s changes nothing: %s", signum.name, before.value)
        else:
            logger.info("signal %s: %s", signum.name, self.phase.value)

    def _heed_report(self, report: Report) -> None:
        record = self.roster.get(report.pid)
        if record is None:
            return
        if report.event is Event.READY:
            self.roster.mark_ready(report.pid, processes.monotonic())
            self._backoffs[record.group] = self._backoff(record.group).became_ready()
            self._troubles.end(record.group, Trouble.REDIS)
            self._troubles.end(record.group, Trouble.BOOT)
            logger.info("worker %d of %s ready", record.pid, record.group)
        elif report.event is Event.BOOT_FAILED:
            self._troubles.tell(record.group, Trouble.BOOT, report.text)
        elif report.event is Event.REDIS_LOST:
            self._troubles.tell(record.group, Trouble.REDIS, report.text)
        else:
            self._troubles.end(record.group, Trouble.REDIS)

    # Deaths

    def _release_group(self, pid: int) -> None:
        """Ends what a dead worker left in its process group, such as RQ's scheduler process."""
        if pid in self.roster:
            processes.send_group(pid, signal.SIGTERM)

    def _bury(self, death: processes.Death) -> None:
        orphan = self.roster.release_orphan(death.pid)
        if orphan is not None:
            logger.info(
                "horse %d of %s, whose worker was gone, reaped: %s, job %s",
                orphan.pid,
                orphan.group,
                death,
                orphan.job_id,
            )
        record = self.roster.remove(death.pid)
        if record is None:
            return
        now = processes.monotonic()
        slot = self._slots.pop(death.pid)
        running = f", running job {slot.job_id}" if slot.busy else ""
        logger.log(
            logging.INFO if death.clean or record.stop is not None else logging.WARNING,
            "worker %d of %s reaped: %s after %.1f s%s",
            record.pid,
            record.group,
            death,
            now - record.forked_at,
            running,
        )
        if slot.horse_pid and processes.is_our_child(slot.horse_pid):
            self.roster.adopt(Orphan(slot.horse_pid, record.group, slot.job_id))
        self._scoreboard.release(slot)
        self._judge(record, death, now)

    def _judge(self, record: WorkerRecord, death: processes.Death, now: float) -> None:
        """Decides whether a death delays the group's next fork."""
        if record.stop is not None:
            return
        backoff = self._backoff(record.group)
        if record.ready_at is None:
            backoff = backoff.boot_failed(record.forked_at, now, random.random())
            self._tell_delay(record.group, str(death), backoff.not_before - now)
        elif death.clean or now - record.ready_at >= QUICK:
            backoff = backoff.lived_well()
            if death.clean and self.burst:
                self.roster.finished[record.group] += 1
        elif death.signum != signal.SIGKILL:
            # SIGKILL comes from an operator or from the kernel's hunt for memory: the worker's
            # code is not what failed.
            backoff = backoff.died_quickly(record.forked_at, now, random.random())
            if backoff.not_before > now:
                self._tell_delay(record.group, str(death), backoff.not_before - now)
        self._backoffs[record.group] = backoff

    def _tell_delay(self, group: str, reason: str, delay: float) -> None:
        logger.warning("group %s: %s; next fork in %.1f s", group, reason, delay)

    def _backoff(self, group: str) -> Backoff:
        return self._backoffs.get(group, Backoff())

    # Actions

    def _act(self, action: Action) -> None:
        if isinstance(action, Fork):
            self._fork(self.groups[action.group], action.number)
        elif isinstance(action, Ask):
            self._ask(action.pid, action.stop)
        else:
            self.roster.mark_ended(action.pid)
            processes.send_group(action.pid, signal.SIGKILL)

    def _fork(self, group: QueueGroup, number: int) -> None:
        now = processes.monotonic()
        if now < self._backoff(group.name).not_before:
            return  # the fork before this one has just failed
        slot = self._scoreboard.acquire()
        assignment = Assignment(
            pool=self.name,
            group=group,
            number=number,
            name=worker_name(self.name, group.name, number),
            burst=self.burst,
            slot=slot,
            reports=self._reports,
            lifeline=self._lifeline,
        )
        try:
            pid = processes.fork(lambda: self._become_worker(assignment))
        except OSError as error:
            self._scoreboard.release(slot)
            backoff = self._backoff(group.name).boot_failed(now, now, random.random())
            self._backoffs[group.name] = backoff
            self._tell_delay(group.name, f"cannot fork: {error}", backoff.not_before - now)
            return
        processes.lead_group(pid)
        self._slots[pid] = slot
        self.roster.add(WorkerRecord(pid, group.name, number, assignment.name, now))
        logger.info("worker %d of %s forked: %s", pid, group.name, assignment.name)

    def _become_worker(self, assignment: Assignment) -> int:
        """In the forked process: lets go of what is the manager's, then lives the worker's life."""
        self._inbox.close()
        self._reports.become_worker()
        self._lifeline.become_worker()
        processes.lead_group()
        return self._run_worker(assignment)

    def _ask(self, pid: int, stop: Stop) -> None:
        record = self.roster.get(pid)
        if record is None:
            return
        self.roster.mark_asked(pid, stop, processes.monotonic())
        if stop is not Stop.KILL:
            processes.send(pid, _HOW[stop])
            return
        logger.warning("worker %d of %s did not stop, killing it", pid, record.group)
        horse_pid = self._slots[pid].horse_pid
        processes.send_group(pid, signal.SIGKILL)
        if horse_pid:
            processes.send_group(horse_pid, signal.SIGKILL)

    def _show_title(self) -> None:
        pids = self.roster.pids()
        if pids != self._titled:
            self._titled = pids
            setproctitle(f"rqpool-manager[{self.name}]: managing {pids}")
