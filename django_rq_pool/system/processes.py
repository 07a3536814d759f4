"""Processes: fork, kill, wait and the clock.

Rule of the room: thin functions around system calls. They return values for expected errors.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from . import signals

monotonic = time.monotonic
"""The clock of the pool, in seconds."""

_TASKS = Path("/proc/self/task")
"""Has a file for each thread with the children that it has forked (Linux)."""
_REHEARSAL_LIMIT = 1.0
"""Seconds after which a rehearsal's process is killed. It has nothing to do."""


@dataclass(frozen=True)
class Death:
    """How a child ended: with an exit code or by a signal.

    Attributes:
        pid: its process id.
        exit_code: its exit code, or None.
        signum: the number of the signal, or None.
    """

    pid: int
    exit_code: int | None
    signum: int | None

    @property
    def clean(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.exit_code == 0

    def __str__(self) -> str:
        """Such as ``exit code 1`` or ``SIGKILL``."""
        if self.signum is None:
            return f"exit code {self.exit_code}"
        try:
            return signal.Signals(self.signum).name
        except ValueError:  # a real-time signal has no name
            return f"signal {self.signum}"


def fork(child: Callable[[], int]) -> int:
    """Forks a process that runs a function and exits with its result.

    The child starts with all signals blocked, because it still has the manager's handlers. It must
    unblock them after it has set its own. It exits by ``os._exit``, because the ``finally`` blocks
    around it belong to the manager. So do the ``atexit`` functions that it inherits; those that are
    registered in the child run at its end. Libraries send by them what they have not sent yet.

    Args:
        child: runs in the child and returns the exit status. An exception means status 1.

    Returns:
        The pid of the child, in the parent.

    Raises:
        OSError: the system has no process or memory left (EAGAIN, ENOMEM).
    """
    flush_output()  # otherwise the child would write the manager's buffered output again
    with signals.blocked():
        pid = os.fork()
        if pid == 0:
            _run_child(child)
    return pid


def _run_child(child: Callable[[], int]) -> None:
    status = 1
    atexit._clear()
    try:
        status = child()
    except BaseException:  # the frames below belong to the manager: never return to them
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # prints what they raise, and goes on
        flush_output()
        os._exit(status)


def rehearse_fork() -> None:
    """Forks a process that ends at once, and reaps it, so that fork handlers run once.

    Raises:
        OSError: see `fork`.
    """
    with warnings.catch_warnings(), signals.blocked():
        # Python 3.12 warns about threads. Finding them is the purpose of a rehearsal.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
    if not wait_for_end(pid, _REHEARSAL_LIMIT):
        send(pid, signal.SIGKILL)  # a fork handler of some library never returns
    os.waitpid(pid, 0)


def flush_output() -> None:
    """Writes Python's buffers of the standard streams. A full disk or a closed stream is ignored.

    ``os._exit`` would lose buffered output, and after a fork both processes would write it.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def reap(before: Callable[[int], None], others: Container[int] = ()) -> Iterator[Death]:
    """Reaps every child that has ended, adopted orphans included.

    Args:
        before: called with each pid while it is still a zombie. The system cannot give its pid or
            process group to another process meanwhile.
        others: the pids of children that somebody else waits for. They are left alone.

    Returns:
        How each child ended.
    """
    while True:
        ended = _ended(os.P_ALL, 0)
        if ended is not None and ended.si_pid in others:
            # Whoever waits for it takes his time, and others may have ended behind it.
            mine = (_ended(os.P_PID, pid) for pid in children() if pid not in others)
            ended = next(filter(None, mine), None)
        if ended is None:
            return
        before(ended.si_pid)
        os.waitpid(ended.si_pid, 0)
        if ended.si_code == os.CLD_EXITED:
            yield Death(ended.si_pid, ended.si_status, None)
        else:
            yield Death(ended.si_pid, None, ended.si_status)


def _ended(kind: int, pid: int) -> os.waitid_result | None:
    """A child that has ended and is not reaped yet, if there is one."""
    try:
        return os.waitid(kind, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None


def children() -> set[int]:
    """The pids of this process's children, zombies included."""
    try:
        lists = [path.read_text() for path in _TASKS.glob("*/children")]
    except OSError:  # a thread has ended meanwhile
        lists = []
    if not lists:  # another system, or a kernel without this file
        return {child.pid for child in psutil.Process().children()}
    return {int(pid) for each in lists for pid in each.split()}


def wait_for_death(pid: int) -> Death:
    """Waits for the end of a child and reaps it, in a process that has nothing else to handle.

    Args:
        pid: the child.
    """
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Death(pid, status, None) if status >= 0 else Death(pid, None, -status)


def send(pid: int, signum: int) -> None:
    """Sends a signal to a child that has not been reaped, so that no other process has its pid.

    Args:
        pid: the child.
        signum: the signal. If the child has ended, nothing happens.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def signal_process_group(pid: int, signum: int) -> None:
    """Sends a signal to the process group that a child leads, if the group has members.

    Args:
        pid: the child.
        signum: the signal.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def signal_child_and_group(pid: int, signum: int) -> None:
    """Sends a signal to a child that shall lead a process group, and to the others in that group,
    to each of them once. The child may have been forked just now, or have left its group.

    Args:
        pid: the child.
        signum: the signal.
    """
    lead_process_group(pid)
    try:
        leads = os.getpgid(pid) == pid
    except ProcessLookupError:  # some systems say so of one that has not been reaped
        leads = False
    signal_process_group(pid, signum)
    if not leads:
        send(pid, signum)


def pause(seconds: float) -> None:
    """Waits, in a process that has nothing else to handle: a work horse or a recovery process.

    Args:
        seconds: how long. A signal handler may run meanwhile.
    """
    select.poll().poll(seconds * 1000)


def wait_for_end(pid: int, seconds: float) -> bool:
    """Waits until a process has ended. It need not be a child of this one.

    Args:
        pid: the process.
        seconds: how long to wait at most.

    Returns:
        Whether it has ended. True at once if there is no such process.
    """
    if hasattr(os, "pidfd_open"):
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        except OSError:  # a kernel without pidfd: poll below
            pass
        else:
            try:
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                return bool(poll.poll(seconds * 1000))
            finally:
                os.close(fd)
    deadline = monotonic() + seconds
    while exists(pid):
        if monotonic() >= deadline:
            return False
        pause(0.1)
    return True


def exists(pid: int) -> bool:
    """Whether a process exists, even as a zombie.

    Args:
        pid: its process id.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def memory(pid: int) -> int | None:
    """The proportional memory (PSS) of a process. It takes the kernel less than a millisecond.

    Args:
        pid: the process.

    Returns:
        Bytes. A page that ``n`` processes share counts ``1/n``. None if the system does not have
        this figure (it is Linux's) or the process has ended.
    """
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    kilobytes = (line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(next(kilobytes, 0)) * 1024 or None


def cpu_wait(pid: int) -> float:
    """How long a process has been ready to run and waited for a processor, in seconds.

    Args:
        pid: the process.

    Returns:
        The seconds since its begin. 0 if the system does not tell (it is Linux's to do so), or the
        process has ended.
    """
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def is_our_child(pid: int) -> bool:
    """Whether a process is a child of this one, even as a zombie.

    Args:
        pid: the process.
    """
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def has_ended(pid: int) -> bool:
    """Whether a child of this process has ended. It is not reaped.

    Args:
        pid: the child.

    Raises:
        ChildProcessError: there is no such child.
    """
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def lead_process_group(pid: int = 0) -> None:
    """Makes a process the leader of its own process group.

    Both the parent and the child call it after a fork, because either may run first.

    Args:
        pid: the process; 0 is this one.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)
