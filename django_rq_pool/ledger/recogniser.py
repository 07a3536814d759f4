"""Recogniser: finds the step of a job among the transactions that RQ, or the project, sends.

Rule of the room: RQ builds its transactions in methods that projects override, and sends them
itself. So the worker's client hands out pipelines that compare what they are to send with the step
that is expected, and have `transactions` carry it out instead. Read against RQ 3.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rq.job import Job, JobStatus

from ..config.pool_redis import PoolPipeline
from .transactions import Command, InHand, Transactions

_SCRIPTS = ("EVAL", "EVALSHA", "FCALL")
_MOST_WORDS = 7000
"""Lua's stack has 8,000 places, which a call's arguments share with what the script holds."""


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


def _follows(command: Command) -> bool:
    return command[0] in _SCRIPTS or len(command) > _MOST_WORDS


@dataclass
class _Step:
    """The transaction that is waited for, recognised by one of its commands."""

    mark: tuple[str, str]
    dependents_key: str | None
    carry_out: Callable[[list[Command]], None]


class Recogniser:
    """Knows which step is expected, and has it carried out when it is recognised.

    Args:
        transactions: carries out the steps.
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
