"""Strikes: what a storm does to the workers of a pool, and to their server.

Rule of the room: a strike is over when it has healed what it broke; what it did to processes that
may have run a job, it notes in the history.
"""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support")]

from accounts import Forgotten, History  # noqa: E402
from failover import SentinelGroup  # noqa: E402
from fault_proxy import FaultProxy  # noqa: E402
from fault_rules import Client, Turns, command  # noqa: E402

STEPS = ("EXEC", "EVALSHA", "EVAL", "LMOVE", "BLMOVE")
"""The commands in which a pool takes, begins and settles jobs."""


@dataclass(frozen=True)
class Site:
    """Where a storm rages.

    Attributes:
        variables: how a pool is told where its server is.
        client: asks the server past every fault; it repeats what fails.
        producer: enqueues past every fault but those of the server itself; it repeats nothing, for
            then a job could be enqueued twice.
        strike: what happens at each event: called with the pool's name, its manager, and the
            history; returns whether it happened.
    """

    variables: dict[str, str]
    client: redis.Redis
    producer: redis.Redis
    strike: Callable[[str, psutil.Process, History], bool]


class Storm(ABC):
    """
    Attributes:
        name: what the table calls it.
        interval: seconds from the end of one event to the next.
        is_quiet_late: whether a pool may need half a minute to notice what has become of a job, so
            that a pool at rest may not have settled all.
        runs_jobs_again: whether some jobs are retried or repeated.
    """

    name: str
    interval = 0.15
    is_quiet_late = True
    runs_jobs_again = True

    @abstractmethod
    def site(self, url: str, folder: Path) -> contextlib.AbstractContextManager[Site]:
        """Prepares what the storm needs.

        Args:
            url: an empty server.
            folder: an empty one, for servers of its own.
        """


def workers(manager: psutil.Process) -> list[psutil.Process]:
    """A manager's workers, but no horse that it has adopted."""
    children = [child for child in manager.children() if title(child).startswith("rq:worker:")]
    return [child for child in children if ": Processing " not in title(child)]


def title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _single(url: str) -> redis.Redis:
    """A client that repeats nothing."""
    return redis.Redis.from_url(url, retry=None)


def _settled(client: redis.Redis) -> int:
    """How many jobs have finished or failed."""
    keys = [f"rq:{end}:{name}" for end in ("finished", "failed") for name in ("high", "default")]
    return sum(client.zcard(key) for key in keys)


