"""The gauge: measures what waits for the groups of a pool whose counts have bounds.

Rule of the room: it knows RQ's key names, and reads: two commands for each Redis server and look,
and two to show the pool to its peers, whatever the number of workers, jobs and groups. What the
figures mean is the business of `demand`.
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
from ..config.redis_clients import probe
from ..ipc.counts_channel import GroupStats
from .demand import Observation
from .peers import Peer
from .policy import Decision

PEERS_KEY = RQ_KEY_PREFIX + ":pool:scaling:%s"
"""Hash of the pools of one name, on all hosts, by their identity: what each shows to the others."""

STALE = 5.0
"""Seconds after which a pool that shows nothing new is no peer."""
FORGOTTEN = 60
"""Seconds after which what it showed is removed."""

ANSWER_LIMIT = 2.0
"""Seconds within which a server must answer."""

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
"""A script, for the age of a job takes its id first, and the workers of several queues are counted
where they are listed. Keys: for each queue its list, its scheduled and its started jobs. Arguments:
for each queue the prefix of its jobs' keys, then for each group the keys of its sets of workers."""


@dataclass(frozen=True)
class Measurement:
    """The outcome of one look.

    Attributes:
        observations: of every group that could be measured, by name.
        failures: why the others could not, by name.
    """

    observations: dict[str, Observation]
    failures: dict[str, str]


class Metrics:
    """Measures a pool's groups.

    Construct it in the process that uses it; connections are opened when they are needed.

    Args:
        pool: the name of the pool.
        identity: what tells this pool from others of its name, for as long as its manager lives.
        groups: the pool's groups; those without bounds are left out.
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
        """Looks at every server once.

        A server that does not answer within `ANSWER_LIMIT` seconds makes failures of its groups and
        does not keep the others from being measured.

        Args:
            stats: of every group with bounds, by name.
        """
        reading = Measurement({}, {})
        for server in self._servers:
            try:
                reading.observations.update(server.measure(stats))
            except RedisError as error:
                reason = f"{type(error).__name__}: {error}"
                reading.failures.update((group.name, reason) for group in server.groups)
        return reading

    def show(self, decisions: Mapping[str, Decision]) -> None:
        """Shows the peers on other hosts what has been decided since the last look.

        A server that cannot be reached is passed over: the next look will tell.
        """
        for server in self._servers:
            with contextlib.suppress(RedisError):
                server.show(decisions)

    def close(self) -> None:
        """Takes this pool from its peers and closes the connections."""
        for server in self._servers:
            with contextlib.suppress(RedisError):
                server.close()


class _Server:
    """The groups of a pool on one Redis server."""

    def __init__(self, pool: str, identity: str, groups: list[QueueGroup]) -> None:
        self.groups = groups
        self._identity = identity
        self._peers_key = PEERS_KEY % pool
        self._redis = _impatient(groups[0])
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
            (clock, measured, live), shown = pipeline.execute()
        now = int(clock[0]) + int(clock[1]) / 1e6
        self._clock_ahead = now - time.monotonic()
        queues = {
            name: _QueueMeasurement.of(figures, now)
            for name, figures in zip(self._queues, measured)
        }
        others = self._others(shown, now)
        observations = {}
        for group, workers in zip(self.groups, live):
            own = stats.get(group.name)
            if own is None:
                continue  # the manager has not heard of the group
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
        assert group.bounds is not None  # noqa: S101  # Metrics has left the others out
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

    def _others(self, shown: Mapping[Any, Any], now: float) -> dict[str, list[Peer]]:
        """The peers of each group, without those that have not been heard of lately."""
        others: dict[str, list[Peer]] = {}
        forgotten = []
        for identity, text in shown.items():
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
                continue  # of another version of this package
            if age > FORGOTTEN:
                forgotten.append(name)
            elif age <= STALE:
                for group, peer in peers.items():
                    others.setdefault(group, []).append(peer)
        if forgotten:
            self._redis.hdel(self._peers_key, *forgotten)
        return others

    def show(self, decisions: Mapping[str, Decision]) -> None:
        shown = {
            name: asdict(decisions[name].shown(mine))
            for name, mine in self._seen.items()
            if name in decisions
        }
        at = self._clock_ahead + time.monotonic()
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(self._peers_key, self._identity, json.dumps({"at": at, "groups": shown}))
            pipeline.expire(self._peers_key, FORGOTTEN)
            pipeline.execute()

    def close(self) -> None:
        try:
            self._redis.hdel(self._peers_key, self._identity)
        finally:
            self._redis.connection_pool.disconnect()


@dataclass(frozen=True)
class _QueueMeasurement:
    """What waits on one queue.

    Attributes:
        waiting: jobs in the queue, and scheduled ones whose time has come: their scheduler is late.
            What a worker has taken is in neither place.
        oldest: age of the oldest of them, in seconds.
        running: jobs that have been started and have not ended.
    """

    waiting: int
    oldest: float
    running: int

    @classmethod
    def of(cls, figures: list[Any], now: float) -> _QueueMeasurement:
        """Makes sense of what the script returned for a queue.

        The oldest job is looked for among the first three and the last: a job that was put in front
        is young, and those behind it have waited for longer. One whose data are gone has no age.
        """
        queued, samples, overdue, first_overdue, running = figures
        ages = [age for sample in samples if (age := _age(sample, now)) is not None]
        if first_overdue:
            ages.append(now - float(first_overdue[1]))
        return cls(int(queued) + int(overdue), max([0.0, *ages]), int(running))


def _age(sample: list[Any], now: float) -> float | None:
    """How long a job has waited. One that was requeued after its worker died was enqueued long ago,
    but did not wait while it ran: until then it gave signs of life."""
    since = [moment for each in sample if (moment := _moment(each)) is not None]
    return now - max(since) if since else None


def _moment(field: bytes | str | None) -> float | None:
    try:
        return utcparse(as_text(field)).timestamp() if field else None
    except ValueError:  # whoever wrote it was not RQ
        return None


def _impatient(group: QueueGroup) -> Redis:
    """A client of a group's server that is not tried again and does not wait for long."""
    redis = probe(group)
    redis.connection_pool.connection_kwargs["socket_timeout"] = ANSWER_LIMIT
    return redis
