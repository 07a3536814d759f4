"""Processes: the manager's fork, kill, waitpid and clock.

Rule of the room: thin functions around system calls that turn expected errors into values.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import signals

monotonic = time.monotonic

_REHEARSAL_LIMIT = 1.0
"""Seconds after which a process that has nothing to do is ended; nothing is lost with it."""


@dataclass(frozen=True)
class Death:
    """How a child ended: by an exit code, or by a signal."""

    pid: int
    exit_code: int | None
    signum: int | None

    @property
    def clean(self) -> bool:
        return self.exit_code == 0

    def __str__(self) -> str:
        if self.signum is None:
            return f"exit code {self.exit_code}"
        try:
            return signal.Signals(self.signum).name
        except ValueError:  # a real-time signal has no name
            return f"signal {self.signum}"


def fork(child: Callable[[], int]) -> int:
    """Forks a process that runs ``child`` and exits with what it returns.

    The child starts with every signal blocked, so that none reaches it while it still has the
    manager's handlers; it must unblock them once it has its own. It leaves by ``os._exit``: the
    manager's ``atexit`` and ``finally`` are not its own.

    Raises:
        OSError: the system has no process or memory to give (EAGAIN, ENOMEM).
    """
    flush_output()  # or the child would write what the manager had buffered once more
    with signals.blocked():
        pid = os.fork()
        if pid == 0:
            _be(child)
    return pid


def _be(child: Callable[[], int]) -> None:
    status = 1
    try:
        status = child()
    except BaseException:  # whatever it is, the frames below are the manager's
        traceback.print_exc()
    finally:
        flush_output()
        os._exit(status)


def rehearse_fork() -> None:
    """Forks a process that ends at once, and collects it: fork handlers have run then.

    Raises:
        OSError: see `fork`.
    """
    with warnings.catch_warnings(), signals.blocked():
        # Python 3.12 warns of threads, which a rehearsal is there to find out about.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
    if not wait_for_end(pid, _REHEARSAL_LIMIT):
        send(pid, signal.SIGKILL)  # a fork handler of somebody's waits for ever
    os.waitpid(pid, 0)


def flush_output() -> None:
    """Writes what Python has buffered for the standard streams: ``os._exit`` would lose it, and
    after a fork both processes would write it. A full disk or a closed stream is no error."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def reap(before: Callable[[int], None]) -> Iterator[Death]:
    """Collects every child that has ended, orphans that the system gave to us included.

    Args:
        before: called with each pid while it is still a zombie: pid and process group cannot
            belong to anybody else then.
    """
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        before(ended.si_pid)
        os.waitpid(ended.si_pid, 0)
        if ended.si_code == os.CLD_EXITED:
            yield Death(ended.si_pid, ended.si_status, None)
        else:
            yield Death(ended.si_pid, None, ended.si_status)


def send(pid: int, signum: int) -> None:
    """Sends a signal to a child that has not been reaped: its pid cannot be another's."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def signal_process_group(pid: int, signum: int) -> None:
    """Sends a signal to the process group that a child leads, if it has members."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def pause(seconds: float) -> None:
    """Waits, in a process that has nothing else to heed: a horse or a recovery process."""
    select.poll().poll(seconds * 1000)


def wait_for_end(pid: int, seconds: float) -> bool:
    """Waits until a process that need not be our child has ended.

    Returns:
        Whether it has: True at once when there is no such process.
    """
    if hasattr(os, "pidfd_open"):
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        except OSError:  # a kernel without pidfd; see below
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
    """Whether there is such a process, a zombie included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def memory(pid: int) -> int | None:
    """Bytes of memory that are a process's share (PSS: what it shares counts in parts), or None
    where the system does not tell. Takes the kernel some tenths of a millisecond."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    kilobytes = (line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(next(kilobytes, 0)) * 1024 or None


def is_our_child(pid: int) -> bool:
    """Whether this process is the parent of that one, which may be a zombie."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def lead_process_group(pid: int = 0) -> None:
    """Makes a process (0: this one) the leader of a process group of its own.

    Called on both sides of a fork, so that it holds whoever runs first.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)


_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> bool:
    """Makes this process the parent of descendants whose parent dies (Linux; see prctl(2)).

    Returns:
        Whether the system can do that.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
