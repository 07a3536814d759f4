"""Launch: reports the start of a daemon to the command that waits for it.

Rule of the room: until the launch is over, every problem reaches the user as text on the terminal
and as the command's exit status. The daemon never blocks on that terminal.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable

from ..text import shortened
from .messages import encode

_LONGEST = 5_000
"""The most characters of the result's text. At 12 bytes each at most, it fits into the pipe."""


class Launch:
    """The launch of a daemon, from the daemon's side. It ends once, with `succeed` or `fail`.

    Without descriptors no command waits, and every method does nothing. A pool in the foreground
    has such a launch.

    Args:
        lines: the descriptor of the pipe to the terminal, or None. Text that does not fit into the
            pipe is lost.
        result: the descriptor of the pipe for the result, or None.
    """

    def __init__(self, lines: int | None = None, result: int | None = None) -> None:
        self._lines = lines
        self._result = result
        self._loggers: list[logging.Logger] = []
        self._handler = _ToTerminal(self)

    @property
    def over(self) -> bool:
        """Whether no command waits, any more or at all."""
        return self._result is None

    def show(self, loggers: Iterable[str]) -> None:
        """Copies log records of level WARNING and above to the terminal until the launch is over.

        Args:
            loggers: the names of the loggers.
        """
        if not self.over:
            self._loggers = [logging.getLogger(name) for name in loggers]
            for logger in self._loggers:
                logger.addHandler(self._handler)

    def say(self, text: str) -> None:
        """Shows a line of text on the terminal, unless the launch is over.

        Args:
            text: the line, without its end.
        """
        if self._lines is not None:
            self._write(self._lines, f"{text}\n".encode(errors="backslashreplace"))

    def succeed(self) -> None:
        """Ends the waiting command with status 0: the pool runs.

        With ``--no-wait`` it is called earlier, when the files are open and the counts are known.
        """
        self._end(0, "")

    def fail(self, text: str, status: int = 1) -> None:
        """Ends the waiting command with an error: the pool does not run.

        Args:
            text: why, for the terminal.
            status: the exit status of the command.
        """
        self._end(status, text)

    def become_worker(self) -> None:
        """Closes the pipes in a forked worker, because they belong to the manager."""
        self._close()

    def _end(self, status: int, text: str) -> None:
        if self._result is not None:
            message = {"status": status, "text": shortened(text, _LONGEST)}
            self._write(self._result, encode(message))
            self._close()

    def _write(self, fd: int, data: bytes) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # nobody reads it
            while data:
                data = data[os.write(fd, data) :]

    def _close(self) -> None:
        for logger in self._loggers:
            logger.removeHandler(self._handler)
        for fd in (self._lines, self._result):
            if fd is not None:
                os.close(fd)
        self._lines = self._result = None


class _ToTerminal(logging.Handler):
    def __init__(self, launch: Launch) -> None:
        super().__init__(logging.WARNING)
        self._launch = launch

    def emit(self, record: logging.LogRecord) -> None:
        self._launch.say(self.format(record))
