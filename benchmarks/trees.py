"""Trees: what Linux tells about all processes of a contender.

Rule of the room: a tree is every process in the sessions that its commands were started in. A
session is kept by whatever a process forks, also when its parent dies. Numbers only; no process is
touched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")


class Tree:
    """The processes of these sessions.

    Args:
        sessions: their ids, which are the pids of the commands that lead them.
    """

    def __init__(self, sessions: Iterable[int]) -> None:
        self.sessions = frozenset(sessions)

    def pids(self) -> list[int]:
        """Every process of the tree that has not been reaped."""
        return [int(stat[0]) for stat in _stats() if int(stat[5]) in self.sessions]

    def living(self) -> list[int]:
        """Every process of the tree that has not ended."""
        return [
            int(stat[0])
            for stat in _stats()
            if int(stat[5]) in self.sessions and stat[2] not in ("Z", "X")
        ]

    def children(self, parent: int) -> set[int]:
        """The children of a process that have not ended."""
        return {
            int(stat[0])
            for stat in _stats()
            if int(stat[3]) == parent and stat[2] not in ("Z", "X")
        }

    def cpu(self) -> float:
        """Seconds of CPU that the tree has used, what has ended and was reaped in it included.

        A process has its own time and, once it has waited for them, that of its children. So no
        time is counted twice. The system rounds each to a hundredth.
        """
        return (
            sum(sum(map(int, stat[13:17])) for stat in _stats() if int(stat[5]) in self.sessions)
            / _TICK
        )


def _stats() -> Iterable[list[str]]:
    """The fields of every process's ``stat``, as proc(5) numbers them, from 0."""
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except OSError:
                continue
            # The name stands in parentheses and may have spaces and parentheses of its own.
            before, _, after = text.rpartition(")")
            yield [*before.split(" (", 1), *after.split()]


def own_cpu(pid: int) -> float:
    """Seconds of CPU of one living process, all its threads, without its children; exact.

    The clock's number is made as ``clock_getcpuclockid(3)`` makes it.
    """
    return time.clock_gettime((~pid << 3) | 2)


def pss(pids: Iterable[int]) -> int:
    """Bytes of memory of these processes: what several share is divided among them."""
    return 1024 * sum(_number(_read(pid, "smaps_rollup"), "Pss:") for pid in pids)


def own_memory(pids: Iterable[int]) -> int:
    """Bytes of memory that each of these processes has to itself, summed."""
    return 1024 * sum(_number(_read(pid, "smaps_rollup"), "Private_Dirty:") for pid in pids)


def wake_ups(pids: Iterable[int]) -> int:
    """How often the threads of these processes have been put on a CPU, so far."""
    total = 0
    for pid in pids:
        for thread in (_PROC / str(pid) / "task").iterdir():
            status = _read(pid, f"task/{thread.name}/status")
            total += _number(status, "voluntary_ctxt_switches:")
            total += _number(status, "nonvoluntary_ctxt_switches:")
    return total


def _read(pid: int, name: str) -> str:
    try:
        return (_PROC / str(pid) / name).read_text()
    except OSError:  # it has ended
        return ""


def _number(text: str, name: str) -> int:
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0
