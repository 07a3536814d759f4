"""Counts that change while the pool runs: loaders of the project's own, and groups with bounds."""

from __future__ import annotations

import json
import os
import re
import signal

import psutil
import pytest
from rq import Worker

from django_rq_pool.planning.phases import INFO
from harness import eventually

LOADER = """
import json, os, time
import redis, rq

client = redis.Redis.from_url(os.environ["REDIS_URL"])

class Loader:
    def __call__(self, environment):
        client.incr("calls")
        counts = json.loads(client.get("counts") or '{"high": 1}')
        if "sleep" in counts:
            time.sleep(counts["sleep"])
        if "raise" in counts:
            raise RuntimeError(counts["raise"].replace("ADDRESS", hex(time.time_ns())))
        if "local" in counts:
            return {"high": {"workers": 2, "worker_class": type("Local", (rq.Worker,), {})}}
        if "hang" in counts:
            while True:
                try:
                    time.sleep(60)
                except Exception:
                    pass
        return counts

    def reset(self):
        client.incr("resets")

load = Loader()
"""


@pytest.fixture
def start_loaded(start_with):
    """Starts a pool whose counts are what the Redis key `counts` holds."""

    def start(*arguments: str, settings: str = "", **options):
        return start_with(
            f"RQ_POOL = 'own_loader.load'\n{settings}",
            *arguments,
            modules={"own_loader": LOADER},
            **options,
        )

    return start


@pytest.fixture
def say(valkey):
    """Sets the counts that the loader returns."""
    return lambda **counts: valkey.set("counts", json.dumps(counts))


def queues(valkey) -> list[str]:
    return sorted(",".join(worker.queue_names()) for worker in Worker.all(connection=valkey))


def test_the_workers_follow_what_a_loader_returns(start_loaded, say, valkey):
    pool = start_loaded().expect_ready(1)
    say(high=3, low=1)
    eventually(lambda: queues(valkey) == ["high"] * 3 + ["low"])
    pool.expect("counts: high=3, low=1")
    say(high=1)
    eventually(lambda: queues(valkey) == ["high"])
    pool.expect("reaped: exit code 0", 3)
    say(high=0)
    eventually(lambda: queues(valkey) == [])
    assert pool.stop() == 0


def test_idle_workers_go_first_and_a_busy_one_finishes_its_job(start_loaded, say, enqueue, valkey):
    say(high=3)
    pool = start_loaded().expect_ready(3)
    job = enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    busy = psutil.Process(int(valkey.lindex("gate:running", 0))).ppid()
    say(high=1)
    eventually(lambda: pool.worker_pids() == [busy])
    valkey.rpush("gate:open", 1)
    eventually(lambda: job.is_finished)
    assert pool.worker_pids() == [busy]
    assert pool.stop() == 0


def test_a_group_whose_options_change_gets_other_workers(start_loaded, say, enqueue):
    pool = start_loaded().expect_ready(1)
    before = pool.worker_pids()
    say(high={"workers": 1, "max_jobs": 1})
    pool.expect_ready(2)
    assert pool.worker_pids() != before
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    pool.expect_ready(3)
    assert pool.stop() == 0


@pytest.mark.parametrize(
    ("counts", "sentence", "traceback"),
    [
        ({"raise": "no answer"}, "the loader raised RuntimeError: no answer", 1),
        ({"raise": "bad object at ADDRESS"}, "RuntimeError: bad object at 0x", 1),
        ({"high": -1}, "'high': -1 is not a count", 0),
        ({"local": 1}, "the counts cannot be sent to the manager", 0),
        ({"nowhere": 1}, "RQ_QUEUES has no queue 'nowhere'", 0),
    ],
)
def test_a_loader_that_fails_never_hurts_the_pool(
    start_loaded, say, enqueue, valkey, counts, sentence, traceback
):
    say(high=2)
    pool = start_loaded().expect_ready(2)
    before = pool.worker_pids()
    say(**counts)
    pool.expect("keeping the previous counts: RQ_POOL = 'own_loader.load'")
    calls = int(valkey.get("calls"))
    eventually(lambda: int(valkey.get("calls")) >= calls + 2)
    assert sentence in pool.text()
    assert len(pool.found("keeping the previous counts")) == 1
    assert pool.text().count("Traceback") == traceback
    assert pool.worker_pids() == before
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    pool.send(INFO)
    pool.expect("the counts are the last that could be loaded: RQ_POOL = 'own_loader.load'")

    say(high=1)
    pool.expect(r"the counts can be loaded again, after \d+ failures")
    eventually(lambda: len(pool.workers()) == 1)
    assert pool.stop() == 0


def test_at_the_start_a_loader_that_fails_is_an_error_in_words(start_loaded, say):
    say(**{"raise": "no answer"})
    pool = start_loaded()
    assert pool.wait() == 1
    text = re.sub(r"\(\S*own_loader.py:\d+\)", "(PLACE)", pool.text())
    assert text == (
        "CommandError: RQ_POOL = 'own_loader.load': the loader raised RuntimeError: no answer "
        "(PLACE). "
        "It is called with the environment's name, or None, and must return a mapping of counts.\n"
    )


def test_what_a_loader_raised_at_the_start_can_be_traced(start_loaded, say):
    say(**{"raise": "no answer"})
    pool = start_loaded("--traceback")
    assert pool.wait() == 1
    assert "own_loader.py" in pool.text()


