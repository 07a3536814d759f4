"""Metrics: measures the queues of a pool's scaled groups, and exchanges figures with its peers.

Rule of the room: it knows RQ's keys and only reads them. Each tick sends four commands to each
Redis server, however many workers, jobs and groups there are. `demand` interprets the figures.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from django_rq.queues import get_queues
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.defaults import RQ_KEY_PREFIX
from rq.utils import as_text, utcparse
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from ..config import settings
from ..config.groups import QueueGroup
from ..config.options import Bounds
from ..config.redis_clients import client
from ..ipc.counts_records import GroupStats
from .demand import Observation
from .peers import Peer
from .policy import Decision

PEERS_KEY = RQ_KEY_PREFIX + ":pool:scaling:%s"
"""A Redis hash of the pools of one name on all hosts: the figures of each, by its identity."""

STALE = 5.0
"""Seconds after which a pool that publishes no new figures is no peer any more."""
FORGOTTEN = 60
"""Seconds after which its figures are removed."""

ANSWER_LIMIT = 2.0
"""The socket timeout: seconds within which a server must answer."""

_MEASURE = """
local time = redis.call('TIME')
local now = tonumber(time[1])
local queues = {}
local sampled = {{0, 2}, {-1, -1}}
for i = 1, #KEYS, 3 do
    local jobs, scheduled, started = KEYS[i], KEYS[i + 1], KEYS[i + 2]
    local since = {}
    for _, range in ipairs(sampled) do
        for _, job in ipairs(redis.call('LRANGE', jobs, range[1], range[2])) do
            local key = ARGV[(i + 2) / 3] .. job
            since[#since + 1] = redis.call('HMGET', key, 'enqueued_at', 'last_heartbeat')
        end
    end
    queues[#queues + 1] = {
        redis.call('LLEN', jobs),
        since,
        redis.call('ZCOUNT', scheduled, '-inf', now),
        redis.call('ZRANGEBYSCORE', scheduled, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1),
        redis.call('ZCARD', started)
    }
end
local live = {}
for i = #KEYS / 3 + 1, #ARGV do
    local sets = cjson.decode(ARGV[i])
    live[#live + 1] = #redis.call('SUNION', unpack(sets))
end
return {time, queues, live}
"""
"""A Lua script, because the ids of jobs must be read before their ages, and because the server
counts the workers of several queues without duplicates. Keys: for each queue its list and its
registries of scheduled and started jobs. Arguments: for each queue the prefix of its jobs' keys,
then for each group a JSON list of its queues' sets of workers."""


@dataclass(frozen=True)
class Measurement:
    """The result of measuring once.

    Attributes:
        observations: the observation of each group that could be measured, by name.
        failures: why each other group could not be measured, by name.
    """

    observations: dict[str, Observation]
    failures: dict[str, str]


class Metrics:
    """Measures a pool's groups.

    Construct it in the process that uses it. Connections are opened when they are needed.

    Args:
        pool: the name of the pool.
        identity: a text that no other pool of this name has, on any host. It stays the same for
            as long as the manager lives.
        groups: the pool's groups. Those without bounds are ignored.
    """

    def __init__(self, pool: str, identity: str, groups: Iterable[QueueGroup]) -> None:
        connections = settings.queue_connections()
        by_server: list[tuple[object, list[QueueGroup]]] = []
        for group in groups:
            if group.bounds is None:
                continue
            parameters = connections[group.queues[0]]
            for known, there in by_server:
                if known == parameters:
                    there.append(group)
                    break
            else:
                by_server.append((parameters, [group]))
        self._servers = [_Server(pool, identity, there) for _, there in by_server]

    def measure(self, stats: Mapping[str, GroupStats]) -> Measurement:
        """Measures every server once.

        If a server does not answer within `ANSWER_LIMIT` seconds, its groups are failures; the
        others are measured all the same.

        Args:
            stats: what this pool's workers do and have done, by name of the scaled group.
        """
        measurement = Measurement({}, {})
        for server in self._servers:
            try:
                measurement.observations.update(server.measure(stats))
            except RedisError as error:
                reason = f"{type(error).__name__}: {error}"
                measurement.failures.update((group.name, reason) for group in server.groups)
        return measurement

    def publish(self, decisions: Mapping[str, Decision]) -> None:
        """Publishes this pool's figures to its peers, after the decisions of this tick.

        Errors are ignored: the next `measure` reports a server that cannot be reached.

        Args:
            decisions: the decision for each group that was measured, by name.
        """
        for server in self._servers:
            with contextlib.suppress(RedisError):
                server.publish(decisions)

    def close(self) -> None:
        """Removes this pool's figures from the servers and closes the connections."""
        for server in self._servers:
            with contextlib.suppress(RedisError):
                server.close()


class _Server:
    """The groups of a pool on one Redis server."""

    def __init__(self, pool: str, identity: str, groups: list[QueueGroup]) -> None:
        self.groups = groups
        self._identity = identity
        self._peers_key = PEERS_KEY % pool
        self._redis = _measuring_client(groups[0])
        self._queues: dict[str, Queue] = {}
        for group in groups:
            for queue in get_queues(*group.queues, job_class=group.options.job_class):
                self._queues.setdefault(queue.name, queue)
        self._keys = [
            key
            for queue in self._queues.values()
            for key in (
                queue.key,
                queue.scheduled_job_registry.key,
                queue.started_job_registry.key,
            )
        ]
        self._arguments = [
            *(queue.job_class.redis_job_namespace_prefix for queue in self._queues.values()),
            *(json.dumps([WORKERS_BY_QUEUE_KEY % name for name in g.queues]) for g in groups),
        ]
        self._before: dict[str, GroupStats] = {}
        self._seen: dict[str, Peer] = {}
        self._clock_ahead = 0.0

    def measure(self, stats: Mapping[str, GroupStats]) -> dict[str, Observation]:
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.eval(_MEASURE, len(self._keys), *self._keys, *self._arguments)
            pipeline.hgetall(self._peers_key)
            (clock, measured, live), published = pipeline.execute()
        now = int(clock[0]) + int(clock[1]) / 1e6
        self._clock_ahead = now - time.monotonic()
        queues = {
            name: _QueueMeasurement.of(figures, now)
            for name, figures in zip(self._queues, measured)
        }
        others = self._others(published, now)
        observations = {}
        for group, workers in zip(self.groups, live):
            own = stats.get(group.name)
            if own is None:
                continue  # the manager does not know the group yet
            there = [queues[name] for name in group.queues]
            observations[group.name] = self._observe(
                group, own, there, int(workers), others.get(group.name, ())
            )
            self._before[group.name] = own
        return observations

    def _observe(
        self,
        group: QueueGroup,
        stats: GroupStats,
        queues: list[_QueueMeasurement],
        live: int,
        others: Iterable[Peer],
    ) -> Observation:
        assert group.bounds is not None  # noqa: S101  # Metrics ignores the others
        before = self._before.get(group.name, stats)
        mine = Peer(self._identity, stats.count, stats.busy, group.bounds)
        self._seen[group.name] = mine
        return Observation(
            oldest=max(queue.oldest for queue in queues),
            waiting=sum(queue.waiting for queue in queues),
            running=sum(queue.running for queue in queues),
            live=live,
            ended=max(0, stats.ended - before.ended),
            run_seconds=max(0.0, stats.run_seconds - before.run_seconds),
            mine=mine,
            others=tuple(others),
        )

    def _others(self, published: Mapping[Any, Any], now: float) -> dict[str, list[Peer]]:
        """The peers of each group, without stale ones. Old figures are removed from the server."""
        others: dict[str, list[Peer]] = {}
        forgotten = []
        for identity, text in published.items():
            name = as_text(identity)
            if name == self._identity:
                continue
            try:
                data = json.loads(text)
                age = now - float(data["at"])
                peers = {
                    group: Peer(**{**peer, "name": name, "bounds": Bounds(**peer["bounds"])})
                    for group, peer in data["groups"].items()
                }
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # another version of this package wrote it
            if age > FORGOTTEN:
                forgotten.append(name)
            elif age <= STALE:
                for group, peer in peers.items():
                    others.setdefault(group, []).append(peer)
        if forgotten:
            self._redis.hdel(self._peers_key, *forgotten)
        return others

    def publish(self, decisions: Mapping[str, Decision]) -> None:
        groups = {
            name: asdict(decisions[name].applied_to(mine))
            for name, mine in self._seen.items()
            if name in decisions
        }
        at = self._clock_ahead + time.monotonic()
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(self._peers_key, self._identity, json.dumps({"at": at, "groups": groups}))
            pipeline.expire(self._peers_key, FORGOTTEN)
            pipeline.execute()

    def close(self) -> None:
        try:
            self._redis.hdel(self._peers_key, self._identity)
        finally:
            self._redis.connection_pool.disconnect()


@dataclass(frozen=True)
class _QueueMeasurement:
    """The figures of one queue.

    Attributes:
        waiting: how many jobs are in the queue, scheduled jobs that are due included (their
            scheduler is late). A job that a worker has taken does not count.
        oldest: how long the oldest of them has waited, in seconds; 0 if there are none.
        running: how many jobs have started and not ended.
    """

    waiting: int
    oldest: float
    running: int

    @classmethod
    def of(cls, figures: list[Any], now: float) -> _QueueMeasurement:
        """Converts what the script returned for a queue.

        The oldest job is searched among the first three and the last one. A job that was put at
        the front may be younger than those behind it. A job whose data are gone has no age.

        Args:
            figures: the queue's length, samples of jobs, the number of due scheduled jobs, the
                first of these, and the number of started jobs.
            now: the server's time, in seconds since 1970.
        """
        queued, samples, overdue, first_overdue, running = figures
        ages = [age for sample in samples if (age := _age(sample, now)) is not None]
        if first_overdue:
            ages.append(now - float(first_overdue[1]))
        return cls(int(queued) + int(overdue), max([0.0, *ages]), int(running))


def _age(sample: list[Any], now: float) -> float | None:
    """How long a job has waited, in seconds.

    A job that was requeued after its worker died was enqueued long ago, but did not wait while it
    ran. So the later one of its enqueueing and its last heartbeat counts.
    """
    since = [moment for each in sample if (moment := _moment(each)) is not None]
    return now - max(since) if since else None


def _moment(field: bytes | str | None) -> float | None:
    try:
        return utcparse(as_text(field)).timestamp() if field else None
    except ValueError:  # RQ has not written it
        return None


def _measuring_client(group: QueueGroup) -> Redis:
    """A client of a group's server with a short timeout."""
    redis = client(group)
    redis.connection_pool.connection_kwargs["socket_timeout"] = ANSWER_LIMIT
    return redis
