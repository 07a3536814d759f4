"""Transactions: RQ's own transactions for a job, each made conditional on who holds the job.

Rule of the room: RQ, and the project's overrides, say what is written; the scripts say whether. A
transaction that was cut off is sent again, word for word, until the server has answered whether it
was carried out. So it is written once, however often that takes. Read against RQ 3.0.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
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

from ..config.pool_redis import PoolPipeline
from .held import HeldJobs
from .keys import REPLICATED_KEY
from .scripts import BEGIN, SETTLE, Answer

_REPLICATED_SECONDS = 60
_WAIT_MILLISECONDS = 1000
_SCRIPTS = ("EVAL", "EVALSHA", "FCALL")
_MOST_WORDS = 7000
"""Lua's stack has 8,000 places, which a call's arguments share with what the script holds."""

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
        self.settled = ""

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


@contextmanager
def in_one_step(job: Job) -> Iterator[None]:
    """While RQ puts together how a job ends. It makes a job that is to be retried later a scheduled
    one at once, and puts it in the registry in the transaction, where the status stands too. If
    that is never carried out the status is wrong, and may be all that is left of the job."""

    def set_status(status: JobStatus, pipeline: Any = None) -> None:
        never_sent = job.connection.pipeline()
        type(job).set_status(job, status, never_sent if pipeline is None else pipeline)

    vars(job)["set_status"] = set_status
    try:
        yield
    finally:
        vars(job).pop("set_status", None)


def _counted(commands: Iterable[Command]) -> Iterator[Any]:
    for name, *arguments in commands:
        words = (*name.split(), *arguments)  # redis-py has names of two words, XGROUP CREATE
        yield len(words)
        yield from words


def _follows(command: Command) -> bool:
    return command[0] in _SCRIPTS or len(command) > _MOST_WORDS


@dataclass
class _Step:
    """The transaction that is waited for, recognised by one of its commands."""

    mark: tuple[str, str]
    dependents_key: str | None
    carry_out: Callable[[list[Command]], None]


class Recogniser:
    """Finds, among the transactions of RQ and of the project, the one that begins or settles a job.

    RQ builds its transactions in methods that projects override, and sends them itself. So the
    worker's client hands out pipelines that compare what they are to send with the step that is
    expected, and have `Transactions` carry it out instead.
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._step: _Step | None = None

    def pipeline(self, *arguments: Any) -> PoolPipeline:
        """A pipeline for the client, made of the arguments that redis-py's has."""
        return _SteppingPipeline(self, *arguments)

    @contextmanager
    def beginning(self, hand: InHand) -> Iterator[None]:
        """While RQ makes the job a started one. RQ keeps its hash from expiring then."""
        with self._expecting(
            ("PERSIST", hand.job.key),
            None,
            lambda commands: self._transactions.begin(hand, commands),
        ):
            yield

    @contextmanager
    def settling(self, hand: InHand, outcome: JobStatus | None) -> Iterator[None]:
        """While RQ settles the job. RQ removes the execution then.

        Args:
            hand: the job.
            outcome: how it ends, for its dependents; None leaves them waiting.
        """
        with self._expecting(
            ("DEL", hand.execution.key),
            hand.job.dependents_key,
            lambda commands: self._transactions.settle(hand, commands, outcome),
        ):
            yield

    @contextmanager
    def _expecting(
        self,
        mark: tuple[str, str],
        dependents_key: str | None,
        carry_out: Callable[[list[Command]], None],
    ) -> Iterator[None]:
        before, self._step = self._step, _Step(mark, dependents_key, carry_out)
        try:
            yield
        finally:
            self._step = before

    def take(self, commands: Sequence[Command]) -> Callable[[list[Command]], None] | None:
        """How to carry out these commands if they are the step that is expected, else None."""
        step = self._step
        return step.carry_out if step and any(each[:2] == step.mark for each in commands) else None

    def sees_dependents(self, key: str) -> bool:
        """Whether a key is that of the dependents which the script will enqueue."""
        return self._step is not None and key == self._step.dependents_key


class _SteppingPipeline(PoolPipeline):
    """A pipeline that has a step of a job carried out by its script.

    Args:
        recogniser: knows the step that is expected.
        arguments: what redis-py's pipeline takes.
    """

    def __init__(self, recogniser: Recogniser, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._recogniser = recogniser

    def watch(self, *names: Any) -> Any:
        """RQ watches the dependents of the job that it settles. The script needs no watch."""
        if all(self._recogniser.sees_dependents(name) for name in names):
            self.watching = True
            return True
        return super().watch(*names)

    def smembers(self, name: Any) -> Any:
        """RQ looks for dependents here, to enqueue them when the job is settled. The script does
        that in the same step, so that RQ has none to enqueue."""
        if self.connection is None and self._recogniser.sees_dependents(name):
            return set()
        return super().smembers(name)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Sends the commands. What a script cannot carry out follows: a project's own scripts, and
        commands with more words than Lua's stack holds."""
        stack = self.command_stack
        carry_out = self._recogniser.take([command for command, _ in stack])
        if carry_out is None:
            return super().execute(raise_on_error)
        try:
            carry_out([command for command, _ in stack if not _follows(command)])
            self.command_stack = [each for each in stack if _follows(each[0])]
            self.watching = self.explicit_transaction = False
            return super().execute(raise_on_error)
        finally:
            self.reset()

    def reset(self) -> None:  # type: ignore[override]
        """Forgets the commands; a watch that was not sent needs no end."""
        if self.connection is None:
            self.watching = False
        super().reset()