@pytest.mark.parametrize("kind", ["sleep", "hang"])
def test_deaths_and_signals_are_handled_while_a_loader_is_slow(start_loaded, say, valkey, kind):
    say(high=2)
    pool = start_loaded(settings="RQ_POOL_LOADER_TIMEOUT = 3").expect_ready(2)
    say(**{"high": 2, kind: 60})
    before = int(valkey.get("calls"))
    eventually(lambda: int(valkey.get("calls")) > before)
    os.kill(pool.worker_pids()[0], signal.SIGKILL)
    pool.expect_ready(3)
    if kind == "sleep":
        pool.expect(
            "keeping the previous counts: "
            r".* the loader took longer than 3 s \(RQ_POOL_LOADER_TIMEOUT\)"
        )
    else:
        # It swallows what is raised in it: the process that loads is ended, and another tries.
        pool.expect(r"counts: the autoscaling process ended: exit code 1; next fork in \d\.\d s")
        assert "own_loader.py" in pool.text()
    say(high=1)
    eventually(lambda: len(pool.workers()) == 1)
    assert pool.stop() == 0


def test_hup_resets_the_loader_and_calls_it(start_loaded, valkey):
    pool = start_loaded().expect_ready(1)
    eventually(lambda: int(valkey.get("calls")) >= 2)
    resets = int(valkey.get("resets") or 0)
    pool.send(signal.SIGHUP)
    pool.expect_ready(2)
    assert int(valkey.get("resets")) == resets + 1
    assert pool.stop() == 0


def test_an_autoscaling_process_that_is_killed_is_replaced(start_loaded, say):
    pool = start_loaded().expect_ready(1)
    [process] = eventually(
        lambda: [p for p in pool.processes() if "rqpool-autoscaling" in " ".join(p.cmdline())]
    )
    process.kill()
    pool.expect("counts: the autoscaling process ended: SIGKILL; next fork in")
    say(high=2)
    pool.expect_ready(2)
    assert pool.stop() == 0


def test_a_loader_that_flaps_costs_no_job(start_loaded, say, enqueue, valkey):
    pool = start_loaded().expect_ready(1)
    jobs = []
    for turn in range(8):
        say(high=4 if turn % 2 else 1)
        calls = int(valkey.get("calls"))
        jobs += [enqueue("high", "short") for _ in range(10)]
        eventually(lambda calls=calls: int(valkey.get("calls")) > calls)
    eventually(lambda: all(job.is_finished for job in jobs), 120)
    done = [job_id.decode() for job_id in valkey.lrange("done", 0, -1)]
    assert sorted(done) == sorted(job.id for job in jobs)
    assert pool.stop() == 0
    assert not pool.found("ERROR|Traceback|SIGKILL")


# Groups with bounds


def test_a_burst_raises_the_count_to_its_maximum_and_it_comes_back(start_pool, enqueue, valkey):
    pool = start_pool(
        yaml="high: {workers: {min: 1, max: 3}, target_latency: 0.5}\nlow: 1"
    ).expect_ready(2)
    jobs = [enqueue("high", "short") for _ in range(400)]
    pool.expect(r"group high: \d of 1\.\.3, oldest job \d+\.\d s > 0\.5 s|jobs wait")
    eventually(lambda: len(pool.workers()) == 4)
    pool.send(INFO)
    pool.expect(r"high: 3 wanted, \d ready, \d stopping \(3 of 1\.\.3, ")
    eventually(lambda: all(job.is_finished for job in jobs[-50:]), 120)
    eventually(lambda: len(pool.workers()) == 2, 120)
    assert all(job.is_finished for job in jobs)
    done = [job_id.decode() for job_id in valkey.lrange("done", 0, -1)]
    assert sorted(done) == sorted(job.id for job in jobs)
    assert pool.stop() == 0


def test_a_group_without_workers_is_woken_by_its_first_job(start_pool, enqueue):
    pool = start_pool(yaml="high: {workers: {min: 0, max: 2}}\nlow: 1").expect_ready(1)
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.found("group high: 1 of 0..2, 1 job waits")
    assert pool.stop() == 0


def test_a_pool_has_no_more_workers_than_its_limit(start_pool, enqueue):
    pool = start_pool(
        yaml="max_total: 3\nlow: 1\nhigh: {workers: {min: 1, max: 9}, target_latency: 0.2}"
    ).expect_ready(2)
    jobs = [enqueue("high", "short") for _ in range(150)]
    pool.expect("limited by max_total")
    eventually(lambda: all(job.is_finished for job in jobs), 120)
    assert len(pool.found("of high forked")) == 2
    assert pool.stop() == 0


def test_bounds_can_be_changed_by_hup_and_the_workers_there_are_stay(start_pool):
    pool = start_pool(yaml="high: {workers: {min: 1, max: 3}}").expect_ready(1)
    (pool.cwd / "rqpool.yml").write_text("high: {workers: {min: 2, max: 5}}")
    pool.send(signal.SIGHUP)
    pool.expect_ready(3)
    (pool.cwd / "rqpool.yml").write_text("high: 3")
    pool.send(signal.SIGHUP)
    pool.expect_ready(6)
    assert pool.stop() == 0
    assert not pool.found("autoscaling process ended")
