"""Databases and caches of a pool's processes: no socket belongs to two of them, and no job ever
meets an error of the database, whatever hooks do and whoever is killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from django_rq_pool.planning.phases import INFO
from harness import Pool, eventually, migrate

linux = pytest.mark.skipif(not Path("/proc/net/unix").exists(), reason="needs Linux's /proc")

DATABASES = ("sqlite", "postgresql", "postgresql with a pool")


@pytest.fixture(params=DATABASES)
def database(request, pool_environment) -> dict[str, str]:
    """The environment variables that choose each of the databases, with an empty table."""
    if request.param == "sqlite":
        migrate(pool_environment)
        return {}
    chosen = request.getfixturevalue("postgres_folder")
    if request.param.endswith("pool"):
        chosen["SHOP_POSTGRES_POOL"] = "1"
    return chosen


# What is shared


class Sockets:
    """The sockets of the pool's processes at one moment, by the kernel's numbers for them."""

    def __init__(self, pool: Pool) -> None:
        tcp = _tcp_sockets()
        self.kinds = {pool.manager_pid: "manager"}
        for child in pool.manager.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                at_work = ": Processing " in " ".join(child.cmdline())
                self.kinds[child.pid] = "at work" if at_work else "waiting"
        self._holders: dict[str, set[int]] = defaultdict(set)
        for pid in self.kinds:
            for inode in _sockets_of(pid):
                self._holders[inode].add(pid)
        unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
        nameless_datagrams = {each[6] for each in unix if each[4] == "0002" and len(each) == 7}
        self.reports = nameless_datagrams & self.held_by("manager")
        """The pool's own pair, on which workers report: the manager opens no other like it."""
        self._doors = {each[6] for each in unix if each[-1].startswith("/proc/self/fd/")}
        """Where newer pools knock. A worker that has just been forked closes its copy first."""
        # From before and after: whoever held a connection may have ended while others were asked.
        self._peer_ports = tcp | _tcp_sockets()
        self._known = self._peer_ports.keys() | {each[6] for each in unix}

    def held_by(self, kind: str) -> set[str]:
        return {
            inode
            for inode, holders in self._holders.items()
            if any(self.kinds[pid] == kind for pid in holders)
        }

    def shared(self, but_with_port: int = 0) -> dict[str, list[str]]:
        """Whoever holds one socket together, the pool's own pair and door left out, connections
        to a port if one is given, and what was opened and closed again during this look."""
        return {
            inode: [f"{pid} {self.kinds[pid]}" for pid in holders]
            for inode, holders in self._holders.items()
            if len(holders) > 1
            and inode in self._known
            and inode not in self._doors
            and inode not in self.reports
            and not (but_with_port and self._peer_ports.get(inode) == but_with_port)
        }


def _tcp_sockets() -> dict[str, int]:
    """The peer's port of each of the machine's TCP sockets."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {each[9]: int(each[2].rpartition(":")[2], 16) for each in lines}


def _sockets_of(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):  # the process has ended
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(fd.readlink())
                if target.startswith("socket:"):
                    found.add(target)
    return {target[len("socket:[") : -1] for target in found}


ASK = """
def ask(*arguments):
    Order.objects.count()
    cache.set("asked", True)

ask()
for moment in (hooks.before_fork, hooks.after_spawn, hooks.siginfo):
    moment(ask)
