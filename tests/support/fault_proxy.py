"""Fault proxy: stands between clients and a Redis server, and does to them what networks do.

    with FaultProxy(server_url) as proxy:
        client = redis.Redis.from_url(proxy.url)
        proxy.lose_answer(command(queued="LPUSH"), ONCE)

Rule of the room: without a rule it is invisible. What a rule does, it does to whole requests.

It cannot show what a client's TCP keepalive or user timeout finds out, for the kernel answers
those for the proxy however silent that is. CLIENT REPLY is not understood.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

from fault_link import Link, Stream, close
from fault_rules import (
    ALWAYS,
    Client,
    Counter,
    Direction,
    Fault,
    Request,
    Rule,
    Turns,
    When,
    Whose,
    everyone,
)

DEADLINE = 30.0
"""Seconds that the proxy's thread may take for what it is asked to do."""

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """A fault that has happened.

    Attributes:
        fault: which.
        client: to whom.
        request: at which request; None if it was done to the connection as such.
        at: when, in seconds of the monotonic clock.
    """

    fault: Fault
    client: Client
    request: Request | None
    at: float


class FaultProxy:
    """A context; the proxy works in a thread of its own until it ends.

    Args:
        server_url: where requests go, ``redis://host:port`` or ``unix://path``.
        socket: the path of a Unix socket to listen on; a free TCP port if there is none.

    Attributes:
        url: the proxy's own address, for clients.
        events: every fault that has happened, the oldest first.
    """

    def __init__(self, server_url: str, socket: Path | None = None) -> None:
        self._target = server_url
        self._socket = socket
        self.url = f"unix://{socket}"
        self.events: list[Event] = []
        self._rules: tuple[Rule, ...] = ()
        self._links: dict[Link, asyncio.Task[None]] = {}
        self._accepted = 0
        self._listens = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        assert self._listens.wait(DEADLINE), "the proxy does not listen"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._over.set)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the proxy does not end"

    # Faults at requests

    def cut(self, when: When, turns: Turns = ALWAYS) -> Rule:
        """Ends the connection instead of forwarding the request."""
        return self._add(Rule(Fault.CUT, when, Counter(turns)))

    def lose_answer(self, when: When, turns: Turns = ALWAYS) -> Rule:
        """Ends the connection when the server has carried the request out and answered."""
        return self._add(Rule(Fault.LOSE_ANSWER, when, Counter(turns)))

    def delay(self, when: When, seconds: float, turns: Turns = ALWAYS) -> Rule:
        """Keeps the request, and those that follow it, for so long."""
        return self._add(Rule(Fault.DELAY, when, Counter(turns), seconds=seconds))

    def answer(self, when: When, reply: bytes, turns: Turns = ALWAYS) -> Rule:
        """Answers with these bytes instead of the server, which does not hear of the request.

        A transaction with a command that was answered so is refused, as a server does that has
        refused the command.
        """
        return self._add(Rule(Fault.ANSWER, when, Counter(turns), reply=reply))

    def refuse(self, when: When, error: str, turns: Turns = ALWAYS) -> Rule:
        """Answers with an error, such as ``OOM command not allowed``."""
        return self.answer(when, f"-{error}\r\n".encode(), turns)

    def hold(
        self, when: When, direction: Direction = Direction.BOTH, turns: Turns = ALWAYS
    ) -> Rule:
        """Lets nothing of the connection pass, this request included, until all is healed.

        In the direction of the client only, the server carries out the request and its answer is
        held. Bytes and ends that were held pass when it is healed, as a network resends them.
        """
        return self._add(Rule(Fault.HOLD, when, Counter(turns), direction=direction))

    def blackhole(self, when: When, turns: Turns = ALWAYS) -> Rule:
        """Swallows all of the connection for ever, from this request on, ends included."""
        return self._add(Rule(Fault.BLACKHOLE, when, Counter(turns)))

    # Faults now, whatever a connection waits for

    def cut_now(self, whose: Whose = everyone) -> list[Client]:
        """Ends connections; returns whose."""
        return self._each(whose, Fault.CUT, Link.cut)

    def hold_now(
        self, whose: Whose = everyone, direction: Direction = Direction.BOTH
    ) -> list[Client]:
        """Holds connections that there are, as `hold` does; returns whose."""
        return self._each(whose, Fault.HOLD, lambda link: link.hold(direction))

    def blackhole_now(self, whose: Whose = everyone) -> list[Client]:
        """Swallows all of connections that there are; returns whose.

        A client's end does not reach the server, which goes on with the command that it has.
        """
        return self._each(whose, Fault.BLACKHOLE, Link.blackhole)

    # The end of faults, and the address

    def remove(self, rule: Rule) -> None:
        """Ends one rule; what it has held stays held."""
        self._call(lambda: self._set_rules(tuple(r for r in self._rules if r is not rule)))

    def heal(self) -> None:
        """Ends every rule and releases what is held. What was swallowed stays so."""

        def heal() -> None:
            self._set_rules(())
            for link in self._links:
                link.release()

        self._call(heal)

    def move(self, server_url: str) -> None:
        """Has connections from now on go to another server; those that there are stay."""
        self._target = server_url

    @property
    def clients(self) -> list[Client]:
        """Whose connections there are, blackholed ones included."""
        return self._call(lambda: [link.client for link in self._links])

    # The thread

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        if self._socket is not None:
            server = await asyncio.start_unix_server(self._accept, self._socket)
        else:
            server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._listens.set()
        await self._over.wait()
        server.close()
        while self._links:
            for task in self._links.values():
                task.cancel()
            await asyncio.wait(self._links.values())

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        peer = writer.get_extra_info("peername")
        client = Client(self._accepted, peer[1] if isinstance(peer, tuple) else 0)
        try:
            outward = await _connect(self._target)
        except OSError:
            await close(writer)
            return
        link = Link(client, (reader, writer), outward, self._decide, self._note)
        task = asyncio.current_task()
        assert task is not None
        self._links[link] = task
        try:
            await link.run()
        finally:
            del self._links[link]

    def _decide(self, request: Request) -> Rule | None:
        """The first rule whose turn it is; those after it do not count the request."""
        for rule in self._rules:
            if rule.when(request) and rule.counter.is_turn():
                return rule
        return None

    def _note(self, fault: Fault, client: Client, request: Request | None) -> None:
        self.events.append(Event(fault, client, request, time.monotonic()))

    def _add(self, rule: Rule) -> Rule:
        self._call(lambda: self._set_rules((*self._rules, rule)))
        return rule

    def _set_rules(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules

    def _each(self, whose: Whose, fault: Fault, act: Callable[[Link], None]) -> list[Client]:
        def do() -> list[Client]:
            found = [link for link in self._links if whose(link.client)]
            for link in found:
                act(link)
                self._note(fault, link.client, None)
            return [link.client for link in found]

        return self._call(do)

    def _call(self, function: Callable[[], T]) -> T:
        """Has the thread do something between two things that it does, and waits for it."""

        async def do() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(do(), self._loop).result(DEADLINE)


async def _connect(url: str) -> Stream:
    parts = urlsplit(url)
    if parts.scheme.endswith("unix"):
        return await asyncio.open_unix_connection(parts.path)
    return await asyncio.open_connection(parts.hostname, parts.port)
