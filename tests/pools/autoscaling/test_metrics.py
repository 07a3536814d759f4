"""What is measured of the queues that a real pool works on."""

from __future__ import annotations

import django_rq.settings
import pytest
from django.test import override_settings

from django_rq_pool.autoscaling.demand import Observation
from django_rq_pool.autoscaling.metrics import Metrics
from django_rq_pool.config.groups import QueueGroup
from django_rq_pool.config.options import Bounds
from django_rq_pool.ipc.counts_records import GroupStats
from harness import eventually


@pytest.fixture
def metrics(server, monkeypatch):
    """Those of a group on the queue `high`."""
    queues = {"high": {"URL": server.connection_url}}
    monkeypatch.setattr(django_rq.settings, "QUEUES", queues)
    group = QueueGroup("high", ("high",), 0, bounds=Bounds(0, 10))
    with override_settings(RQ_QUEUES=queues):
        metrics = Metrics("shop", "here-1", [group])
        yield metrics
        metrics.close()


def test_jobs_that_a_pool_has_taken_run_and_do_not_wait(metrics, start_pool, enqueue, valkey):
    start_pool("high=2").expect_ready(2)
    for _ in range(5):
        enqueue("high", "hold", "gate")

    def look() -> Observation:
        return metrics.measure({"high": GroupStats(count=2)}).observations["high"]

    def settled() -> Observation | None:
        seen = look()
        return seen if seen.running == 2 else None

    seen = eventually(settled)
    assert (seen.waiting, seen.live) == (3, 2)
    valkey.rpush("gate:open", 1, 1, 1, 1, 1)

    def all_done() -> bool:
        seen = look()
        return (seen.waiting, seen.running, seen.oldest) == (0, 0, 0.0)

    eventually(all_done)
