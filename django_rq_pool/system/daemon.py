"""Daemon: detaches the manager from its terminal; the command that was typed waits for its launch.

Rule of the room: two forks and a session between them; what the daemon says, and how it ends, is
shown by the command.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from ..errors import ExitStatus, StartError
from . import processes, signals
from .launch import Launch
from .messages import Message, MessageError, MessageReader, encode

_UNREADY = "The pool ended before it was ready."

_LAST_STEPS = 5.0
"""Seconds that a daemon whose launch has failed may take to end: when the command returns, nothing
of the pool shall be left."""


def detach(redirect: Callable[[], None], log: str | Path) -> Launch:
    """Forks the daemon and returns in it; the process that called this waits, and never returns.

    The daemon is no child of the command, has a session of its own and cannot get a terminal
    (two forks, as Stevens has it, with the session made in between). It reads nothing from its
    standard input. It keeps the current directory, which Django projects rely on, and the
    descriptors that it was started with. Of the umask it keeps what the shell had, but files that
    jobs make are never writable by everybody.

    The waiting command shows what the daemon says, and ends with its status. A daemon that ends
    without a word is an error, with its exit code or signal where the system tells (Linux, where
    the waiting command adopts it for that long). INT (Ctrl-C) and TERM are passed on to the daemon,
    for whom they mean what they would mean in the foreground; when it has ended the status is 128
    plus the signal's number. A second one leaves the daemon alone. The command leaves by
    ``os._exit``: what was registered to run at exit is the daemon's.

    To be called with no thread running, before anything is locked or claimed for the pool.

    Args:
        redirect: sends the daemon's standard output and error to its log files; called in it.
        log: where a daemon that cannot speak may have left word, for the message that says so.

    Returns:
        The launch, which the daemon must end.

    Raises:
        OSError: the system has no process or descriptor to give; still in the command.
        SystemExit: in the daemon, when it cannot redirect; the terminal has the reason.
    """
    _open_standard_streams()
    processes.flush_output()  # or the daemon would write what is buffered once more
    lines, last_word = os.pipe(), os.pipe()
    with signals.blocked():
        adopts = processes.adopt_orphans()
        between = os.fork()
        if between:
            os.close(lines[1])
            os.close(last_word[1])
            os.waitpid(between, 0)
            _WaitingCommand(lines[0], last_word[0], log, adopts).run()
        os.close(lines[0])
        os.close(last_word[0])
        for fd in (lines[1], last_word[1]):
            os.set_blocking(fd, False)
        os.setsid()
        _fork_daemon(last_word[1])
    launch = Launch(lines[1], last_word[1])
    try:
        _release_inherited()
        redirect()
    except Exception as error:
        launch.fail(f"The pool cannot be detached: {error}")
        raise SystemExit(ExitStatus.FAILED) from error
    return launch


@contextlib.contextmanager
def failing_aloud(launch: Launch) -> Iterator[None]:
    """Fails the launch with whatever ends the block before the launch is over.

    A `StartError` is told by its sentence, another exception by its traceback. It is raised
    again: the log has it too.
    """
    try:
        yield
    except StartError as error:
        launch.fail(f"CommandError: {error}")
        raise
    except SystemExit as error:
        if isinstance(error.code, str):
            launch.fail(error.code)
        else:
            launch.fail(_UNREADY, error.code or 1)
        raise
    except BaseException as error:
        launch.fail("".join(traceback.format_exception(error)).rstrip())
        raise
    launch.fail(_UNREADY)


def _fork_daemon(last_word: int) -> None:
    """Returns in the daemon only, which has told its pid."""
    try:
        pid = os.fork()
    except OSError as error:
        os.write(last_word, encode({"status": 1, "text": f"The pool cannot be forked: {error}"}))
        os._exit(ExitStatus.FAILED)
    if pid:
        os._exit(ExitStatus.ENDED)
    os.write(last_word, encode({"pid": os.getpid()}))


def _release_inherited() -> None:
    os.umask(os.umask(0o077) | 0o002)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _open_standard_streams() -> None:
    """Opens those of the descriptors 0 to 2 that are closed: they must not become something else,
    which a redirection would overwrite."""
    fd = 0
    while fd <= 2:
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)


class _WaitingCommand:
    """What the process that was asked to detach becomes once the daemon is forked.

    Args:
        lines, last_word: the daemon's, to be read.
        log: see `detach`.
        adopts: whether this process becomes the daemon's parent, and so learns how it ends.
    """

    def __init__(self, lines: int, last_word: int, log: str | Path, adopts: bool) -> None:
        self._lines = lines
        self._last_word = last_word
        self._log = log
        self._adopts = adopts
        self._words = MessageReader()
        self._unhandled: list[Message] = []
        self._pid = 0
        self._status: int | None = None
        self._passed_on = 0

    def run(self) -> NoReturn:
        """Waits for the end of the launch, and leaves. Signals are blocked when it is called."""
        status: int = ExitStatus.FAILED
        try:
            # Only the daemon has the other end by now, and its pid is the first thing it writes.
            silent = not self._read(self._last_word)
            for fd in (self._lines, self._last_word):
                os.set_blocking(fd, False)
            inbox = signals.SignalInbox((signal.SIGINT, signal.SIGTERM))
            signals.unblock()
            if silent:
                self._handle_death(None)
            status = self._wait(inbox)
        except BaseException:  # whatever it is, the frames below are the daemon's
            traceback.print_exc()
        finally:
            os._exit(status)

    def _wait(self, inbox: signals.SignalInbox) -> int:
        # In this order: what was said before the last word has been shown when that is handled.
        unfinished = [self._last_word, self._lines]
        while True:
            deaths = {death.pid: death for death in processes.reap(before=lambda pid: None)}
            unfinished = [fd for fd in unfinished if self._drain(fd)]
            self._handle_words()
            for signum in inbox.take():
                self._handle_signal(signum)
            if self._pid in deaths:
                self._handle_death(deaths[self._pid])
            elif self._last_word not in unfinished and not self._adopts:
                self._handle_death(None)
            if self._status is not None:
                if self._status and not self._passed_on:
                    processes.wait_for_end(self._pid, _LAST_STEPS)
                return ExitStatus.SIGNAL + self._passed_on if self._passed_on else self._status
            inbox.wait(unfinished, None)

    def _drain(self, fd: int) -> bool:
        """Reads all that there is; returns whether more may come."""
        try:
            while self._read(fd):
                pass
        except BlockingIOError:
            return True
        return False

    def _read(self, fd: int) -> bool:
        data = os.read(fd, 65536)
        if fd == self._lines:
            self._show(data)
        else:
            # What is no message is nobody's last word: the daemon's end is waited for then.
            with contextlib.suppress(MessageError):
                self._unhandled += self._words.feed(data)
        return bool(data)

    def _handle_words(self) -> None:
        words, self._unhandled = self._unhandled, []
        for word in words:
            with contextlib.suppress(MessageError):
                self._handle_word(word)

    def _handle_word(self, word: Message) -> None:
        if "pid" in word:
            self._pid = word.whole("pid")
        elif self._status is None:
            self._end(word.whole("status"), word.text("text"))

    def _handle_signal(self, signum: signal.Signals) -> None:
        if self._status is not None:
            return
        if self._passed_on:
            self._end(ExitStatus.ENDED, f"Process {self._pid} is left alone.")
            return
        self._passed_on = signum
        self._say(f"{signum.name} is passed on to process {self._pid}; another leaves it alone.")
        processes.send(self._pid, signum)

    def _handle_death(self, death: processes.Death | None) -> None:
        """The daemon has ended, without a last word perhaps; None: nobody tells how."""
        if self._status is not None:
            return
        status: int = ExitStatus.FAILED
        if death is None:
            how = "ended"
        elif death.signum is None:
            how, status = f"ended with {death}", death.exit_code or ExitStatus.FAILED
        else:
            how, status = f"was ended by {death}", ExitStatus.SIGNAL + death.signum
        text = f"The pool (process {self._pid}) {how} before it was ready. Its log: {self._log}"
        self._end(status, "" if self._passed_on else text)

    def _end(self, status: int, text: str) -> None:
        self._status = status
        if text:
            self._say(text)

    def _say(self, text: str) -> None:
        self._show(f"{text}\n".encode(errors="backslashreplace"))

    def _show(self, data: bytes) -> None:
        # The terminal may be gone, and with it whoever would read that.
        with contextlib.suppress(OSError), open(2, "wb", closefd=False) as terminal:
            terminal.write(data)
