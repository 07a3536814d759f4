"""Stop aware: connections to Redis that do not keep a process which was asked to stop.

Rule of the room: waits only. A process that has no job in hand has little to say when it leaves,
and what it cannot say is settled by others, from its lists in Redis. So it may give up a server
that does not answer; one with a job may not.

An answer is waited for together with signals. To open a connection is one call of redis-py, which
looks a name up, connects and shakes hands for TLS; only an exception from a signal's handler ends
it. Nothing has been asked of the server then, so that it can be opened again in the time that is
left.
"""

from __future__ import annotations

import builtins
import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.connection import AbstractConnection, Connection
from redis.exceptions import ConnectionError, TimeoutError

from ..system.signals import Interrupted
from .stop_policy import STOP_SIGNALS

if TYPE_CHECKING:
    Base = Connection
else:
    Base = object

LEAVING_TIMEOUT = 1.0
"""Seconds within which a server must answer a command of a process that was asked to stop and has
no job in hand. If one is not answered, no other is sent."""

GIVEN_UP = "the process was asked to stop, and the server had not answered"
"""The text of the error of each command after that."""


_LONGEST = 86_400.0
"""Seconds that stand for no limit at all, which few system calls take."""


def _never() -> bool:
    return False


@dataclass
class StopAware:
    """How one process waits for Redis. Its threads and its children wait as redis-py does.

    Attributes:
        wait: waits for descriptors for so many seconds at most; returns those that are readable. A
            signal ends it.
        is_leaving: whether the process was asked to stop, by now.
        interruptible: a context that raises `Interrupted` when one of some signals arrives.
        is_busy: whether it has a job in hand. Then it waits as redis-py does.
        stop_signals: by which it is asked to stop.
        gave_up: the server has not answered a command in time after the process was asked to stop.
    """

    wait: Callable[[list[int], float], set[int]]
    is_leaving: Callable[[], bool]
    interruptible: Callable[[Iterable[int]], AbstractContextManager[None]]
    is_busy: Callable[[], bool] = _never
    stop_signals: Iterable[int] = STOP_SIGNALS
    gave_up: bool = False
    _pid: int = field(default_factory=os.getpid)
    _thread: int = field(default_factory=threading.get_ident)

    def applies(self) -> bool:
        """Whether a stop may end what the caller is about to wait for."""
        mine = threading.get_ident() == self._thread and os.getpid() == self._pid
        return mine and not self.is_busy()

    def opening(self) -> AbstractContextManager[None]:
        """A context that the first stop signal ends with `Interrupted`."""
        return self.interruptible(() if self.is_leaving() else self.stop_signals)

    def limit(self) -> float:
        """Seconds that an answer may take from now on; infinite for a process that stays."""
        if not self.is_leaving():
            return math.inf
        return 0.0 if self.gave_up else LEAVING_TIMEOUT

    def await_answer(self, fd: int, seconds: float) -> bool:
        """Waits until a descriptor is readable.

        Args:
            fd: the descriptor.
            seconds: how long at most. A process that is asked to stop meanwhile waits for
                `LEAVING_TIMEOUT` from then on.

        Returns:
            Whether it is.
        """
        deadline = time.monotonic() + min(seconds, _LONGEST)
        while True:
            now = time.monotonic()
            deadline = min(deadline, now + self.limit())
            if fd in self.wait([fd], max(0.0, deadline - now)):
                return True
            if time.monotonic() >= deadline:
                self.gave_up = self.is_leaving()
                return False


class StopAwareConnection(Base):
    """Mixin over a connection class of redis-py; see `stop_aware_class`."""

    stop_aware: StopAware

    _asked = False
    """Whether something was sent and nothing has been received since."""

    def send_packed_command(self, *args: Any, **options: Any) -> Any:
        """Sends nothing to a server that has been given up."""
        if self.stop_aware.gave_up and self.stop_aware.applies():
            raise TimeoutError(GIVEN_UP)
        self._asked = True
        return super().send_packed_command(*args, **options)

    def can_read(self, *args: Any, **options: Any) -> Any:
        """Looks for an answer, the beginning of which is received by that."""
        self._asked = False
        return super().can_read(*args, **options)

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Waits for the beginning of an answer in the process's own way, and reads it."""
        asked, self._asked = self._asked, False
        opened = self._sock
        if opened is None or not self.stop_aware.applies() or not (asked or self._is_due()):
            return super().read_response(*args, **options)
        usual = opened.gettimeout()
        if self.stop_aware.await_answer(opened.fileno(), math.inf if usual is None else usual):
            return super().read_response(*args, **options)
        # redis-py finds out at once that time is up, and does what it does then.
        opened.settimeout(0.001)
        try:
            return super().read_response(*args, **options)
        finally:
            if self._sock is opened:
                opened.settimeout(usual)

    def _is_due(self) -> bool:
        """Whether nothing of an answer has been received, and the connection has not ended."""
        try:
            return not self.can_read(0)
        except ConnectionError:
            if self._sock is None:
                raise
            return False  # whoever reads finds out, and closes it

    def _connect(self) -> Any:
        if not self.stop_aware.applies():
            return super()._connect()
        with contextlib.suppress(Interrupted), self.stop_aware.opening():
            return self._connect_in_time()
        return self._connect_in_time()  # in the time that is left now

    def _connect_in_time(self) -> Any:
        """Has the connection opened, and its TLS set up, within the time limit each."""
        seconds = self.stop_aware.limit()
        if seconds == math.inf:
            return super()._connect()
        if not seconds:
            raise TimeoutError(GIVEN_UP)
        usual = self.socket_connect_timeout, self.socket_timeout
        self.socket_connect_timeout = self.socket_timeout = seconds
        try:
            return super()._connect()
        except builtins.TimeoutError:
            self.stop_aware.gave_up = True
            raise
        finally:
            self.socket_connect_timeout, self.socket_timeout = usual


def stop_aware_class(theirs: type[Any], stop_aware: StopAware) -> type[Any]:
    """A connection class of the project whose waits a stop may end.

    It is a class of its own for each client, because the options of its connections are also a
    project's, which may give them to a connection class that does not know one more.

    Args:
        theirs: the class of the project. One that is not of redis-py's kind is returned as it is.
        stop_aware: how the process waits.
    """
    if not issubclass(theirs, AbstractConnection):
        return theirs
    own = {"stop_aware": stop_aware}
    return type(f"StopAware{theirs.__name__}", (StopAwareConnection, theirs), own)
