"""Fetch: a job's way from its queue to one worker, in one atomic step that leaves a trace.

Rule of the room: Redis lists and their keys; nothing of RQ. A job is moved from its queue to the
worker's own in-flight list and never merely popped, so at each instant it stands in one of them.

A worker of several queues has one blocked connection for each, because ``BLMOVE`` takes one source.
The first answer wins, and ``CLIENT UNBLOCK`` ends the other waits. It is atomic: either a job came
or none did. A second job that came meanwhile goes back to the head of its queue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError, ResponseError

from ..ledger.held import Fetched, HeldJobs

logger = logging.getLogger("django_rq_pool")

Wait = Callable[[list[int], float], set[int]]
"""Waits on descriptors for so many seconds. Returns the readable ones; none when something else
ended the wait, such as a signal."""

_TAKE = """
local left = redis.call('LINDEX', KEYS[#KEYS], 0)
if left then
    return {'', left}
end
for i = 1, #KEYS - 1 do
    local job = redis.call('LMOVE', KEYS[i], KEYS[#KEYS], 'LEFT', 'RIGHT')
    if job then
        return {KEYS[i], job}
    end
end
return false
"""


_SHORT_WAIT = 0.2
"""Seconds between two looks at the queues where the server forbids CLIENT UNBLOCK."""

_UNBLOCK_LIMIT = 5.0
"""Seconds within which a connection must answer after CLIENT UNBLOCK; normally it takes one round
trip."""


class _BlockingClient:
    """A connection that waits on one queue at a time."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        connection.send_command("CLIENT", "ID")
        self.client_id: int = connection.read_response()

    def fileno(self) -> int:
        return int(self.connection._sock.fileno())


class Fetcher:
    """Takes jobs for one worker.

    Args:
        redis: the worker's client; blocking connections are taken from its pool.
        held: the jobs that the worker holds.
        wait: how the worker waits.
    """

    def __init__(self, redis: Redis, held: HeldJobs, wait: Wait) -> None:
        self._redis = redis
        self._held = held
        self._in_flight = held.in_flight_key
        self._wait = wait
        self._take = redis.register_script(_TAKE)
        self._clients: list[_BlockingClient] = []
        self._abandoned: list[int] = []
        self._can_block: bool | None = None

    def take(self, queue_keys: Sequence[str]) -> Fetched | None:
        """Takes the first job that waits, the first queue first, without waiting for one.

        A job that is already in the in-flight list comes before those in the queues. redis-py
        repeats a command whose answer was lost, and the job that the first one took must not be
        forgotten.
        """
        self._unblock_abandoned()
        found = self._take(keys=[*queue_keys, self._in_flight])
        return None if found is None else Fetched(_text(found[0]), _text(found[1]))

    def wait(self, queue_keys: Sequence[str], seconds: float) -> Fetched | None:
        """Waits for a job on any of the queues.

        Args:
            queue_keys: keys of the queues, the most important first.
            seconds: how long at most.

        Returns:
            The job; None when time is up or something interrupted the wait. Nothing is taken then.
        """
        if self._can_block is None:
            self._can_block = self._may_unblock()
        if not self._can_block:
            return self._wait_shortly(queue_keys, seconds)
        while len(self._clients) < len(queue_keys):
            connection = self._redis.connection_pool.get_connection()
            self._clients.append(_BlockingClient(connection))
        waiting = dict(zip(queue_keys, self._clients))
        try:
            for key, client in waiting.items():
                # The server's time limit is a safety net; the wait below has the real one.
                client.connection.send_command(
                    "BLMOVE", key, self._in_flight, "LEFT", "RIGHT", int(seconds) + 5
                )
            self._wait([client.fileno() for client in waiting.values()], seconds)
            answers = self._unblock_all(waiting)
        except BaseException:
            # Without its answer a connection cannot be used again. What it may have moved meanwhile
            # stands in the in-flight list.
            self.close()
            raise
        came = [Fetched(key, _text(job)) for key, job in answers.items() if job is not None]
        for fetched in reversed(came[1:]):
            self.give_back(fetched)
        return came[0] if came else None

    def _unblock_abandoned(self) -> None:
        """Ends waits that the server still keeps for connections which are lost to us: nobody would
        hear of the jobs that they move to the in-flight list."""
        while self._abandoned:
            self._redis.client_unblock(self._abandoned[-1])
            self._abandoned.pop()

    def _may_unblock(self) -> bool:
        try:
            self._redis.client_unblock(0)  # nobody's number: answers 0 where it is allowed
        except ResponseError as error:
            logger.warning(
                "Redis refuses CLIENT UNBLOCK (%s): idle workers ask for jobs every %.1f s",
                error,
                _SHORT_WAIT,
            )
            return False
        return True

    def _wait_shortly(self, queue_keys: Sequence[str], seconds: float) -> Fetched | None:
        self._wait([], min(seconds, _SHORT_WAIT))
        return self.take(queue_keys)

    def _unblock_all(self, waiting: dict[str, _BlockingClient]) -> dict[str, Any]:
        """Ends every wait and returns each connection's answer, in the order of the queues."""
        answers: dict[str, Any] = {}
        deadline = time.monotonic() + _UNBLOCK_LIMIT
        while True:
            for key, client in waiting.items():
                if key not in answers and client.connection.can_read(timeout=0):
                    answers[key] = client.connection.read_response()
            pending = [client for key, client in waiting.items() if key not in answers]
            if not pending:
                return {key: answers[key] for key in waiting}
            if time.monotonic() > deadline:
                # redis-py reconnected a connection behind our back: its number is another's now.
                raise ConnectionError("a blocked connection does not answer")
            # Answers 0 to one that has not reached the server yet: hence the repetition.
            with self._redis.pipeline(transaction=False) as pipeline:
                for client in pending:
                    pipeline.client_unblock(client.client_id)
                pipeline.execute()
            pending[0].connection.can_read(timeout=0.001)

    def give_back(self, fetched: Fetched) -> None:
        """Puts a job that was not begun back to the head of its queue."""
        self._held.give_back(fetched)

    def forget(self, fetched: Fetched) -> None:
        """Drops a job that no longer exists."""
        self._held.forget(fetched.job_id)

    def close(self) -> None:
        """Closes the blocking connections; they are opened again when needed."""
        clients, self._clients = self._clients, []
        for client in clients:
            self._abandoned.append(client.client_id)
            client.connection.disconnect()
            self._redis.connection_pool.release(client.connection)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
