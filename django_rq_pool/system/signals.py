"""Unix signals: an inbox that remembers what arrived, and a wait that ends when something does.

Rule of the room: a handler only notes the number; whoever owns the inbox does the work in its own
loop. A signal is never lost: the wakeup pipe, which can fill up, only wakes; what arrived is kept
beside it, each number once, in the order of the last arrivals.
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


class SignalInbox:
    """Catches the given signals for this process until it is closed.

    Args:
        numbers: the signals to catch. SIGCHLD is caught beside them, so that a child's death ends
            a wait; `take` does not report it.
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
        """Catches these signals too."""
        for number in numbers:
            self._numbers.add(number)
            signal.signal(number, self._note)

    def exit_on(self, numbers: Iterable[Number]) -> None:
        """Has these signals end the process at once, until they are caught.

        It ends by an exception, so that what cleans up is run, with the exit status that a shell
        gives for a process which a signal ended.
        """

        def leave(number: Number, frame: FrameType | None) -> None:
            raise SystemExit(ExitStatus.SIGNAL + number)

        for number in numbers:
            self._numbers.add(number)
            signal.signal(number, leave)

    def take(self) -> list[signal.Signals]:
        """What arrived since the last call, SIGCHLD left out."""
        arrived: dict[Number, None] = {}
        while self._arrived:
            # A handler may add one between any two bytecodes; each of a deque's steps is whole.
            number = self._arrived.popleft()
            arrived.pop(number, None)
            arrived[number] = None
        arrived.pop(signal.SIGCHLD, None)
        return [signal.Signals(number) for number in arrived]

    def wait(self, fds: Iterable[int], timeout: float | None) -> set[int]:
        """Waits until a signal arrives, one of the descriptors is readable, or time is up.

        Args:
            fds: descriptors to watch; an end of file counts as readable.
            timeout: seconds, None for ever.

        Returns:
            The descriptors that are readable.
        """
        # poll has no limit on descriptor numbers, which select has at 1024.
        poll = select.poll()
        for fd in (self._read_end, *fds):
            poll.register(fd, select.POLLIN)
        # Rounded up: a wait that ends a little early would turn the loop for nothing.
        milliseconds = None if timeout is None else max(0, int(timeout * 1000 + 0.999))
        readable = {fd for fd, _ in poll.poll(milliseconds)}
        if self._read_end in readable:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._read_end, 4096):
                    pass
        return readable - {self._read_end}

    def close(self, afterwards: signal.Handlers = signal.SIG_DFL) -> None:
        """Gives every signal its default action back, or another one."""
        signal.set_wakeup_fd(-1)
        for number in self._numbers:
            signal.signal(number, afterwards if number != signal.SIGCHLD else signal.SIG_DFL)
        os.close(self._read_end)
        os.close(self._write_end)


@contextlib.contextmanager
def time_limit(seconds: float, text: str) -> Iterator[None]:
    """Raises a TimeoutError with the given text inside the block when it takes too long.

    Only the main thread can be interrupted: elsewhere there is no limit. Code that blocks outside
    of Python notices when it comes back.
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
    """Holds every signal back until the block ends: none is lost, none is handled inside."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Lets every signal through, in a child that was forked while they were blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
