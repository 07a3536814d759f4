"""Pid file: holds the pid of the pool's manager, and keeps a second manager from starting.

Rule of the room: the process that holds the lock on the file owns it. It is a POSIX lock (fcntl),
which ends with the manager, however that ends, and which no worker inherits.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..errors import StartError
from . import processes
from .folders import make_folder_of

logger = logging.getLogger("django_rq_pool")

_LONGEST = 32
"""The most bytes of a pid and the white space around it. A longer file holds something else."""


class PidFileError(StartError):
    """The pid file cannot be claimed. The message says why and what would help."""


class PidFile:
    """The pid file of one pool.

    A claim is atomic: if several managers start at once with the same file, exactly one gets it. A
    claim locks the old file before it reads it, and keeps it locked while it replaces it with a
    complete and locked new one. (gunicorn and unicorn also write a temporary file and rename it,
    but check the old file without a lock.)

    Args:
        path: the path of the file. It is made absolute at once, because the process may change its
            directory.
        is_manager: tells whether the process with a pid is the manager of a pool.

    Attributes:
        path: the absolute path.
    """

    def __init__(self, path: str | Path, is_manager: Callable[[int], bool]) -> None:
        self.path = Path(path).absolute()
        self._is_manager = is_manager
        self._fd: int | None = None

    def claim(self) -> None:
        """Writes the pid of this process, in a file of mode 0644.

        A daemon calls it after it has detached, because the lock belongs to the calling process.

        Raises:
            PidFileError: the manager of another pool has the file, it is a symbolic link, it
                belongs to another user, or it cannot be written.
        """
        try:
            make_folder_of(self.path)
            while not self._try_to_claim():
                pass  # another process changed the file meanwhile: look again
        except OSError as error:
            raise PidFileError(
                f"pid file {self.path}: it cannot be written: {error.strerror}. Give a path in a "
                "folder that this user can write to (--pidfile), or --no-pidfile."
            ) from error

    def release(self) -> None:
        """Removes the file if it is still the one that this process wrote."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            if self._is_in_place(self._fd) and _pid_in(self._fd) == os.getpid():
                self.path.unlink()
        os.close(self._fd)
        self._fd = None

    def _try_to_claim(self) -> bool:
        """Claims the file, or returns False if another process changed it meanwhile."""
        old = self._open_old()
        try:
            if old is not None:
                if not self._is_in_place(old):
                    return False
                self._require_stale(old)
            return self._put_in_place(replace=old is not None)
        finally:
            if old is not None:
                os.close(old)

    def _open_old(self) -> int | None:
        """Opens and locks the existing file. Returns None if there is none."""
        try:
            self._require_ours(self.path.lstat())
            fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            self._require_ours(os.fstat(fd))
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # for a locked file, POSIX allows both errors
            pid = _pid_in(fd)
            os.close(fd)
            known = pid is not None and processes.exists(pid)
            raise self._refusal(
                f"process {pid} uses it" if known else "another pool is starting with it"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _require_ours(self, status: os.stat_result) -> None:
        hint = "Remove it, or give another path (--pidfile)."
        if stat.S_ISLNK(status.st_mode):
            wrong = "it is a symbolic link"
        elif not stat.S_ISREG(status.st_mode):
            wrong = "it is not a regular file"
            hint = "Give another path (--pidfile), or none (--no-pidfile)."  # it may be /dev/null
        elif status.st_uid != os.geteuid():
            wrong = f"it belongs to user {status.st_uid}, but this is user {os.geteuid()}"
        else:
            return
        raise PidFileError(f"pid file {self.path}: {wrong}. {hint}")

    def _require_stale(self, fd: int) -> None:
        pid = _pid_in(fd)
        if pid is None:
            logger.warning("pid file %s: replaced, because it holds no pid", self.path)
        elif not processes.exists(pid):
            logger.info("pid file %s: replaced, because process %d has ended", self.path, pid)
        elif pid == os.getpid() or not self._is_manager(pid):
            # In a container, pids repeat at each start, so it may even be this process.
            logger.info(
                "pid file %s: replaced, because process %d is not the manager of a pool",
                self.path,
                pid,
            )
        else:
            raise self._refusal(f"process {pid}, the manager of a pool, uses it")

    def _refusal(self, why: str) -> PidFileError:
        return PidFileError(
            f"pid file {self.path}: {why}. Stop that pool first, or give another path (--pidfile)."
        )

    def _put_in_place(self, replace: bool) -> bool:
        """Puts a complete and locked file in place. Returns False if another one has appeared."""
        fd, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        beside = Path(name)
        try:
            os.fchmod(fd, 0o644)
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, b"%d\n" % os.getpid())
            if replace:
                beside.replace(self.path)
            else:
                os.link(beside, self.path)  # unlike a rename, it fails if the path exists
                beside.unlink()
        except BaseException as error:
            os.close(fd)
            beside.unlink(missing_ok=True)
            if isinstance(error, FileExistsError):
                return False
            raise
        self._fd = fd
        return True

    def _is_in_place(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self.path.lstat())
        except FileNotFoundError:
            return False


def _pid_in(fd: int) -> int | None:
    """The pid in a file, or None if it holds anything else.

    The file is not opened a second time, because closing that descriptor would end the lock.
    """
    content = os.pread(fd, _LONGEST + 1, 0)
    match = re.fullmatch(rb"\s*([1-9][0-9]{0,8})\s*", content) if len(content) <= _LONGEST else None
    return int(match[1]) if match else None
