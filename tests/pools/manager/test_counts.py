"""The pool has the workers that the counts say."""

from __future__ import annotations

import re
import signal
from collections import Counter

import pytest
from rq import Worker

from harness import eventually

RESQUE_POOLS_EXAMPLE = """
foo: 1
bar: 2
"foo,bar,baz": 1
production:
  "foo,bar,baz": 4
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (None, {"foo": 1, "bar": 2, "foo,bar,baz": 1}),
        ("production", {"foo": 1, "bar": 2, "foo,bar,baz": 4}),
    ],
)
def test_each_group_gets_its_count_in_each_environment(start_pool, valkey, environment, expected):
    arguments = [] if environment is None else ["--environment", environment]
    pool = start_pool(*arguments, yaml=RESQUE_POOLS_EXAMPLE).expect_ready(sum(expected.values()))

    served = Counter(",".join(worker.queue_names()) for worker in Worker.all(connection=valkey))
    assert served == expected
    assert len(pool.workers()) == sum(expected.values())
    assert pool.stop() == 0
    assert Worker.all(connection=valkey) == []


def test_a_worker_has_a_name_that_can_be_read_and_a_title_of_rqs_form(start_pool, valkey):
    pool = start_pool("high,default=2", "--name", "corner shop").expect_ready(2)

    names = {worker.name for worker in Worker.all(connection=valkey)}
    assert len(names) == 2
    for name in names:
        assert re.fullmatch(r"corner_shop\..+\.high,default\.[12]-[0-9a-f]{8}", name)
    titles = eventually(
        lambda: [
            title
            for worker in pool.workers()
            if "Listening on high,default" in (title := worker.cmdline()[0])
        ]
    )
    assert all(title.startswith("rq:worker:corner_shop.") for title in titles)
    assert pool.manager.cmdline()[0] == (
        f"rqpool-manager[corner shop]: managing {sorted(pool.worker_pids())}"
    )


def test_a_group_on_a_second_redis_server_works_beside_the_first(
    start_pool, enqueue, valkey, other_valkey
):
    pool = start_pool("high=1", "elsewhere=1").expect_ready(2)

    here = enqueue("high", "note", "trace", "here")
    there = enqueue("elsewhere", "note", "trace", "there", connection=other_valkey)
    eventually(lambda: here.is_finished and there.is_finished)
    assert [w.queue_names() for w in Worker.all(connection=other_valkey)] == [["elsewhere"]]
    assert pool.stop() == 0


def test_fifty_workers_start(start_pool, valkey):
    pool = start_pool("high=20", "default=20", "low=10").expect_ready(50)

    assert len(Worker.all(connection=valkey)) == 50
    assert len(pool.workers()) == 50
    assert pool.stop() == 0
    assert Worker.all(connection=valkey) == []


def test_every_queue_of_rq_queues_on_one_server_can_be_served_by_a_star(start_pool, enqueue):
    # A star spans both servers of the test project, which no group may.
    pool = start_pool("--check", "*=1")
    assert pool.wait() == 1
    assert "'elsewhere' uses another Redis connection than 'high'" in pool.text()


def test_no_counts_are_answered_by_a_sentence_and_nothing_is_started(start_pool):
    pool = start_pool()
    assert pool.wait() == 1
    assert "there is no queue group. Give counts, such as `rqpool high=1`" in pool.text()


def test_an_empty_pool_that_is_allowed_says_so_and_takes_counts_from_a_reload(start_pool):
    pool = start_pool("--allow-empty", yaml="")
    pool.expect("there is no queue group")
    assert pool.manager_pid
    (pool.cwd / "rqpool.yml").write_text("high: 1")
    pool.send(signal.SIGHUP).expect_ready(1)
    (pool.cwd / "rqpool.yml").write_text("")
    pool.send(signal.SIGHUP).expect("worker .* reaped")
    assert len(pool.found("there is no queue group")) == 2
    assert pool.stop() == 0


def test_an_environment_that_a_reload_lacks_keeps_the_counts(start_pool):
    pool = start_pool("--environment", "big", yaml="high: 1\nbig: {high: 2}").expect_ready(2)
    (pool.cwd / "rqpool.yml").write_text("high: 1\nbigger: {high: 3}")
    pool.send(signal.SIGHUP).expect("keeping the previous counts: .*no environment 'big'")
    pool.expect_ready(4)
    assert pool.stop() == 0


def test_what_is_wrong_in_another_environment_is_a_warning_at_the_start(start_pool):
    pool = start_pool(yaml="high: 1\nproduction: {hihg: 2}").expect_ready(1)
    assert pool.found("WARNING .*'production': 'hihg': RQ_QUEUES has no queue 'hihg'")
    assert pool.stop() == 0


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("high: -1", "rqpool.yml: 'high': -1 is not a count"),
        ("high: 1.5", "rqpool.yml: 'high': 1.5 is not a count"),
        ("high: yes", "rqpool.yml: 'high': True is not a count"),
        ("hgh: 1", "rqpool.yml: 'hgh': RQ_QUEUES has no queue 'hgh'. It has 'high', 'default'"),
        ("[high]", "rqpool.yml: ['high'] is not a mapping"),
        ("high: {workers: 1, max_job: 3}", "Did you mean 'max_jobs'?"),
        ("high: {workers: 1, worker_class: no.Such}", "rqpool.yml: 'high': the worker_class"),
        ("high: [", "rqpool.yml: it is not YAML"),
    ],
)
def test_bad_counts_are_answered_by_a_sentence_and_nothing_is_started(start_pool, yaml, sentence):
    pool = start_pool(yaml=yaml)
    assert pool.wait() == 1
    assert sentence in pool.text()
    assert "Traceback" not in pool.text()
    assert "forked" not in pool.text()
