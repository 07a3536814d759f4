"""What can never work is told, and no pool that works gives way to one that cannot."""

from __future__ import annotations

import secrets

import pytest
from rq import Queue

from harness import eventually
from settled import assert_settled

FORBIDDEN = ["lmove", "blmove", "evalsha", "hset", "set"]


@pytest.mark.parametrize("command", FORBIDDEN)
def test_a_hot_swap_to_a_user_who_may_not_take_jobs_is_refused(
    start_pool, enqueue, valkey, limited, command
):
    name = f"swap-{secrets.token_hex(4)}"
    old = start_pool("--name", name, "high=1").expect_ready(1)
    before = old.worker_pids()
    valkey.acl_setuser("limited", enabled=True, commands=[f"-{command}"])
    new = start_pool("--name", name, "--hot-swap", "high=1", env={"REDIS_URL": limited})
    assert new.wait() == 1
    new.expect(
        "Redis does not let this user work: User limited has no permissions to run the "
        f"'{command}' command"
    )
    assert not new.found("Traceback")
    assert not new.found(r"worker \d+ of high ready")
    assert old.worker_pids() == before
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert old.stop() == 0


@pytest.mark.parametrize("command", ["lmove", "evalsha"])
def test_a_worker_that_is_denied_what_it_could_do_waits_until_it_may_again(
    start_pool, valkey, limited, command
):
    pool = start_pool("high=2", env={"REDIS_URL": limited}).expect_ready(2)
    before = pool.worker_pids()
    valkey.acl_setuser("limited", enabled=True, commands=[f"-{command}"])
    jobs = [Queue("high", connection=valkey).enqueue("pool_jobs.nothing") for _ in range(5)]
    pool.expect(f"User limited has no permissions to run the '{command}' command")
    valkey.acl_setuser("limited", enabled=True, commands=[f"+{command}"])
    eventually(lambda: all(job.is_finished for job in jobs))
    eventually(lambda: assert_settled(valkey, pool))
    told = len(pool.found("workers keep trying"))
    eventually(lambda: len(pool.found("group high: Redis is back")) == told)
    assert told <= 1
    assert pool.worker_pids() == before
    assert not pool.found("Traceback")
    assert pool.stop() == 0


def test_workers_of_many_queues_wait_whatever_the_project_allows_its_own_connections(
    start_pool, enqueue, valkey, pool_environment
):
    url = pool_environment["REDIS_URL"] + "?max_connections=2"
    pool = start_pool("high,default,low,foo,bar=2", env={"REDIS_URL": url}).expect_ready(2)
    # A worker that could not have them all would ask for jobs all the time.
    eventually(lambda: int(valkey.info("clients")["blocked_clients"]) == 10)
    job = enqueue("bar", "nothing")
    eventually(lambda: job.is_finished)
    eventually(lambda: int(valkey.info("clients")["blocked_clients"]) == 10)
    assert pool.stop() == 0
