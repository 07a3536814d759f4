"""Children: the manager's child processes. It has them forked, asks them to stop, and notes how
they end.

Rule of the room: it owns the roster and all that is kept for each process. It carries out what the
plan says; what to do next is the plan's business.
"""

from __future__ import annotations

import logging
import random
import secrets
import signal
from collections.abc import Iterable
from dataclasses import replace

from .. import hooks
from ..config.groups import QueueGroup
from ..ipc.assignment import RECOVERED, Assignment, DeadWorker
from ..ipc.counts_records import GroupStats, WorkerStats
from ..planning.actions import Action, KillHorse, Recover, StopRecovery, StopWorker
from ..planning.backoff import QUICK
from ..planning.boots import EndBoot
from ..planning.left_behind import KillLeftBehind
from ..planning.recoveries import RecoveryProcess, UnrecoveredWorker
from ..planning.roster import Orphan, Roster, Stop, WorkerRecord
from ..system import parents, processes
from .boot_endings import BootEndings
from .delays import Delays
from .farewell import log_unrecovered
from .incidents import Incidents
from .left_behind import LeftBehindKiller
from .spawner import Spawner

logger = logging.getLogger("django_rq_pool")

_HOW = {Stop.GRACEFUL: signal.SIGQUIT, Stop.IMMEDIATE: signal.SIGINT, Stop.KILL: signal.SIGKILL}
"""The signal for each stage; never TERM, because the user may change what it means."""


