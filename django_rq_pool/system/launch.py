"""Launch: the line from a daemon that starts to the command that waits for it.

Rule of the room: until the launch is over, whatever goes wrong is told where the command was typed,
by text and exit status. The daemon never waits for that terminal.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable

from ..text import shortened
from .messages import encode

_LONGEST = 5_000
"""Characters of the last word, 12 bytes each at most: it fits into a pipe that nobody reads."""


class Launch:
    """The launch of a daemon, from its side: it ends with `succeed` or `fail`, once.

    Without descriptors nobody waits, and every method does nothing: the launch of a pool in the
    foreground.

    Args:
        lines: writes to the terminal; what does not fit into the pipe is left out.
        last_word: writes how the launch ended.
    """

    def __init__(self, lines: int | None = None, last_word: int | None = None) -> None:
        self._lines = lines
        self._last_word = last_word
        self._shown: list[logging.Logger] = []
        self._handler = _ToTerminal(self)

    @property
    def over(self) -> bool:
        """Whether nobody waits: not any more, or not at all."""
        return self._last_word is None

    def show(self, loggers: Iterable[str]) -> None:
        """Shows on the terminal, until the launch is over, what these loggers say at level WARNING
        and above.

        Args:
            loggers: their names.
        """
        if not self.over:
            self._shown = [logging.getLogger(name) for name in loggers]
            for logger in self._shown:
                logger.addHandler(self._handler)

    def say(self, text: str) -> None:
        """Shows a line of text on the terminal, unless the launch is over."""
        if self._lines is not None:
            self._write(self._lines, f"{text}\n".encode(errors="backslashreplace"))

    def succeed(self) -> None:
        """The pool runs: the waiting command ends with status 0. For ``--no-wait`` this is said
        before it does, when its files are there and its counts are known."""
        self._end(0, "")

    def fail(self, text: str, status: int = 1) -> None:
        """The pool does not run: the waiting command shows the text, and ends with the status."""
        self._end(status, text)

    def become_worker(self) -> None:
        """In a forked worker: lets go of the line, which is the manager's."""
        self._close()

    def _end(self, status: int, text: str) -> None:
        if self._last_word is not None:
            word = {"status": status, "text": shortened(text, _LONGEST)}
            self._write(self._last_word, encode(word))
            self._close()

    def _write(self, fd: int, data: bytes) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # nobody reads it
            while data:
                data = data[os.write(fd, data) :]

    def _close(self) -> None:
        for logger in self._shown:
            logger.removeHandler(self._handler)
        for fd in (self._lines, self._last_word):
            if fd is not None:
                os.close(fd)
        self._lines = self._last_word = None


class _ToTerminal(logging.Handler):
    def __init__(self, launch: Launch) -> None:
        super().__init__(logging.WARNING)
        self._launch = launch

    def emit(self, record: logging.LogRecord) -> None:
        self._launch.say(self.format(record))
