"""Records: every key that RQ owns in a server, in a form in which two runs can be compared.

Rule of the room: ids of executions, names of workers and times of day are replaced, because they
differ from run to run; how far a time is from now is kept.
"""

from __future__ import annotations

import base64
import math
import re
import time
import zlib
from dataclasses import dataclass

from redis import Redis
from rq.utils import as_text

TOLERANCE = 900.0
"""Seconds by which two spans of time may differ that are the same in a slow run and a quick one.
The spans that scenarios ask for are farther apart."""

_EXECUTION = re.compile(r"\b[0-9a-f]{32}\b")
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?"  # in hashes
    r"|\d{10}\.\d+"  # in results
)
_COMPRESSED = ("exc_info", "exc_string")
"""Fields that RQ compresses: zlib in a job's hash, with base64 around it in a result."""
_OF_A_PROCESS = ("ip_address", "pid", "total_working_time")
"""Fields in which no two workers are the same."""
_ADDED = "Its horse was ended by somebody else."
"""What the pool adds to RQ's reason when a work horse was killed, and it did not do so itself."""


@dataclass(frozen=True, eq=False)
class Span:
    """A span of time, equal to one that is nearly as long."""

    seconds: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Span) and abs(self.seconds - other.seconds) < TOLERANCE

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Record:
    """One key: its type, what it holds, and how long it lives; a `Span`, or None for ever."""

    type: str
    value: object
    lives: Span | None


def records(client: Redis, worker_names: list[str]) -> dict[str, Record]:
    """Every key but those of the pool's own, by its name.

    Args:
        client: of the server, with nobody at work.
        worker_names: the workers that have worked.
    """
    names = re.compile("|".join(map(re.escape, worker_names)) or "(?!)")
    found = {}
    for key in client.scan_iter(count=1000):
        name = as_text(key)
        if not name.startswith("rq:pool:"):
            lives = client.ttl(key)
            value = _read(client, name, names)
            type_ = as_text(client.type(key))
            found[_plain(name, names)] = Record(type_, value, None if lives < 0 else Span(lives))
    return found


def _read(client: Redis, key: str, names: re.Pattern[str]) -> object:
    kind = as_text(client.type(key))
    if kind == "string":
        return _plain(client.get(key), names)
    if kind == "list":
        return [_plain(each, names) for each in client.lrange(key, 0, -1)]
    if kind == "set":
        return sorted(_plain(each, names) for each in client.smembers(key))
    if kind == "zset":
        scored = client.zrange(key, 0, -1, withscores=True)
        return {_plain(member, names): _score(score) for member, score in scored}
    if kind == "stream":
        return [_fields(entry, names) for _, entry in client.xrange(key)]
    return _fields(client.hgetall(key), names)


def _fields(fields: dict[bytes, bytes], names: re.Pattern[str]) -> dict[str, object]:
    return {
        as_text(name): _plain(_expanded(as_text(name), value), names).replace(_ADDED, "")
        for name, value in sorted(fields.items())
        if as_text(name) not in _OF_A_PROCESS
    }


def _expanded(field: str, value: bytes) -> bytes:
    if field not in _COMPRESSED or not value:
        return value
    return zlib.decompress(value if value.startswith(b"x") else base64.b64decode(value))


def _score(score: float) -> object:
    is_time = 1_000_000 < score < math.inf
    return Span(score - time.time()) if is_time else score


def _plain(value: bytes | str, names: re.Pattern[str]) -> str:
    try:
        text = as_text(value)
    except UnicodeDecodeError:
        return repr(value)
    if _TIME.fullmatch(text):
        return "TIME"
    text = _EXECUTION.sub("EXECUTION", names.sub("WORKER", text))
    if "Traceback (most recent call last)" in text:
        return f"TRACEBACK {text.strip().splitlines()[-1]}"
    return text


def differences(found: dict[str, Record], expected: dict[str, Record]) -> list[str]:
    """What differs between two runs, a line for each key or field."""
    lines = []
    for key in sorted({*found, *expected}):
        ours, theirs = _parts(found.get(key)), _parts(expected.get(key))
        lines += [
            f"{key} {part}: {ours.get(part)!r} instead of {theirs.get(part)!r}"
            for part in sorted({*ours, *theirs})
            if ours.get(part) != theirs.get(part)
        ]
    return lines


def _parts(record: Record | None) -> dict[str, object]:
    if record is None:
        return {}
    parts = {"type": record.type, "lives": record.lives, "value": record.value}
    if isinstance(record.value, dict):
        del parts["value"]
        parts |= {f"[{field}]": value for field, value in record.value.items()}
    return parts
