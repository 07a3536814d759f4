"""Others: the managers of older pools of this app, found by their titles.

Rule of the room: a process counts only if it is this user's, sees the same pids, has the title at
the very start of its command line and began before this one; a signal goes to that very process or
to none.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

logger = logging.getLogger("django_rq_pool")

_TITLE = "rqpool-manager["


def title(name: str, text: str) -> str:
    """The title of the manager of a pool of this name; the others are found by it."""
    return f"{_TITLE}{name}]: {text}"


def is_manager(pid: int) -> bool:
    """Whether the process with this pid lives and is the manager of a pool, whatever its name."""
    try:
        shown = _title_of(psutil.Process(pid))
    except (psutil.Error, ValueError):  # no pid is negative
        return False
    return shown.startswith(_TITLE) and "]: " in shown


class RunningManager:
    """The manager of another pool. Open until `close`.

    Args:
        process: the manager; its identity was taken when this object of psutil's was made.
        name: the name of its pool.
    """

    def __init__(self, process: psutil.Process, name: str) -> None:
        self.pid = process.pid
        self._process = process
        self._name = name
        # Whoever has this pid later, the descriptor stays with the process that it was opened
        # for; `is_it` tells whether that was the one.
        self._pidfd = _open_pidfd(process.pid)

    def __repr__(self) -> str:
        return f"Other({self.pid}, {self._name!r})"

    def is_it(self) -> bool:
        """Whether the process is still the one that was found, and still such a manager."""
        try:
            return self._process.is_running() and _title_of(self._process).startswith(
                title(self._name, "")
            )
        except psutil.Error:
            return False

    def send(self, signum: signal.Signals) -> bool:
        """Sends a signal to this very process; never to another that has got its pid since.

        Returns:
            Whether it was sent: False when the manager is gone, or when the system forbids it,
            which is logged.
        """
        if not self.is_it():
            return False
        try:
            if self._pidfd is None:
                self._process.send_signal(signum)  # psutil looks at the identity once more
            else:
                signal.pidfd_send_signal(self._pidfd, signum)
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False
        except (PermissionError, psutil.AccessDenied) as error:
            logger.warning(
                "manager %d of another pool %s cannot be sent %s: %s",
                self.pid,
                self._name,
                signum.name,
                error,
            )
            return False
        return True

    def fileno(self) -> int | None:
        """A descriptor that poll finds readable once the manager has ended; None where the system
        has none: ask `is_gone` now and then."""
        return self._pidfd

    def is_gone(self) -> bool:
        """Whether the manager has ended, reaped by its parent or not."""
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            return bool(poll.poll(0))
        try:
            alive = self._process.is_running()
            return not alive or self._process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def close(self) -> None:
        """Gives the descriptor back."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def find_older(name: str) -> list[RunningManager]:
    """Finds the managers of the pools of this name that are older than this process.

    They are this user's, on this host, in the same pid namespace (a container's are seen from the
    host, and are another's), whatever directory they run in. Of two that the system started in
    the same instant, the one with the lower pid is the older, so that of two processes that look
    for each other exactly one finds the other.

    Args:
        name: the name of the pool.

    Returns:
        The oldest first; each is to be closed.
    """
    age = _age(psutil.Process())
    found = []
    for process in sorted(_managers(name), key=_age):
        other = RunningManager(process, name)
        if _age(process) < age and other.is_it():
            found.append(other)
        else:
            other.close()
    return found


def has_younger(name: str) -> bool:
    """Whether a pool of this name is younger than this process and in the same control group, and
    so replaces it for whoever supervises both; see `find_older`."""
    here = psutil.Process()
    own = set(here.children())  # a worker has the manager's title until it gives itself its own
    return any(
        _age(process) > _age(here) and _control_group(process.pid) == _control_group("self")
        for process in _managers(name)
        if process not in own
    )


def _control_group(pid: int | str) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:  # another system, or a process that has ended
        return ""


def _managers(name: str) -> Iterator[psutil.Process]:
    """This user's managers of pools of this name, in this pid namespace, this one included."""
    for process in psutil.process_iter():
        try:
            if (
                _title_of(process).startswith(title(name, ""))
                and process.uids().effective == os.geteuid()
                and _sees_our_pids(process.pid)
            ):
                process.create_time()  # psutil remembers it, even when the process has ended
                yield process
        except psutil.Error:  # it has ended meanwhile, or hides itself
            continue


def _age(process: psutil.Process) -> tuple[float, int]:
    """Sorts the older to the front."""
    return process.create_time(), process.pid


def _title_of(process: psutil.Process) -> str:
    # psutil takes a title apart at its spaces.
    return " ".join(process.cmdline())


def _sees_our_pids(pid: int) -> bool:
    if not sys.platform.startswith("linux"):
        return True
    try:
        theirs, ours = (Path(f"/proc/{process}/ns/pid").stat() for process in (pid, "self"))
        return os.path.samestat(theirs, ours)
    except OSError:  # it has ended, or the system does not let us look: then it is not ours
        return False


def _open_pidfd(pid: int) -> int | None:
    if hasattr(os, "pidfd_open"):
        try:
            return os.pidfd_open(pid)
        except OSError:  # it has ended, or the kernel is older than 5.3
            return None
    return None
