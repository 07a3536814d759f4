"""The survey: how the manager learns what the counts are after its start.

Rule of the room: nothing here waits. Loading may take long, open connections or end its process, so
it happens in a process of its own, the surveyor (see `surveyor`); its findings come by a line.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import random
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..autoscaling.demand import Effort
from ..config.groups import Counts
from ..config.problems import CountsError, Kind, Problem
from ..planning.backoff import Backoff
from ..system import processes

logger = logging.getLogger("django_rq_pool")

_LENGTH = struct.Struct("=Q")
_AT_ONCE = 65_536


@dataclass(frozen=True)
class Finding:
    """The outcome of loading the counts.

    Attributes:
        counts: the counts; None when they cannot be used.
        error: why they cannot, with a traceback where there is one.
        failures: how many times in a row loading had failed before this success.
        goes_on: whether the surveyor will load again by itself, or measures.
    """

    counts: Counts | None
    error: str = ""
    failures: int = 0
    goes_on: bool = False


@dataclass(frozen=True)
class Scaled:
    """The outcome of measuring: what became of each group that has bounds and could be measured.

    Attributes:
        workers: its count, by its name.
        reasons: why, in words.
    """

    workers: Mapping[str, int]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Muster:
    """What the manager says about its workers when the surveyor asks.

    Attributes:
        efforts: what the workers of each group have done, by its name.
        held: live workers of each group, those that are leaving included.
    """

    efforts: Mapping[str, Effort]
    held: Mapping[str, int]


_QUESTION = "muster?"


class SurveyLine:
    """A line between one surveyor and the manager.

    What goes through it is pickled: it holds whatever a project's loader gives as an option, a
    class perhaps, and both ends are forks of one image.
    """

    def __init__(self) -> None:
        self._manager_end, self._surveyor_end = socket.socketpair()
        self._manager_end.setblocking(False)
        self._mine = self._manager_end
        self._received = b""

    def fileno(self) -> int:
        """What this process waits on."""
        return self._mine.fileno()

    def become_surveyor(self) -> None:
        """Closes the manager's end in the forked surveyor."""
        self._manager_end.close()
        self._mine = self._surveyor_end

    def become_manager(self) -> None:
        """Closes the surveyor's end in the manager, which else would never see the line end."""
        self._surveyor_end.close()

    def find(self, finding: Finding) -> None:
        """Called by the surveyor, with counts that `require_passable` lets pass. A manager that is
        gone is no error: nobody is left to be told."""
        self._send(finding)

    def scale(self, scaled: Scaled) -> None:
        """Called by the surveyor."""
        self._send(scaled)

    def ask(self) -> None:
        """Called by the surveyor, for a `Muster`."""
        self._send(_QUESTION)

    def answer(self, muster: Muster) -> None:
        """Called by the manager, which does not wait; a few hundred bytes fit into the line."""
        self._send(muster)

    def _send(self, message: object) -> None:
        data = pickle.dumps(message)
        with contextlib.suppress(OSError):
            self._mine.sendall(_LENGTH.pack(len(data)) + data)

    def take(self) -> tuple[list[Any], bool]:
        """Every message that has come in whole, and whether the other end has closed the line."""
        ended = False
        while True:
            try:
                data = self._mine.recv(_AT_ONCE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                ended = True
                break
            self._received += data
        messages: list[Any] = []
        while len(self._received) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received)
            end = _LENGTH.size + length
            if len(self._received) < end:
                break
            messages.append(_unpickled(self._received[_LENGTH.size : end]))
            self._received = self._received[end:]
        return messages, ended

    def close(self) -> None:
        """Called by the manager, and by what it forks meanwhile."""
        self._manager_end.close()


def require_passable(counts: Counts, source: str) -> None:
    """Lets counts pass that can go through a `SurveyLine`.

    Args:
        counts: as they were loaded.
        source: where they came from, for the message.

    Raises:
        CountsError: they cannot; an option may be an object of any class.
    """
    try:
        pickle.dumps(counts)
    except Exception as error:
        raise CountsError(_not_passable(source, error)) from None