class Children:
    """Every process of the pool but the manager.

    Args:
        spawner: forks them.
        incidents: what is wrong with the groups.
        burst: a worker that leaves by itself has finished, and is not replaced.

    Attributes:
        roster: the live processes, and the dead workers that are still to be recovered.
        delays: how long each group waits after failures.
    """

    def __init__(self, spawner: Spawner, incidents: Incidents, *, burst: bool) -> None:
        self.roster = Roster()
        self._boot_endings = BootEndings(self.roster, spawner.stack_file, incidents)
        self.delays = Delays()
        self._spawner = spawner
        self._burst = burst
        self._adopts_orphans = parents.adopt_orphans()
        self._assignments: dict[int, Assignment] = {}
        self._dead_workers: dict[str, DeadWorker] = {}
        self._done_before: dict[str, tuple[int, float]] = {}
        self._left_behind = LeftBehindKiller()

    def assignments(self) -> dict[int, Assignment]:
        """What each live worker was handed, by its pid."""
        return self._assignments

    def busy(self) -> set[int]:
        """The pids of the workers that run a job."""
        return {pid for pid, assignment in self._assignments.items() if assignment.slot.busy}

    def worker_stats(self, groups: Iterable[QueueGroup]) -> WorkerStats:
        """What the autoscaling process has to know about the workers of these groups."""
        stats = {
            group.name: GroupStats(group.workers, 0, *self._done_before.get(group.name, (0, 0.0)))
            for group in groups
        }
        for assignment in self._assignments.values():
            group = assignment.group.name
            known = stats.get(group)
            if known is None:
                continue
            ended, seconds = assignment.slot.done
            stats[group] = replace(
                known,
                busy=known.busy + assignment.slot.busy,
                ended=known.ended + ended,
                run_seconds=known.run_seconds + seconds,
            )
        return WorkerStats(stats, dict(self.roster.counts()))

    # Forking and asking

    def fork(self, group: QueueGroup, number: int, *, generation: int, paused: bool) -> None:
        """Forks a worker, or delays the group's next fork if the system cannot.

        Args:
            group: its queue group.
            number: its place in the group, from 1.
            generation: which generation of the group it belongs to.
            paused: it takes no job until CONT.
        """
        now = processes.monotonic()
        if now < self.delays.of(group.name).not_before:
            return  # the fork before this one has just failed
        try:
            pid, assignment = self._spawner.fork_worker(group, number, paused=paused)
        except OSError as error:
            self.delays.boot_failed(group.name, now, now, f"cannot fork: {error}")
            return
        self._assignments[pid] = assignment
        record = WorkerRecord(
            pid,
            group.name,
            number,
            assignment.name,
            now,
            generation,
            boot_timeout=group.options.boot_timeout,
            boot_began=self.roster.clock.seconds,
        )
        self.roster.add(record)
        logger.info("worker %d of %s forked: %s", pid, group.name, assignment.name)
        hooks.after_spawn.run(record, pid, self.roster)

    def mark_ready(self, record: WorkerRecord) -> None:
        """Notes that a worker listens."""
        self.roster.mark_ready(record.pid, processes.monotonic())
        self.delays.became_ready(record.group)
        logger.info("worker %d of %s ready", record.pid, record.group)

    def act(self, action: Action) -> None:
        """Carries out an action of the plan that is no fork of a worker."""
        if isinstance(action, StopWorker):
            self._ask(action.pid, action.stop)
        elif isinstance(action, EndBoot):
            self._boot_endings.act(action)
        elif isinstance(action, Recover):
            self._recover(action.name)
        elif isinstance(action, StopRecovery):
            self._stop_recovery(action.pid, action.stop)
        elif isinstance(action, KillHorse):
            self.roster.mark_ended(action.pid)
            processes.signal_process_group(action.pid, signal.SIGKILL)
        elif isinstance(action, KillLeftBehind):
            self.roster.left_behind = self._left_behind.kill(self.roster.left_behind)

    def reopen_logs(self) -> None:
        """Reopens the log files of the manager and of every worker."""
        self._spawner.reopen_logs()
        self.signal_workers(signal.SIGHUP)

    def signal_workers(self, signum: int) -> None:
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
            processes.signal_process_group(pid, signal.SIGKILL)
        processes.send(pid, _HOW[stop])

    def _recover(self, name: str) -> None:
        dead, dead_worker = self.roster.unrecovered[name], self._dead_workers[name]
        # The pid of a horse that has ended may be another process's by now.
        guards = dead_worker.horse_pid if dead_worker.horse_pid in self.roster.orphans else 0
        try:
            pid = self._spawner.fork_recovery(
                replace(dead_worker, horse_pid=guards, failures=dead.failures)
            )
        except OSError as error:
            now = processes.monotonic()
            self._recover_later(dead.failed(now, random.random()), f"cannot fork: {error}")
            return
        del self.roster.unrecovered[name]
        self.roster.recoveries[pid] = RecoveryProcess(pid, name, dead.failures, guards)

    def _recover_later(self, dead: UnrecoveredWorker, why: str) -> None:
        self.roster.unrecovered[dead.name] = dead
        wait = dead.not_before - dead.failed_at
        logger.warning("recovery of worker %s failed: %s; next try in %.1f s", dead.name, why, wait)

    def _stop_recovery(self, pid: int, stop: Stop) -> None:
        self.roster.recoveries[pid] = replace(
            self.roster.recoveries[pid],
            asked_at=processes.monotonic(),
            killed=stop is Stop.KILL,
        )
        processes.send(pid, _HOW[stop])

    # Deaths

    def end_process_group_of(self, pid: int) -> None:
        """Ends what a dead worker left in its process group: RQ's scheduler process, or what a job
        that has died with it had made. One that has left may have left on purpose what is there."""
        assignment = self._assignments.get(pid)
        if assignment is None or assignment.slot.has_left:
            return
        slot = assignment.slot
        dies_with_it = slot.busy and not slot.horse_pid
        signum = signal.SIGKILL if dies_with_it else signal.SIGTERM
        processes.signal_process_group(pid, signum)

    def on_exit(self, death: processes.Death) -> None:
        """Takes a child that has ended off the roster, whatever it was."""
        orphan = self.roster.release_orphan(death.pid)
        if orphan is not None:
            _log_orphan_end(orphan, str(death))
        recovery = self.roster.recoveries.pop(death.pid, None)
        if recovery is not None:
            self._on_recovery_exit(recovery, death)
        record = self.roster.remove(death.pid)
        if record is not None:
            self._on_worker_exit(record, death)

    def _on_recovery_exit(self, recovery: RecoveryProcess, death: processes.Death) -> None:
        now = processes.monotonic()
        finished = death.exit_code == RECOVERED
        dead = None if finished else recovery.failed(now, random.random())
        if dead is not None:
            self._recover_later(dead, str(death))
        else:
            del self._dead_workers[recovery.name]
            if not finished:
                log_unrecovered(recovery.name)
        if not self._adopts_orphans and (dead is None or not self._is_alive(recovery.guards)):
            guarded = self.roster.release_orphan(recovery.guards)
            if guarded is not None:
                _log_orphan_end(guarded, "ended")

    def _on_worker_exit(self, record: WorkerRecord, death: processes.Death) -> None:
        now = processes.monotonic()
        assignment = self._assignments.pop(death.pid)
        slot = assignment.slot
        left = death.clean and slot.has_left
        logger.log(
            logging.INFO if left or record.stop is not None else logging.WARNING,
            "worker %d of %s reaped: %s after %.1f s%s",
            record.pid,
            record.group,
            death,
            now - record.forked_at,
            f", running job {slot.job_id}" if slot.busy else "",
        )
        horse_pid = slot.horse_pid
        if horse_pid and not self._is_alive(horse_pid):
            horse_pid = 0
        if horse_pid:
            # Its worker may have died just when it had stopped the horse, in order to kill it.
            processes.signal_process_group(horse_pid, signal.SIGCONT)
            self.roster.adopt(Orphan(horse_pid, record.group, slot.job_id))
        if not left:
            self._dead_workers[record.name] = DeadWorker(
                assignment,
                horse_pid,
                _cause(record, death, busy=slot.busy),
                ready=record.ready_at is not None,
                token=secrets.token_hex(8),
            )
            self.roster.unrecovered[record.name] = UnrecoveredWorker(
                record.name, cut_off=slot.is_cut_off
            )
        ended, seconds = self._done_before.get(record.group, (0, 0.0))
        self._done_before[record.group] = (ended + slot.done[0], seconds + slot.done[1])
        self._spawner.forget(assignment)
        self._count_end(record, death, now, left=left)

    def _is_alive(self, horse_pid: int) -> bool:
        """Whether the work horse of a dead worker is still alive. Where the manager adopts orphans,
        a process that is not its child has ended; elsewhere init collects it."""
        if self._adopts_orphans:
            return processes.is_our_child(horse_pid)
        return processes.exists(horse_pid)

    def _count_end(
        self, record: WorkerRecord, death: processes.Death, now: float, *, left: bool
    ) -> None:
        """Decides whether a death delays the group's next fork. A worker that has ``left`` has not
        crashed."""
        if record.stop is not None:
            return
        if record.ready_at is None:
            reason = "not ready in time" if record.killed else str(death)
            self.delays.boot_failed(record.group, record.forked_at, now, reason)
            self._boot_endings.log_kept(record)
        elif left or now - record.ready_at >= QUICK:
            self.delays.ended_well(record.group)
            if left and self._burst:
                self.roster.finished[record.group] += 1
        elif death.signum != signal.SIGKILL:
            # SIGKILL comes from an operator or from the kernel when memory is short: it is no sign
            # that the worker's code is broken.
            self.delays.died_quickly(record.group, record.forked_at, now, str(death))


def _log_orphan_end(orphan: Orphan, how: str) -> None:
    logger.info(
        "horse %d of %s, which outlived its worker, reaped: %s, job %s",
        orphan.pid,
        orphan.group,
        how,
        orphan.job_id,
    )


def _cause(record: WorkerRecord, death: processes.Death, *, busy: bool) -> str:
    """How a worker ended, as a sentence for the records of its jobs."""
    if record.stop is Stop.KILL:
        return f"Worker {record.name} was killed by its pool: it did not stop in time."
    if record.killed:
        return f"Worker {record.name} was killed by its pool: it was not ready in time."
    if death.signum is not None:
        return f"Worker {record.name} was ended by {death}, which its pool did not send."
    meanwhile = " while it ran a job; perhaps the job ended the process" if busy else ""
    return f"Worker {record.name} ended unexpectedly with {death}{meanwhile}."
