"""The roster: what the manager knows about its workers, and about horses that outlived theirs.

Rule of the room: frozen records in one owner; bookkeeping only, no system call and no clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import IntEnum


class Stop(IntEnum):
    """How a worker has been asked to stop. Each is harder than the one before."""

    GRACEFUL = 1
    IMMEDIATE = 2
    KILL = 3


@dataclass(frozen=True)
class WorkerRecord:
    """One live worker. Times are the manager's monotonic clock, in seconds.

    Attributes:
        pid: its process.
        group: the name of its queue group.
        number: its place in the group, from 1; free again when it is gone.
        name: its name in Redis.
        forked_at: when it was forked.
        ready_at: when it said that it listens, or None.
        generation: which generation of its group it belongs to; a reload begins another.
        stop: the hardest way in which it was asked to stop, or None.
        asked_at: when it was last asked.
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


@dataclass(frozen=True)
class Orphan:
    """A work horse that outlived its worker and still runs a job."""

    pid: int
    group: str
    job_id: str
    ended: bool = False
    """Whether the manager has killed it."""


@dataclass(frozen=True)
class RecoveryProcess:
    """A process that accounts for a dead worker."""

    pid: int
    name: str
    """Whom it accounts for."""
    guards: int = 0
    """The pid of the horse that it waits for, which may take as long as its job; or 0."""
    asked_at: float | None = None
    """When it was asked to give up if Redis is away, or None."""
    killed: bool = False


class Roster:
    """Every live worker, orphan and recovery process by pid, and what is still to be done.

    Attributes:
        orphans: horses that outlived their worker.
        unaccounted: pids of dead workers that no recovery process has been forked for, and the time
            before which it shall not be tried (again).
        recovery processes: at work.
        finished: how many workers of each group have finished in burst mode.
        forked_at: when the latest worker was forked.
    """

    def __init__(self) -> None:
        self._workers: dict[int, WorkerRecord] = {}
        self.orphans: dict[int, Orphan] = {}
        self.unrecovered: dict[int, float] = {}
        self.recoveries: dict[int, RecoveryProcess] = {}
        self.finished: Counter[str] = Counter()
        self.forked_at = float("-inf")

    def __len__(self) -> int:
        return len(self._workers)

    def __contains__(self, pid: object) -> bool:
        return pid in self._workers

    def workers(self) -> list[WorkerRecord]:
        """Every live worker, in the order of their forks."""
        return list(self._workers.values())

    def counts(self) -> Counter[str]:
        """How many workers live in each queue group, those that are leaving included."""
        return Counter(record.group for record in self._workers.values())

    def pids(self) -> list[int]:
        return list(self._workers)

    def get(self, pid: int) -> WorkerRecord | None:
        return self._workers.get(pid)

    def add(self, record: WorkerRecord) -> None:
        self._workers[record.pid] = record
        self.forked_at = max(self.forked_at, record.forked_at)

    def mark_ready(self, pid: int, now: float) -> WorkerRecord | None:
        """Notes that a worker listens; None when the pid is no worker or was ready before."""
        record = self._workers.get(pid)
        if record is None or record.ready_at is not None:
            return None
        self._workers[pid] = replace(record, ready_at=now)
        return self._workers[pid]

    def mark_asked(self, pid: int, stop: Stop, now: float) -> None:
        self._workers[pid] = replace(self._workers[pid], stop=stop, asked_at=now)

    def remove(self, pid: int) -> WorkerRecord | None:
        return self._workers.pop(pid, None)

    def is_empty(self) -> bool:
        """Whether nothing of the pool is left but the manager."""
        return not (self._workers or self.orphans or self.unrecovered or self.recoveries)

    def adopt(self, orphan: Orphan) -> None:
        self.orphans[orphan.pid] = orphan

    def mark_ended(self, pid: int) -> None:
        self.orphans[pid] = replace(self.orphans[pid], ended=True)

    def release_orphan(self, pid: int) -> Orphan | None:
        return self.orphans.pop(pid, None)
