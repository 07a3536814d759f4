"""Unix signals: an inbox that collects signals, and a wait that ends when one arrives.

Rule of the room: a handler only records the number. The owner of the inbox does the work in its own
loop. No signal is lost: the wakeup pipe, which can be full, only wakes; the numbers are recorded
separately, each once, in the order of the last arrival.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from types import FrameType

from ..errors import ExitStatus

Number = int
"""The number of a signal."""


class SignalInbox:
    """Catches signals of this process until it is closed.

    Args:
        numbers: the signals to catch. SIGCHLD is caught too, so that the death of a child ends a
            wait; `take` does not return it.
    """

    def __init__(self, numbers: Iterable[Number]) -> None:
        self._numbers: set[Number] = set()
        self._arrived: deque[Number] = deque()
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self.catch((*numbers, signal.SIGCHLD))

    def _note(self, number: Number, frame: FrameType | None) -> None:
        self._arrived.append(number)

    def catch(self, numbers: Iterable[Number]) -> None:
        """Catches more signals.

        Args:
            numbers: the signals.
        """
        for number in numbers:
            self._numbers.add(number)
            signal.signal(number, self._note)

    def exit_on(self, numbers: Iterable[Number]) -> None:
        """Makes signals end the process at once, until `catch` is called for them.

        They raise ``SystemExit``, so that ``finally`` blocks run. The exit status is 128 plus the
        number, like a shell reports it.

        Args:
            numbers: the signals.
        """

        def leave(number: Number, frame: FrameType | None) -> None:
            raise SystemExit(ExitStatus.SIGNAL + number)

        for number in numbers:
            self._numbers.add(number)
            signal.signal(number, leave)

    def take(self) -> list[signal.Signals]:
        """Returns the signals that arrived since the last call, without SIGCHLD."""
        arrived: dict[Number, None] = {}
        while self._arrived:
            # A handler may append between any two bytecodes. Operations of a deque are atomic.
            number = self._arrived.popleft()
            arrived.pop(number, None)
            arrived[number] = None
        arrived.pop(signal.SIGCHLD, None)
        return [signal.Signals(number) for number in arrived]

    def wait(self, fds: Iterable[int], timeout: float | None) -> set[int]:
        """Waits until a signal arrives, a descriptor is readable, or the timeout ends.

        Args:
            fds: descriptors to watch. End of file counts as readable.
            timeout: seconds; None: no timeout.

        Returns:
            The readable descriptors.
        """
        # Unlike select, poll allows descriptors above 1023.
        poll = select.poll()
        for fd in (self._read_end, *fds):
            poll.register(fd, select.POLLIN)
        # Rounded up, because a wait that ends too early would cost an extra turn of the loop.
        milliseconds = None if timeout is None else max(0, int(timeout * 1000 + 0.999))
        readable = {fd for fd, _ in poll.poll(milliseconds)}
        if self._read_end in readable:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._read_end, 4096):
                    pass
        return readable - {self._read_end}

    def close(self, afterwards: signal.Handlers = signal.SIG_DFL) -> None:
        """Closes the inbox and resets its signals.

        Args:
            afterwards: the new action of every caught signal except SIGCHLD, which gets the
                default action.
        """
        signal.set_wakeup_fd(-1)
        for number in self._numbers:
            signal.signal(number, afterwards if number != signal.SIGCHLD else signal.SIG_DFL)
        os.close(self._read_end)
        os.close(self._write_end)


@contextlib.contextmanager
def time_limit(seconds: float, text: str) -> Iterator[None]:
    """Raises TimeoutError inside the block if it takes too long.

    Only the main thread can be interrupted; in other threads there is no limit. Code that blocks
    outside of Python is interrupted when it returns to Python.

    Args:
        seconds: the limit.
        text: the message of the TimeoutError.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: Number, frame: FrameType | None) -> None:
        raise TimeoutError(text)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Blocks every signal until the block ends. Signals that arrive meanwhile are not lost."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Unblocks every signal, in a child that was forked while they were blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
