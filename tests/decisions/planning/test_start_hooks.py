"""When a ``before_start`` hook runs, runs again, and is ended."""

from __future__ import annotations

import pytest

from django_rq_pool.planning.backoff import FIRST_DELAY, Backoff
from django_rq_pool.planning.boots import SHOW_TIME
from django_rq_pool.planning.phases import STOPS, Phase
from django_rq_pool.planning.plan import Wanted
from django_rq_pool.planning.progress import StartGoal, start_result
from django_rq_pool.planning.roster import Roster
from django_rq_pool.planning.start_hooks import TOLD_AFTER, HookStep, StartHooks

NOW = 1000.0
GRACE = 5.0
NEVER = float("inf")
HOOKS = StartHooks(("shop.wait", "shop.enqueue"))
RUNNING = HOOKS.forked(7, NOW)


def step(state: StartHooks, now: float = NOW, phase: Phase = Phase.RUNNING):
    return state.next_step(phase, now, GRACE)


def test_without_hooks_there_is_nothing_to_do():
    assert StartHooks(()).over
    assert step(StartHooks(())) == (None, NEVER)


def test_the_first_runs_at_once_and_the_next_when_it_has_finished():
    assert step(HOOKS)[0] is HookStep.RUN
    assert HOOKS.name == "shop.wait"
    assert step(RUNNING)[0] is None
    second = RUNNING.finished()
    assert not second.over
    assert second.name == "shop.enqueue"
    assert step(second)[0] is HookStep.RUN
    last = second.forked(8, NOW).finished()
    assert last.over
    assert step(last) == (None, NEVER)


def test_one_that_fails_runs_again_after_waits_that_grow_and_never_the_one_before_it():
    state = RUNNING.finished()
    waits = []
    for failures in range(1, 8):
        state = state.forked(8, NOW).failed(NOW, 0.5)
        assert (state.done, state.failures) == (1, failures)
        found, due = step(state)
        assert found is None
        waits.append(due - NOW)
        assert step(state, due)[0] is HookStep.RUN
    assert waits == [FIRST_DELAY, 2, 4, 8, 16, 30, 30]


def test_the_next_hook_begins_with_no_failures():
    assert RUNNING.failed(NOW, 0.5).forked(8, NOW).finished().failures == 0


def test_one_that_hangs_shows_where_and_is_told_less_and_less_often():
    state, told = RUNNING, []
    now = NOW
    while len(told) < 4:
        found, due = step(state, now)
        if found is None:
            now = due
            continue
        if found is HookStep.TELL:
            told.append(now - NOW)
        else:
            assert found is HookStep.SHOW
        state = state.after(found, now)
    assert told == [number * TOLD_AFTER + SHOW_TIME for number in (1, 2, 4, 8)]


@pytest.mark.parametrize("phase", STOPS)
def test_a_stop_asks_its_process_once_and_kills_it_after_the_grace(phase):
    assert step(RUNNING, phase=phase)[0] is HookStep.ASK
    asked = RUNNING.after(HookStep.ASK, NOW)
    assert step(asked, NOW + GRACE - 0.1, phase) == (None, NOW + GRACE)
    assert step(asked, NOW + GRACE, phase)[0] is HookStep.KILL
    killed = asked.after(HookStep.KILL, NOW + GRACE)
    assert step(killed, NOW + 99, phase) == (None, NEVER)


@pytest.mark.parametrize("phase", STOPS)
@pytest.mark.parametrize("state", [HOOKS, RUNNING.failed(NOW, 0.5)])
def test_a_stop_runs_no_hook(state, phase):
    assert step(state, NOW + 99, phase) == (None, NEVER)


@pytest.mark.parametrize("phase", [Phase.HOLDING, Phase.RESUMING])
def test_a_pool_that_holds_runs_its_hooks(phase):
    assert step(HOOKS, phase=phase)[0] is HookStep.RUN


@pytest.mark.parametrize("all_workers", [True, False])
def test_a_start_succeeds_only_when_the_hooks_are_over_and_says_at_the_deadline_what_keeps_it(
    all_workers,
):
    goal = StartGoal(all_workers=all_workers, until=NOW)
    nobody = [Wanted("high", 0)]

    def result(now: float, obstacle: str):
        no_failures: dict[str, Backoff] = {}
        return start_result(goal, Phase.RUNNING, nobody, Roster(), no_failures, now, obstacle)

    assert result(NOW - 1, "a hook runs") is None
    assert result(NOW, "a hook runs").text == "The pool was not ready in time: a hook runs."
    assert result(NOW - 1, "").success