def _wait(question: Callable[[], bool], seconds: float) -> bool:
    """Waits until the answer is true, or for so long; whether it is."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not (answer := question()) and time.monotonic() < end:
        pause.wait(0.01)
    return answer


Blow = Callable[[str, psutil.Process, psutil.Process | None, History], bool]


class WorkerStorm(Storm):
    """Something happens to one worker, or its horse.

    Args:
        name: what the table calls it.
        blow: what happens; called with the pool's name, a worker, its horse if it has one, and the
            history.
    """

    is_quiet_late = False
    runs_jobs_again = False

    def __init__(self, name: str, blow: Blow) -> None:
        self.name = name
        self._blow = blow

    @contextmanager
    def site(self, url: str, folder: Path) -> Iterator[Site]:
        with redis.Redis.from_url(url) as client, _single(url) as producer:
            yield Site({"REDIS_URL": url}, client, producer, self._strike)

    def _strike(self, pool: str, manager: psutil.Process, history: History) -> bool:
        try:
            worker = random.choice(workers(manager))
            horses = worker.children()
            return self._blow(pool, worker, horses[0] if horses else None, history)
        except (IndexError, psutil.Error):
            return False


def _quit(
    pool: str, worker: psutil.Process, horse: psutil.Process | None, history: History
) -> bool:
    worker.send_signal(signal.SIGQUIT if pool == "rqpool" else signal.SIGTERM)
    return True


def _immediate(
    pool: str, worker: psutil.Process, horse: psutil.Process | None, history: History
) -> bool:
    # RQ's worker takes a second signal for an immediate stop if it comes a second later, when a
    # short job is over. Nothing is sent twice here: that would favour neither.
    if horse is not None:
        history.killed.add(horse.pid)
    worker.send_signal(signal.SIGINT)
    return True


def _kill_worker(
    pool: str, worker: psutil.Process, horse: psutil.Process | None, history: History
) -> bool:
    if horse is not None:
        history.killed.add(horse.pid)  # by the pool
    worker.kill()
    return True


def _kill_horse(
    pool: str, worker: psutil.Process, horse: psutil.Process | None, history: History
) -> bool:
    if horse is None:
        return False
    history.killed.add(horse.pid)
    horse.kill()
    return True


def _kill_both(
    pool: str, worker: psutil.Process, horse: psutil.Process | None, history: History
) -> bool:
    _kill_worker(pool, worker, horse, history)
    if horse is not None:
        horse.kill()
    return True


class FailoverStorm(Storm):
    """Sentinel makes the replica the master; the old one learns of it a second later."""

    name = "failover"
    interval = 1.0

    @contextmanager
    def site(self, url: str, folder: Path) -> Iterator[Site]:
        with SentinelGroup(folder) as group, group.client() as client:

            def strike(pool: str, manager: psutil.Process, history: History) -> bool:
                since = time.monotonic()
                writes = group.failover().forgotten
                history.forgotten.append(Forgotten(since, time.monotonic(), writes))
                return True

            with group.client(repeats=False) as producer:
                variables = {"REDIS_SENTINELS": group.sentinels, "REDIS_URL": "redis://nowhere"}
                yield Site(variables, client, producer, strike)


class RefusedStorm(Storm):
    """The server refuses writes for one to three seconds, each time for another reason."""

    name = "refused"
    WORK = 8
    """Jobs that a pool shall have settled since the server was well, before it is struck again; or
    it would only be seen waiting for its next attempt to start workers."""
    PATIENCE = 15.0
    """Seconds that it has for them."""
    REASONS = (
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),  # OOM
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),  # READONLY
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),  # NOREPLICAS
        ("ACL SETUSER default -@write", "ACL SETUSER default +@all"),  # NOPERM
    )

    @contextmanager
    def site(self, url: str, folder: Path) -> Iterator[Site]:
        with redis.Redis.from_url(url) as client, _single(url) as producer:
            left: list[tuple[str, str]] = []

            def strike(pool: str, manager: psutil.Process, history: History) -> bool:
                enough = _settled(client) + self.WORK
                _wait(lambda: _settled(client) >= enough, self.PATIENCE)
                left.extend(() if left else self.REASONS)
                breaks, heals = left.pop(0)
                client.execute_command(*breaks.split())
                threading.Event().wait(random.uniform(1.0, 3.0))
                client.execute_command(*heals.split())
                return True

            yield Site({"REDIS_URL": url}, client, producer, strike)


class HalfOpenStorm(Storm):
    """A worker's connections fall silent for ever, then it is killed, or asked to leave."""

    name = "half-open"

    @contextmanager
    def site(self, url: str, folder: Path) -> Iterator[Site]:
        with (
            FaultProxy(url) as proxy,
            redis.Redis.from_url(url) as client,
            _single(url) as producer,
        ):
            struck: set[int] = set()

            def strike(pool: str, manager: psutil.Process, history: History) -> bool:
                try:
                    worker = random.choice([w for w in workers(manager) if w.pid not in struck])
                    ports = {each.laddr.port for each in worker.net_connections("tcp")}
                    horses = {horse.pid for horse in worker.children()}

                    def is_its(client: Client) -> bool:
                        return client.port in ports

                    if not proxy.blackhole_now(is_its):
                        return False  # it has not connected yet
                    struck.add(worker.pid)
                    if random.random() < 0.5:
                        history.killed |= horses
                        worker.kill()
                    else:
                        _quit(pool, worker, None, history)
                except (IndexError, psutil.Error):
                    return False
                return True

            yield Site({"REDIS_URL": proxy.url}, client, producer, strike)


class LostAnswersStorm(Storm):
    """The answer to a step in the life of a job is lost; the step was taken.

    The pool's settings have a host and a port, with which redis-py repeats what fails.
    """

    name = "lost-answers"
    SPREAD = 20
    """One of so many of those commands is met."""
    PATIENCE = 5.0
    """Seconds after which a pool is taken for one that does nothing."""

    @contextmanager
    def site(self, url: str, folder: Path) -> Iterator[Site]:
        with (
            FaultProxy(url) as proxy,
            redis.Redis.from_url(url) as client,
            _single(url) as producer,
        ):

            def strike(pool: str, manager: psutil.Process, history: History) -> bool:
                before = len(proxy.events)
                turns = Turns(times=1, skip=random.randrange(self.SPREAD))
                rule = proxy.lose_answer(command(*STEPS), turns)
                met = _wait(lambda: len(proxy.events) > before, self.PATIENCE)
                proxy.remove(rule)
                return met

            address = proxy.url.removeprefix("redis://")
            yield Site({"REDIS_ADDRESS": address}, client, producer, strike)


STORMS: list[Storm] = [
    WorkerStorm("graceful stop", _quit),
    WorkerStorm("immediate stop", _immediate),
    WorkerStorm("kill worker", _kill_worker),
    WorkerStorm("kill horse", _kill_horse),
    WorkerStorm("kill both", _kill_both),
]
"""What happens to workers, while their server is well."""
FAULTS: list[Storm] = [
    FailoverStorm(),
    RefusedStorm(),
    HalfOpenStorm(),
    LostAnswersStorm(),
]
"""What happens to the server, or on the way to it."""
