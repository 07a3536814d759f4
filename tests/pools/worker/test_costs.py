"""What a pool costs, as counts: commands, connections, forks and wake-ups, whatever the machine.

The bounds are what was counted with RQ 3.0, redis-py 8.1 and Valkey 9.1, and a little more where
versions differ. One that is exceeded is a regression, or a reason to say why it has to be so.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import redis

from django_rq_pool.startup.immortal import can_be_done
from harness import ROOT, Pool, eventually, python_command

QUEUES = 2
GROUP = "high,default"
SHORT_TTL = 16
"""A ``worker_ttl`` with which an idle worker wakes every second instead of every 405 s."""

COMMANDS_OF_A_JOB = 66
"""For a worker that has been idle on two queues; RQ's own sends 59, with a job that is nowhere in
between. One of them calls off the wait on the other queue, and may have to be repeated."""


class Counts:
    """What the server has done for the pool, without what the test asked for itself."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._own = int(client.info("stats")["total_commands_processed"]) + 1

    def _ask(self, section: str) -> dict[str, int]:
        self._own += 1
        return self._client.info(section)

    def commands(self) -> int:
        return self._ask("stats")["total_commands_processed"] - self._own + 1

    def calls(self, command: str) -> int:
        return self._ask("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]

    def connections(self) -> int:
        return self._ask("clients")["connected_clients"] - 1

    def await_idle(self, workers: int) -> None:
        """Waits until every worker waits for a job on each of its queues."""
        eventually(lambda: self._ask("clients")["blocked_clients"] == QUEUES * workers)


@pytest.fixture
def counts(valkey: redis.Redis) -> Counts:
    return Counts(valkey)


def start(start_pool, counts: Counts, workers: int, **options) -> Pool:
    given = "".join(f", {name}: {value}" for name, value in options.items())
    pool = start_pool(yaml=f'"{GROUP}": {{workers: {workers}{given}}}').expect_ready(workers)
    counts.await_idle(workers)
    return pool


def test_the_commands_of_a_start_do_not_grow_faster_than_its_workers(start_pool, counts):
    start(start_pool, counts, 1)
    of_one = counts.commands()
    start_pool("--name", "other", yaml=f'"{GROUP}": 12').expect_ready(12)
    counts.await_idle(13)
    of_twelve = counts.commands() - of_one
    # It cleans the registries for those that follow. And each rehearses the steps of a job.
    assert of_one <= 105
    assert of_twelve <= of_one + 11 * 68


def test_a_worker_has_a_connection_for_each_queue_one_for_orders_and_no_other(start_pool, counts):
    start(start_pool, counts, 5)
    assert counts.connections() == 5 * (QUEUES + 1)


def test_the_commands_of_a_job_are_few(start_pool, counts, enqueue):
    enqueue("high", "nothing")
    to_enqueue = counts.commands()
    start(start_pool, counts, 1)  # its first job, for which it asks for the server's version
    before = counts.commands()
    enqueue("high", "nothing")
    counts.await_idle(1)
    assert counts.commands() - before - to_enqueue <= COMMANDS_OF_A_JOB


def test_an_idle_worker_asks_little_and_seldom(start_pool, counts):
    start(start_pool, counts, 1, worker_ttl=SHORT_TTL)
    before, waits = counts.commands(), counts.calls("blmove")
    eventually(lambda: counts.calls("blmove") >= waits + 5 * QUEUES)
    counts.await_idle(1)
    rounds = (counts.calls("blmove") - waits) / QUEUES
    # One round in 405 s, and as much for maintenance in 600: far below 0.2 commands per second.
    assert (counts.commands() - before) / rounds <= 20


def test_an_idle_manager_is_not_woken(start_pool, counts):
    pool = start(start_pool, counts, 3, worker_ttl=SHORT_TTL)
    before, waits = switches(pool.manager_pid), counts.calls("blmove")
    eventually(lambda: counts.calls("blmove") >= waits + 3 * 5 * QUEUES)
    assert switches(pool.manager_pid) == before


def test_jobs_do_not_wake_the_manager(start_pool, counts, enqueue):
    pool = start(start_pool, counts, 2)
    before = switches(pool.manager_pid)
    jobs = [enqueue("high", "nothing") for _ in range(10)]
    eventually(lambda: all(job.is_finished for job in jobs))
    counts.await_idle(2)
    assert switches(pool.manager_pid) == before


def test_a_job_costs_one_fork(start_pool, counts, enqueue, tmp_path):
    forks = tmp_path / "forks"
    forks.write_bytes(bytes(8))
    start_pool(
        yaml=f'"{GROUP}": {{workers: 2, worker_class: pool_jobs.CountsForks}}',
        env={"FORKS": str(forks)},
    ).expect_ready(2)
    counts.await_idle(2)
    jobs = [enqueue("high", "nothing") for _ in range(10)]
    eventually(lambda: all(job.is_finished for job in jobs))
    counts.await_idle(2)
    assert int.from_bytes(forks.read_bytes(), "little") == 10


@pytest.mark.skipif(not can_be_done(), reason="this interpreter has no immortal objects to add to")
def test_a_worker_copies_less_of_an_image_whose_definitions_are_immortal(start_with, counts):
    copied = {}
    for immortal in (False, True):
        pool = start_with(f"RQ_POOL_IMMORTAL = {immortal}", f"{GROUP}=1").expect_ready(1)
        counts.await_idle(1)
        (worker,) = pool.workers()
        copied[immortal] = sum(each.private_dirty for each in worker.memory_maps())
        assert pool.stop() == 0
        assert not pool.found("Exception ignored")
    assert copied[True] < 0.85 * copied[False], copied


def switches(pid: int) -> int:
    """How often a process has gone to sleep, and so how often it had been woken; asked for when it
    sleeps, for a busy machine may let it finish a turn late."""

    def asleep() -> dict[str, str]:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        return status if status["State"].split()[0] == "S" else {}

    return int(eventually(asleep)["voluntary_ctxt_switches"])


def test_the_time_of_a_turn_can_be_measured():
    line = python_command(str(ROOT / "benchmarks" / "turns.py"), "3")
    done = subprocess.run(line, check=True, capture_output=True)
    assert float(done.stdout) > 0
