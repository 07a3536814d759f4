"""Scoreboard: shared memory in which each worker shows what it is doing.

Rule of the room: only its worker writes to a slot, and a work horse that notes its own pid. A job
costs no system call, message or wake-up, and what a worker was running can be read after it was
killed. The idea comes from the Apache HTTP server.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections import deque

_JOB = struct.Struct("=iH90s")
"""Pid of the horse (0: none), length of the job's id in bytes (0: idle), the id. RQ's own ids have
36 bytes."""
_FLAG = struct.Struct("=?")
_DONE = struct.Struct("=Qd")
"""Number of jobs that have ended, and the seconds that they ran, all together."""
_PAUSED_AT = _JOB.size
_LEFT_AT = _PAUSED_AT + _FLAG.size
_CUT_OFF_AT = _LEFT_AT + _FLAG.size
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
        """Notes that the worker has taken a job."""
        self._job_id = job_id
        self._began = time.monotonic()
        self._write(0, job_id)

    def horse(self, pid: int) -> None:
        """Notes the work horse that runs the job."""
        self._write(pid, self._job_id)

    def end(self) -> None:
        """Notes that the worker has no job any more."""
        if self._job_id:
            ended, seconds = self.done
            seconds += time.monotonic() - self._began
            _DONE.pack_into(self._slab, self._offset + _DONE_AT, ended + 1, seconds)
        self._job_id = ""
        self._write(0, "")

    def pause(self, paused: bool) -> None:
        """Notes that the worker takes no job, or takes jobs again."""
        _FLAG.pack_into(self._slab, self._offset + _PAUSED_AT, paused)

    def leave(self) -> None:
        """Notes that the worker has left nothing behind in Redis."""
        _FLAG.pack_into(self._slab, self._offset + _LEFT_AT, True)

    def cut_off(self) -> None:
        """Notes that the worker leaves, without a job, and that Redis does not answer it."""
        _FLAG.pack_into(self._slab, self._offset + _CUT_OFF_AT, True)

    def clear(self) -> None:
        """Empties the slot for a new worker."""
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
        """Whether the worker runs a job."""
        return bool(self._read()[1])

    @property
    def paused(self) -> bool:
        """Whether the worker takes no job until CONT."""
        return bool(_FLAG.unpack_from(self._slab, self._offset + _PAUSED_AT)[0])

    @property
    def has_left(self) -> bool:
        """Whether the worker has left nothing behind in Redis. An exit status cannot tell: the
        process may be ended with any status by a job that runs in it."""
        return bool(_FLAG.unpack_from(self._slab, self._offset + _LEFT_AT)[0])

    @property
    def is_cut_off(self) -> bool:
        """Whether Redis did not answer the worker when it left."""
        return bool(_FLAG.unpack_from(self._slab, self._offset + _CUT_OFF_AT)[0])

    @property
    def done(self) -> tuple[int, float]:
        """How many jobs of the worker have ended, and the seconds that they ran, all together."""
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

    A slot that is given back goes to the end of the queue, and some are always kept spare. A work
    horse that was forked in its worker's last moment may write to the old slot once more.
    """

    def __init__(self) -> None:
        self._free: deque[Slot] = deque()

    def acquire(self) -> Slot:
        """An empty slot."""
        if len(self._free) <= _SPARE:
            slab = mmap.mmap(-1, _SLAB)  # anonymous and shared: forked workers write to the same
            self._free += [Slot(slab, at) for at in range(0, _SLAB, _SIZE)]
        slot = self._free.popleft()
        slot.clear()
        return slot

    def release(self, slot: Slot) -> None:
        """Takes a slot back whose worker is gone."""
        self._free.append(slot)