def _not_passable(source: str, error: Exception) -> Problem:
    return Problem(
        Kind.SOURCE,
        f"{source}: what was loaded cannot be passed on: {type(error).__name__}: {error}.",
        "Give classes by their dotted paths.",
    )


def _unpickled(data: bytes) -> Any:
    try:
        return pickle.loads(data)  # noqa: S301  # of a fork of this process
    except Exception as error:  # a class may be there for the surveyor only
        return Finding(None, error=str(_not_passable("the counts", error)), goes_on=True)


class Survey:
    """The manager's side: one surveyor at most, and what it has found out.

    Args:
        fork: forks a surveyor, which loads the counts anew if it is told to, and returns its pid
            and its line; raises OSError when it cannot.
        goes_on: whether a surveyor works until it is ended; one that does not leaves after its
            first finding. Later findings tell.

    Attributes:
        scaled: what was measured last, until it is taken.
        asked: whether the surveyor waits for a `Muster`; see `answer`.
        due: when the next surveyor is to be forked, after the one before has ended unasked.
    """

    def __init__(self, fork: Callable[[bool], tuple[int, SurveyLine]], *, goes_on: bool) -> None:
        self._fork = fork
        self._goes_on = goes_on
        self._pid = 0
        self._line: SurveyLine | None = None
        self._unanswered = False
        self._findings: list[Finding] = []
        self._backoff = Backoff()
        self.scaled: Scaled | None = None
        self.asked = False
        self.due: float | None = None

    def begin(self, *, load: bool = True) -> None:
        """Has a new surveyor work.

        Args:
            load: whether it loads the counts anew at once; one finding at least will follow then.
        """
        self.end()
        self._unanswered = load
        self._start()

    def filenos(self) -> list[int]:
        """What the manager waits on."""
        return [] if self._line is None else [self._line.fileno()]

    def take(self) -> list[Finding]:
        """Every finding since the last call."""
        if self.due is not None and processes.monotonic() >= self.due:
            self._start()
        self._read()
        findings, self._findings = self._findings, []
        return findings

    def answer(self, muster: Muster) -> None:
        """Tells the surveyor what it has asked."""
        self.asked = False
        if self._line is not None:
            self._line.answer(muster)

    def bury(self, death: processes.Death) -> None:
        """Heeds the end of a child, if it was the surveyor."""
        if death.pid == self._pid:
            self._read()
            self._pid = 0
            if self._unanswered or self._goes_on:
                self._fail(f"the surveyor ended: {death}")

    def end(self) -> None:
        """Ends the surveyor, which holds nothing that would be lost, and what a loader has started;
        forgets its findings. The loop reaps it: that takes time where a disk does not answer."""
        if self._pid:
            processes.send_group(self._pid, signal.SIGKILL)
            processes.send(self._pid, signal.SIGKILL)
        if self._line is not None:
            self._line.close()
        self._pid, self._line, self.due = 0, None, None
        self.asked, self.scaled = False, None
        self._findings.clear()

    def _start(self) -> None:
        self.due = None
        try:
            self._pid, self._line = self._fork(self._unanswered)
        except OSError as error:
            self._fail(f"no surveyor can be forked: {error}")

    def _read(self) -> None:
        if self._line is None:
            return
        messages, ended = self._line.take()
        if ended:
            self._line.close()
            self._line = None
        for message in messages:
            if isinstance(message, Finding):
                self._findings.append(message)
                self._goes_on = message.goes_on
                self._unanswered = False
                self._backoff = Backoff()
            elif isinstance(message, Scaled):
                self.scaled = message
            else:
                self.asked = True

    def _fail(self, reason: str) -> None:
        if self._unanswered:
            self._unanswered = False
            self._findings.append(Finding(None, error=f"{reason[0].upper()}{reason[1:]}."))
        if self._goes_on:
            now = processes.monotonic()
            self._backoff = self._backoff.boot_failed(now, now, random.random())
            self.due = self._backoff.not_before
            logger.warning("counts: %s; trying again in %.1f s", reason, self.due - now)
