"""Transactions: the steps of a job, each carried out once and only for the worker that holds it.

Rule of the room: whoever calls says what is written; the scripts say whether. A step that was cut
off is sent again, word for word, until the server has answered whether it was carried out. So it is
written once, however often that takes. Read against RQ 3.0.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import ConnectionError
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import StartedJobRegistry
from rq.utils import current_timestamp, utcformat
from rq.utils import now as utc_now

from .held import HeldJobs
from .keys import REPLICATED_KEY
from .scripts import BEGIN, SETTLE, Answer

_REPLICATED_SECONDS = 60
_WAIT_MILLISECONDS = 1000
Command = tuple[Any, ...]
"""A command of Redis and its arguments."""

Repeat = Callable[[Callable[[], Any]], Any]
"""Calls a function, again while Redis is unavailable, and returns what it returns."""


class NotHeld(BaseException):
    """The worker does not hold the job: the server has forgotten it, or somebody else has settled
    it. No `Exception`: RQ and project code would take it for an error of the job."""


@dataclass(frozen=True)
class InHand:
    """A job and what a step needs to know of it.

    Attributes:
        job: the job.
        queue: the queue that it came from.
        execution: its execution.
    """

    job: Job
    queue: Queue
    execution: Execution


class Transactions:
    """Carries out the steps of one worker's jobs.

    Args:
        redis: a client of the worker's server.
        held: the jobs that the worker holds.
        repeat: how a step is repeated while Redis is unavailable.
        replicas: how many replicas must have a step before it counts; 0: none is waited for.

    Attributes:
        begun: the execution that this process has begun last, as RQ's set names it.
        settled: the execution that this process has settled last, as RQ's set names it.
    """

    def __init__(self, redis: Redis, held: HeldJobs, repeat: Repeat, replicas: int = 0) -> None:
        self._redis = redis
        self._held = held
        self._repeat = repeat
        self._replicas = replicas
        self._begin = redis.register_script(BEGIN)
        self._settle = redis.register_script(SETTLE)
        self._token = secrets.token_hex(4)
        self.begun = self.settled = ""

    def rehearse(self, job: Job, queue: Queue) -> None:
        """Sends the steps of a job that nobody holds. The server has their scripts then, or says
        that it forbids them; and work horses find the code of a step as it is after its first use.

        Args:
            job: one that is not in Redis.
            queue: any of the worker's.
        """
        execution = Execution(job.id, job.id, self._redis, self._held.worker)
        for step in (self.begin, self.settle):
            with suppress(NotHeld):
                step(InHand(job, queue, execution), [])

    def begin(self, hand: InHand, commands: Iterable[Command]) -> None:
        """Makes a job that was taken a begun one.

        Args:
            hand: the job.
            commands: what is written with it.

        Raises:
            NotHeld: the job is not in the in-flight list.
        """
        keys = [self._held.begun_key, self._held.in_flight_key(hand.queue.key)]
        arguments = [hand.job.id, hand.execution.composite_key, hand.queue.key]
        self._carry_out(self._begin, keys, [*arguments, *_counted(commands)])
        self.begun = hand.execution.composite_key

    def settle(
        self, hand: InHand, commands: Iterable[Command], outcome: JobStatus | None = None
    ) -> None:
        """Settles a job, and enqueues its dependents.

        Args:
            hand: the job.
            commands: what is written with it.
            outcome: how the job has ended, for its dependents; None leaves them waiting.

        Raises:
            NotHeld: somebody else has settled it.
        """
        job, execution = hand.job, hand.execution
        origin = job.origin or hand.queue.name
        keys = [
            self._held.begun_key,
            job.key,
            self._held.in_flight_key(hand.queue.key),
            hand.queue.key,
            StartedJobRegistry(origin, connection=self._redis).key,
            self._held.executions_key,
        ]
        arguments = [
            job.id,
            execution.composite_key,
            self._token,
            self._held.worker,
            RQ_KEY_PREFIX,
            job.redis_job_namespace_prefix,
            hand.queue.redis_queue_namespace_prefix,
            current_timestamp(),
            utcformat(utc_now()),
            hand.queue._default_timeout,
            "" if outcome is None else outcome.value,
            job.rate_limit_key if job.has_rate_limit else "",
        ]
        self._carry_out(self._settle, keys, [*arguments, *_counted(commands)])
        self.settled = execution.composite_key

    def _carry_out(self, script: Script, keys: list[str], arguments: list[Any]) -> None:
        answer = self._repeat(lambda: self._send(script, keys, arguments))
        if answer == Answer.NOT_HELD:
            raise NotHeld

    def _send(self, script: Script, keys: list[str], arguments: list[Any]) -> int:
        answer = int(script(keys=keys, args=arguments))
        if self._replicas and answer != Answer.NOT_HELD:
            self._await_replicas()
        return answer

    def _await_replicas(self) -> None:
        """WAIT asks about the last write of its own connection, so it needs one. That is a later
        one than the step, and a replica that has it has the step too."""
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.set(REPLICATED_KEY, 1, ex=_REPLICATED_SECONDS)
            pipeline.execute_command("WAIT", self._replicas, _WAIT_MILLISECONDS)
            _, confirmed = pipeline.execute()
        if int(confirmed) < self._replicas:
            raise ConnectionError(
                f"{confirmed} of {self._replicas} replicas confirm what is written"
            )


def _counted(commands: Iterable[Command]) -> Iterator[Any]:
    for name, *arguments in commands:
        words = (*name.split(), *arguments)  # redis-py has names of two words, XGROUP CREATE
        yield len(words)
        yield from words
