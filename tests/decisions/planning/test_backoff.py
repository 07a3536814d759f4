"""How long a queue group waits after failures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_rq_pool.planning.backoff import (
    FIRST_DELAY,
    FREE_QUICK_DEATHS,
    JITTER,
    LONGEST_DELAY,
    Backoff,
)

MIDDLE = 0.5
"""The chance that leaves a delay as it is."""


def fail_to_boot(backoff: Backoff, times: int, chance: float = MIDDLE) -> tuple[Backoff, float]:
    """One failed boot after another, each forked as soon as it may be; also the last delay."""
    now = max(backoff.failed_at, 0.0)
    delay = 0.0
    for _ in range(times):
        now = max(now, backoff.not_before) + 0.1
        backoff = backoff.boot_failed(now - 0.05, now, chance)
        delay = backoff.not_before - now
    return backoff, delay


def die_quickly(backoff: Backoff, times: int, now: float = 100.0) -> Backoff:
    for number in range(times):
        died_at = now + number
        backoff = backoff.died_quickly(died_at - 0.5, died_at, MIDDLE)
    return backoff


def test_a_group_without_failures_forks_at_any_time():
    backoff = Backoff()
    assert not backoff.boot_failures
    assert not backoff.keeps_dying
    assert backoff.not_before < 0.0


def test_a_failed_boot_delays_the_next_fork():
    backoff = Backoff().boot_failed(9.0, 10.0, MIDDLE)
    assert backoff.not_before == pytest.approx(10.0 + FIRST_DELAY)
    assert backoff.boot_failures == 1


@pytest.mark.parametrize(
    ("failures", "delay"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (50, 30)]
)
def test_delays_double_until_the_longest(failures, delay):
    assert (FIRST_DELAY, LONGEST_DELAY) == (1, 30)
    assert fail_to_boot(Backoff(), failures)[1] == pytest.approx(delay)


def test_months_of_failures_do_not_overflow():
    backoff = Backoff(boot_failures=10**7, failed_at=1.0)
    assert backoff.boot_failed(2.0, 3.0, MIDDLE).not_before == pytest.approx(3.0 + LONGEST_DELAY)


@given(
    failures=st.integers(1, 40),
    chance=st.floats(0, 1),
    now=st.floats(0, 1e7),
)
def test_chance_moves_a_delay_by_its_share_and_no_more(failures, chance, now):
    before = Backoff(boot_failures=failures - 1)
    plain = before.boot_failed(now, now, MIDDLE).not_before - now
    delay = before.boot_failed(now, now, chance).not_before - now
    assert plain * (1 - JITTER) - 1e-6 <= delay <= plain * (1 + JITTER) + 1e-6
    assert delay > 0


def test_chance_does_move_a_delay_both_ways():
    assert fail_to_boot(Backoff(), 1, chance=0.0)[1] == pytest.approx(FIRST_DELAY * (1 - JITTER))
    assert fail_to_boot(Backoff(), 1, chance=1.0)[1] == pytest.approx(FIRST_DELAY * (1 + JITTER))


def test_workers_forked_together_fail_as_one():
    first = Backoff().boot_failed(5.0, 6.0, MIDDLE)
    assert first.boot_failed(5.0, 6.1, MIDDLE) == first
    assert first.boot_failed(5.99, 60.0, MIDDLE) == first


def test_a_worker_forked_after_a_failure_fails_anew():
    first = Backoff().boot_failed(5.0, 6.0, MIDDLE)
    assert first.boot_failed(7.5, 8.0, MIDDLE).boot_failures == 2


def test_workers_forked_together_crash_as_one():
    first = Backoff().died_quickly(5.0, 6.0, MIDDLE)
    assert first.quick_deaths == 1
    assert first.died_quickly(5.5, 6.2, MIDDLE) == first


def test_a_ready_worker_makes_good_the_failed_boots():
    backoff, _ = fail_to_boot(Backoff(), 3)
    assert backoff.boot_failures == 3
    assert backoff.became_ready().boot_failures == 0


def test_after_a_ready_worker_the_next_failure_starts_with_the_first_delay():
    backoff, _ = fail_to_boot(Backoff(), 5)
    assert fail_to_boot(backoff.became_ready(), 1)[1] == pytest.approx(FIRST_DELAY)


def test_a_few_quick_deaths_are_replaced_at_once():
    backoff = die_quickly(Backoff(), FREE_QUICK_DEATHS)
    assert backoff.quick_deaths == FREE_QUICK_DEATHS
    assert backoff.not_before < 0
    assert not backoff.keeps_dying


@pytest.mark.parametrize(("beyond", "delay"), [(1, 1), (2, 2), (3, 4), (6, 30), (20, 30)])
def test_more_quick_deaths_are_delayed_like_failed_boots(beyond, delay):
    backoff = die_quickly(Backoff(), FREE_QUICK_DEATHS + beyond)
    assert backoff.not_before - backoff.failed_at == pytest.approx(delay)


def test_a_group_that_keeps_dying_is_held_until_its_next_worker_has_survived():
    backoff = die_quickly(Backoff(), FREE_QUICK_DEATHS + 1)
    assert backoff.keeps_dying
    assert backoff.became_ready().keeps_dying
    assert not backoff.ended_well().keeps_dying


def test_being_ready_does_not_excuse_quick_deaths():
    backoff = die_quickly(Backoff(), FREE_QUICK_DEATHS).became_ready()
    backoff = backoff.died_quickly(200.0, 200.5, MIDDLE)
    assert backoff.not_before == pytest.approx(200.5 + FIRST_DELAY)


def test_a_worker_that_lived_well_excuses_quick_deaths():
    backoff = die_quickly(Backoff(), FREE_QUICK_DEATHS + 3).ended_well()
    assert not backoff.keeps_dying
    assert die_quickly(backoff, FREE_QUICK_DEATHS, now=300.0).not_before == backoff.not_before


def test_a_worker_that_lived_well_does_not_excuse_failed_boots():
    assert fail_to_boot(Backoff(), 1)[0].ended_well().boot_failures == 1
