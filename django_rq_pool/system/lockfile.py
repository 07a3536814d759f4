"""The lock file: locked in shared mode for as long as any process of any pool lives.

Rule of the room: one descriptor, inherited by every fork and by no program that a job starts. It is
never unlocked, which would unlock it for all that inherited it: the system does so when the last of
them has ended.
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
    """The lock file cannot be locked; the text says why, and what would help."""


def hold_lock(path: str | Path) -> int:
    """Locks a file in shared mode, for this process and all that will be forked from it.

    ``flock --exclusive FILE true`` then waits until the last of them is gone, workers and horses
    of a pool that is leaving included; so resque-pool has it. Pools do not shut each other out.
    The file is made when it is missing, and stays: it means nothing when nobody holds it.

    Whoever holds it exclusively wants no pool to run meanwhile: the log says so, once, as a
    warning, and the start goes on when the file is free. To fail would have a supervisor give the
    pool up for good because of a maintenance that took longer than its patience.

    Args:
        path: the lock file.

    Returns:
        The descriptor, which must stay open; closing it is all that ends the lock.

    Raises:
        LockFileError: the file is no regular file, or the system does not let us lock it.
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
    # Reading is enough for a lock, and not to block enough for what is no file. O_CREAT only when
    # it is needed: in a sticky folder, Linux refuses it for a file that another user made.
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
            "lock file %s: somebody holds it exclusively, as flock -x does: the pool starts when "
            "it is free",
            path,
        )
        fcntl.flock(fd, fcntl.LOCK_SH)
        logger.info("lock file %s: it is free", path)


def _failure(path: Path, why: str) -> LockFileError:
    return LockFileError(
        f"lock file {path}: {why}. Give the path of a file that this user can read and write, on a "
        "local disk (--lock)."
    )
