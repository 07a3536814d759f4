"""Members: which workers there are, and by which rules their jobs are settled.

Rule of the room: what a worker's own process would need to settle its jobs is written when it
registers, so that whoever finds it lost settles them by its rules and not by his own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import FunctionType, ModuleType
from typing import Any

from django_rq.queues import get_queues
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import resolve_serializer
from rq.utils import as_text, import_attribute
from rq.worker_registration import REDIS_WORKER_KEYS, WORKERS_BY_QUEUE_KEY

from ..config.classes import worker_class_of
from ..config.groups import QueueGroup
from ..config.options import GroupOptions
from .keys import BEGUN_KEY, LEFT_KEY, MEMBERS_KEY, SETTLED_FIELD, SUSPECTS_KEY, TOLD_FIELD

_NAMED = ("worker_class", "job_class", "queue_class", "serializer", "work_horse_killed_handler")
"""The options whose values are written as dotted paths."""


@dataclass(frozen=True)
class JobClasses:
    """What a queue group's jobs and queues are made with."""

    job: type[Job]
    queue: type[Queue]
    serializer: Any


@dataclass(frozen=True)
class Member:
    """A worker, and the rules by which its jobs are settled.

    Attributes:
        name: its name.
        key: the key of its registration with RQ; a worker class may have a prefix of its own.
        registry: the key of the set in which it is registered.
        pool: the name of its pool.
        group: its queue group.
        queue_keys: the keys of the group's queues, in the group's order.
        classes: what the group's jobs and queues are made with.
    """

    name: str
    key: str
    registry: str
    pool: str
    group: QueueGroup
    queue_keys: tuple[str, ...]
    classes: JobClasses

    def record(self) -> str:
        """The member as it is written in Redis."""
        options = asdict(self.group.options)
        for option in _NAMED:
            options[option] = _path(options[option])
        return json.dumps(
            {
                "name": self.name,
                "registry": self.registry,
                "pool": self.pool,
                "group": self.group.name,
                "queues": self.group.queues,
                "queue_keys": self.queue_keys,
                "options": options,
                "job_class": _path(self.classes.job),
                "job_prefix": self.classes.job.redis_job_namespace_prefix,
                "queue_class": _path(self.classes.queue),
                "queue_prefix": self.classes.queue.redis_queue_namespace_prefix,
                "serializer": _path(self.classes.serializer),
            }
        )


def member_of(key: str, record: str | bytes) -> Member:
    """Reads what `Member.record` has written.

    A class that cannot be imported here, because the worker belonged to another project, is
    replaced by RQ's own with the same prefix: enough to settle a job, which is not run.

    Args:
        key: the key of the worker's registration.
        record: the record.

    Raises:
        ValueError, KeyError, TypeError: the record is not one.
    """
    data = json.loads(record)
    known = set(GroupOptions.__dataclass_fields__)
    options = {name: value for name, value in data["options"].items() if name in known}
    group = QueueGroup(data["group"], tuple(data["queues"]), 1, GroupOptions(**options))
    classes = JobClasses(
        _class(data["job_class"], Job, redis_job_namespace_prefix=data["job_prefix"]),
        _class(data["queue_class"], Queue, redis_queue_namespace_prefix=data["queue_prefix"]),
        _serializer(data["serializer"]),
    )
    return Member(
        data["name"],
        key,
        data["registry"],
        data["pool"],
        group,
        tuple(data["queue_keys"]),
        classes,
    )


def member_of_group(name: str, pool: str, group: QueueGroup, redis: Redis) -> Member:
    """The member that a worker of a group is, without building the worker.

    Args:
        name: the worker's name.
        pool: the name of its pool.
        group: its queue group.
        redis: a client of the group's server.

    Raises:
        Exception: whatever the import of the project's classes raises.
    """
    options = group.options
    queues = get_queues(
        *group.queues,
        connection=redis,
        job_class=options.job_class,
        queue_class=options.queue_class,
    )
    serializer = resolve_serializer(options.serializer or queues[0].serializer)
    classes = JobClasses(queues[0].job_class, type(queues[0]), serializer)
    worker_class = worker_class_of(group)
    return Member(
        name,
        worker_class.redis_worker_namespace_prefix + name,
        worker_class.redis_workers_keys,
        pool,
        group,
        tuple(queue.key for queue in queues),
        classes,
    )


