"""Server options: checks what an entry of ``RQ_QUEUES`` says about its server.

Rule of the room: a mapping goes in, a sentence comes out. No client is made, and no value is told
that may be a password.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..text import short

_LARGEST_PORT = 65535
_LOOKS_FALSE = ("false", "no", "off", "0", "none")


def wrong_option(options: Mapping[str, Any]) -> str | None:
    """The first option whose value django-rq or redis-py would stumble over, or misunderstand.

    Args:
        options: the entry of one queue.

    Returns:
        What is wrong, such as ``PORT: 'abc' is not a port number``; None if nothing is.
    """
    way = next((each for each in _READ if each in options), "HOST")
    for name in _READ[way]:
        wrong = _CHECKS[name](options[name]) if name in options else None
        if wrong is not None:
            return f"{name}: {wrong}"
    return None


_READ = {
    "URL": ("URL", "DB"),
    "USE_REDIS_CACHE": (),
    "UNIX_SOCKET_PATH": ("DB",),
    "SENTINELS": ("SENTINELS", "DB"),
    "HOST": ("PORT", "DB", "SSL"),
}
"""The options that django-rq reads where it finds the one in front; it ignores the others."""


def _url(value: object) -> str | None:
    if isinstance(value, str):
        return None
    return f"a value of type {type(value).__name__} is not a URL"


def _port(value: object) -> str | None:
    if 0 < _number(value) <= _LARGEST_PORT:
        return None
    return f"{short(value)} is not a port number"


def _database(value: object) -> str | None:
    if not value or _number(value) >= 0:  # redis-py takes an empty text for the first database
        return None
    return f"{short(value)} is not the number of a database"


def _tls(value: object) -> str | None:
    if isinstance(value, str) and value.strip().lower() in _LOOKS_FALSE:
        return f"{short(value)} is a text, so it turns TLS on; write False without quotes"
    return None


def _sentinels(value: object) -> str | None:
    for each in value if isinstance(value, (list, tuple)) else (value,):
        fine = isinstance(each, (list, tuple)) and len(each) == 2 and isinstance(each[0], str)
        wrong = _port(each[1]) if fine else "each must be a pair of a host and a port"
        if wrong is not None:
            return wrong
    return None if value else "there is no Sentinel"


def _number(value: object) -> int:
    """The number that redis-py makes of a value; -1 if it is none."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


_CHECKS: dict[str, Callable[[object], str | None]] = {
    "URL": _url,
    "PORT": _port,
    "DB": _database,
    "SSL": _tls,
    "SENTINELS": _sentinels,
}
