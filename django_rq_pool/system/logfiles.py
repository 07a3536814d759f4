"""Log files: redirects the standard streams to files, and reopens rotated log files.

Rule of the room: a file is replaced with ``dup2``, so that writers keep using the same descriptor.
Reopening never raises, because a log file is no reason to stop a pool.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import StartError
from .folders import make_folder_of
from .processes import flush_output

logger = logging.getLogger("django_rq_pool")

_MODE = 0o640
"""The mode of a new log file, before the umask, which may be 0 in a daemon. Jobs log what other
users of the host need not read. A file that is there keeps its mode, also when it is rotated."""


class LogFileError(StartError):
    """A log file cannot be opened. The message says why and what would help."""


class LogFiles:
    """The files of this process's standard streams. Workers and work horses inherit them.

    Args:
        stdout: the path of the file for standard output, or None to leave it as it is.
        stderr: the same for standard error. It may be the same file.
        sync: True: write each line of standard output at once. False: write it in blocks, as
            Python does for a file. Log records are always written at once.
    """

    def __init__(
        self, stdout: str | None = None, stderr: str | None = None, *, sync: bool = True
    ) -> None:
        self._sync = sync
        self._fds: dict[Path, list[int]] = {}
        self._kept: dict[int, int] = {}
        for fd, path in ((1, stdout), (2, stderr)):
            if path is not None:
                # The current directory may change before the file is reopened.
                self._fds.setdefault(Path(path).absolute(), []).append(fd)

    def redirect(self) -> None:
        """Opens the files and redirects the streams to them. Missing folders are created.

        Raises:
            LogFileError: a file cannot be opened. No stream was redirected.
        """
        opened: dict[int, list[int]] = {}
        for path, fds in self._fds.items():
            try:
                make_folder_of(path)
                opened[_open(path, _MODE)] = fds
            except OSError as error:
                raise LogFileError(
                    f"log file {path} cannot be opened: {error.strerror}. "
                    "Give a file that this user may write to."
                ) from error
        flush_output()
        for file, fds in opened.items():
            _put_beneath(fds, file)
        for fd in (fd for fds in self._fds.values() for fd in fds):
            stream = _stream(fd)
            if isinstance(stream, io.TextIOWrapper):
                # With one write for each line, lines of several processes do not mix. Under
                # PYTHONUNBUFFERED, Python would write the end of a line separately.
                line_buffering = self._sync or fd == 2
                stream.reconfigure(line_buffering=line_buffering, write_through=False)

    @contextlib.contextmanager
    def streams_kept(self) -> Iterator[None]:
        """Puts the streams back, when the block ends, that are redirected in it."""
        flush_output()
        buffered: dict[int, tuple[bool, bool]] = {}
        for fd in (fd for fds in self._fds.values() for fd in fds):
            with contextlib.suppress(OSError):  # it is closed, and nobody misses it
                self._kept[fd] = os.dup(fd)
            stream = _stream(fd)
            if isinstance(stream, io.TextIOWrapper):
                buffered[fd] = stream.line_buffering, stream.write_through
        try:
            yield
        finally:
            flush_output()
            for fd, kept in self._kept.items():
                os.dup2(kept, fd)
            self.become_worker()
            for fd, (line_buffering, write_through) in buffered.items():
                stream = _stream(fd)
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(line_buffering=line_buffering, write_through=write_through)

    def become_worker(self) -> None:
        """Closes what belongs to the manager in a forked process: the streams that are kept."""
        for kept in self._kept.values():
            os.close(kept)
        self._kept.clear()

    def reopen(self) -> list[str]:
        """Reopens every log file of this process that was moved or removed.

        These are the files of the standard streams and of logging's file handlers. If a file
        cannot be opened, a warning is logged and the old file stays open. The idea is from unicorn.

        Returns:
            The paths of the reopened files.
        """
        flush_output()
        reopened: dict[str, None] = {}  # an ordered set
        failures: dict[str, Exception] = {}
        for path, fds in self._fds.items():
            try:
                if _reopen(path, fds):
                    reopened[str(path)] = None
            except OSError as error:
                failures[str(path)] = error
        for handler in _file_handlers():
            try:
                if _reopen_handler(handler):
                    reopened[handler.baseFilename] = None
            except Exception as error:  # a project's handler may do anything
                failures[handler.baseFilename] = error
        for name, failure in failures.items():  # logged only now that no handler is locked
            logger.warning(
                "log file %s cannot be reopened: %s. The old file stays in use. "
                "Give this user write access, then send HUP again.",
                name,
                getattr(failure, "strerror", None) or failure,
            )
        return list(reopened)


def _stream(fd: int) -> object:
    return sys.stdout if fd == 1 else sys.stderr


def _open(path: Path, mode: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY, mode)


def _put_beneath(fds: Sequence[int], file: int) -> None:
    for fd in fds:
        os.dup2(file, fd, inheritable=fd <= 2)
    os.close(file)


def _reopen(path: Path, fds: Sequence[int]) -> bool:
    """Reopens a path for some descriptors, if it is not the file that they have open.

    Returns:
        Whether it was reopened.

    Raises:
        OSError: it cannot be opened. The descriptors keep the old file.
    """
    old = os.fstat(fds[0])
    try:
        if os.path.samestat(old, path.stat()):
            return False
    except FileNotFoundError:
        pass
    _put_beneath(fds, _open(path, stat.S_IMODE(old.st_mode)))
    return True


def _reopen_handler(handler: logging.FileHandler) -> bool:
    """The same for a handler. A handler with ``delay=True`` may have no stream yet.

    Returns:
        Whether its file was reopened.

    Raises:
        Exception: whatever a handler of the project raises, besides OSError.
    """
    handler.acquire()
    try:
        if handler.stream is None:
            return False
        with contextlib.suppress(OSError):  # the old disk may be full; the new file gets it then
            handler.flush()
        return _reopen(Path(handler.baseFilename), [handler.stream.fileno()])
    finally:
        handler.release()


def _file_handlers() -> Iterator[logging.FileHandler]:
    """Every file handler of this process, even one behind a memory or queue handler.

    Logging keeps a private list of all handlers. ``dictConfig`` empties it, so the handlers of
    loggers are added.
    """
    handlers: list[object] = [reference() for reference in logging._handlerList]  # type: ignore[attr-defined]
    for each in (logging.root, *logging.root.manager.loggerDict.values()):
        handlers += getattr(each, "handlers", ())
    for handler in {id(handler): handler for handler in handlers}.values():
        if isinstance(handler, logging.FileHandler):
            yield handler