def join(redis: Redis, member: Member) -> None:
    """Makes a worker a member of its pool, so that others know whom to recover, and how. One that
    was taken for lost, and is back, has not left any more: what it has in hand is its own."""
    with redis.pipeline() as pipeline:
        pipeline.hset(MEMBERS_KEY, member.key, member.record())
        pipeline.hdel(LEFT_KEY, member.key)
        pipeline.hdel(SUSPECTS_KEY, member.key)
        pipeline.execute()


def ask_whether_known(member: Member, commands: Any) -> None:
    """Asks whether all that a registration consists of is there. The hash alone says little: RQ
    writes to it at many places, and makes a part of it anew.

    Args:
        member: the worker.
        commands: the pipeline in which it asks. Its last answers are for `is_known`.
    """
    commands.hexists(member.key, "birth")
    commands.sismember(member.registry, member.key)
    commands.hexists(MEMBERS_KEY, member.key)


def is_known(answers: Sequence[Any]) -> bool:
    """What the answers of a pipeline say that ends with `ask_whether_known`."""
    return all(answers[-3:])


def leave(redis: Redis, member: Member, pipeline: Any = None) -> None:
    """Takes a worker that holds no job off the members. It is remembered for a while, for a command
    that it sent may still move a job.

    Args:
        redis: a client of the worker's server.
        member: the worker.
        pipeline: where the commands go; None has them carried out at once.
    """
    now, _ = redis.time()
    fields = (as_text(field) for field in redis.hkeys(BEGUN_KEY % member.name))
    notes = [field for field in fields if field.startswith(TOLD_FIELD)] + [SETTLED_FIELD]
    commands = redis.pipeline() if pipeline is None else pipeline
    commands.hset(LEFT_KEY, member.key, json.dumps([int(now), member.record()]))
    commands.hdel(MEMBERS_KEY, member.key)
    commands.hdel(SUSPECTS_KEY, member.key)
    # What a worker that was taken for lost, and is back, has begun meanwhile stays.
    commands.hdel(BEGUN_KEY % member.name, *notes)
    if pipeline is None:
        commands.execute()


def unregister(redis: Redis, member: Member, pipeline: Any = None) -> None:
    """Removes a worker's registration with RQ, and keeps what is known of its jobs.

    Args:
        redis: a client of the worker's server.
        member: the worker.
        pipeline: where the commands go; None has them carried out at once.
    """
    commands = redis.pipeline() if pipeline is None else pipeline
    commands.srem(member.registry, member.key)
    commands.srem(REDIS_WORKER_KEYS, member.key)
    for queue in member.group.queues:
        commands.srem(WORKERS_BY_QUEUE_KEY % queue, member.key)
    commands.delete(member.key)
    if pipeline is None:
        commands.execute()


def _path(value: Any) -> str | None:
    """The dotted path of a class, function or module; that of its class for any other object."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, ModuleType):
        return value.__name__
    named = value if isinstance(value, (type, FunctionType)) else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _class(path: str, base: type[Any], **prefix: str) -> type[Any]:
    try:
        found = import_attribute(path)
    except Exception:  # a module may raise anything while it is imported
        found = None
    ((attribute, value),) = prefix.items()
    if isinstance(found, type) and issubclass(found, base) and getattr(found, attribute) == value:
        return found
    return type(base.__name__, (base,), prefix)


def _serializer(path: str | None) -> Any:
    try:
        return resolve_serializer(path)
    except Exception:
        return resolve_serializer(None)
