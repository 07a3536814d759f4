"""Pid file: holds the pid of the pool's manager, and keeps a second manager from starting.

Rule of the room: the process that holds the exclusive lock on the file owns it, and nothing else is
believed: no pid, which may be another process's by now, and no shared lock, which everybody who can
read the file may have. It is a POSIX lock (fcntl), which ends with the manager, however that ends,
and which no worker inherits.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import StartError
from . import processes
from .folders import make_folder_of
from .ownership import flaw

logger = logging.getLogger("django_rq_pool")

_LONGEST = 32
"""The most bytes of a pid and the white space around it. A longer file holds something else."""


class PidFileError(StartError):
    """The pid file cannot be claimed. The message says why and what would help."""


class PidFile:
    """The pid file of one pool.

    A claim is atomic: if several managers start at once with the same file, exactly one gets it.
    They make their claims one after the other, each while it holds the lock on a second file beside
    it. That is there for milliseconds. The old file itself would not do for that: a stranger's
    shared lock on it would keep every manager out. The new file is complete and locked before it is
    put in place. (gunicorn and unicorn also write a temporary file and rename it, but check the old
    file without a lock.)

    Args:
        path: the path of the file. It is made absolute at once, because the process may change its
            directory.

    Attributes:
        path: the absolute path.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._fd: int | None = None

    def claim(self) -> None:
        """Writes the pid of this process, in a file of mode 0600.

        A daemon calls it after it has detached, because the lock belongs to the calling process.

        Raises:
            PidFileError: the manager of another pool has the file, it is a symbolic link, it
                belongs to another user, or it cannot be written.
        """
        try:
            make_folder_of(self.path)
            with self._turn():
                self._require_free()
                self._fd = self._put_in_place()
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
            if _is_at(self._fd, self.path) and _pid_in(self._fd) == os.getpid():
                self.path.unlink()
        os.close(self._fd)
        self._fd = None

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Keeps every other manager that claims the file waiting until the block ends."""
        beside = self.path.with_name(f".{self.path.name}.claim")
        while True:
            fd = self._open(beside, os.O_CREAT)
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX)
                if _is_at(fd, beside):  # otherwise its owner has removed it meanwhile
                    try:
                        yield
                    finally:
                        beside.unlink(missing_ok=True)
                    return
            finally:
                os.close(fd)

    def _open(self, path: Path, more_flags: int = 0) -> int:
        """Opens a file of this user, and waits for no other end of it.

        Raises:
            FileNotFoundError: there is none.
            PidFileError: it is another's, or no regular file.
        """
        with contextlib.suppress(FileNotFoundError):
            self._require_ours(path, path.lstat())
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | more_flags
        fd = os.open(path, flags, 0o600)
        try:
            self._require_ours(path, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _require_ours(self, path: Path, status: os.stat_result) -> None:
        why = flaw(status)
        if why is None:
            return
        # What is no file may be /dev/null, which nobody should be told to remove.
        is_file = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
        hint = (
            "Remove it, or give another path (--pidfile)."
            if is_file
            else "Give another path (--pidfile), or none (--no-pidfile)."
        )
        raise PidFileError(f"pid file {path}: it {why}. {hint}")

    def _require_free(self) -> None:
        """Looks at the existing file, if there is one, and logs why it is replaced.

        Raises:
            PidFileError: a manager has it, or it is another's.
        """
        try:
            fd = self._open(self.path)
        except FileNotFoundError:
            return
        try:
            # Fails if another process has an exclusive lock. In a container, pids repeat at each
            # start, so the pid in the file may even be this one.
            fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # for a locked file, POSIX allows both errors
            pid = _pid_in(fd)
            who = "another pool" if pid is None or not processes.exists(pid) else f"process {pid}"
            raise PidFileError(
                f"pid file {self.path}: {who} uses it. Stop that pool first, or give another path "
                "(--pidfile)."
            ) from None
        else:
            self._log_stale(_pid_in(fd))
        finally:
            os.close(fd)

    def _log_stale(self, pid: int | None) -> None:
        if pid is None:
            logger.warning("pid file %s: replaced, because it holds no pid", self.path)
        elif not processes.exists(pid):
            logger.info("pid file %s: replaced, because process %d has ended", self.path, pid)
        else:
            logger.info(
                "pid file %s: replaced, because process %d, which is another one by now, does not "
                "hold its lock",
                self.path,
                pid,
            )

    def _put_in_place(self) -> int:
        """Puts a complete and locked file in place, and returns its descriptor."""
        fd, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)  # 0600
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, b"%d\n" % os.getpid())
            Path(name).replace(self.path)
        except BaseException:
            os.close(fd)
            Path(name).unlink(missing_ok=True)
            raise
        return fd


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _pid_in(fd: int) -> int | None:
    """The pid in a file, or None if it holds anything else.

    The file is not opened a second time, because closing that descriptor would end the lock.
    """
    content = os.pread(fd, _LONGEST + 1, 0)
    match = re.fullmatch(rb"\s*([1-9][0-9]{0,8})\s*", content) if len(content) <= _LONGEST else None
    return int(match[1]) if match else None
