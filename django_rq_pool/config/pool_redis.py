"""Pool Redis: the client class of the pool, with its pipelines and its subscriptions.

Rule of the room: a command is sent once, and its error says what happened. redis-py repeats
commands whose answers were lost, and lets error replies pass that only ask to wait.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from redis import Redis
from redis.client import Pipeline, PubSub
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError, WatchError
from redis.sentinel import SentinelConnectionPool

from .redis_errors import UNREACHABLE, forbidden, refused

COMMAND_TIMEOUT = 3.0
"""Seconds within which a server must answer a command, or a connection be opened. A server that is
well answers within milliseconds. A worker that has no job in hand and is asked to stop waits for
less, see `stop_aware`. One with a job does not hear of it meanwhile."""

SUBSCRIPTION_CHECK = 30.0
"""Seconds between two questions whether the server still serves a subscription. Nothing else is
sent on its connection, and a server that is frozen, or a proxy without one, would not be
noticed."""


class _Exchanges(Redis):
    """What a client and its pipelines send and read on one connection."""

    def _send_command_parse_response(
        self, conn: Any, command_name: Any, *args: Any, **options: Any
    ) -> Any:
        """Gives a command that blocks at the server as much longer to answer as it blocks."""
        blocking = _BLOCKING.get(command_name)
        seconds = None if blocking is None else blocking(args)
        with _whole(conn):
            if seconds is None:
                return super()._send_command_parse_response(conn, command_name, *args, **options)
            conn.send_command(*args, **options)
            with _waiting(conn, seconds):
                return self.parse_response(conn, command_name, **options)


class PoolPipeline(_Exchanges, Pipeline):
    """A pipeline of the pool's client.

    Raises, when it is executed:
        Refused: the server refuses to write for now. Nothing of a transaction was carried out.
        ConnectionError, TimeoutError: the connection was lost. Also where redis-py says that a
            watched key has changed, on which its callers send the transaction again: it may have
            been carried out.
    """

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Sends the commands. See `redis.client.Pipeline.execute`."""
        with translated(self.connection_pool):
            return super().execute(raise_on_error)

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Sends a command between WATCH and MULTI."""
        with translated(self.connection_pool):
            return super().immediate_execute_command(*args, **options)

    def reset(self) -> None:  # type: ignore[override]
        """Gives the connection back. redis-py sends an UNWATCH before, also when the connection was
        lost: on a new one, which watches nothing. It keeps the connection if that times out."""
        connection = self.connection
        if connection is not None and getattr(connection, "_sock", connection) is None:
            self.watching = False
        try:
            super().reset()
        except TimeoutError:
            self.watching = False
            connection.disconnect()  # type: ignore[union-attr]
            super().reset()

    def _execute_transaction(self, connection: Any, commands: Any, raise_on_error: bool) -> Any:
        with _whole(connection):
            return super()._execute_transaction(connection, commands, raise_on_error)

    def _execute_pipeline(self, connection: Any, commands: Any, raise_on_error: bool) -> Any:
        with _whole(connection):
            return super()._execute_pipeline(connection, commands, raise_on_error)


class PoolPubSub(PubSub):
    """A subscription of the pool's client, for RQ's thread.

    That thread ends with any error but a ``ConnectionError``; then the worker heeds no command any
    more. So a timeout is made one here.
    """

    _check_at = 0.0

    def get_message(
        self, ignore_subscribe_messages: bool = False, timeout: float | None = 0.0
    ) -> Any:
        """Returns the next message. It may return None before the time is up, so that the server is
        asked whether it is still there."""
        if timeout is not None:
            timeout = min(timeout, SUBSCRIPTION_CHECK)
        return super().get_message(ignore_subscribe_messages, timeout)  # type: ignore[arg-type]

    def parse_response(self, block: bool = True, timeout: float = 0) -> Any:
        """Reads a message."""
        try:
            with translated(self.connection_pool):
                return super().parse_response(block, timeout)
        except TimeoutError as error:
            raise ConnectionError(str(error)) from error

    def check_health(self) -> None:
        """Sends a PING once in a while, and reconnects if the last one had no answer. redis-py
        sends one too if the project wants that, but does not look for the answer."""
        now = time.monotonic()
        if self.connection is None or now < self._check_at:
            return
        self._check_at = now + SUBSCRIPTION_CHECK
        if self.health_check_response_counter:
            self.connection.disconnect()  # the next read connects and subscribes again
            return
        self.connection.send_command("PING", self.HEALTH_CHECK_MESSAGE, check_health=False)
        self.health_check_response_counter += 1

    def on_connect(self, connection: Any) -> None:
        """Subscribes again on a new connection, where no answer is due."""
        self.health_check_response_counter = 0
        super().on_connect(connection)


class PoolRedis(_Exchanges):
    """A client that belongs to the pool alone; `redis_clients.client` makes them.

    Raises, with each command:
        Refused: the server refuses to write for now.
        ConnectionError, TimeoutError: the server cannot be reached, or the answer was lost; the
            command may have been carried out. Nothing is repeated.

    Attributes:
        pipeline_class: makes this client's pipelines.
    """

    pipeline_class: Callable[..., PoolPipeline] = PoolPipeline

    def __repr__(self) -> str:
        """The address, for messages: redis-py puts the ``repr`` of a Sentinel's client in one."""
        return address(self.connection_pool)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> PoolPipeline:
        """A new pipeline of `pipeline_class`."""
        return self.pipeline_class(
            self.connection_pool, self.response_callbacks, transaction, shard_hint
        )

    def pubsub(self, **kwargs: Any) -> PoolPubSub:
        """A new subscription."""
        return PoolPubSub(self.connection_pool, **kwargs)

    def drop_connections(self) -> None:
        """Has every command from now on use a new connection. The old ones may lead to a server
        that the address no longer stands for. A subscription connects again by itself."""
        _drop(self.connection_pool)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Sends a command and returns its answer."""
        with translated(self.connection_pool):
            return super().execute_command(*args, **options)


def address(pool: Any) -> str:
    """Where the connections of a pool lead to, for messages: ``localhost:6379/0``.

    Args:
        pool: a connection pool of redis-py's, or one like it.
    """
    options = pool.connection_kwargs
    server = options.get("path") or f"{options.get('host')}:{options.get('port')}"
    if isinstance(pool, SentinelConnectionPool):
        asked = ", ".join(map(repr, pool.sentinel_manager.sentinels))
        server = f"master {pool.service_name!r} of the Sentinels {asked}, database "
        return f"{server}{options.get('db') or 0}"
    return f"{server}/{options.get('db') or 0}"


@contextlib.contextmanager
def _whole(connection: Any) -> Iterator[None]:
    """Closes a connection on which an answer may be due: the next command would take it for its
    own. A signal's handler raises an exception anywhere, to end a job that is overdue; redis-py
    closes the connection while it reads without Sentinel, and not otherwise."""
    try:
        yield
    except RedisError:
        raise  # redis-py closes the connection if it is lost
    except BaseException:
        connection.disconnect()
        raise


@contextlib.contextmanager
def translated(pool: Any) -> Iterator[None]:
    """Raises, for errors of a server, what the pool's client raises: `Refused` for an error reply
    that asks to wait, one class for what the user may not do, and what was lost for a
    WatchError. For whoever reads answers himself.

    Args:
        pool: the connections. If the server is not the one to write to any more, those that are
            idle are closed, and those in use find that they are.
    """
    try:
        yield
    except ResponseError as error:
        refusal = refused(error)
        if refusal is not None:
            if refusal.demoted:
                _drop(pool)
            raise refusal from error
        denial = forbidden(error)
        if denial is not None:
            raise denial from error
        raise
    except WatchError as error:
        lost = error.__context__
        if isinstance(lost, UNREACHABLE):
            raise lost from None
        raise


def _drop(pool: Any) -> None:
    """Closes the idle connections and shuts the others, which another thread may be reading."""
    pool.disconnect(inuse_connections=False)
    for connection in tuple(pool._in_use_connections):
        opened = getattr(connection, "_sock", None)
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _waiting(connection: Any, seconds: float) -> Iterator[None]:
    """Has a connection wait for so many seconds longer; for ever if they are 0, as for Redis."""
    opened, usual = connection._sock, connection.socket_timeout
    opened.settimeout(seconds + usual if seconds else None)
    try:
        yield
    finally:
        if connection._sock is opened:
            opened.settimeout(usual)


def _seconds_last(args: Sequence[Any]) -> float:
    return float(args[-1])


def _seconds_first(args: Sequence[Any]) -> float:
    return float(args[1])


def _milliseconds_last(args: Sequence[Any]) -> float:
    return float(args[-1]) / 1000


def _stream_milliseconds(args: Sequence[Any]) -> float | None:
    for option, value in itertools.pairwise(args):
        if option in (b"BLOCK", "BLOCK"):
            return float(value) / 1000
    return None


_BLOCKING: Mapping[str, Callable[[Sequence[Any]], float | None]] = {
    **dict.fromkeys(
        ("BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BZPOPMIN", "BZPOPMAX"), _seconds_last
    ),
    **dict.fromkeys(("BLMPOP", "BZMPOP"), _seconds_first),
    **dict.fromkeys(("WAIT", "WAITAOF"), _milliseconds_last),
    **dict.fromkeys(("XREAD", "XREADGROUP"), _stream_milliseconds),
}
"""How long each command may block, from its arguments: in seconds, 0 for ever, None not at all."""
