"""Log files: standard streams that go to files, and moved log files opened anew.

Rule of the room: a descriptor keeps its number; another file is put beneath it, so that whoever
writes to it need not be told. Reopening never raises: a log is no reason to end a pool.
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

_MODE = 0o644
"""Of a file that is made at the start, less the umask: a daemon's umask may be 0."""


class LogFileError(StartError):
    """A file that a standard stream shall go to cannot be opened; the text says why."""


class LogFiles:
    """The files of this process's standard streams; workers and horses inherit them.

    Args:
        stdout: path of the file for standard output, or None to leave that where it is.
        stderr: likewise for standard error; it may be the same file.
        sync: write each line at once. Otherwise standard output is written in blocks, as Python
            does it for a file. Log records are written at once in any case.
    """

    def __init__(
        self, stdout: str | None = None, stderr: str | None = None, *, sync: bool = True
    ) -> None:
        self._sync = sync
        self._fds: dict[Path, list[int]] = {}
        for fd, path in ((1, stdout), (2, stderr)):
            if path is not None:
                # The current directory may change before the file is opened anew.
                self._fds.setdefault(Path(path).absolute(), []).append(fd)

    def redirect(self) -> None:
        """Opens the files, making directories that are missing, and has the streams go to them.

        Raises:
            LogFileError: one cannot be opened. No stream was redirected.
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
            stream = sys.stdout if fd == 1 else sys.stderr
            if isinstance(stream, io.TextIOWrapper):
                # One write for a line keeps lines of several processes apart. It is not so under
                # PYTHONUNBUFFERED, where Python writes the end of a line by itself.
                line_buffering = self._sync or fd == 2
                stream.reconfigure(line_buffering=line_buffering, write_through=False)

    def reopen(self) -> list[str]:
        """Opens anew every log file of this process that was moved or removed.

        They are the standard streams' if they go to files, and those of logging's file handlers.
        One that cannot be opened is reported, and the old one kept. The idea is unicorn's.

        Returns:
            The paths that were opened anew.
        """
        flush_output()
        reopened: dict[str, None] = {}  # in their order, each once
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
        for name, failure in failures.items():  # no handler is locked any more
            logger.warning(
                "log file %s cannot be opened anew: %s. Lines go on to the old one. "
                "Let this user write there, then send HUP again.",
                name,
                getattr(failure, "strerror", None) or failure,
            )
        return list(reopened)


def _open(path: Path, mode: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY, mode)


def _put_beneath(fds: Sequence[int], file: int) -> None:
    for fd in fds:
        os.dup2(file, fd, inheritable=fd <= 2)
    os.close(file)


def _reopen(path: Path, fds: Sequence[int]) -> bool:
    """Opens a path anew beneath descriptors of it, if it is no longer the file that they have.

    Returns:
        Whether it did.

    Raises:
        OSError: it cannot be opened. The descriptors keep what they have.
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
    """Likewise for a handler. A delayed one has no stream yet, and will open what is there then.

    Raises:
        Exception: what a project's handler raises, besides OSError.
    """
    handler.acquire()
    try:
        if handler.stream is None:
            return False
        with contextlib.suppress(OSError):  # the old disk may be full; the new one gets it then
            handler.flush()
        return _reopen(Path(handler.baseFilename), [handler.stream.fileno()])
    finally:
        handler.release()


def _file_handlers() -> Iterator[logging.FileHandler]:
    """Every file handler of this process, those behind a buffer or a queue included.

    Logging itself lists each handler for its shutdown. ``dictConfig`` empties that list, while
    loggers that it leaves alone go on using theirs.
    """
    handlers: list[object] = [reference() for reference in logging._handlerList]  # type: ignore[attr-defined]
    for each in (logging.root, *logging.root.manager.loggerDict.values()):
        handlers += getattr(each, "handlers", ())
    for handler in {id(handler): handler for handler in handlers}.values():
        if isinstance(handler, logging.FileHandler):
            yield handler