"""
"""The manager uses database and cache while it loads, before and after each fork, and on INFO."""

ERRORS = (
    r"OperationalError|InterfaceError|ProgrammingError|DatabaseError|PoolTimeout|Traceback"
    r"|cannot be reached|while it was closed|the hook \S+ failed"
)


@linux
def test_workers_hammer_the_database_while_hooks_use_it_and_workers_are_killed(
    request, start_shop, database, enqueue, server
):
    yaml = """
    high: {workers: 3, interrupted: requeue, interrupted_limit: 99}
    low: {workers: 2, worker_class: rq.SimpleWorker, interrupted: requeue, interrupted_limit: 99}
    """
    pool = start_shop(database, rqpool=ASK, yaml=yaml).expect_ready(5)
    log = request.getfixturevalue("postgres").log if database else None
    told = len(log.read_text()) if log else 0
    jobs = []
    looks = 0

    def nearly_done() -> bool:
        nonlocal looks
        sockets = Sockets(pool)
        looks += "at work" in sockets.kinds.values()
        # For a moment after its fork a horse still has its worker's connections to Redis.
        shared = sockets.shared(but_with_port=server.port)
        if shared:
            pytest.fail(f"sockets that several processes hold: {shared}")  # at once
        return sum(not job.is_finished for job in jobs) < 6

    for turn in range(8):
        jobs += [enqueue("high", "trade", 100 * turn + number) for number in range(8)]
        jobs += [enqueue("low", "trade", 100 * turn + 50 + number) for number in range(8)]
        pool.send(INFO)
        kill_a_worker(pool, turn)
        eventually(nearly_done)
    eventually(lambda: all(job.is_finished for job in jobs))
    pool.expect_ready(13)
    assert looks > 0
    assert pool.stop() == 0
    assert not pool.found(ERRORS)
    if log:
        # A client that is killed, or a horse that ends while its pool still connects, is lost.
        lines = log.read_text()[told:].replace("FATAL:  connection to client lost", "")
        assert not re.findall("^.*(?:ERROR|FATAL|PANIC|protocol|invalid).*$", lines, re.MULTILINE)


def kill_a_worker(pool: Pool, turn: int) -> None:
    """Kills one of those that are ready, each time of another kind."""
    reaped = {line[1] for line in pool.found(r"worker (\d+) of \S+ reaped")}
    ready = pool.found(rf"worker (\d+) of {('high', 'low')[turn % 2]} ready$")
    os.kill(next(int(line[1]) for line in ready if line[1] not in reaped), signal.SIGKILL)


@linux
def test_no_socket_but_the_pair_of_the_reports_is_held_by_two_processes(
    start_shop, database, enqueue, valkey
):
    yaml = """
    high,default: 2
    low: {workers: 1, worker_class: rq.SimpleWorker}
    foo: 1
    """
    pool = start_shop(database, rqpool=ASK, yaml=yaml).expect_ready(4)
    for number, queue in enumerate(("high", "default", "low")):
        enqueue(queue, "trade_and_hold", number, "gate")
    eventually(lambda: valkey.llen("gate:running") == 3)
    # One more fork, while the manager and all the others have everything open.
    os.kill(int(pool.expect(r"worker (\d+) of foo ready$")[0][1]), signal.SIGKILL)
    pool.expect_ready(5)

    # The two horses and the worker that has none; the horses' workers and the new one.
    expected = {"manager": 1, "at work": 3, "waiting": 3}

    def all_there() -> Sockets:
        sockets = Sockets(pool)
        assert Counter(sockets.kinds.values()) == expected  # the recovery process has left
        return sockets

    sockets = eventually(all_there)
    assert sockets.shared() == {}
    assert len(sockets.reports) == 2
    # Each has a connection of its own to Redis, to the cache and to a database that is no file.
    own = 3 if database else 2
    assert len(sockets.held_by("at work") - sockets.reports) >= 3 * own
    assert len(sockets.held_by("manager") - sockets.reports) >= own - 1
    assert not pool.found(ERRORS)


@linux
def test_a_scheduler_process_shares_no_socket_with_its_worker(start_shop, database, valkey):
    yaml = "high: {workers: 1, with_scheduler: true}"
    pool = start_shop(database, rqpool=ASK, yaml=yaml).expect_ready(1)
    eventually(lambda: valkey.keys("rq:scheduler:*"))  # it has closed what it had inherited

    def all_there() -> Sockets:
        sockets = Sockets(pool)
        assert Counter(sockets.kinds.values()) == {"manager": 1, "waiting": 2}
        return sockets

    assert eventually(all_there).shared() == {}
    assert not pool.found(ERRORS)


# Reopening

TELL = """
@hooks.after_prefork
def tell(worker):
    pool_jobs.note("connected", str(connection.connection is not None))
"""


@pytest.mark.parametrize(
    ("source", "connected"),
    [
        (TELL, b"False"),
        ("Order.objects.count()" + TELL, b"True"),
        (f"{TELL}\nOrder.objects.count()\n", b"True"),
        (
            "Order.objects.count()\nhooks.after_prefork.remove(hooks.reopen_connections)" + TELL,
            b"False",
        ),
    ],
    ids=["not open in the manager", "open", "open after other hooks are there", "removed"],
)
def test_a_worker_is_connected_first_of_all_where_the_manager_was(
    start_shop, database, valkey, source, connected
):
    start_shop(database, "high=2", rqpool=source).expect_ready(2)
    assert valkey.lrange("connected", 0, -1) == [connected] * 2


def test_what_hooks_open_later_is_reopened_in_workers_that_are_forked_later(
    start_shop, database, valkey
):
    asks = "@hooks.siginfo\ndef ask(roster):\n    Order.objects.count()\n    print('asked')\n"
    pool = start_shop(database, "high=1", rqpool=TELL + asks).expect_ready(1)
    pool.send(INFO)
    pool.expect("^asked$")
    os.kill(int(pool.expect(r"worker (\d+) of high ready$")[0][1]), signal.SIGKILL)
    pool.expect_ready(2)
    assert valkey.lrange("connected", 0, -1) == [b"False", b"True"]


@pytest.fixture
def closing_database(postgres) -> Iterator[str]:
    """A database that a test may close to connections."""
    postgres.execute("CREATE DATABASE closing")
    yield "closing"
    postgres.execute("DROP DATABASE closing WITH (FORCE)")


@pytest.mark.parametrize("with_pool", [False, True])
def test_a_database_that_is_down_is_reported_and_stops_no_worker(
    start_shop, postgres, postgres_folder, closing_database, enqueue, with_pool
):
    settings = f"""
DATABASES["other"] = {{**DATABASES["default"], "NAME": "{closing_database}"}}
DATABASES["other"]["OPTIONS"] = {{"pool": {with_pool}}}
"""
    # The manager asks both databases while it loads, and closes one for all others.
    source = """
from django.db import connections
for alias in ("other", "default"):
    connections[alias].cursor().execute("SELECT 1")
connection.cursor().execute("ALTER DATABASE closing ALLOW_CONNECTIONS false")
@hooks.after_prefork
def tell(worker):
    pool_jobs.note("connected", str(connection.connection is not None))
"""
    pool = start_shop(postgres_folder, "high=1", rqpool=source, settings=settings).expect_ready(1)
    [warning] = pool.found(r"database 'other' cannot be reached: .*\. Jobs will connect again\.$")
    assert "not currently accepting connections" in warning[0]
    job = enqueue("high", "trade", 1)
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0
