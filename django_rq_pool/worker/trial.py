"""Trial: asks a server whether a worker of a queue group could work there.

Rule of the room: whatever a worker does on a server is done once, on keys that are nobody else's,
and no job or registration is touched. ``ACL DRYRUN`` would say the same, but a user who may run
that may run anything.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError
from rq import Queue
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.defaults import RQ_KEY_PREFIX
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from ..config import declared, redis_clients
from ..config.groups import QueueGroup
from ..config.pool_redis import address
from ..config.redis_errors import described, forbidden, refused
from ..ledger import keys, members
from ..ledger.held import HeldJobs
from ..ledger.members import Member
from ..ledger.transactions import Transactions
from ..text import listed
from .needs import OPTIONAL, Try, named, obstacles, risks, tries, version

_KEY = RQ_KEY_PREFIX + ":pool:trial:%s"
"""Begins the names of the keys on which ``rqpool --check --redis`` tries commands. They go at once,
and after 60 seconds if it is interrupted."""


@dataclass
class ServerTrial:
    """What a server has said.

    Attributes:
        address: its address, without a password.
        groups: the names of the queue groups that use it.
        version: what it is; empty if it could not be asked.
        errors: why workers cannot work there, sentences without a full stop.
        warnings: what they will lack, and what may lose jobs, likewise.
    """

    address: str
    groups: tuple[str, ...]
    version: str = ""
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def try_servers(groups: Iterable[QueueGroup], connections: dict[str, object]) -> list[ServerTrial]:
    """Asks each server of the given groups once.

    Args:
        groups: the queue groups.
        connections: for each queue, the parameters of its connection.

    Returns:
        What each server has said, in the order of the groups.
    """
    servers: list[tuple[object, list[QueueGroup]]] = []
    for group in groups:
        parameters = connections[group.queues[0]]
        known = next((others for each, others in servers if each == parameters), None)
        if known is None:
            servers.append((parameters, [group]))
        else:
            known.append(group)
    return [_try_server(users) for _, users in servers]


def _try_server(groups: list[QueueGroup]) -> ServerTrial:
    redis = redis_clients.client(groups[0])
    names = tuple(group.name for group in groups)
    trial = ServerTrial(address(redis.connection_pool), names)
    try:
        _ask(redis, groups, trial)
    except RedisError as error:
        trial.errors.append(described(error).rstrip("."))
    finally:
        redis.close()
    return trial


def _ask(redis: Redis, groups: list[QueueGroup], trial: ServerTrial) -> None:
    redis.ping()
    replicas = declared.WAIT_REPLICAS.usable()
    try:
        info = redis.info()
    except NoPermissionError:
        info = {}  # it is told below, with what else is forbidden
    else:
        trial.version = version(info)
        trial.errors += obstacles(info, replicas)
        trial.warnings += risks(info)
    token = secrets.token_hex(8)
    needed = list(tries(_KEY % token))
    if replicas:
        needed.append(("WAIT", 0, 1))
    asked = _Asked(redis)
    try:
        denied = asked.denied(needed)
        lacking = {each: effect for each, effect in OPTIONAL if asked.denied([each])}
        hidden = [] if denied else filter(asked.hides, _keys(groups, token, redis))
        unreachable = list(dict.fromkeys(hidden))
    finally:
        asked.close()
    if denied:
        trial.errors.append(f"its user may not run {listed(denied)}")
    if unreachable:
        trial.errors.append(f"its user may not use the keys {listed(unreachable)}")
    trial.errors += asked.refusals
    trial.warnings += [
        f"its user may not run {named(each)!r}: {effect}" for each, effect in lacking.items()
    ]
    if trial.errors:
        return
    channel = PUBSUB_CHANNEL_TEMPLATE % token
    try:
        _subscribe(redis, channel)
    except NoPermissionError:
        trial.errors.append(f"its user may not subscribe to the channel {channel}")
    else:
        _rehearse(redis, groups, token)


class _Asked:
    """One connection, on which each command's answer is looked at by itself."""

    def __init__(self, redis: Redis) -> None:
        self._pool = redis.connection_pool
        self._connection = self._pool.get_connection()
        self.refusals: list[str] = []

    def denied(self, commands: Iterable[Try]) -> list[str]:
        """The names of the commands that the user may not run."""
        return list(dict.fromkeys(named(each) for each in commands if not self._may(*each)))

    def hides(self, key: str) -> bool:
        """Whether the user may not read or may not write a key, which stays as it is: no key that
        is asked for here has a time to live that PERSIST would remove."""
        return not (self._may("EXISTS", key) and self._may("PERSIST", key))

    def _may(self, *command: Any) -> bool:
        self._connection.send_command(*command)
        try:
            self._connection.read_response()
        except ResponseError as error:
            if forbidden(error) is not None:
                return False
            refusal = refused(error)
            if refusal is not None and not self.refusals:
                self.refusals.append(described(refusal).rstrip("."))
        return True

    def close(self) -> None:
        self._connection.disconnect()
        self._pool.release(self._connection)


def _keys(groups: list[QueueGroup], token: str, redis: Redis) -> Iterator[str]:
    """One key of each kind that workers use: those that all share, none of which has a time to
    live, and one's own in the place of those of jobs and workers."""
    yield from (keys.MEMBERS_KEY, keys.LEFT_KEY, keys.SUSPECTS_KEY, RQ_KEY_PREFIX + ":queues")
    for group in groups:
        member = members.member_of_group(token, "", group, redis)
        job = member.classes.job(token, connection=redis)
        yield from (member.registry, member.key, WORKER_EXECUTIONS_KEY_TEMPLATE.format(token))
        yield from (job.key, job.dependents_key, job.dependencies_key)
        yield from (f"{RQ_KEY_PREFIX}:{kind}:{token}" for kind in _OF_ONE)
        yield keys.BEGUN_KEY % token
        for name, key in zip(group.queues, member.queue_keys):
            yield from (key, keys.IN_FLIGHT_KEY % (token, key), WORKERS_BY_QUEUE_KEY % name)
            yield from (f"{RQ_KEY_PREFIX}:{registry}:{name}" for registry in _REGISTRIES)


_OF_ONE = ("execution", "executions", "results", "scheduler", "scheduler-lock")
_REGISTRIES = ("wip", "finished", "failed", "deferred", "scheduled")


def _subscribe(redis: Redis, channel: str) -> None:
    with redis.pubsub() as subscription:
        subscription.subscribe(channel)
        subscription.get_message(timeout=1.0)


def _rehearse(redis: Redis, groups: list[QueueGroup], token: str) -> None:
    """Sends the steps of a job, as a worker does before it is ready."""
    member: Member = members.member_of_group(token, "", groups[0], redis)
    queue: Queue = member.classes.queue(groups[0].queues[0], connection=redis)
    held = HeldJobs(redis, token, member.queue_keys)
    steps = Transactions(redis, held, lambda write: write())
    steps.rehearse(member.classes.job(token, connection=redis), queue)
