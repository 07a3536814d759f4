"""Redis errors: which of them say that the server cannot be written to now, but may be later.

Rule of the room: it judges and does nothing. Whatever waits for Redis catches `UNREACHABLE`. The
pool's clients raise `Refused`, which is one of these, for an error reply that asks to wait as well.
What is forbidden to a user may be allowed later too: a worker that could work once waits for it and
catches `UNAVAILABLE`; one that never could says so and leaves.
"""

from __future__ import annotations

import re
import ssl
from enum import Enum

from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from ..text import in_a_line

UNREACHABLE = (ConnectionError, TimeoutError)
"""The exceptions for a server that cannot be reached, or that refuses to write for now."""

UNAVAILABLE = (*UNREACHABLE, NoPermissionError)
"""The same, and the exception for a command that the user may not run."""

_DEMOTED = ("READONLY", "UNBLOCKED")
"""Codes of replies from a server that is a replica, or has just become one."""

_CODES = (
    *_DEMOTED,
    "OOM",
    "NOREPLICAS",
    "MISCONF",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
)
"""Codes of replies that time or an administrator ends. Others, such as NOPERM or WRONGTYPE, say
that a command can never work."""

_LOST_CODES = (
    (ReadOnlyError, "READONLY"),
    (OutOfMemoryError, "OOM"),
    (MasterDownError, "MASTERDOWN"),
    (ClusterDownError, "CLUSTERDOWN"),
    (TryAgainError, "TRYAGAIN"),
)
"""What redis-py cuts off the text of a reply for which it has a class."""

_REFUSAL = re.compile(
    # Redis 6.2: ERR Error running script (call to f_…): @user_script:1: @user_script: 1: -OOM …
    r"(?:Error running script .*?: -|"
    # EXEC itself is refused: EXECABORT Transaction discarded because of: OOM …
    r"Transaction discarded because of: )?"
    rf"((?:{'|'.join(_CODES)}) .*)",
    re.DOTALL,
)

_FORBIDDEN = re.compile(
    # Redis 6.2, in a script: ERR Error running script (call to f_…): … -NOPERM …
    r"(?:Error running script .*?: -NOPERM |"
    # EXEC itself is forbidden: EXECABORT Transaction discarded because of: NOPERM User …
    r"Transaction discarded because of: NOPERM |"
    # Later: ACL failure in script: User … has no permissions … script: on @user_script:1.
    r"ACL failure in script: )(.*?)(?: script: .*)?",
    re.DOTALL,
)


_LOGIN_CODES = ("NOAUTH", "WRONGPASS", "DENIED")
"""Codes of replies to a client without a password, with a wrong one, or from another host."""

_NO_DATABASE = ("DB index is out of range", "invalid DB index")
"""What servers reply to a ``SELECT`` of a database that they do not have."""


class Trouble(str, Enum):
    """Why a worker cannot use Redis. The value begins the sentence that the log has."""

    UNREACHABLE = "Redis cannot be reached"
    LOGIN = "Redis refuses the user or the password"
    TLS = "no TLS connection to Redis can be made"
    DATABASE = "Redis has no such database"
    WRITES = "Redis refuses to write for now"
    FORBIDDEN = "Redis forbids this user a command"


def trouble(error: BaseException) -> Trouble:
    """Which trouble an error of a client says that there is.

    Args:
        error: what a command, or the connection for it, has raised.
    """
    if isinstance(error, NoPermissionError):
        return Trouble.FORBIDDEN
    if isinstance(error, AuthenticationError) or str(error).startswith(_LOGIN_CODES):
        return Trouble.LOGIN
    if str(error).startswith(_NO_DATABASE):
        return Trouble.DATABASE
    if isinstance(error, Refused):
        return Trouble.WRITES
    # A server without TLS does not answer a handshake: redis-py tells that as any other timeout.
    below = error.__cause__ or error.__context__
    if isinstance(below, ssl.SSLError) or "handshake operation timed out" in str(below):
        return Trouble.TLS
    return Trouble.UNREACHABLE


def told(error: BaseException) -> str:
    """What the log says of an error on which a worker waits.

    Args:
        error: see `trouble`.
    """
    return f"{trouble(error).value}, workers keep trying: {_words(error)}"


def described(error: BaseException) -> str:
    """What is said of an error on which nobody waits.

    Args:
        error: see `trouble`.
    """
    return f"{trouble(error).value}: {_words(error)}"


def _words(error: BaseException) -> str:
    """The words of the server or the driver, and what they may mean."""
    hint = ""
    if trouble(error) is Trouble.UNREACHABLE and isinstance(
        error.__context__, ConnectionResetError
    ):
        hint = " A server that expects TLS answers so too."
    return in_a_line(error) + hint


class Refused(ConnectionError):
    """The server answers, but refuses to write for now.

    It is a ``ConnectionError``, because RQ and the pool wait when they get one. Its text is the
    server's own. The error reply is its cause.
    """

    @property
    def demoted(self) -> bool:
        """Whether the server is a replica. The one to write to may then be at the same address, and
        only new connections reach it."""
        return str(self).startswith(_DEMOTED)


def refused(error: ResponseError) -> Refused | None:
    """The exception to raise instead of an error reply that asks to wait.

    Args:
        error: the reply, as redis-py raises it.

    Returns:
        The exception, to be raised from ``error``. None if waiting does not help.
    """
    text = _without_place(error)
    for known, code in _LOST_CODES:
        if isinstance(error, known) and not text.startswith(code):
            text = f"{code} {text}"
            break
    found = _REFUSAL.match(text)
    return None if found is None else Refused(found[1])


def forbidden(error: ResponseError) -> NoPermissionError | None:
    """The exception to raise instead of an error reply that says what the user may not do, be it a
    command, or one of a pipeline's or of a script's: always the same.

    Args:
        error: the reply, as redis-py raises it.

    Returns:
        The exception, or None if it is another error.
    """
    text = _without_place(error)
    if isinstance(error, NoPermissionError):
        return NoPermissionError(text)
    found = _FORBIDDEN.fullmatch(text)
    return None if found is None else NoPermissionError(found[1])


def _without_place(error: ResponseError) -> str:
    """The text of a reply without redis-py's words on which command of a pipeline it is for."""
    return str(error).rpartition(" of pipeline caused error: ")[2]


def is_unavailable(error: BaseException) -> bool:
    """Whether an error says that the server cannot be reached or refuses to write for now.

    Args:
        error: any exception, also one of a client that is not the pool's.
    """
    if isinstance(error, UNREACHABLE):
        return True
    return isinstance(error, ResponseError) and refused(error) is not None
