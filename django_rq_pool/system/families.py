"""Families: a process and those that it has made, directly or not, as long as they stay.

Rule of the room: whoever has begun a session of its own has left the family, and is left alone.
Nothing here waits.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import psutil

from . import processes

_KERNEL_LISTS_CHILDREN = Path("/proc/thread-self/children").exists()
"""Whether a thread's entry in ``/proc`` has its children; most kernels of Linux do that."""


def descendants(pid: int) -> list[psutil.Process]:
    """The descendants of a process that are in its session. Parents come before their children.

    A process whose parent has ended is a child of the nearest ancestor that adopts orphans.

    Args:
        pid: the process. If it has ended there are none.
    """
    session = _session(pid)
    if session is None:
        return []
    return [each for each in _all_below(pid) if _session(each.pid) == session]


def _all_below(pid: int) -> list[psutil.Process]:
    if not _KERNEL_LISTS_CHILDREN:
        try:
            return psutil.Process(pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
    found: list[psutil.Process] = []
    parents = [pid]
    while parents:
        children = [child for parent in parents for child in _children(parent)]
        parents = []
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(child))
                parents.append(child)
    return found


def _children(pid: int) -> list[int]:
    """The children of a process. A look at all processes takes a hundred workers that all end their
    jobs at once a hundred times as long."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def family(pid: int) -> list[psutil.Process]:
    """The descendants of a process that are in its session, and the other members of the process
    group that it leads, whose parents may have ended.

    Args:
        pid: the process, which is not among them. It must not have been reaped.
    """
    found = descendants(pid)
    known = {pid, *(each.pid for each in found)}
    for other in psutil.pids():
        if other not in known and _group(other) == pid:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(other))
    return found


def end_with_family(pid: int) -> None:
    """Kills a process and its family.

    Args:
        pid: the process, a child of this one.
    """
    # It neither goes on without the others, and records that, nor makes others.
    processes.signal_child_and_group(pid, signal.SIGSTOP)
    kill(descendants(pid))
    processes.signal_child_and_group(pid, signal.SIGKILL)


def kill_own_family() -> None:
    """Kills the family of this process, except for resource trackers of ``multiprocessing`` and
    joblib: they end after it, and remove what it leaves in shared memory."""
    kill(each for each in family(os.getpid()) if not _tracks_resources(each))


def _tracks_resources(process: psutil.Process) -> bool:
    try:
        return "resource_tracker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def kill(found: Iterable[psutil.Process]) -> None:
    """Kills processes, and what they fork meanwhile.

    Args:
        found: the processes. Those that have ended are left out, even if others have their pids.
    """
    stopped: list[psutil.Process] = []
    new = list(found)
    while new:
        for each in new:
            _send(each, signal.SIGSTOP)
        stopped += new
        below = dict.fromkeys(child for each in new for child in descendants(each.pid))
        new = [each for each in below if each not in stopped]
    # Children first: the end of a parent would have the system continue those that are stopped.
    for each in reversed(stopped):
        _send(each, signal.SIGKILL)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs, and has not ended without being reaped.

    Args:
        process: the process.
    """
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _send(process: psutil.Process, signum: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process.send_signal(signum)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None
