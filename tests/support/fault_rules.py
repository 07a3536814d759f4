"""Fault rules: which requests a fault is for, and at which of them it happens.

Rule of the room: nothing here knows how a fault is made.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from dataclasses import dataclass

SCRIPTS = ("EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO")


@dataclass(frozen=True)
class Client:
    """One connection of a client.

    Attributes:
        number: it was the n-th that the proxy has accepted, from 1.
        port: the client's TCP port, by which its process can be found; 0 on a Unix socket.
        name: what its last CLIENT SETNAME, or HELLO with SETNAME, has called it.
    """

    number: int
    port: int
    name: bytes = b""


@dataclass(frozen=True)
class Request:
    """One command on its way to the server.

    Attributes:
        name: the command's name, in upper case.
        args: its other words.
        client: whose it is.
        queued: of an EXEC, the commands of its transaction; of others nothing.
    """

    name: str
    args: tuple[bytes, ...]
    client: Client
    queued: tuple[Request, ...] = ()

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Of a script, its keys; of an EXEC, its scripts' keys."""
        if self.name in SCRIPTS and len(self.args) > 1:
            return self.args[2 : 2 + int(self.args[1])]
        return tuple(key for command in self.queued for key in command.keys)

    def mentions(self, text: bytes) -> bool:
        """Whether a text is part of one of its words, or of a queued command's."""
        here = any(text in word for word in self.args)
        return here or any(command.mentions(text) for command in self.queued)


When = Callable[[Request], bool]
Whose = Callable[[Client], bool]


def everyone(client: Client) -> bool:
    """Each connection."""
    return True


def command(
    *names: str, queued: str | None = None, mentions: bytes = b"", by: Whose = everyone
) -> When:
    """What matches a request by its words.

    Args:
        names: the command is one of these, in any case; none: it is any.
        queued: it is the EXEC of a transaction that has this command, in any case.
        mentions: this text is part of one of its words, or of a queued command's.
        by: it comes from such a connection.
    """
    wanted = {name.upper() for name in names or (("EXEC",) if queued else ())}

    def matches(request: Request) -> bool:
        return (
            (not wanted or request.name in wanted)
            and (queued is None or any(each.name == queued.upper() for each in request.queued))
            and (not mentions or request.mentions(mentions))
            and by(request.client)
        )

    return matches


@dataclass(frozen=True)
class Turns:
    """At which of the requests that match a fault happens.

    Attributes:
        times: at so many of them at most; None: without a limit.
        skip: not at the first so many.
        every: at each n-th of the others.
        probability: and there by chance, with this probability.
        seed: of that chance.
    """

    times: int | None = None
    skip: int = 0
    every: int = 1
    probability: float = 1.0
    seed: int = 0


ALWAYS = Turns()
ONCE = Turns(times=1)


def nth(number: int) -> Turns:
    """At the n-th, from 1, and at no other."""
    return Turns(times=1, skip=number - 1)


class Counter:
    """Counts the requests that match, and says at which of them it is a fault's turn."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._seen = 0
        self.hits = 0
        self._chance = random.Random(turns.seed)

    def is_turn(self) -> bool:
        """Counts one more request that matches; whether the fault happens at it."""
        turns = self._turns
        self._seen += 1
        counted = self._seen - turns.skip
        if counted <= 0 or counted % turns.every or self.hits == turns.times:
            return False
        hit = self._chance.random() < turns.probability
        self.hits += hit
        return hit


class Fault(enum.Enum):
    """What a proxy can do to a request, a connection, or both."""

    CUT = "cut"
    LOSE_ANSWER = "lost answer"
    DELAY = "delay"
    ANSWER = "answer"
    HOLD = "hold"
    BLACKHOLE = "blackhole"


class Direction(enum.Flag):
    """Which way bytes go."""

    TO_SERVER = enum.auto()
    TO_CLIENT = enum.auto()
    BOTH = TO_SERVER | TO_CLIENT


@dataclass(frozen=True)
class Rule:
    """A fault, and when it happens.

    Attributes:
        fault: what is done.
        when: which requests it is for.
        counter: at which of them it happens.
        seconds: of a delay.
        reply: of an answer, the bytes.
        direction: of a hold.
    """

    fault: Fault
    when: When
    counter: Counter
    seconds: float = 0.0
    reply: bytes = b""
    direction: Direction = Direction.BOTH

    @property
    def hits(self) -> int:
        """How often its fault has been chosen."""
        return self.counter.hits
