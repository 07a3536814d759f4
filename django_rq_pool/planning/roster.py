"""Roster: what the manager knows about its workers, orphaned work horses and recovery processes.

Rule of the room: bookkeeping only. One object holds frozen records; no system call, no clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import IntEnum

from .left_behind import LeftBehind
from .recoveries import RecoveryProcess, UnrecoveredWorker
from .watch_clock import WatchClock


class Stop(IntEnum):
    """How a worker is asked to stop. Each member is harder than the one before."""

    GRACEFUL = 1
    """It finishes its job."""
    IMMEDIATE = 2
    """It interrupts its job."""
    KILL = 3
    """It is killed."""


@dataclass(frozen=True)
class WorkerRecord:
    """One live worker. Times are monotonic seconds.

    Attributes:
        pid: its process id.
        group: the name of its queue group.
        number: its number in the group, from 1. Another worker may have it later.
        name: its name in Redis.
        forked_at: when it was forked.
        generation: the generation of its group that it belongs to; a reload begins another one.
        ready_at: when it became ready, or None.
        stop: the hardest stop that it was asked for, or None.
        asked_at: when it was last asked to stop.
        boot_timeout: within how many seconds it shall be ready.
        boot_began: when that time began, on the roster's clock.
        cpu_wait: how many of the seconds since then it has waited for a processor.
        awaits_redis: whether it has said that it waits for Redis.
        overdue: whether it was not ready in time.
        killed: whether it was killed for that.
    """

    pid: int
    group: str
    number: int
    name: str
    forked_at: float
    generation: int = 0
    ready_at: float | None = None
    stop: Stop | None = None
    asked_at: float = 0.0
    boot_timeout: float = float("inf")
    boot_began: float = 0.0
    cpu_wait: float = 0.0
    awaits_redis: bool = False
    overdue: bool = False
    killed: bool = False


@dataclass(frozen=True)
class Orphan:
    """A work horse whose worker is dead, and which still runs a job.

    Attributes:
        pid: its process id.
        group: the name of its queue group.
        job_id: the id of its job.
        ended: whether the manager has killed it.
    """

    pid: int
    group: str
    job_id: str
    ended: bool = False


class Roster:
    """Every live worker, orphaned work horse and recovery process, by pid.

    Attributes:
        orphans: work horses whose worker is dead, by pid.
        unrecovered: dead workers that have no recovery process now, by their name in Redis.
        recoveries: recovery processes, by pid.
        finished: how many workers of each group have finished in burst mode.
        forked_at: when the latest worker was forked, in monotonic seconds.
        clock: measures how long workers boot.
        left_behind: what jobs have left running; None before that was looked for.
    """

    def __init__(self) -> None:
        self._workers: dict[int, WorkerRecord] = {}
        self.orphans: dict[int, Orphan] = {}
        self.unrecovered: dict[str, UnrecoveredWorker] = {}
        self.recoveries: dict[int, RecoveryProcess] = {}
        self.finished: Counter[str] = Counter()
        self.forked_at = float("-inf")
        self.clock = WatchClock()
        self.left_behind: LeftBehind | None = None

    def __len__(self) -> int:
        return len(self._workers)

    def __contains__(self, pid: object) -> bool:
        return pid in self._workers

    def workers(self) -> list[WorkerRecord]:
        """Every live worker, oldest first."""
        return list(self._workers.values())

    def counts(self) -> Counter[str]:
        """How many live workers each queue group has, stopping ones included."""
        return Counter(record.group for record in self._workers.values())

    def older(self, group: str, generation: int) -> int:
        """How many workers of a group have an older generation, and are not asked to stop.

        Args:
            group: the name of the group.
            generation: its new one.
        """
        return sum(
            record.group == group and record.generation < generation and record.stop is None
            for record in self._workers.values()
        )

    def pids(self) -> list[int]:
        """The pids of all live workers, oldest first."""
        return list(self._workers)

    def get(self, pid: int) -> WorkerRecord | None:
        """The record of a live worker, or None if there is none.

        Args:
            pid: the worker's pid.
        """
        return self._workers.get(pid)

    def add(self, record: WorkerRecord) -> None:
        """Adds a worker that has just been forked.

        Args:
            record: the worker.
        """
        self._workers[record.pid] = record
        self.forked_at = max(self.forked_at, record.forked_at)

    def mark_ready(self, pid: int, now: float) -> WorkerRecord | None:
        """Records that a worker is ready.

        Args:
            pid: the pid.
            now: the time, in monotonic seconds.

        Returns:
            The new record; None if there is no such worker or it was ready before.
        """
        record = self._workers.get(pid)
        if record is None or record.ready_at is not None:
            return None
        self._workers[pid] = replace(record, ready_at=now)
        return self._workers[pid]

    def mark_asked(self, pid: int, stop: Stop, now: float) -> None:
        """Records that a worker was asked to stop.

        Args:
            pid: the worker's pid.
            stop: how.
            now: the time, in monotonic seconds.

        Raises:
            KeyError: there is no such worker.
        """
        self._workers[pid] = replace(self._workers[pid], stop=stop, asked_at=now)

    def mark_redis(self, pid: int, *, awaited: bool) -> None:
        """Records that a worker waits for Redis, or that it goes on: its time to boot begins again.

        Args:
            pid: the worker's pid.
            awaited: whether it waits.

        Raises:
            KeyError: there is no such worker.
        """
        self._workers[pid] = replace(
            self._workers[pid],
            awaits_redis=awaited,
            boot_began=self.clock.seconds,
            overdue=False,
        )

    def mark_cpu_wait(self, pid: int, seconds: float) -> None:
        """Records how long a worker has waited for a processor, which is not held against it.

        Args:
            pid: the worker's pid.
            seconds: since its fork.

        Raises:
            KeyError: there is no such worker.
        """
        self._workers[pid] = replace(self._workers[pid], cpu_wait=seconds)

    def mark_overdue(self, pid: int, *, killed: bool) -> None:
        """Records that a worker was not ready in time.

        Args:
            pid: the worker's pid.
            killed: whether it was killed for that.

        Raises:
            KeyError: there is no such worker.
        """
        self._workers[pid] = replace(self._workers[pid], overdue=True, killed=killed)

    def remove(self, pid: int) -> WorkerRecord | None:
        """Removes a dead worker.

        Args:
            pid: the pid that the worker had.

        Returns:
            Its record, or None if there is no such worker.
        """
        return self._workers.pop(pid, None)

    def is_empty(self, *, leaves: bool) -> bool:
        """Whether the manager is the last process of the pool, and no dead worker is left over.

        Args:
            leaves: the pool is about to leave. It does so without those that are cut off.
        """
        left_over = any(not (leaves and dead.cut_off) for dead in self.unrecovered.values())
        return not (self._workers or self.orphans or left_over or self.recoveries)

    def adopt(self, orphan: Orphan) -> None:
        """Adds an orphaned work horse.

        Args:
            orphan: the work horse.
        """
        self.orphans[orphan.pid] = orphan

    def mark_ended(self, pid: int) -> None:
        """Records that the manager has killed an orphaned work horse.

        Args:
            pid: the work horse.

        Raises:
            KeyError: there is no such orphan.
        """
        self.orphans[pid] = replace(self.orphans[pid], ended=True)

    def release_orphan(self, pid: int) -> Orphan | None:
        """Removes an orphaned work horse that has ended.

        Args:
            pid: the pid that it had.

        Returns:
            Its record, or None if there is no such orphan.
        """
        return self.orphans.pop(pid, None)
