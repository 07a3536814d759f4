"""Run options: how a pool is started, beside what it is to be.

Rule of the room: data only; the command makes it from its options.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

SWAP_TIMEOUT = 60.0
"""Seconds within which a pool that something waits for has to be ready."""

DAEMON_STDOUT = "log/rqpool.stdout.log"
DAEMON_STDERR = "log/rqpool.stderr.log"
DAEMON_PIDFILE = "tmp/pids/rqpool.pid"
HOT_SWAP_LOCK = "tmp/rqpool.lock"


class SwapMode(Enum):
    """How a pool takes the place of older ones of its name."""

    NONE = "none"
    """It does not."""
    KILL_OTHERS = "kill others"
    """It asks them to leave once each queue group has a worker that is ready."""
    HOT = "hot"
    """It asks them to leave once every worker is ready."""
    GRADUAL = "gradual"
    """It takes over worker by worker, once each queue group has a worker that is ready."""

    @property
    def replaces(self) -> bool:
        """Whether older pools are to leave."""
        return self is not SwapMode.NONE


@dataclass(frozen=True)
class RunOptions:
    """How a pool is started.

    Attributes:
        burst: end when every worker has found its queues empty.
        preload: modules to import before the first fork; None takes ``RQ_POOL_PRELOAD``.
        strict_fork: refuse to start when threads or open sockets would be forked.
        daemon: detach from the terminal.
        wait: have the command wait until the daemon's start has succeeded or failed.
        stdout, stderr: files for the standard streams, or None.
        sync: write each line at once.
        pidfile: path of the pid file, or None.
        lock: path of the lock file, or None.
        spawn_delay: seconds between two forks.
        single_process_group: workers stay in the manager's process group.
        swap: how the pool takes the place of older ones.
        swap_timeout: seconds within which the pool has to be ready if something waits for it.
        ends_process: the process has nothing else to do when the pool has ended.
    """

    burst: bool = False
    preload: Iterable[str] | None = None
    strict_fork: bool = False
    daemon: bool = False
    wait: bool = True
    stdout: str | None = None
    stderr: str | None = None
    sync: bool = True
    pidfile: str | None = None
    lock: str | None = None
    spawn_delay: float = 0.0
    single_process_group: bool = False
    swap: SwapMode = SwapMode.NONE
    swap_timeout: float = SWAP_TIMEOUT
    ends_process: bool = True
