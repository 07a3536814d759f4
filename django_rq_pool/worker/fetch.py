"""Fetch: a job's way from its queue to one worker, in one atomic step that leaves a trace.

Rule of the room: Redis lists and their keys; nothing of RQ. A job is moved from its queue to the
worker's own in-flight list of that queue and never merely popped, so at each instant it stands in
one of them.

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

from ..config.pool_redis import translated
from ..ledger.held import Fetched, HeldJobs

logger = logging.getLogger("django_rq_pool")

Wait = Callable[[list[int], float], set[int]]
"""Waits on descriptors for so many seconds. Returns the readable ones; none when something else
ended the wait, such as a signal."""

_TAKE = """
local count = #KEYS / 2
if ARGV[1] == '1' then
    for i = 1, count do
        local left = redis.call('LINDEX', KEYS[count + i], 0)
        if left then
            return {KEYS[i], left, 1}
        end
    end
end
for i = 1, count do
    local job = redis.call('LMOVE', KEYS[i], KEYS[count + i], 'LEFT', 'RIGHT')
    if job then
        return {KEYS[i], job}
    end
end
return false
"""
"""KEYS: the queues, their in-flight lists. ARGV: whether to look into those lists first."""

LOOK_AGAIN = 15.0
"""Seconds that a worker waits for a job at most before it looks whether its connections still
work, and tells Redis that it lives."""

_MOMENT = 0.01
"""Seconds of the shortest wait that every server ends in time; Redis 6.2 may not end a shorter."""

_SERVER_LIMIT = 5
"""Seconds beyond the worker's own wait after which the server ends it. It goes on for that long
when the network has fallen silent."""

_SHORT_WAIT = 0.2
"""Seconds between two looks at the queues where the server forbids CLIENT UNBLOCK."""

_UNBLOCK_LIMIT = 3.0
"""Seconds within which a connection must answer after CLIENT UNBLOCK; normally it takes one round
trip."""


class _BlockingClient:
    """A connection that waits on one queue at a time. It bears its worker's name, so that others
    can end it when the worker is gone."""

    def __init__(self, connection: Any, worker: str) -> None:
        self.connection = connection
        connection.send_command("CLIENT", "ID")
        self.client_id: int = connection.read_response()
        try:
            connection.send_command("CLIENT", "SETNAME", worker)
            connection.read_response()
        except ResponseError as error:  # then nobody may end it by name either
            logger.debug("a connection of worker %s has no name: %s", worker, error)

    def fileno(self) -> int:
        return int(self.connection._sock.fileno())


class Fetcher:
    """Takes jobs for one worker.

    Args:
        redis: the worker's client; blocking connections are taken from its pool.
        held: the jobs that the worker holds.
        wait: how the worker waits.
        job_key: the key of a job's hash, from its id.
    """

    def __init__(
        self, redis: Redis, held: HeldJobs, wait: Wait, job_key: Callable[[str], str]
    ) -> None:
        self._redis = redis
        self._held = held
        self._wait = wait
        self._job_key = job_key
        self._take = redis.register_script(_TAKE)
        self._clients: list[_BlockingClient] = []
        self._abandoned: list[int] = []
        self._can_block = False
        self._in_doubt = True

    def rehearse(self) -> None:
        """Sends what taking a job needs, on lists that do not exist, so that a server which forbids
        it is found out before the worker counts as ready.

        Raises:
            redis.exceptions.ResponseError: the server refuses it.
        """
        nothing = self._held.in_flight_key("")
        self._redis.execute_command("BLMOVE", nothing, nothing, "LEFT", "RIGHT", _MOMENT)
        self._can_block = self._may_unblock()
        self._take(keys=[nothing, nothing], args=[1])

    def take(self, queue_keys: Sequence[str]) -> Fetched | None:
        """Takes the first job that waits, the first queue first, without waiting for one.

        When an answer may have been lost, a job that is already in an in-flight list comes before
        those in the queues: it must not be forgotten.
        """
        self._unblock_abandoned()
        lists = [self._held.in_flight_key(key) for key in queue_keys]
        doubt, self._in_doubt = self._in_doubt, True
        found = self._take(keys=[*queue_keys, *lists], args=[int(doubt)])
        self._in_doubt = doubt and found is not None
        if found is None:
            return None
        return Fetched(_text(found[0]), _text(found[1]), again=len(found) > 2)

    def adopt(self, fetched: Fetched) -> None:
        """Makes a job one that was taken here, if something else has popped it from its queue.

        Args:
            fetched: the job.
        """
        key = self._held.in_flight_key(fetched.queue_key)
        if self._redis.lpos(key, fetched.job_id) is None:
            self._redis.rpush(key, fetched.job_id)

    def wait(self, queue_keys: Sequence[str], seconds: float) -> Fetched | None:
        """Waits for a job on any of the queues.

        Args:
            queue_keys: keys of the queues, the most important first.
            seconds: how long at most.

        Returns:
            The job; None when time is up or something interrupted the wait. Nothing is taken then.
        """
        if not self._can_block:
            return self._wait_shortly(queue_keys, seconds)
        with translated(self._redis.connection_pool):
            self._connect(len(queue_keys))
        waiting = dict(zip(queue_keys, self._clients))
        seconds = min(seconds, LOOK_AGAIN)
        try:
            with translated(self._redis.connection_pool):
                answers = self._wait_on(waiting, seconds)
        except BaseException:
            # Without its answer a connection cannot be used again. What it may have moved meanwhile
            # stands in the in-flight list.
            self.close()
            raise
        came = [Fetched(key, _text(job)) for key, job in answers.items() if job is not None]
        for fetched in reversed(came[1:]):
            self._held.put_back(fetched, self._job_key(fetched.job_id))
        return came[0] if came else None

    def _connect(self, number: int) -> None:
        while len(self._clients) < number:
            connection = self._redis.connection_pool.get_connection()
            try:
                self._clients.append(_BlockingClient(connection, self._held.worker))
            except BaseException:
                connection.disconnect()
                self._redis.connection_pool.release(connection)
                raise

    def _wait_on(self, waiting: dict[str, _BlockingClient], seconds: float) -> dict[str, Any]:
        """Has each connection wait on its queue; returns their answers."""
        for key, client in waiting.items():
            # The server's time limit is a safety net; the wait below has the real one.
            limit = int(seconds) + _SERVER_LIMIT
            client.connection.send_command(
                "BLMOVE", key, self._held.in_flight_key(key), "LEFT", "RIGHT", limit
            )
        self._wait([client.fileno() for client in waiting.values()], seconds)
        return self._unblock_all(waiting)

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

    def doubt(self) -> None:
        """Has the next `take` look into the in-flight lists first."""
        self._in_doubt = True

    def close(self) -> None:
        """Closes the blocking connections; they are opened again when needed. What they may have
        moved stands in an in-flight list."""
        self._in_doubt = True
        clients, self._clients = self._clients, []
        for client in clients:
            self._abandoned.append(client.client_id)
            client.connection.disconnect()
            self._redis.connection_pool.release(client.connection)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
