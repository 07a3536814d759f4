"""What jobs import is told once, for whoever has asked for it."""

from __future__ import annotations

import pytest
from rq import Queue

from harness import eventually

JOBS = {
    "learnt_heavy": "import learnt_inner",
    "learnt_inner": "",
    "learnt_jobs": "def work(): import learnt_heavy",
}


@pytest.mark.parametrize("worker_class", ["rq.Worker", "rq.SimpleWorker"])
def test_what_jobs_import_is_named_once(start_with, valkey, worker_class):
    pool = start_with(
        f"RQ_POOL_LEARN_PRELOAD = True\nRQ = {{'WORKER_CLASS': {worker_class!r}}}",
        "high=2",
        modules=JOBS,
    ).expect_ready(2)
    jobs = [Queue("high", connection=valkey).enqueue("learnt_jobs.work") for _ in range(6)]
    eventually(lambda: all(job.is_finished for job in jobs))
    assert pool.stop() == 0
    told = pool.found(r"jobs of high import modules that the manager has not imported: (.*);")
    assert [match[1] for match in told] == ["learnt_heavy, learnt_inner, learnt_jobs"]


def test_what_was_preloaded_is_not_named(start_with, valkey):
    pool = start_with(
        "RQ_POOL_LEARN_PRELOAD = True\nRQ_POOL_PRELOAD = ['learnt_jobs', 'learnt_heavy']",
        "high=1",
        modules=JOBS,
    ).expect_ready(1)
    job = Queue("high", connection=valkey).enqueue("learnt_jobs.work")
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0
    assert not pool.found("import modules that the manager has not imported")


def test_nothing_is_named_unasked(start_with, valkey):
    pool = start_with("", "high=1", modules=JOBS).expect_ready(1)
    job = Queue("high", connection=valkey).enqueue("learnt_jobs.work")
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0
    assert not pool.found("import modules that the manager has not imported")
