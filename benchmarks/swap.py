"""Swap: the memory that two pools need while one takes the place of the other.

    python benchmarks/swap.py [--workers N] [--repetitions N]

A pool with N workers on two queues of the site in ``benchmarks/site`` is idle; another one of the
same name is started, with ``--hot-swap`` or ``--swap-step``. The sum of the PSS of both is taken
all the time, until the older one has gone; the largest is the peak, and what the older one had
before is one pool's memory. Medians, and the smallest and largest repetition, in turns.

Needs Linux and the dependency group ``benchmark``.
"""

from __future__ import annotations

import argparse
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trees
from contenders import MANAGE
from server import Server
from trees import Tree

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness import end_all, environment, eventually

WAYS = ("--hot-swap", "--swap-step")


@dataclass(frozen=True)
class Outcome:
    """Bytes: of one idle pool, and the most that both had together."""

    alone: int
    peak: int


def swap(way: str, workers: int) -> Outcome:
    """Has one pool take another's place and watches their memory."""
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        here = Path(folder).resolve()
        name = f"bench-{secrets.token_hex(4)}"
        env = environment(server.url, DJANGO_SETTINGS_MODULE="clinic.settings")
        pools: list[subprocess.Popen[bytes]] = []

        def start(*options: str) -> Tree:
            line = [sys.executable, str(MANAGE), "rqpool", f"high,default={workers}"]
            line += ["--verbosity", "0", "--name", name, *options]
            pools.append(subprocess.Popen(line, cwd=here, env=env, start_new_session=True))
            return Tree([pools[-1].pid])

        def are_ready(count: int) -> bool:
            return len(server.registered()) >= count and server.waiting() >= 2 * count

        try:
            old = start()
            eventually(lambda: are_ready(workers), 120)
            alone = peak = trees.pss(old.living())
            both = Tree(old.sessions | start(way).sessions)
            while pools[0].poll() is None:
                if pools[1].poll() is not None:
                    sys.exit(f"the pool with {way} has left, with status {pools[1].returncode}")
                peak = max(peak, trees.pss(both.living()))
            eventually(lambda: are_ready(workers), 120)
            pools[1].send_signal(signal.SIGQUIT)
            pools[1].wait(60)
        finally:
            end_all(here)
            for pool in pools:
                pool.wait()
    return Outcome(alone, peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    outcomes: dict[str, list[Outcome]] = {way: [] for way in WAYS}
    for _ in range(arguments.repetitions):
        for way, measured in outcomes.items():
            measured.append(swap(way, arguments.workers))
    print(f"{arguments.workers} workers   one pool      peak of both   of one pool")
    for way, measured in outcomes.items():
        alone = statistics.median(each.alone for each in measured) / 2**20
        peaks = sorted(each.peak / 2**20 for each in measured)
        peak = statistics.median(peaks)
        print(
            f"{way:12} {alone:6.0f} MB   {peak:6.0f} MB ({peaks[0]:.0f} to {peaks[-1]:.0f})"
            f"   {peak / alone:.2f} x"
        )


if __name__ == "__main__":
    main()
