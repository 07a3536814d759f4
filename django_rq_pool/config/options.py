"""Options: what the counts may say about a queue group, and the validator of each option.

Rule of the room: the fields of `GroupOptions` are the only list of options.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from types import FunctionType
from typing import Any

from .validators import Validator, is_whole_number, positive, seconds, yes_or_no

WORKERS = "workers"
"""The count of a group that has options too: a whole number, or bounds, ``{min: 1, max: 10}``."""


@dataclass(frozen=True)
class Bounds:
    """The range in which autoscaling may move a group's count.

    Attributes:
        min: the fewest workers.
        max: the most workers.
    """

    min: int
    max: int

    def __str__(self) -> str:
        return f"{self.min}..{self.max}"


BOUNDS = tuple(each.name for each in fields(Bounds))
"""The keys of bounds in the counts."""

MAX_TOTAL = "max_total"
"""Beside the groups, not in one: the most workers that all groups may have together."""


def _importable(value: object) -> str | None:
    return (
        None if isinstance(value, type) or (isinstance(value, str) and value) else "a dotted path"
    )


def _time_to_live(value: object) -> str | None:
    fine = is_whole_number(value) and value >= -1  # type: ignore[operator]
    return None if fine else "a whole number of seconds, 0 or more, or -1 for ever"


def _handler(value: object) -> str | None:
    return (
        None
        if isinstance(value, FunctionType) or (isinstance(value, str) and value)
        else "a dotted path or a function"
    )


STRATEGIES = ("default", "round_robin", "random")
"""The values of ``dequeue_strategy``, which are RQ's."""


def _strategy(value: object) -> str | None:
    return (
        None
        if isinstance(value, str) and value in STRATEGIES
        else "one of " + ", ".join(STRATEGIES)
    )


OUTCOMES = ("fail", "requeue")
"""The values of ``interrupted``."""


def _outcome(value: object) -> str | None:
    return None if isinstance(value, str) and value in OUTCOMES else "one of " + ", ".join(OUTCOMES)


def _option(default: object, validator: Validator) -> Any:
    return field(default=default, metadata={"validator": validator})


@dataclass(frozen=True)
class GroupOptions:
    """The options of a queue group besides its count. The fields are the list of known options.

    Each means what the option of the same name means to ``manage.py rqworker``; ``None`` leaves
    the choice to django-rq's settings and RQ's defaults. Times are in seconds. The documentation's
    table is made from the sentences below the fields.
    """

    worker_class: str | type | None = _option(None, _importable)
    """An RQ worker class, to which the pool adds its behaviour. ``rq.SimpleWorker`` works;
    ``rq.SpawnWorker`` is refused, because its horses share no memory with the worker."""
    job_class: str | type | None = _option(None, _importable)
    """An RQ job class."""
    queue_class: str | type | None = _option(None, _importable)
    """An RQ queue class."""
    serializer: Any = _option(None, _importable)
    """How jobs are serialized. Left out, it is the serializer that ``RQ_QUEUES`` gives the group's
    first queue."""
    max_jobs: int | None = _option(None, positive)
    """A worker leaves after this many jobs and is replaced."""
    max_idle_time: int | None = _option(None, positive)
    """A worker leaves after this many idle seconds and is replaced."""
    worker_ttl: int | None = _option(None, positive)
    """Seconds without a heartbeat, plus 60, after which Redis forgets a worker."""
    dequeue_strategy: str = _option("default", _strategy)
    """The order in which the group's queues are asked for a job: ``default`` is by priority."""
    boot_timeout: float = _option(30.0, seconds)
    """Seconds within which a worker must be ready. One that hangs is killed, the log says where it
    hung, and the pool forks another one later. A worker that waits for Redis has more time."""
    default_result_ttl: int | None = _option(None, _time_to_live)
    """Seconds for which the result of a job is kept that does not say so itself. 0 keeps none, -1
    keeps it for ever."""
    log_job_description: bool = _option(True, yes_or_no)
    """Whether the log has a job's description, which may contain its arguments; else it has the
    job's id only."""
    job_monitoring_interval: int | None = _option(None, positive)
    """Seconds between two heartbeats while a job runs in a work horse. RQ keeps what it knows of
    the run for a minute longer."""
    maintenance_interval: int | None = _option(None, positive)
    """Seconds after which a worker of the group cleans the registries of its queues again. Idle
    workers look every 15 seconds whether it is time."""
    work_horse_killed_handler: Any = _option(None, _handler)
    """A function that is called with the job, a pid, a status and a resource usage when a work
    horse did not end by itself; with the job and three times None where its worker ended too."""
    disable_default_exception_handler: bool = _option(False, yes_or_no)
    """Whether RQ leaves it to the exception handlers to record a failure: the job gets no result,
    and is not in the registry of failed jobs. So it is with a job that is cut short, too."""
    with_scheduler: bool = _option(False, yes_or_no)
    """Whether the group's workers run RQ's scheduler."""
    interrupted: str = _option("fail", _outcome)
    """What becomes of a job that a stop or a death cuts short: ``fail`` (it is retried if it has
    retries left) or ``requeue``, to the front of its queue."""
    interrupted_limit: int = _option(3, positive)
    """With ``requeue``: how often a job is requeued before it fails, since it may itself be what
    ends its workers."""
    target_latency: float = _option(5.0, seconds)
    """Seconds that a job may wait before workers are added. Only for a count with bounds."""

    def given(self) -> dict[str, object]:
        """The options whose values differ from the defaults, by name."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if getattr(self, each.name) != each.default
        }


VALIDATORS: dict[str, Validator] = {
    each.name: each.metadata["validator"] for each in fields(GroupOptions)
}
"""The validator of each option, by its name."""
WORKER_ARGUMENTS = (
    "worker_ttl",
    "default_result_ttl",
    "log_job_description",
    "job_monitoring_interval",
    "maintenance_interval",
    "work_horse_killed_handler",
    "disable_default_exception_handler",
)
"""The options that are arguments of RQ's worker class, of the same names."""
OPTION_NAMES = (WORKERS, *VALIDATORS)
TARGET_LATENCY = "target_latency"
