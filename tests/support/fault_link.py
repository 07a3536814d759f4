"""Fault link: a client's connection, the one to the server that belongs to it, and what is between.

Rule of the room: replies come in the order of the requests, whoever gives them. Only what a server
sends unasked, pushes and subscribed messages, belongs to no request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from fault_rules import Client, Direction, Fault, Request, Rule
from resp import Incomplete, end_of_reply, request, take_request

CHUNK = 65_536
LINGER = 1.0
"""Seconds that the other side of a connection has to take what was sent before its end."""
ABORTED = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
SUBSCRIBING = ("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE")
UNSUBSCRIBING = ("UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE")

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Cut(Exception):
    """The connection ends here."""


@dataclass(frozen=True)
class _Expected:
    """A reply that the client waits for.

    Attributes:
        own: it is this one, and the server gives none.
        lost: the connection ends instead of it.
        dropped: the server's is for the proxy alone.
        unasked: from here on the server sends what no request has asked for.
        asked: the request.
    """

    asked: Request | None = None
    own: bytes | None = None
    lost: bool = False
    dropped: bool = False
    unasked: bool = False


@dataclass
class _Transaction:
    """What the client has queued since its MULTI."""

    queued: list[Request] = field(default_factory=list)
    is_refused: bool = False


class Link:
    """
    Args:
        client: who has connected.
        inward: the client's connection.
        outward: the one to the server.
        decide: which rule a request meets.
        note: hears of each fault that has happened.
    """

    def __init__(
        self,
        client: Client,
        inward: Stream,
        outward: Stream,
        decide: Callable[[Request], Rule | None],
        note: Callable[[Fault, Client, Request | None], None],
    ) -> None:
        self.client = client
        self._from_client, self._to_client = inward
        self._from_server, self._to_server = outward
        self._decide = decide
        self._note = note
        self._gates = {Direction.TO_SERVER: asyncio.Event(), Direction.TO_CLIENT: asyncio.Event()}
        self.release()
        self._is_dead = False
        self._speaks_3 = False
        self._transaction: _Transaction | None = None
        self._expected: deque[_Expected] = deque()
        self._task: asyncio.Task[None] | None = None

    # What is done to it

    def hold(self, direction: Direction) -> None:
        """Lets nothing pass, neither bytes nor an end, until it is released; then all of it."""
        for each, gate in self._gates.items():
            if each in direction:
                gate.clear()

    def release(self) -> None:
        for gate in self._gates.values():
            gate.set()

    def blackhole(self) -> None:
        """Swallows all that either side sends from here on, its end included, for ever."""
        self._is_dead = True

    def cut(self) -> None:
        """Ends both connections."""
        if self._task is not None:
            self._task.cancel()

    # What passes

    async def run(self) -> None:
        """Passes on bytes until both sides have ended, or it is cut."""
        self._task = asyncio.current_task()
        pumps = [
            asyncio.create_task(self._pass_requests()),
            asyncio.create_task(self._pass_replies()),
        ]
        try:
            await asyncio.gather(*pumps)
            if self._is_dead:  # each side believes in the other for as long as it likes
                await asyncio.Event().wait()
        except (_Cut, asyncio.CancelledError):
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for writer in (self._to_client, self._to_server):
                await close(writer)

    async def _pass_requests(self) -> None:
        buffer = bytearray()
        while data := await _read(self._from_client):
            buffer += data
            for words, raw in _requests(buffer):
                await self._gates[Direction.TO_SERVER].wait()
                if not self._is_dead:
                    await self._pass_request(words, raw)
        await self._gates[Direction.TO_SERVER].wait()
        if not self._is_dead:
            self._to_server.close()

    async def _pass_request(self, words: tuple[bytes, ...], raw: bytes) -> None:
        asked = self._understand(words)
        rule = self._decide(asked)
        fault = None if rule is None else rule.fault
        if rule is not None and fault != Fault.LOSE_ANSWER:  # which is noted when it has come
            self._note(rule.fault, self.client, asked)
        if rule is not None and fault == Fault.DELAY:
            await asyncio.sleep(rule.seconds)
        elif rule is not None and fault == Fault.HOLD:
            self.hold(rule.direction)
            await self._gates[Direction.TO_SERVER].wait()
        elif fault == Fault.BLACKHOLE:
            self.blackhole()
        elif fault == Fault.CUT:
            raise _Cut
        if self._is_dead:
            return
        transaction, self._transaction = self._transaction, self._transaction_after(asked)
        if rule is not None and fault == Fault.ANSWER:
            await self._answer(asked, rule.reply, transaction)
        elif asked.name == "EXEC" and transaction is not None and transaction.is_refused:
            await self._answer(asked, ABORTED, transaction)
        else:
            await self._forward(asked, raw, lost=fault == Fault.LOSE_ANSWER)

    def _understand(self, words: tuple[bytes, ...]) -> Request:
        name = words[0].decode(errors="replace").upper() if words else ""
        args = words[1:]
        upper = [word.upper() for word in args]
        if name == "CLIENT" and upper[:1] == [b"SETNAME"]:
            self.client = replace(self.client, name=args[-1])
        elif name == "HELLO" and b"SETNAME" in upper[:-1]:
            self.client = replace(self.client, name=args[upper.index(b"SETNAME") + 1])
        is_end = name == "EXEC" and self._transaction is not None
        queued = tuple(self._transaction.queued) if is_end and self._transaction else ()
        return Request(name, args, self.client, queued)

    def _transaction_after(self, asked: Request) -> _Transaction | None:
        if asked.name == "MULTI":
            return self._transaction or _Transaction()
        if asked.name in ("EXEC", "DISCARD", "RESET"):
            return None
        if self._transaction is not None:
            self._transaction.queued.append(asked)
        return self._transaction

    async def _answer(self, asked: Request, own: bytes, transaction: _Transaction | None) -> None:
        """Answers instead of the server, which is left in the state in which it would be then."""
        if asked.name == "EXEC" and transaction is not None:
            self._expected.append(_Expected(dropped=True))
            await self._send(request(b"DISCARD"))
        elif transaction is not None:
            transaction.is_refused = True
        self._expected.append(_Expected(asked, own=own))
        await self._give_own()

    async def _forward(self, asked: Request, raw: bytes, lost: bool) -> None:
        if asked.name == "HELLO" and asked.args[:1] != ():
            self._speaks_3 = asked.args[0] == b"3"
        unasked = asked.name == "MONITOR" or (
            asked.name in SUBSCRIBING + UNSUBSCRIBING and not self._speaks_3
        )
        if unasked or asked.name not in SUBSCRIBING + UNSUBSCRIBING:
            self._expected.append(_Expected(asked, lost=lost, unasked=unasked))
        await self._send(raw)

    async def _send(self, raw: bytes) -> None:
        with contextlib.suppress(OSError):
            self._to_server.write(raw)
            await self._to_server.drain()

    async def _pass_replies(self) -> None:
        buffer = bytearray()
        while data := await _read(self._from_server):
            buffer += data
            for reply in _replies(buffer):
                await self._gates[Direction.TO_CLIENT].wait()
                if not self._is_dead:
                    await self._pass_reply(reply)
        await self._gates[Direction.TO_CLIENT].wait()
        if not self._is_dead:
            self._to_client.close()

    async def _pass_reply(self, reply: bytes) -> None:
        if reply.startswith(b">") or not self._expected or self._expected[0].unasked:
            await self._give(reply)
            return
        expected = self._expected.popleft()
        if expected.lost:
            self._note(Fault.LOSE_ANSWER, self.client, expected.asked)
            raise _Cut
        if not expected.dropped:
            await self._give(reply)
        await self._give_own()

    async def _give_own(self) -> None:
        """Gives the proxy's own answers whose turn it is."""
        while self._expected and (own := self._expected[0].own) is not None:
            self._expected.popleft()
            await self._give(own)

    async def _give(self, reply: bytes) -> None:
        with contextlib.suppress(OSError):
            self._to_client.write(reply)
            await self._to_client.drain()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """What has come; nothing when the other side has ended, in whichever way."""
    with contextlib.suppress(OSError):
        return await reader.read(CHUNK)
    return b""


def _requests(buffer: bytearray) -> Iterator[tuple[tuple[bytes, ...], bytes]]:
    """Takes the requests that have arrived, as words and as bytes."""
    with contextlib.suppress(Incomplete):
        while buffer:
            words, end = take_request(buffer)
            raw = bytes(buffer[:end])
            del buffer[:end]
            yield words, raw


def _replies(buffer: bytearray) -> Iterator[bytes]:
    with contextlib.suppress(Incomplete):
        while buffer:
            end = end_of_reply(buffer)
            raw = bytes(buffer[:end])
            del buffer[:end]
            yield raw


async def close(writer: asyncio.StreamWriter) -> None:
    """Closes a connection, at once if its other side does not take what is left for it."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), LINGER)
    except asyncio.TimeoutError:
        writer.transport.abort()
    except OSError:
        pass
