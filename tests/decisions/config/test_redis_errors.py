"""Which error replies ask to wait, in the words of the servers that we know."""

from __future__ import annotations

import ssl

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    DataError,
    ExecAbortError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from django_rq_pool.config.redis_errors import (
    Refused,
    Trouble,
    forbidden,
    is_unavailable,
    refused,
    told,
    trouble,
)

OOM = "command not allowed when used memory > 'maxmemory'."
IN_A_SCRIPT = "Error running script (call to f_5f2): @user_script:3: @user_script: 3: -"

WAITED_FOR = [
    (ReadOnlyError("You can't write against a read only replica."), "READONLY You can't"),
    (OutOfMemoryError(OOM), f"OOM {OOM}"),
    (MasterDownError("Link with MASTER is down"), "MASTERDOWN Link"),
    (ClusterDownError("The cluster is down"), "CLUSTERDOWN The"),
    (ResponseError("CLUSTERDOWN Hash slot not served"), "CLUSTERDOWN Hash"),
    (TryAgainError("Multiple keys request during rehashing"), "TRYAGAIN Multiple"),
    (ResponseError("NOREPLICAS Not enough good replicas to write."), "NOREPLICAS Not enough"),
    (ResponseError("MISCONF Redis is configured to save RDB snapshots"), "MISCONF Redis"),
    (ResponseError("LOADING Redis is loading the dataset in memory"), "LOADING Redis"),
    (ResponseError("BUSY Redis is busy running a script."), "BUSY Redis is busy"),
    (ResponseError("UNBLOCKED force unblock from blocking operation"), "UNBLOCKED force"),
    # Redis 6.2 reports what a script could not do as the script's own error.
    (ResponseError(f"{IN_A_SCRIPT}OOM {OOM}"), f"OOM {OOM}"),
    (ResponseError(f"{IN_A_SCRIPT}READONLY You can't write"), "READONLY You can't write"),
    # What EXEC itself says, when the transaction could be queued.
    (ExecAbortError(f"Transaction discarded because of: OOM {OOM}"), f"OOM {OOM}"),
    # What redis-py makes of an error in a pipeline.
    (
        OutOfMemoryError(f"Command # 2 (SET key (value)) of pipeline caused error: {OOM}"),
        f"OOM {OOM}",
    ),
]


@pytest.mark.parametrize(("error", "words"), WAITED_FOR, ids=lambda each: str(each)[:40])
def test_a_reply_that_time_or_an_administrator_ends_is_waited_for_in_the_servers_words(
    error, words
):
    refusal = refused(error)
    assert refusal is not None
    assert str(refusal).startswith(words)
    assert is_unavailable(error)
    assert is_unavailable(refusal)


@pytest.mark.parametrize(
    "error",
    [
        NoPermissionError("User u has no permissions to run the 'set' command"),
        NoScriptError("No matching script."),
        ExecAbortError("Transaction discarded because of previous errors."),
        ResponseError("unknown command 'OOM ', with args beginning with:"),
        ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        ResponseError("BUSYGROUP Consumer Group name already exists"),
        ResponseError("BUSYKEY Target key name already exists."),
        ResponseError("value is not READONLY or OOM anything"),
        ResponseError("Error running script (call to f_5f2): @user_script:3: -OOMs are fruit"),
        ResponseError(""),
    ],
    ids=str,
)
def test_a_reply_that_waiting_does_not_change_is_not(error):
    assert refused(error) is None
    assert not is_unavailable(error)


@pytest.mark.parametrize(
    "error", [ConnectionError("gone"), TimeoutError("silent"), BusyLoadingError("loading")]
)
def test_a_server_that_cannot_be_reached_is_unavailable(error):
    assert is_unavailable(error)


@pytest.mark.parametrize("error", [DataError("wrong"), ValueError("OOM ..."), OSError("gone")])
def test_an_error_that_is_not_of_the_server_is_not(error):
    assert not is_unavailable(error)


@pytest.mark.parametrize(
    ("words", "demoted"),
    [("READONLY You can't", True), ("UNBLOCKED force", True), ("OOM command", False)],
)
def test_a_refusal_tells_whether_the_server_is_a_replica(words, demoted):
    assert Refused(words).demoted is demoted


NO_EXEC = "User u has no permissions to run the 'exec' command"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NoPermissionError(NO_EXEC), NO_EXEC),
        (ExecAbortError(f"Transaction discarded because of: NOPERM {NO_EXEC}"), NO_EXEC),
        (ExecAbortError("Transaction discarded because of previous errors."), None),
    ],
    ids=str,
)
def test_what_is_forbidden_is_so_wherever_the_server_notices(error, words):
    denial = forbidden(error)
    assert (None if denial is None else str(denial)) == words


def because_of(context: BaseException, error: BaseException) -> BaseException:
    error.__context__ = context
    return error


UNVERIFIED = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify")

TROUBLES = [
    (ConnectionError("Error 111 connecting to x:1. Connection refused."), Trouble.UNREACHABLE),
    (TimeoutError("Timeout reading from socket"), Trouble.UNREACHABLE),
    (AuthenticationError("invalid username-password pair or user is disabled."), Trouble.LOGIN),
    (AuthenticationError("HELLO must be called with the client already"), Trouble.LOGIN),
    (ConnectionError("DENIED Redis is running in protected mode"), Trouble.LOGIN),
    (ResponseError("WRONGPASS invalid username-password pair"), Trouble.LOGIN),
    (ResponseError("NOAUTH Authentication required."), Trouble.LOGIN),
    (ResponseError("DB index is out of range"), Trouble.DATABASE),
    (Refused("OOM command not allowed"), Trouble.WRITES),
    (NoPermissionError("User x has no permissions to run the 'set' command"), Trouble.FORBIDDEN),
    (because_of(UNVERIFIED, ConnectionError("Error 1 connecting to x:1.")), Trouble.TLS),
    (
        because_of(
            OSError("_ssl.c:989: The handshake operation timed out"),
            TimeoutError("Timeout connecting to server"),
        ),
        Trouble.TLS,
    ),
]


@pytest.mark.parametrize(("error", "kind"), TROUBLES, ids=lambda each: str(each)[:40])
def test_the_log_says_which_trouble_with_a_server_there_is(error, kind):
    assert trouble(error) is kind
    assert told(error) == f"{kind.value}, workers keep trying: {error}"


def test_a_connection_that_is_reset_at_once_may_lack_tls():
    error = because_of(ConnectionResetError(104), ConnectionError("Connection reset by peer"))
    assert told(error).endswith("A server that expects TLS answers so too.")
