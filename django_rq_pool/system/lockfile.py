"""Lock file: locked in shared mode as long as any process of the pool lives.

Rule of the room: one file descriptor, which forks inherit and programs started by jobs do not. It
is never unlocked explicitly, because that would unlock it for all processes. The system unlocks it
after the last of them. Only this user can open the file, because whoever can open it can lock it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from pathlib import Path

from ..errors import StartError
from . import processes
from .folders import make_folder_of
from .ownership import flaw

logger = logging.getLogger("django_rq_pool")

_LOOK_AGAIN = 0.1
"""Seconds between two attempts to lock. A signal handler that raises ends the wait at once."""


class LockFileError(StartError):
    """The lock file cannot be locked. The message says why and what would help."""


def hold_lock(path: str | Path, limit: float | None = None) -> int:
    """Locks a file in shared mode, for this process and all processes forked from it.

    ``flock --exclusive FILE true`` then waits until the last of them has ended, workers and work
    horses of a stopping pool included. This is like resque-pool's lock file. Several pools can hold
    the lock together. The file is created if it is missing, with mode 0600, and is not removed. A
    file that everybody may open, as earlier versions made it, gets that mode too.

    If another process holds an exclusive lock, no pool shall run meanwhile. A warning is logged,
    and this function waits. Without a limit it does not fail, because a supervisor could give up
    restarting the pool during a long maintenance.

    Args:
        path: the path of the lock file.
        limit: seconds to wait at most, where somebody waits for this pool; None: no limit.

    Returns:
        The file descriptor. The lock ends when all processes have closed it.

    Raises:
        LockFileError: the path is not a regular file of this user, it cannot be opened or locked,
            or the limit was reached.
    """
    path = Path(path).absolute()
    try:
        make_folder_of(path)
        fd = _open(path)
    except OSError as error:
        raise _failure(path, f"it cannot be opened: {error.strerror}") from error
    try:
        _require_ours(path, os.fstat(fd))
        _close_to_others(fd, path)
        _lock(fd, path, limit)
    except OSError as error:
        os.close(fd)
        raise _failure(path, f"it cannot be locked: {error.strerror}") from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open(path: Path) -> int:
    # O_RDONLY is enough for a lock, and O_NONBLOCK prevents a wait on a FIFO. O_CREAT is used only
    # for a missing file: in a sticky folder, Linux refuses it for another user's file.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        _require_ours(path, path.lstat())
        return os.open(path, flags)
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, 0o600)


def _require_ours(path: Path, status: os.stat_result) -> None:
    if (why := flaw(status)) is not None:
        raise _failure(path, f"it {why}")


def _close_to_others(fd: int, path: Path) -> None:
    """Takes a file away from those who could hold its lock and let deploys wait.

    A mode that opens it to a group only is an operator's choice, and stays.
    """
    if stat.S_IMODE(os.fstat(fd).st_mode) & stat.S_IRWXO:
        os.fchmod(fd, 0o600)
        logger.info("lock file %s: mode 0600 now, because every user could lock it", path)


def _lock(fd: int, path: Path, limit: float | None) -> None:
    if _locks(fd):
        return
    logger.warning(
        "lock file %s: waiting, because another process holds an exclusive lock (flock -x)", path
    )
    until = None if limit is None else processes.monotonic() + limit
    while not _locks(fd):
        if until is not None and processes.monotonic() >= until:
            raise LockFileError(
                f"lock file {path}: after {limit:.3g} s (--swap-timeout), another process still "
                f"holds an exclusive lock (flock -x). Nothing was started. Let that process end "
                f"first; `fuser -v {path}` shows it."
            )
        processes.pause(_LOOK_AGAIN)
    logger.info("lock file %s: locked", path)


def _locks(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _failure(path: Path, why: str) -> LockFileError:
    return LockFileError(
        f"lock file {path}: {why}. Give the path of a file that this user can read and write, on a "
        "local disk (--lock)."
    )
