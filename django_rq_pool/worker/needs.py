"""Needs: what a worker needs of its server, and what it is better off with.

Rule of the room: names and facts go in, sentences come out. Nothing is sent from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

OLDEST = (6, 2)
"""The oldest version of Redis that has all commands, such as ``LMOVE``."""

Try = tuple[Any, ...]
"""A command and its arguments, which do nothing to what anybody else has."""


def tries(key: str) -> Iterator[Try]:
    """Every command that RQ's and the pool's code send for a worker, on keys of one's own that are
    gone in the end. A script is allowed what its commands are.

    Args:
        key: begins the names of the keys.
    """
    text, fields, jobs, other = f"{key}:text", f"{key}:hash", f"{key}:list", f"{key}:other"
    members, scores, stream = f"{key}:set", f"{key}:sorted", f"{key}:stream"
    yield from (("PING",), ("INFO", "server"), ("TIME",))
    yield from (("SET", text, 1, "EX", 60), ("GET", text), ("EXISTS", text), ("PERSIST", other))
    yield from (("HSET", fields, "a", 1), ("EXPIRE", fields, 60), ("HSETNX", fields, "b", 1))
    yield from (("HGET", fields, "a"), ("HMGET", fields, "a"), ("HGETALL", fields))
    yield from (("HKEYS", fields), ("HVALS", fields), ("HEXISTS", fields, "a"))
    yield from (("HINCRBY", fields, "a", 1), ("HINCRBYFLOAT", fields, "a", 1))
    yield ("HDEL", fields, "a")
    yield from (("RPUSH", jobs, 1), ("EXPIRE", jobs, 60), ("LPUSH", jobs, 1), ("LLEN", jobs))
    yield from (("LINDEX", jobs, 0), ("LRANGE", jobs, 0, -1), ("LPOS", jobs, 1))
    yield from (("LREM", jobs, 0, 1), ("LPOP", jobs), ("LMOVE", jobs, other, "LEFT", "RIGHT"))
    yield ("BLMOVE", jobs, other, "LEFT", "RIGHT", 0.01)
    yield from (("SADD", members, 1), ("EXPIRE", members, 60), ("SMEMBERS", members))
    yield from (("SISMEMBER", members, 1), ("SUNION", members), ("SREM", members, 1))
    yield from (("ZADD", scores, 1, 1), ("EXPIRE", scores, 60), ("ZCARD", scores))
    yield from (("ZCOUNT", scores, 0, 1), ("ZSCORE", scores, 1), ("ZRANGE", scores, 0, -1))
    yield from (("ZRANGEBYSCORE", scores, 0, 1), ("ZREMRANGEBYSCORE", scores, 0, 0))
    yield from (("ZREM", scores, 1), ("ZPOPMIN", scores))
    yield from (("XADD", stream, "MAXLEN", 1, "*", "a", 1), ("EXPIRE", stream, 60))
    yield ("DEL", text, fields, jobs, other, members, scores, stream)
    yield from (("EVAL", "return 1", 0), ("SCRIPT", "LOAD", "return 1"))
    yield from (("SCRIPT", "EXISTS", _SHA), ("EVALSHA", _SHA, 0))
    yield from (("WATCH", text), ("MULTI",), ("EXEC",), ("UNWATCH",), ("CLIENT", "ID"))


_SHA = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
"""The SHA-1 of the script ``return 1``."""

OPTIONAL: tuple[tuple[Try, str], ...] = (
    (("CLIENT", "UNBLOCK", 0), "idle workers ask for jobs five times a second"),
    (("CLIENT", "LIST", "ID", 0), "what a dead worker has under way is not ended at once"),
    (("CLIENT", "KILL", "ID", 0), "what a dead worker has under way is not ended at once"),
)
"""Commands that a worker does without, and what happens then."""


def named(command: Try) -> str:
    """The name by which a rule of a Redis user allows a command: ``lmove``, ``client|id``.

    Args:
        command: the command and its arguments.
    """
    words = command[:2] if command[0] in ("CLIENT", "SCRIPT") else command[:1]
    return "|".join(words).lower()


def version(info: Mapping[str, Any]) -> str:
    """What a server is called: ``Valkey 9.0.1``.

    Args:
        info: the answer to ``INFO``.
    """
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', 'of an unknown version')}"


def obstacles(info: Mapping[str, Any], replicas: int) -> Iterator[str]:
    """Why no worker can work on a server.

    Args:
        info: the answer to ``INFO``.
        replicas: the setting ``RQ_POOL_WAIT_REPLICAS``.

    Returns:
        Sentences that go on after the name of the server.
    """
    found = re.match(r"(\d+)\.(\d+)", str(info.get("redis_version", "")))
    if found is not None and tuple(map(int, found.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        yield f"it is {version(info)}, and the pool needs Redis {oldest} or a later one"
    if info.get("role") == "slave":
        yield "it is a replica, which takes no writes: give the address of its master"
    if info.get("cluster_enabled"):
        yield "it is a node of a cluster, and RQ's keys would be on several of them"
    connected = info.get("connected_slaves", 0)
    if info.get("role") == "master" and connected < replicas:
        yield (
            f"RQ_POOL_WAIT_REPLICAS is {replicas} and it has {connected} replicas, so no job would "
            "begin"
        )


def risks(info: Mapping[str, Any]) -> Iterator[str]:
    """What may lose jobs on a server on which workers can work.

    Args:
        info: the answer to ``INFO``.

    Returns:
        Sentences that go on after the name of the server.
    """
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if info.get("maxmemory") and policy != "noeviction":
        what = "jobs" if policy.startswith("allkeys") else "results and registrations of workers"
        yield f"it deletes {what} when its memory is full: set maxmemory-policy noeviction"
    if info.get("aof_enabled") == 0:
        yield (
            "it writes no append-only file: jobs since its last snapshot are gone when it restarts"
        )
    for name, what in (("rdb_last_bgsave_status", "snapshot"), ("aof_last_write_status", "write")):
        if info.get(name, "ok") != "ok":
            yield f"its last {what} to the disk failed ({name})"
