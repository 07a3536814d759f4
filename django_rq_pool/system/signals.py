"""Unix signals: an inbox that collects signals, and a wait that ends when one arrives.

Rule of the room: a handler only records the number; it raises an exception only where the owner has
asked for that. The owner of the inbox does the work in its own loop. No signal is lost: the wakeup
pipe, which can be full, only wakes; the numbers are recorded separately, each once, in the order of
the last arrival.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from types import FrameType

from ..errors import ExitStatus
from .handlers import Handlers, Number, do_nothing

SHOW_STACK = signal.SIGXCPU
"""Has a process of the pool show its stack; see `stacks`. Nothing else uses it, unless a limit of
CPU time is set for the process (``RLIMIT_CPU``)."""

_AT_ONCE = 1e-6
"""Seconds; a timer of 0 would never end."""


class Interrupted(BaseException):
    """A signal has ended what its process was waiting for."""


class Stopped(SystemExit):
    """A signal has ended this process; see `SignalInbox.exit_on`. Code that is run by the process
    may call ``sys.exit`` too, which means something else."""


class SignalInbox:
    """Catches signals of this process until it is closed. A forked process has none of it.

    Args:
        numbers: the signals to catch. SIGCHLD is caught too, so that the death of a child ends a
            wait; `take` does not return it.
        without_effect: signals that shall neither end the process nor be taken. A handler of
            project code for one of them stays.
    """

    def __init__(self, numbers: Iterable[Number], without_effect: Iterable[Number] = ()) -> None:
        self._without_effect = tuple(without_effect)
        self._arrived: deque[Number] = deque()
        self._note = self._arrived_now
        self._interrupting: frozenset[Number] = frozenset()
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._is_open = True
        self._handlers = Handlers(in_child=self._close_pipe)
        self.catch((*numbers, signal.SIGCHLD))
        self._handlers.install_where_default(self._without_effect, do_nothing)

    def _arrived_now(self, number: Number, frame: FrameType | None) -> None:
        self._arrived.append(number)
        if number in self._interrupting:
            self._interrupting = frozenset()
            raise Interrupted

    def catch(self, numbers: Iterable[Number]) -> None:
        """Catches more signals.

        Args:
            numbers: the signals.
        """
        self._handlers.install(numbers, self._note)

    def exit_on(self, numbers: Iterable[Number]) -> None:
        """Makes signals end the process at once, until `catch` is called for them.

        They raise `Stopped`, so that ``finally`` blocks run. The exit status is 128 plus the
        number, like a shell reports it. Python ignores what is raised while it deletes an object,
        and code may swallow it. So the number is recorded too, for `take`.

        Args:
            numbers: the signals.
        """

        def leave(number: Number, frame: FrameType | None) -> None:
            self._note(number, frame)
            raise Stopped(ExitStatus.SIGNAL + number)

        self._handlers.install(numbers, leave)

    @contextlib.contextmanager
    def interruptible(self, numbers: Iterable[Number]) -> Iterator[None]:
        """Lets signals end the block, for a call that blocks and cannot be waited for with `wait`.
        They are recorded like any other. The block must be fit to end anywhere.

        A signal that arrives in the last instant before a system call ends it only when that
        returns: whatever blocks here needs a time limit too.

        Args:
            numbers: the signals.

        Raises:
            Interrupted: one of them arrives, or has arrived and was not taken yet.
        """
        try:
            self._interrupting = frozenset(numbers)
            if not self._interrupting.isdisjoint(self._arrived):
                raise Interrupted
            yield
        finally:
            self._interrupting = frozenset()

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
        self._recover()
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

    def _recover(self) -> None:
        """Takes back what project code in this process leaves to nobody: RQ's time limits end with
        SIGALRM at its default action, and asyncio's signal handlers without a wakeup descriptor."""
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._handlers.install_where_default(self._without_effect, do_nothing)

    def close(self, afterwards: signal.Handlers | None = None) -> None:
        """Closes the inbox and resets its signals.

        Args:
            afterwards: the new action of each signal except SIGCHLD; None: the one that a new
                Python has.
        """
        self._handlers.reset(afterwards)
        self._close_pipe()

    def give_back(self) -> None:
        """Closes the inbox. Its signals do again what they did before, and the wakeup descriptor
        is the one before."""
        self._handlers.give_back()
        self._close_pipe(self._wakeup_before)

    def _close_pipe(self, wakeup_before: int = -1) -> None:
        if not self._is_open:
            return
        self._is_open = False
        # Nobody can ask how the one before treated a full buffer. asyncio's does not warn.
        wakeup_fd = signal.set_wakeup_fd(wakeup_before, warn_on_full_buffer=False)
        if wakeup_fd != self._write_end:  # an event loop's
            signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
        os.close(self._read_end)
        os.close(self._write_end)


@contextlib.contextmanager
def time_limit(seconds: float, text: str) -> Iterator[None]:
    """Raises TimeoutError inside the block if it takes too long.

    Only the main thread can be interrupted; in other threads there is no limit. Code that blocks
    outside of Python is interrupted when it returns to Python. A timer that ran before goes on
    afterwards; if its time has come meanwhile, it ends at once.

    Args:
        seconds: the limit.
        text: the message of the TimeoutError.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    until = time.monotonic() + seconds

    def ring(number: Number, frame: FrameType | None) -> None:
        if time.monotonic() >= until:  # else it is somebody else's alarm
            raise TimeoutError(text)

    began = time.monotonic()
    handlers = Handlers()
    handlers.install([signal.SIGALRM], ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        handlers.give_back()
        if left:
            left = max(left - (time.monotonic() - began), _AT_ONCE)
            signal.setitimer(signal.ITIMER_REAL, left, interval)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Blocks every signal but `SHOW_STACK` until the block ends. Signals that arrive meanwhile are
    not lost."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {SHOW_STACK})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Unblocks every signal, in a child that was forked while they were blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
