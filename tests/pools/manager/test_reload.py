"""HUP: the counts are loaded again and every worker is replaced."""

from __future__ import annotations

import os
import signal

import pytest
from rq import Worker
from rq.job import JobStatus

from harness import eventually


def write(pool, yaml: str):
    (pool.cwd / "rqpool.yml").write_text(yaml)
    return pool


def most_at_once(pool, group: str) -> int:
    """The largest number of workers that a group has ever had, by the log."""
    alive = most = 0
    for line in pool.found(rf"worker \d+ of {group} (forked|reaped)"):
        alive += 1 if line[1] == "forked" else -1
        most = max(most, alive)
    return most


def replaced(pool, before: list[int]) -> bool:
    """Whether there are as many workers as before, all others, and all ready."""
    ready = {int(line[1]) for line in pool.found(r"worker (\d+) of \S+ ready$")}
    now = set(pool.worker_pids())
    return len(now) == len(before) and not now & set(before) and now <= ready


def test_hup_replaces_every_worker_after_its_job_and_no_group_exceeds_its_count(
    start_pool, enqueue, valkey
):
    pool = start_pool(yaml="high: 3\nlow: 1").expect_ready(4)
    before = pool.worker_pids()
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))

    pool.send(signal.SIGHUP)
    pool.expect_ready(4 + 3)  # all but the busy one
    [busy] = set(before) & set(pool.worker_pids())
    assert job.get_status() == JobStatus.STARTED
    valkey.rpush("gate:open", 1)
    eventually(lambda: replaced(pool, before))
    assert job.is_finished
    assert pool.found(rf"worker {busy} of high reaped: exit code 0")
    assert most_at_once(pool, "high") == 3
    assert most_at_once(pool, "low") == 1
    assert pool.stop() == 0


def test_after_hup_counts_groups_and_options_are_the_files(start_pool, enqueue, valkey):
    pool = start_pool(yaml="high: 2\nfoo: 1").expect_ready(3)
    write(pool, "high: {workers: 1, max_jobs: 1}\nlow: 2").send(signal.SIGHUP)
    pool.expect("counts: high=1, low=2")
    eventually(
        lambda: (
            sorted(w.queue_names()[0] for w in Worker.all(connection=valkey))
            == ["high", "low", "low"]
        )
    )
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    pool.expect_ready(3 + 4)  # max_jobs has had the one of high replaced once more
    assert pool.stop() == 0


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("high: -1", "rqpool.yml: 'high': -1 is not a count"),
        ("high: [", "rqpool.yml: it is not YAML"),
        ("hgh: 1", "RQ_QUEUES has no queue 'hgh'"),
        ("high: {workers: 1, worker_class: no.Such}", "the worker_class 'no.Such' cannot be used"),
    ],
)
def test_a_typo_never_stops_a_pool(start_pool, enqueue, yaml, sentence):
    pool = start_pool(yaml="high: 2").expect_ready(2)
    before = pool.worker_pids()
    write(pool, yaml).send(signal.SIGHUP)
    pool.expect("keeping the previous counts: rqpool.yml")
    assert sentence in pool.text()
    eventually(lambda: replaced(pool, before))
    assert "Traceback" not in pool.text()
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


def test_a_file_that_is_gone_changes_nothing(start_pool):
    pool = start_pool(yaml="high: 2").expect_ready(2)
    before = pool.worker_pids()
    (pool.cwd / "rqpool.yml").unlink()
    pool.send(signal.SIGHUP)
    pool.expect("keeping the previous counts: rqpool.yml: there is no such file")
    eventually(lambda: replaced(pool, before))
    assert pool.stop() == 0


def test_workers_that_cannot_boot_cost_a_group_one_worker_until_the_next_hup(start_pool, enqueue):
    pool = start_pool(yaml="high: 3").expect_ready(3)
    before = set(pool.worker_pids())
    write(pool, "high: {workers: 3, worker_class: pool_jobs.FailsToBoot}").send(signal.SIGHUP)
    pool.expect("next fork in", 2)
    assert len(before & set(pool.worker_pids())) == 2
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)

    write(pool, "high: 3").send(signal.SIGHUP)
    eventually(lambda: replaced(pool, list(before)))
    assert pool.stop() == 0


def test_hup_upon_hup_is_harmless(start_pool, enqueue):
    pool = start_pool(yaml="high: 4").expect_ready(4)
    before = pool.worker_pids()
    for workers in (1, 6, 2):
        write(pool, f"high: {workers}").send(signal.SIGHUP)
    pool.expect("counts: high=2")
    eventually(lambda: replaced(pool, before[:2]))
    jobs = [enqueue("high", "note", "trace") for _ in range(10)]
    eventually(lambda: all(job.is_finished for job in jobs))
    assert most_at_once(pool, "high") <= 6
    assert pool.stop() == 0


@pytest.mark.parametrize("stop", [signal.SIGQUIT, signal.SIGINT, signal.SIGTERM])
def test_a_stop_wins_over_a_reload(start_pool, stop):
    pool = start_pool(yaml="high: 4").expect_ready(4)
    pool.send(signal.SIGHUP).send(stop)
    assert pool.wait() == 0
    eventually(lambda: not pool.processes())


def test_a_worker_that_dies_during_a_reload_is_replaced_by_one_of_the_new_generation(
    start_pool, enqueue, valkey
):
    pool = start_pool(yaml="high: 2").expect_ready(2)
    before = pool.worker_pids()
    for _ in before:
        enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running") == 2)
    pool.send(signal.SIGHUP)
    pool.expect("reloading the counts")
    os.kill(before[0], signal.SIGKILL)
    pool.expect_ready(3)
    valkey.rpush("gate:open", 1, 1)
    eventually(lambda: replaced(pool, before))
    assert most_at_once(pool, "high") == 2
    assert pool.stop() == 0
