"""The scoreboard: shared memory in which each worker shows what it is doing.

Rule of the room: a slot is written to by its worker, and by a horse that says who it is; others
only look. No system call, no message and no wake-up per job; and what a worker was running can be
read after it was killed. The idea is the Apache HTTP server's.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections import deque

_JOB = struct.Struct("=iH90s")
"""Pid of the horse (0: none), bytes of the job's id (0: idle), the id. RQ's own ids have 36."""
_PAUSED = struct.Struct("=?")
_DONE = struct.Struct("=Qd")
"""Jobs that have ended, and for how many seconds they ran together."""
_PAUSED_AT = _JOB.size
_DONE_AT = 104
_SIZE = 128
_SLAB = mmap.PAGESIZE


class Slot:
    """The place of one worker. Written by the worker, read by the manager."""

    def __init__(self, slab: mmap.mmap, offset: int) -> None:
        self._slab = slab
        self._offset = offset
        self._job_id = ""
        self._began = 0.0

    def begin(self, job_id: str) -> None:
        """The worker has taken a job."""
        self._job_id = job_id
        self._began = time.monotonic()
        self._write(0, job_id)

    def horse(self, pid: int) -> None:
        """The worker has forked a horse for its job."""
        self._write(pid, self._job_id)

    def end(self) -> None:
        """The worker has no job any more."""
        if self._job_id:
            ended, seconds = self.done
            seconds += time.monotonic() - self._began
            _DONE.pack_into(self._slab, self._offset + _DONE_AT, ended + 1, seconds)
        self._job_id = ""
        self._write(0, "")

    def pause(self, paused: bool) -> None:
        """The worker takes no job, or takes jobs again."""
        _PAUSED.pack_into(self._slab, self._offset + _PAUSED_AT, paused)

    def clear(self) -> None:
        """Makes the slot a new worker's."""
        self._slab[self._offset : self._offset + _SIZE] = bytes(_SIZE)
        self._job_id = ""

    def _write(self, horse_pid: int, job_id: str) -> None:
        text = job_id.encode()[:90]
        _JOB.pack_into(self._slab, self._offset, horse_pid, len(text), text)

    def _read(self) -> tuple[int, bytes]:
        horse_pid, length, text = _JOB.unpack_from(self._slab, self._offset)
        return horse_pid, text[:length]

    @property
    def busy(self) -> bool:
        return bool(self._read()[1])

    @property
    def paused(self) -> bool:
        return bool(_PAUSED.unpack_from(self._slab, self._offset + _PAUSED_AT)[0])

    @property
    def done(self) -> tuple[int, float]:
        """How many jobs of the worker have ended, and for how many seconds they ran together."""
        ended, seconds = _DONE.unpack_from(self._slab, self._offset + _DONE_AT)
        return ended, seconds

    @property
    def job_id(self) -> str:
        """The job that the worker runs, or an empty string. Long ids are cut."""
        return self._read()[1].decode(errors="ignore")

    @property
    def horse_pid(self) -> int:
        """The horse that runs the job, or 0."""
        return self._read()[0]


_SPARE = 16


class Scoreboard:
    """Hands out slots; grows by a page at a time and never shrinks.

    A slot that comes back goes to the end of the line, and some are always kept spare: a horse that
    was forked in its worker's last moment may write to the old slot once more.
    """

    def __init__(self) -> None:
        self._free: deque[Slot] = deque()

    def acquire(self) -> Slot:
        if len(self._free) <= _SPARE:
            slab = mmap.mmap(-1, _SLAB)  # anonymous and shared: forked workers write to the same
            self._free += [Slot(slab, at) for at in range(0, _SLAB, _SIZE)]
        slot = self._free.popleft()
        slot.clear()
        return slot

    def release(self, slot: Slot) -> None:
        self._free.append(slot)
