"""Daemon: detaches the manager from its terminal. The command that the user typed waits for it.

Rule of the room: two forks with a new session in between. The command shows what the daemon reports
until the launch is over, and how it ended.
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
from . import parents, processes, signals
from .launch import Launch
from .messages import Message, MessageError, MessageReader, encode

_UNREADY = "The pool ended before it was ready."

_EXIT_LIMIT = 5.0
"""Seconds that a daemon may take to end after its launch has failed. The command waits so long, so
that no process of the pool is left when it returns."""


def detach(redirect: Callable[[], None], log: str | Path) -> Launch:
    """Forks the daemon and returns in it. In the calling process it waits and never returns.

    The daemon is not a child of the command, has its own session and cannot get a controlling
    terminal. The method is that of Stevens' *Advanced Programming in the UNIX Environment*: two
    forks, with ``setsid`` in between. The daemon's standard input is empty. It keeps the current
    directory, which Django projects rely on, its open file descriptors, and the umask, except that
    files are never writable by everybody.

    The waiting command shows what the daemon reports and ends with its status. If the daemon ends
    without a report, the command fails with its exit code or signal. These are known on Linux only,
    where the command adopts the daemon while it waits. The command sends INT (Ctrl-C) and TERM on
    to the daemon, and ends with 128 plus the signal's number after the daemon has ended. A second
    signal ends the command only. The command leaves by ``os._exit``, because ``atexit`` functions
    belong to the daemon.

    Call it while no thread runs, and before the pool locks or creates a file.

    Args:
        redirect: sends standard output and error to the log files. It is called in the daemon.
        log: the path of the daemon's log, for the message about a daemon that ended silently.

    Returns:
        The launch. The daemon must end it.

    Raises:
        OSError: a fork or pipe failed; raised in the command.
        SystemExit: ``redirect`` failed; raised in the daemon, after the command got the reason.
    """
    _open_standard_streams()
    processes.flush_output()  # otherwise the daemon would write the buffered output again
    lines, result = os.pipe(), os.pipe()
    with signals.blocked():
        adopts = parents.adopt_orphans()
        between = os.fork()
        if between:
            os.close(lines[1])
            os.close(result[1])
            os.waitpid(between, 0)
            _WaitingCommand(lines[0], result[0], log, adopts).run()
        os.close(lines[0])
        os.close(result[0])
        for fd in (lines[1], result[1]):
            os.set_blocking(fd, False)
        os.setsid()
        _fork_daemon(result[1])
    launch = Launch(lines[1], result[1])
    try:
        _set_umask_and_input()
        redirect()
    except Exception as error:
        launch.fail(f"The daemon cannot be started: {error}")
        raise SystemExit(ExitStatus.FAILED) from error
    return launch


@contextlib.contextmanager
def reporting_failure(launch: Launch) -> Iterator[None]:
    """Fails the launch if the block ends before the launch is over.

    The report is the message of a `StartError`, or the traceback of another exception. The
    exception is raised again, so that the log has it too.

    Args:
        launch: the launch.
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


def _fork_daemon(result: int) -> None:
    """Forks again. Returns in the daemon only, after it has sent its pid."""
    try:
        pid = os.fork()
    except OSError as error:
        os.write(result, encode({"status": 1, "text": f"The daemon cannot be forked: {error}"}))
        os._exit(ExitStatus.FAILED)
    if pid:
        os._exit(ExitStatus.ENDED)
    os.write(result, encode({"pid": os.getpid()}))


def _set_umask_and_input() -> None:
    os.umask(os.umask(0o077) | 0o002)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _open_standard_streams() -> None:
    """Opens ``/dev/null`` on each of the descriptors 0 to 2 that is closed.

    Otherwise another file could get this descriptor, and a redirection would close it.
    """
    fd = 0
    while fd <= 2:
        fd = os.open(os.devnull, os.O_RDWR)
    os.close(fd)


class _WaitingCommand:
    """The process that started the daemon, while it waits for the end of the launch.

    Args:
        lines: the pipe of text for the terminal, to be read.
        result: the pipe of the daemon's pid and result, to be read.
        log: see `detach`.
        adopts: whether this process becomes the daemon's parent, and so learns how it ends.
    """

    def __init__(self, lines: int, result: int, log: str | Path, adopts: bool) -> None:
        self._lines = lines
        self._result = result
        self._log = log
        self._adopts = adopts
        self._reader = MessageReader()
        self._unhandled: list[Message] = []
        self._pid = 0
        self._status: int | None = None
        self._sent_signal = 0

    def run(self) -> NoReturn:
        """Waits for the end of the launch and exits. Call it while signals are blocked."""
        status: int = ExitStatus.FAILED
        try:
            # Only the daemon has the other end now. The first thing that it writes is its pid.
            silent = not self._read(self._result)
            for fd in (self._lines, self._result):
                os.set_blocking(fd, False)
            inbox = signals.SignalInbox((signal.SIGINT, signal.SIGTERM))
            signals.unblock()
            if silent:
                self._handle_death(None)
            status = self._wait(inbox)
        except BaseException:  # the frames below belong to the daemon: never return to them
            traceback.print_exc()
        finally:
            os._exit(status)

    def _wait(self, inbox: signals.SignalInbox) -> int:
        # In this order, lines that were sent before the result are shown before it is handled.
        unfinished = [self._result, self._lines]
        while True:
            deaths = {death.pid: death for death in processes.reap(before=lambda pid: None)}
            unfinished = [fd for fd in unfinished if self._drain(fd)]
            self._handle_messages()
            for signum in inbox.take():
                self._handle_signal(signum)
            if self._pid in deaths:
                self._handle_death(deaths[self._pid])
            elif self._result not in unfinished and not self._adopts:
                self._handle_death(None)
            if self._status is not None:
                if self._status and not self._sent_signal:
                    processes.wait_for_end(self._pid, _EXIT_LIMIT)
                return ExitStatus.SIGNAL + self._sent_signal if self._sent_signal else self._status
            inbox.wait(unfinished, None)

    def _drain(self, fd: int) -> bool:
        """Reads all that there is. Returns whether more may come."""
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
            # A malformed message is ignored: the end of the daemon gives the status then.
            with contextlib.suppress(MessageError):
                self._unhandled += self._reader.feed(data)
        return bool(data)

    def _handle_messages(self) -> None:
        messages, self._unhandled = self._unhandled, []
        for message in messages:
            with contextlib.suppress(MessageError):
                self._handle_message(message)

    def _handle_message(self, message: Message) -> None:
        if "pid" in message:
            self._pid = message.whole("pid")
        elif self._status is None:
            self._end(message.whole("status"), message.text("text"))

    def _handle_signal(self, signum: signal.Signals) -> None:
        if self._status is not None:
            return
        if self._sent_signal:
            self._end(ExitStatus.ENDED, f"No longer waiting for process {self._pid}.")
            return
        self._sent_signal = signum
        self._print(f"Sending {signum.name} to process {self._pid}. Repeat it to stop waiting.")
        processes.send(self._pid, signum)

    def _handle_death(self, death: processes.Death | None) -> None:
        """Sets the status after the daemon has ended; ``death`` is None if nobody knows how."""
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
        self._end(status, "" if self._sent_signal else text)

    def _end(self, status: int, text: str) -> None:
        self._status = status
        if text:
            self._print(text)

    def _print(self, text: str) -> None:
        self._show(f"{text}\n".encode(errors="backslashreplace"))

    def _show(self, data: bytes) -> None:
        # The terminal may be gone. Nobody would read an error then.
        with contextlib.suppress(OSError), open(2, "wb", closefd=False) as terminal:
            terminal.write(data)
