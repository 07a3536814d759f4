"""The crew: the manager's hands. It forks workers, asks them to stop, and buries the dead.

Rule of the room: it owns the roster and all that is kept for each of its processes. It carries out
what the plan says and judges how a worker ended; what to do next is the plan's business.
"""

from __future__ import annotations

import logging
import random
import signal
from collections.abc import Iterable
from dataclasses import replace

from .. import hooks
from ..autoscaling.demand import Effort
from ..config.groups import QueueGroup
from ..ipc.assignment import Assignment, Casualty
from ..ipc.counts_channel import Muster
from ..planning.backoff import QUICK, Backoff
from ..planning.plan import Account, Action, Ask, AskAccountant, EndHorse
from ..planning.roster import Accountant, Orphan, Roster, Stop, WorkerRecord
from ..system import processes
from .spawner import Nursery

logger = logging.getLogger("django_rq_pool")

_HOW = {Stop.GRACEFUL: signal.SIGQUIT, Stop.IMMEDIATE: signal.SIGINT, Stop.KILL: signal.SIGKILL}
"""Never TERM, whose meaning the user may change."""

_ACCOUNT_RETRY = 1.0
"""Seconds until a fork for an accountant is tried again."""


class Crew:
    """Every process of the pool but the manager.

    Args:
        nursery: where they come from.
        burst: a worker that leaves by itself has finished, and is not replaced.

    Attributes:
        roster: who lives, and what is still to be done for the dead.
        backoffs: how long each group waits after failures, by its name.
    """

    def __init__(self, nursery: Nursery, *, burst: bool) -> None:
        self.roster = Roster()
        self.backoffs: dict[str, Backoff] = {}
        self._nursery = nursery
        self._burst = burst
        self._adopts_orphans = processes.adopt_orphans()
        self._assignments: dict[int, Assignment] = {}
        self._casualties: dict[int, Casualty] = {}
        self._done_before: dict[str, tuple[int, float]] = {}

    def assignments(self) -> dict[int, Assignment]:
        """What each live worker was handed, by its pid."""
        return self._assignments

    def busy(self) -> set[int]:
        """The pids of the workers that run a job."""
        return {pid for pid, assignment in self._assignments.items() if assignment.slot.busy}

    def fails_to_boot(self) -> bool:
        """Whether a worker of any group has died before it was ready, and none was since."""
        return any(backoff.boot_failures for backoff in self.backoffs.values())

    def muster(self, groups: Iterable[QueueGroup]) -> Muster:
        """What the surveyor has to know about the workers of these groups."""
        efforts = {
            group.name: Effort(group.workers, 0, *self._done_before.get(group.name, (0, 0.0)))
            for group in groups
        }
        for assignment in self._assignments.values():
            group = assignment.group.name
            effort = efforts.get(group)
            if effort is None:
                continue
            ended, seconds = assignment.slot.done
            efforts[group] = replace(
                effort,
                busy=effort.busy + assignment.slot.busy,
                ended=effort.ended + ended,
                run_seconds=effort.run_seconds + seconds,
            )
        return Muster(efforts, dict(self.roster.counts()))

    # Forking and asking

    def fork(self, group: QueueGroup, number: int, *, generation: int, paused: bool) -> None:
        """Forks a worker of a group, or has the group wait if the system cannot."""
        now = processes.monotonic()
        if now < self._backoff(group.name).not_before:
            return  # the fork before this one has just failed
        try:
            pid, assignment = self._nursery.fork_worker(group, number, paused=paused)
        except OSError as error:
            backoff = self._backoff(group.name).boot_failed(now, now, random.random())
            self.backoffs[group.name] = backoff
            _tell_delay(group.name, f"cannot fork: {error}", backoff.not_before - now)
            return
        self._assignments[pid] = assignment
        record = WorkerRecord(pid, group.name, number, assignment.name, now, generation)
        self.roster.add(record)
        logger.info("worker %d of %s forked: %s", pid, group.name, assignment.name)
        hooks.after_spawn.run(record, pid, self.roster)

    def mark_ready(self, record: WorkerRecord) -> None:
        """Notes that a worker listens."""
        self.roster.mark_ready(record.pid, processes.monotonic())
        self.backoffs[record.group] = self._backoff(record.group).became_ready()
        logger.info("worker %d of %s ready", record.pid, record.group)

    def act(self, action: Action) -> None:
        """Carries out an action that concerns a process there is, or was."""
        if isinstance(action, Ask):
            self._ask(action.pid, action.stop)
        elif isinstance(action, Account):
            self._account(action.pid)
        elif isinstance(action, AskAccountant):
            self._ask_accountant(action.pid, action.stop)
        elif isinstance(action, EndHorse):
            self.roster.mark_ended(action.pid)
            processes.send_group(action.pid, signal.SIGKILL)

    def tell_workers(self, signum: int) -> None:
        """Sends a signal to every live worker."""
        for pid in self.roster.pids():
            processes.send(pid, signum)

    def _ask(self, pid: int, stop: Stop) -> None:
        record = self.roster.get(pid)
        if record is None:
            return
        self.roster.mark_asked(pid, stop, processes.monotonic())
        if stop is Stop.KILL:
            logger.warning("worker %d of %s did not stop, killing it", pid, record.group)
            processes.send_group(pid, signal.SIGKILL)
        processes.send(pid, _HOW[stop])

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
            accountant, casualty.assignment.name, guards=casualty.horse_pid
        )

    def _ask_accountant(self, pid: int, stop: Stop) -> None:
        accountant = self.roster.accountants[pid]
        if stop is Stop.KILL:
            logger.warning("worker %s is not accounted for; the next pool will", accountant.name)
        self.roster.accountants[pid] = replace(
            accountant, asked_at=processes.monotonic(), killed=stop is Stop.KILL
        )
        processes.send(pid, _HOW[stop])

    # Deaths

    def release_group(self, pid: int) -> None:
        """Ends what a dead worker left in its process group, such as RQ's scheduler process."""
        if pid in self.roster:
            processes.send_group(pid, signal.SIGTERM)

    def bury(self, death: processes.Death) -> None:
        """Takes a child that has ended off the roster, whatever it was."""
        orphan = self.roster.release_orphan(death.pid)
        if orphan is not None:
            _tell_end(orphan, str(death))
        accountant = self.roster.accountants.pop(death.pid, None)
        if accountant is not None and not self._adopts_orphans:
            guarded = self.roster.release_orphan(accountant.guards)
            if guarded is not None:
                _tell_end(guarded, "ended")
        record = self.roster.remove(death.pid)
        if record is not None:
            self._bury_worker(record, death)

    def _bury_worker(self, record: WorkerRecord, death: processes.Death) -> None:
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
        if horse_pid and not self._lives(horse_pid):
            horse_pid = 0
        if horse_pid:
            self.roster.adopt(Orphan(horse_pid, record.group, slot.job_id))
        if not death.clean:
            self._casualties[death.pid] = Casualty(
                assignment, horse_pid, _cause(record, death), ready=record.ready_at is not None
            )
            self.roster.unaccounted[death.pid] = now
        ended, seconds = self._done_before.get(record.group, (0, 0.0))
        self._done_before[record.group] = (ended + slot.done[0], seconds + slot.done[1])
        self._nursery.forget(assignment)
        self._judge(record, death, now)

    def _lives(self, horse_pid: int) -> bool:
        """Whether the horse of a dead worker lives on. Where orphans come to the manager, one that
        is not its child has ended; elsewhere the first process of all collects it."""
        if self._adopts_orphans:
            return processes.is_our_child(horse_pid)
        return processes.exists(horse_pid)

    def _judge(self, record: WorkerRecord, death: processes.Death, now: float) -> None:
        """Decides whether a death delays the group's next fork."""
        if record.stop is not None:
            return
        backoff = self._backoff(record.group)
        if record.ready_at is None:
            backoff = backoff.boot_failed(record.forked_at, now, random.random())
            _tell_delay(record.group, str(death), backoff.not_before - now)
        elif death.clean or now - record.ready_at >= QUICK:
            backoff = backoff.lived_well()
            if death.clean and self._burst:
                self.roster.finished[record.group] += 1
        elif death.signum != signal.SIGKILL:
            # SIGKILL comes from an operator or from the kernel's hunt for memory: the worker's
            # code is not what failed.
            backoff = backoff.died_quickly(record.forked_at, now, random.random())
            if backoff.not_before > now:
                _tell_delay(record.group, str(death), backoff.not_before - now)
        self.backoffs[record.group] = backoff

    def _backoff(self, group: str) -> Backoff:
        return self.backoffs.get(group, Backoff())


def _tell_delay(group: str, reason: str, delay: float) -> None:
    logger.warning("group %s: %s; next fork in %.1f s", group, reason, delay)


def _tell_end(orphan: Orphan, how: str) -> None:
    logger.info(
        "horse %d of %s, whose worker was gone, reaped: %s, job %s",
        orphan.pid,
        orphan.group,
        how,
        orphan.job_id,
    )


def _cause(record: WorkerRecord, death: processes.Death) -> str:
    """How a worker ended, in a sentence for the record of its job."""
    if record.stop is Stop.KILL:
        return f"Worker {record.name} was killed by its pool: it did not stop in time."
    if death.signum is None:
        return f"Worker {record.name} ended unexpectedly with {death}."
    return f"Worker {record.name} was ended by {death}, which its pool did not send."
