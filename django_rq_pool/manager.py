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
from dataclasses import replace

from setproctitle import setproctitle

from . import phases, processes, unix_signals
from .assignment import Assignment, Casualty, RunAccountant, RunWorker
from .backoff import QUICK, Backoff
from .groups import QueueGroup
from .nursery import Nursery
from .phases import Phase, StopRules
from .plan import (
    IMMEDIATE_STOP_GRACE,
    Account,
    Action,
    Ask,
    AskAccountant,
    Fork,
    Plan,
    make_plan,
)
from .reports import Event, Report
from .roster import Accountant, Orphan, Roster, Stop, WorkerRecord
from .troubles import Trouble, Troubles

logger = logging.getLogger("django_rq_pool")

_HOW = {Stop.GRACEFUL: signal.SIGQUIT, Stop.IMMEDIATE: signal.SIGINT, Stop.KILL: signal.SIGKILL}
"""Never TERM, whose meaning the user may change."""

_ACCOUNT_RETRY = 1.0
"""Seconds until a fork for an accountant is tried again."""


class Manager:
    """Keeps every queue group at its count until a signal ends it.

    Args:
        name: the name of the pool, in titles, logs and workers' names.
        groups: the queue groups wanted.
        run_worker: lives a worker's life in a forked process.
        run_accountant: accounts for a dead worker in a forked process.
        rules: how the pool stops.
        burst: end when every worker has found its queues empty.
    """

    def __init__(
        self,
        name: str,
        groups: Sequence[QueueGroup],
        run_worker: RunWorker,
        run_accountant: RunAccountant,
        *,
        rules: StopRules,
        burst: bool = False,
    ) -> None:
        self.name = name
        self.groups = {group.name: group for group in groups}
        self.burst = burst
        self.phase = Phase.RUNNING
        self.roster = Roster()
        self._rules = rules
        self._transitions = phases.transitions(rules)
        self._inbox = unix_signals.SignalInbox(phases.MANAGER_SIGNALS)
        self._nursery = Nursery(
            name, self._inbox, run_worker, run_accountant, rules=rules, burst=burst
        )
        self._backoffs: dict[str, Backoff] = {}
        self._assignments: dict[int, Assignment] = {}
        self._casualties: dict[int, Casualty] = {}
        self._troubles = Troubles()
        self._titled: list[int] | None = None

    def run(self) -> int:
        """Runs the pool until it has ended.

        Returns:
            The exit status of the command: 0, for a pool that was told to end or has finished.
        """
        processes.adopt_orphans()
        self._show_title()
        wanted = ", ".join(f"{group.name}={group.workers}" for group in self.groups.values())
        logger.info("manager %d of pool %s started: %s", os.getpid(), self.name, wanted or "empty")
        try:
            while not self._turn():
                pass
        finally:
            self._inbox.close()
            self._nursery.close()
        logger.info("manager %d of pool %s finished", os.getpid(), self.name)
        return 0

    def _turn(self) -> bool:
        """One turn of the loop; True when the pool has ended."""
        for report in self._nursery.reports.take():
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
        self._inbox.wait([self._nursery.reports.fileno()], timeout)
        return False

    def _plan(self) -> Plan:
        return make_plan(
            self.phase,
            self.groups.values(),
            self.roster,
            self._backoffs,
            {pid for pid, assignment in self._assignments.items() if assignment.slot.busy},
            processes.monotonic(),
            self.burst,
            IMMEDIATE_STOP_GRACE + (self._rules.term_child or 0.0),
        )

    # Signals and reports

    def _heed_signal(self, signum: signal.Signals) -> None:
        before = self.phase
        self.phase = self._transitions[before, signum]
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
        self.roster.accountants.pop(death.pid, None)
        record = self.roster.remove(death.pid)
        if record is None:
            return
        now = processes.monotonic()
        assignment = self._assignments.pop(death.pid)
        slot = assignment.slot
        logger.log(
            logging.INFO if death.clean or record.stop is not None else logging.WARNING,
            "worker %d of %s reaped: %s after %.1f s%s",
            record.pid,
            record.group,
            death,
            now - record.forked_at,
            f", running job {slot.job_id}" if slot.busy else "",
        )
        horse_pid = slot.horse_pid
        if horse_pid and not processes.is_our_child(horse_pid):
            horse_pid = 0  # it has ended, and been collected
        if horse_pid:
            self.roster.adopt(Orphan(horse_pid, record.group, slot.job_id))
        if not death.clean:
            self._casualties[death.pid] = Casualty(
                assignment, horse_pid, _cause(record, death), ready=record.ready_at is not None
            )
            self.roster.unaccounted[death.pid] = now
        self._nursery.forget(assignment)
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
        elif isinstance(action, Account):
            self._account(action.pid)
        elif isinstance(action, AskAccountant):
            self._ask_accountant(action.pid, action.stop)
        else:
            self.roster.mark_ended(action.pid)
            processes.send_group(action.pid, signal.SIGKILL)

    def _fork(self, group: QueueGroup, number: int) -> None:
        now = processes.monotonic()
        if now < self._backoff(group.name).not_before:
            return  # the fork before this one has just failed
        try:
            pid, assignment = self._nursery.fork_worker(group, number)
        except OSError as error:
            backoff = self._backoff(group.name).boot_failed(now, now, random.random())
            self._backoffs[group.name] = backoff
            self._tell_delay(group.name, f"cannot fork: {error}", backoff.not_before - now)
            return
        self._assignments[pid] = assignment
        self.roster.add(WorkerRecord(pid, group.name, number, assignment.name, now))
        logger.info("worker %d of %s forked: %s", pid, group.name, assignment.name)

    def _account(self, pid: int) -> None:
        casualty = self._casualties[pid]
        try:
            accountant = self._nursery.fork_accountant(casualty)
        except OSError as error:
            logger.warning("cannot fork an accountant: %s", error)
            self.roster.unaccounted[pid] = processes.monotonic() + _ACCOUNT_RETRY
            return
        del self._casualties[pid], self.roster.unaccounted[pid]
        self.roster.accountants[accountant] = Accountant(
            accountant, casualty.assignment.name, guards=bool(casualty.horse_pid)
        )

    def _ask(self, pid: int, stop: Stop) -> None:
        record = self.roster.get(pid)
        if record is None:
            return
        self.roster.mark_asked(pid, stop, processes.monotonic())
        if stop is Stop.KILL:
            logger.warning("worker %d of %s did not stop, killing it", pid, record.group)
            processes.send_group(pid, signal.SIGKILL)
        else:
            processes.send(pid, _HOW[stop])

    def _ask_accountant(self, pid: int, stop: Stop) -> None:
        accountant = self.roster.accountants[pid]
        if stop is Stop.KILL:
            logger.warning("worker %s is not accounted for; the next pool will", accountant.name)
        self.roster.accountants[pid] = replace(
            accountant, asked_at=processes.monotonic(), killed=stop is Stop.KILL
        )
        processes.send(pid, _HOW[stop])

    def _show_title(self) -> None:
        pids = self.roster.pids()
        if pids != self._titled:
            self._titled = pids
            setproctitle(f"rqpool-manager[{self.name}]: managing {pids}")


def _cause(record: WorkerRecord, death: processes.Death) -> str:
    """How a worker ended, in a sentence for the record of its job."""
    if record.stop is Stop.KILL:
        return f"Worker {record.name} was killed by its pool: it did not stop in time."
    if death.signum is None:
        return f"Worker {record.name} ended unexpectedly with {death}."
    return f"Worker {record.name} was ended by {death}, which its pool did not send."
