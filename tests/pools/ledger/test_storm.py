"""A short storm: the benchmark's, long enough to notice a job that is lost now and then."""

from __future__ import annotations

import sys

import pytest

from harness import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

from storm import QUEUES, run_storm
from strikes import STORMS


@pytest.mark.parametrize("queues", QUEUES)
@pytest.mark.parametrize("storm", STORMS, ids=lambda storm: storm.name)
def test_no_storm_loses_a_job(valkey, server, tmp_path, storm, queues):
    outcome = run_storm("rqpool", storm, QUEUES[queues], 12, server.connection_url, tmp_path)

    assert outcome.lost == outcome.stuck == outcome.twice == outcome.dead == 0
    assert outcome.ended
    assert outcome.finished + outcome.failed == outcome.jobs
    assert outcome.failed <= outcome.events
    if storm.name == "graceful stop":
        assert outcome.failed == 0
