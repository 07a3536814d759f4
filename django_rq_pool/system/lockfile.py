"""Lock file: locked in shared mode as long as any process of the pool lives.

Rule of the room: one file descriptor, which forks inherit and programs started by jobs do not. It
is never unlocked explicitly, because that would unlock it for all processes. The system unlocks it
after the last of them.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from pathlib import Path

from ..errors import StartError
from .folders import make_folder_of

logger = logging.getLogger("django_rq_pool")


class LockFileError(StartError):
    """The lock file cannot be locked. The message says why and what would help."""


def hold_lock(path: str | Path) -> int:
    """Locks a file in shared mode, for this process and all processes forked from it.

    ``flock --exclusive FILE true`` then waits until the last of them has ended, workers and work
    horses of a stopping pool included. This is like resque-pool's lock file. Several pools can hold
    the lock together. The file is created if it is missing, and is not removed.

    If another process holds an exclusive lock, no pool shall run meanwhile. A warning is logged,
    and this function waits. It does not fail, because a supervisor could give up restarting the
    pool during a long maintenance.

    Args:
        path: the path of the lock file.

    Returns:
        The file descriptor. The lock ends when all processes have closed it.

    Raises:
        LockFileError: the path is not a regular file, or cannot be opened or locked.
    """
    path = Path(path).absolute()
    try:
        make_folder_of(path)
        fd = _open(path)
    except OSError as error:
        raise _failure(path, f"it cannot be opened: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _failure(path, "it is not a regular file")
        _lock(fd, path)
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
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, 0o644)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.warning(
            "lock file %s: waiting, because another process holds an exclusive lock (flock -x)",
            path,
        )
        fcntl.flock(fd, fcntl.LOCK_SH)
        logger.info("lock file %s: locked", path)


def _failure(path: Path, why: str) -> LockFileError:
    return LockFileError(
        f"lock file {path}: {why}. Give the path of a file that this user can read and write, on a "
        "local disk (--lock)."
    )
