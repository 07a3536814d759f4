"""When a dead worker gets another recovery process."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import pytest

from django_rq_pool.planning.backoff import JITTER, LONGEST_DELAY
from django_rq_pool.planning.recoveries import RETRY_DELAY, RecoveryProcess, UnrecoveredWorker

NO_JITTER = 0.5
"""The chance that makes a delay neither longer nor shorter."""


def delays(failures: int) -> list[float]:
    """The delay after each of so many failures in a row."""
    dead, found = UnrecoveredWorker("dead"), []
    for _ in range(failures):
        dead = dead.failed(0.0, NO_JITTER)
        found.append(dead.not_before)
    return found


def test_a_worker_that_has_just_died_is_recovered_at_once():
    assert UnrecoveredWorker("dead").due(last_try=False) < 0.0


def test_each_failure_makes_the_wait_longer_and_it_has_a_limit():
    waits = delays(200)
    assert waits[0] == RETRY_DELAY
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_DELAY
    assert UnrecoveredWorker("dead", failures=10**9).failed(0.0, NO_JITTER).failures == 10**9 + 1


def test_a_fault_of_half_a_minute_is_noticed_to_be_over_within_two_seconds():
    waits = delays(200)
    for end, wait in zip(accumulate(waits), waits):
        if end - wait <= 30.0:
            assert wait <= 2.0 + 1e-9


def test_the_jitter_spreads_the_tries_of_workers_that_died_together():
    first, last = (UnrecoveredWorker("dead").failed(0.0, chance).not_before for chance in (0, 1))
    assert first == pytest.approx(RETRY_DELAY * (1 - JITTER))
    assert last == pytest.approx(RETRY_DELAY * (1 + JITTER))


def test_a_pool_that_leaves_waits_no_longer_than_after_a_first_failure():
    dead = UnrecoveredWorker("dead", failures=200).failed(100.0, NO_JITTER)
    assert dead.due(last_try=False) == 100.0 + LONGEST_DELAY
    assert dead.due(last_try=True) == 100.0 + RETRY_DELAY


def test_a_process_that_fails_passes_on_how_many_have_failed_before():
    dead = RecoveryProcess(60, "dead", failures=3).failed(100.0, NO_JITTER)
    assert dead is not None
    assert (dead.name, dead.failures, dead.failed_at) == ("dead", 4, 100.0)


@pytest.mark.parametrize("killed", [False, True])
def test_a_process_that_fails_after_it_was_asked_to_give_up_is_the_last(killed):
    asked = replace(RecoveryProcess(60, "dead"), asked_at=99.0, killed=killed)
    assert asked.failed(100.0, NO_JITTER) is None
