"""The pid file: says which process is the pool's manager, and keeps a second one from starting.

Rule of the room: whoever holds the lock on the file has it. The lock is one that belongs to a
process (POSIX's, fcntl): it ends with the manager, however that ends, and no worker inherits it.
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
"""Bytes that a pid and the space around it may take; what is longer is something else."""


class PidFileError(StartError):
    """The pid file cannot be had; the text says why, and what would help."""


class PidFile:
    """The pid file of one pool.

    A claim is atomic: of any number of managers that start at once with one file, exactly one gets
    it. It takes the lock of the file that is there before it looks whose that is, and replaces it
    while it holds that lock, by one that is complete and locked already. (To write beside and
    rename is what gunicorn and unicorn do; they check before, without a lock.)

    Args:
        path: where it is to be; made absolute at once, so that it stays what it was whatever
            directory the process changes to.
        is_manager: whether the process with a pid is the manager of a pool.
    """

    def __init__(self, path: str | Path, is_manager: Callable[[int], bool]) -> None:
        self.path = Path(path).absolute()
        self._is_manager = is_manager
        self._fd: int | None = None

    def claim(self) -> None:
        """Writes this process's pid, in a file of mode 0644. To be called once detached: the lock
        stays with the process that calls it.

        Raises:
            PidFileError: the manager of a pool has the file, it is a link, it is another user's,
                or the system does not let us write it.
        """
        try:
            make_folder_of(self.path)
            while not self._try_to_claim():
                pass  # another got there first: look at what it has done
        except OSError as error:
            raise PidFileError(
                f"pid file {self.path}: it cannot be written: {error.strerror}. Give a path in a "
                "folder that this user can write to (--pidfile), or --no-pidfile."
            ) from error

    def release(self) -> None:
        """Removes the file, if it is still the one that this process wrote."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            if self._is_in_place(self._fd) and _pid_in(self._fd) == os.getpid():
                self.path.unlink()
        os.close(self._fd)
        self._fd = None

    def _try_to_claim(self) -> bool:
        """Claims the file, or returns False when it changed meanwhile."""
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
        """Opens and locks the file that is there; None when there is none."""
        try:
            self._require_ours(self.path.lstat())
            fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            self._require_ours(os.fstat(fd))
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows either to say: it is locked
            pid = _pid_in(fd)
            os.close(fd)
            known = pid is not None and processes.exists(pid)
            raise self._refusal(
                f"process {pid} has it" if known else "another pool is just starting with it"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _require_ours(self, status: os.stat_result) -> None:
        if stat.S_ISLNK(status.st_mode):
            wrong = "it is a symbolic link"
        elif not stat.S_ISREG(status.st_mode):
            wrong = "it is not a regular file"
        elif status.st_uid != os.geteuid():
            wrong = f"it belongs to user {status.st_uid}, and this is user {os.geteuid()}"
        else:
            return
        raise PidFileError(
            f"pid file {self.path}: {wrong}. Remove it, or give the path of another (--pidfile)."
        )

    def _require_stale(self, fd: int) -> None:
        pid = _pid_in(fd)
        if pid is None:
            logger.warning("pid file %s: it holds no pid: replaced", self.path)
        elif not processes.exists(pid):
            logger.info("pid file %s: its process %d is gone: replaced", self.path, pid)
        elif pid == os.getpid() or not self._is_manager(pid):
            # In a container each run has the same pids, so that it may well be this process.
            logger.info("pid file %s: its process %d was another: replaced", self.path, pid)
        else:
            raise self._refusal(f"process {pid}, the manager of a pool, has it")

    def _refusal(self, why: str) -> PidFileError:
        return PidFileError(
            f"pid file {self.path}: {why}. Stop that pool first, or give this one a pid file of "
            "its own (--pidfile)."
        )

    def _put_in_place(self, replace: bool) -> bool:
        """Puts a complete and locked file in place; False when one has appeared there."""
        fd, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        beside = Path(name)
        try:
            os.fchmod(fd, 0o644)
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, b"%d\n" % os.getpid())
            if replace:
                beside.replace(self.path)
            else:
                os.link(beside, self.path)  # unlike a rename, it fails if there is one
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
    """The pid that a file holds, or None when it holds anything else.

    The file is not opened anew: closing it would end the lock.
    """
    content = os.pread(fd, _LONGEST + 1, 0)
    match = re.fullmatch(rb"\s*([1-9][0-9]{0,8})\s*", content) if len(content) <= _LONGEST else None
    return int(match[1]) if match else None
