"""A loader that is asked less often than the pool asks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_rq_pool import Throttled
from django_rq_pool.config.loaders import find_source


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Counter:
    """A loader that answers with how often it was called."""

    def __init__(self) -> None:
        self.calls = 0
        self.resets = 0

    def __call__(self, environment):
        self.calls += 1
        return {"high": self.calls}

    def reset(self):
        self.resets += 1


def test_an_answer_holds_for_the_period(clock):
    throttled = Throttled(Counter(), period=10, clock=clock)
    answers = []
    for clock.now in (0.0, 1.0, 9.9, 10.0, 19.9, 20.0):
        answers.append(throttled(None)["high"])
    assert answers == [1, 1, 1, 2, 2, 3]


def test_the_period_is_ten_seconds_unless_it_is_said(clock):
    throttled = Throttled(Counter(), clock=clock)
    answers = []
    for clock.now in (0.0, 9.9, 10.0):
        answers.append(throttled(None)["high"])
    assert answers == [1, 1, 2]


def test_the_real_clock_moves_on():
    throttled = Throttled(Counter(), period=1e-9)
    assert throttled(None) != throttled(None)


def test_an_answer_is_for_its_environment(clock):
    throttled = Throttled(lambda environment: {"high": environment}, clock=clock)
    assert throttled(None) == {"high": None}
    assert throttled("production") == {"high": "production"}
    assert throttled(None) == {"high": None}


def test_a_reset_reaches_the_loader_and_makes_the_next_call_fresh(clock):
    counter = Counter()
    throttled = Throttled(counter, clock=clock)
    throttled(None)
    throttled.reset()
    assert counter.resets == 1
    assert throttled(None) == {"high": 2}


def test_a_loader_without_a_reset_is_only_asked_again(clock):
    calls = itertools.count(1)
    throttled = Throttled(lambda environment: {"high": next(calls)}, clock=clock)
    throttled(None)
    throttled.reset()
    assert throttled(None) == {"high": 2}


def test_an_exception_is_not_kept(clock):
    answers = iter([LookupError("away"), LookupError("still away"), {"high": 1}])

    def loader(environment):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    throttled = Throttled(loader, clock=clock)
    with pytest.raises(LookupError, match=r"^away"):
        throttled(None)
    with pytest.raises(LookupError, match="still away"):
        throttled(None)
    assert throttled(None) == throttled(None) == {"high": 1}


def test_an_exception_after_an_answer_does_not_bring_that_back(clock):
    answers = iter([{"high": 1}, LookupError("away")])

    def loader(environment):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    throttled = Throttled(loader, clock=clock)
    throttled(None)
    clock.now += 10
    with pytest.raises(LookupError):
        throttled(None)


@given(
    steps=st.lists(st.floats(0.01, 30), min_size=1, max_size=50),
    period=st.floats(0.01, 100),
)
def test_the_loader_is_never_called_twice_within_a_period(steps, period):
    clock = Clock()
    called_at = []
    throttled = Throttled(lambda environment: called_at.append(clock.now), period, clock=clock)
    for step in steps:
        clock.now += step
        throttled(None)
    for before, after in itertools.pairwise(called_at):
        assert after >= before + period


def test_the_pool_takes_it_for_a_loader_that_changes_by_itself():
    counter = Counter()
    source = find_source(Throttled(counter))
    assert source.dynamic
    assert source.load(None) == source.load(None) == {"high": 1}
    source.reset()
    assert source.load(None) == {"high": 2}


@pytest.mark.parametrize("loader", ["shop.counts", {"high": 1}, None])
def test_what_is_no_loader_cannot_be_throttled(loader):
    with pytest.raises(TypeError, match="cannot be called"):
        Throttled(loader)


@pytest.mark.parametrize("period", [0, -1, float("nan")])
def test_a_period_is_above_zero(period):
    with pytest.raises(ValueError, match="Give seconds above 0"):
        Throttled(Counter(), period)
