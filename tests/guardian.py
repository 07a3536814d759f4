"""A process that outlives a run of the tests by a moment, and ends what that run has left.

A run that is ended from outside cannot clean up: its pools have sessions of their own and lose
their parents. So each process that runs tests starts a guardian, which holds the other end of a
pipe. When the pipe breaks, or one of the processes that make up the run is gone, the guardian
kills what still works in the run's folders, what was forked from the run, and the run itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

LOOK = 0.5
"""Seconds between two looks at whether the run is still there."""
LEAVE = b"leave\n"
"""What a run says that ends by itself."""
PATIENCE = 30.0
"""Seconds after which a guardian gives up on what cannot be killed."""


class Guardian:
    """
    Args:
        run: the processes without which the run is over: that which runs tests, and whoever told
            it to.
    """

    def __init__(self, *run: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *map(str, run)],
            stdin=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            start_new_session=True,  # a Ctrl-C is for the run
        )

    def watch(self, folder: Path, *, remove: bool = False) -> None:
        """
        Args:
            folder: whatever works in it or below it is the run's.
            remove: whether to remove it when the run has not.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{'remove' if remove else 'keep'} {folder}\n".encode())

    def leave(self) -> None:
        """The run has cleaned up; waits until the guardian has seen that, too."""
        assert self._process.stdin is not None
        self._process.stdin.write(LEAVE)
        self._process.stdin.close()
        self._process.wait(2 * PATIENCE)


def living(folder: Path) -> list[psutil.Process]:
    """Every live process that works in a folder or below it.

    Titles overwrite the memory in which a process keeps its environment, so that no mark there
    would stay; the current directory goes with a process whatever becomes of its parents.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and folder in (
                here := Path(process.cwd()),
                *here.parents,
            ):
                found.append(process)
    return found


def _holders(pipe: int) -> list[psutil.Process]:
    """Those who have the other end of a pipe: the run, and what it has forked without an exec."""
    ours = Path(f"/proc/self/fd/{pipe}")
    found: list[psutil.Process] = []
    if not ours.exists():  # this system does not tell
        return found
    target = ours.readlink()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            fds = Path(f"/proc/{process.pid}/fd").iterdir()
            if process.pid != os.getpid() and any(target == fd.readlink() for fd in fds):
                found.append(process)
    return found


def _goes_on(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def main(run: list[int]) -> None:
    """Reads from standard input what there is to watch, and acts when the run is over."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    processes = []
    for pid in run:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    told = b""
    while len(processes) == len(run) and all(map(_goes_on, processes)):
        if select.select([0], [], [], LOOK)[0]:
            more = os.read(0, 65_536)
            told += more
            if not more or told.endswith(LEAVE):
                break
    by_itself = told.endswith(LEAVE)
    lines = [line.partition(" ") for line in told.removesuffix(LEAVE).decode().splitlines()]
    _end([] if by_itself else processes, [Path(folder) for _, _, folder in lines], not by_itself)
    for how, _, folder in lines:
        if how == "remove":
            shutil.rmtree(folder, ignore_errors=True)


def _end(run: list[psutil.Process], folders: list[Path], forks: bool) -> None:
    """Kills what is left of the run until nothing is.

    Args:
        run: the run's own processes.
        folders: where the others work.
        forks: whether to look for those that share the run's end of the pipe, too.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        left = [process for folder in folders for process in living(folder)]
        left += [*filter(_goes_on, run), *(_holders(0) if forks else ())]
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)


if __name__ == "__main__":
    main([int(pid) for pid in sys.argv[1:]])
