"""Settled: that nothing is left to do in a server, once its trouble is over."""

from __future__ import annotations

import redis
from rq import Worker
from rq.registry import StartedJobRegistry
from rq.utils import as_text

from harness import Pool

PATIENCE = 180.0
"""Seconds for what may have to wait until the pool looks for what lost workers have left."""


def assert_settled(client: redis.Redis, pool: Pool) -> bool:
    """The pool's workers are registered and nobody else is; no job is held by any of them, or by
    one that has gone. To be asked while the pool has nothing to do."""
    registered = Worker.all(connection=client)
    assert {worker.pid for worker in registered} == set(pool.worker_pids())
    assert _keys(client, "rq:pool:members") == {worker.key for worker in registered}
    assert client.keys("rq:pool:in-flight:*") == []
    assert client.keys("rq:pool:recovery:*") == []
    for key in client.keys("rq:pool:begun:*"):
        assert set(client.hkeys(key)) <= {b"settled"}
    for key in client.smembers("rq:queues"):
        name = as_text(key).removeprefix("rq:queue:")
        assert client.llen(key) == 0
        assert StartedJobRegistry(name, connection=client).get_job_ids(cleanup=False) == []
    return True


def _keys(client: redis.Redis, name: str) -> set[str]:
    return {as_text(key) for key in client.hkeys(name)}
