"""Discovery: finds the managers of other pools by their process titles.

Rule of the room: a process counts only if it is this user's, is in the same pid namespace, and has
the title at the very start of its command line. A signal goes to that very process or to none.
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

from ..system.ownership import is_ours

logger = logging.getLogger("django_rq_pool")

_TITLE = "rqpool-manager["


def title(name: str, text: str) -> str:
    """The process title of a manager, by which other pools find it.

    Args:
        name: the name of the pool.
        text: what the manager is doing.
    """
    return f"{_TITLE}{name}]: {text}"


def can_be_found(name: str) -> bool:
    """Whether this process has the title that it has given itself. It has room for as many bytes
    as its command line and its environment had; without any variable there is no title at all.

    Args:
        name: the name of the pool.
    """
    return _title_of(psutil.Process()).startswith(title(name, ""))


class RunningManager:
    """The manager of another pool. Open until `close`.

    Args:
        process: the manager, as psutil has identified it by pid and start time.
        name: the name of its pool.

    Attributes:
        pid: its process id.
        name: see above.
    """

    def __init__(self, process: psutil.Process, name: str) -> None:
        self.pid = process.pid
        self.name = name
        self._process = process
        # Another process may get this pid later. The descriptor stays with the process for which
        # it was opened; `is_it` tells whether that was the right one.
        self._pidfd = _open_pidfd(process.pid)

    def __repr__(self) -> str:
        return f"Other({self.pid}, {self.name!r})"

    def is_it(self) -> bool:
        """Whether the process is still the one that was found, and still such a manager."""
        try:
            return self._process.is_running() and _title_of(self._process).startswith(
                title(self.name, "")
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
                "manager %d of pool %s: cannot send %s: %s",
                self.pid,
                self.name,
                signum.name,
                error,
            )
            return False
        return True

    def parent(self) -> int | None:
        """The pid of the manager's parent, or None if the manager has ended."""
        try:
            return self._process.ppid()
        except psutil.Error:
            return None

    def folder(self) -> str | None:
        """The directory that the manager works in, or None if the system does not tell."""
        try:
            return os.path.realpath(self._process.cwd().removesuffix(" (deleted)"))
        except psutil.Error:
            return None

    def fileno(self) -> int | None:
        """A descriptor that is readable once the manager has ended; None where the system has no
        such thing: `is_gone` must be asked from time to time then."""
        return self._pidfd

    def is_gone(self) -> bool:
        """Whether the manager has ended, reaped by its parent or not; or its process goes on and is
        no manager any more."""
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            return bool(poll.poll(0)) or not self.is_it()
        try:
            alive = self._process.is_running()
            return not alive or self._process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def close(self) -> None:
        """Closes the descriptor."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def find_older(name: str) -> list[RunningManager]:
    """Finds the managers of the pools of this name that are older than this process.

    They are this user's, on this host and in the same pid namespace, in whatever directory they
    run. (The processes of a container are visible from the host, and belong to another pool.) Of
    two managers that started in the same instant, the one with the lower pid is the older. So of
    two processes that look for each other, exactly one finds the other.

    Args:
        name: the name of the pool.

    Returns:
        The oldest first; the caller closes each.
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
    """Whether a pool of this name is younger than this process and in the same control group, so
    that it replaces this one for their supervisor; see `find_older`."""
    here = psutil.Process()
    own = set(here.children())  # a new worker has the manager's title until it sets its own
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
                and is_ours(process.uids().effective)  # anybody may have the title
                and _sees_our_pids(process.pid)
            ):
                process.create_time()  # psutil remembers it, even when the process has ended
                yield process
        except psutil.Error:  # it has ended meanwhile, or is not visible
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
    except OSError:  # it has ended, or the system does not let us look: it is not ours
        return False


def _open_pidfd(pid: int) -> int | None:
    if hasattr(os, "pidfd_open"):
        try:
            return os.pidfd_open(pid)
        except OSError:  # it has ended, or the kernel is older than 5.3
            return None
    return None
