"""Life: one contender at work on a server of its own, from its launch until nothing of it is left.

Rule of the room: it starts, waits and stops; what is measured meanwhile is the figures' business.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from contenders import Contender
from server import Server
from trees import Tree

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from harness import end_all, environment

PATIENCE = 300.0
"""Seconds that anything may take which is not itself measured against a limit."""


@dataclass(frozen=True)
class Launch:
    """How long it took until all workers were ready, and the CPU that the tree had used by then."""

    seconds: float
    cpu: float


class Life:
    """A context: launched and ready inside, gone after it.

    Args:
        contender: what runs.
        workers: how many workers.
        queues: the queues that each of them serves.
        folder: an empty one, where it works and logs.
        server: an empty server.

    Attributes:
        tree: its processes.
        launch: what it took to get ready.
    """

    def __init__(
        self, contender: Contender, workers: int, queues: list[str], folder: Path, server: Server
    ) -> None:
        self.contender = contender
        self.workers = workers
        self.queues = queues
        self.folder = folder
        self.server = server
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Life:
        lines = self.contender.command_lines(self.queues, self.workers)
        env = environment(self.server.url, DJANGO_SETTINGS_MODULE="clinic.settings")
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # or each launch compiles the site anew
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # or each launch compiles the site anew
        log = (self.folder / "log").open("wb")
        began = time.monotonic()
        try:
            for line in lines:
                self._processes.append(
                    subprocess.Popen(
                        line,
                        cwd=self.folder,
                        env=env,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
            self.tree = Tree(process.pid for process in self._processes)
            self.await_workers()
            self.launch = Launch(time.monotonic() - began, self.tree.cpu())
        except BaseException:
            self._end()
            raise
        finally:
            log.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        end_all(self.folder)
        for process in self._processes:
            process.wait()

    # What it is

    @property
    def manager(self) -> int:
        """The pid of its first command; the manager, for those that have one."""
        return self._processes[0].pid

    def is_ready(self) -> bool:
        """Whether every worker is registered and waits for a job, as the server sees it."""
        return (
            self.server.waiting() >= self.contender.blocked(self.queues, self.workers)
            and len(self.server.registered()) >= self.workers
        )

    def worker_pids(self) -> dict[str, int]:
        """The pid of each registered worker, by the key of its registration."""
        names = sorted(self.server.registered())
        pids = (self.server.client.hget(name, "pid") for name in names)
        return {name: int(pid) for name, pid in zip(names, pids) if pid is not None}

    # What is done to it

    def await_workers(self, pause: float = 0.005) -> None:
        """Waits until every worker is ready."""
        wait_until(self.is_ready, PATIENCE, pause)

    def run_jobs(self, function: str, jobs: int) -> float:
        """Has it do jobs, which are on its queues from one instant on.

        Returns:
            Seconds from that instant until the last of them has been settled.
        """
        before = self.server.settled(self.queues)
        began = self.server.enqueue(function, self.queues, jobs)
        wait_until(lambda: self.server.settled(self.queues) - before >= jobs, PATIENCE, 0.01)
        return time.monotonic() - began

    def collect_garbage(self) -> None:
        """Has each of its processes do a full garbage collection; see the site's ``apps.py``."""
        pids = self.tree.living()
        for pid in pids:
            os.kill(pid, signal.SIGRTMIN)
        wait_until(
            lambda: all((self.folder / f"collected-{pid}").exists() for pid in pids), PATIENCE, 0.05
        )

    def stop(self, limit: float) -> float | None:
        """Asks it to stop gracefully.

        Returns:
            Seconds until no process of it is left; None when it took longer than the limit.
        """
        began = time.monotonic()
        for process in self._processes:
            process.send_signal(self.contender.stop)

        def is_gone() -> bool:
            return not [process for process in self._processes if process.poll() is None]

        try:
            wait_until(is_gone, limit, 0.002)
            wait_until(lambda: not self.tree.living(), limit, 0.002)
        except TimeoutError:
            return None
        return time.monotonic() - began


def wait_until(question: Callable[[], bool], limit: float, pause: float) -> None:
    """Asks until the answer is yes.

    Args:
        question: what is asked.
        limit: seconds.
        pause: seconds between two answers and questions: the precision of what is measured so.

    Raises:
        TimeoutError: the answer was never yes.
    """
    end = time.monotonic() + limit
    while not question():
        if time.monotonic() > end:
            raise TimeoutError(f"not so within {limit:.0f} s")
        time.sleep(pause)
