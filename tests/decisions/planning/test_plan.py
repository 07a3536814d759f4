"""The plan: histories told as data, and worlds of chance that must settle."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_rq_pool.planning.actions import (
    Action,
    Fork,
    KillHorse,
    Recover,
    StopRecovery,
    StopWorker,
)
from django_rq_pool.planning.backoff import FREE_QUICK_DEATHS, QUICK, Backoff
from django_rq_pool.planning.boots import SHOW_TIME, EndBoot, end_boots
from django_rq_pool.planning.left_behind import KillLeftBehind, LeftBehind
from django_rq_pool.planning.phases import Phase
from django_rq_pool.planning.plan import (
    FORKS_PER_TURN,
    IMMEDIATE_STOP_GRACE,
    RECOVERIES_AT_ONCE,
    Plan,
    PlanOptions,
    Wanted,
    make_plan,
)
from django_rq_pool.planning.recoveries import RETRY_DELAY, RecoveryProcess, UnrecoveredWorker
from django_rq_pool.planning.roster import Orphan, Roster, Stop, WorkerRecord
from django_rq_pool.planning.watch_clock import LONGEST_LOOK, LOOK_AGAIN, WatchClock

NOW = 1000.0
STOPPING = [Phase.QUITTING, Phase.LEAVING, Phase.TERMINATING]


def worker(
    pid: int,
    group: str = "high",
    number: int | None = None,
    *,
    ready: bool = True,
    stop: Stop | None = None,
    asked_at: float = NOW,
    generation: int = 0,
) -> WorkerRecord:
    return WorkerRecord(
        pid=pid,
        group=group,
        number=pid if number is None else number,
        name=f"{group}.{pid}",
        forked_at=NOW - 100.0,
        generation=generation,
        ready_at=NOW - 90.0 if ready else None,
        stop=stop,
        asked_at=asked_at if stop else 0.0,
    )


def roster_of(*records: WorkerRecord, orphans: tuple[Orphan, ...] = ()) -> Roster:
    roster = Roster()
    for record in records:
        roster.add(record)
    for orphan in orphans:
        roster.adopt(orphan)
    return roster


def wanted_of(counts: dict[str, int], generation: int = 0) -> list[Wanted]:
    return [Wanted(name, workers, generation) for name, workers in counts.items()]


def plan(
    *records: WorkerRecord,
    phase: Phase = Phase.RUNNING,
    counts: dict[str, int] | None = None,
    orphans: tuple[Orphan, ...] = (),
    finished: dict[str, int] | None = None,
    backoffs: dict[str, Backoff] | None = None,
    busy: tuple[int, ...] = (),
    now: float = NOW,
    burst: bool = False,
    unrecovered: tuple[UnrecoveredWorker, ...] = (),
    recoveries: tuple[RecoveryProcess, ...] = (),
    left_behind: LeftBehind | None = None,
    grace: float = IMMEDIATE_STOP_GRACE,
    generation: int = 0,
    spawn_delay: float = 0.0,
) -> Plan:
    roster = roster_of(*records, orphans=orphans)
    roster.finished.update(finished or {})
    roster.unrecovered.update({each.name: each for each in unrecovered})
    roster.recoveries.update({each.pid: each for each in recoveries})
    roster.left_behind = left_behind
    wanted = wanted_of(counts or {}, generation)
    plan_options = PlanOptions(burst, grace, spawn_delay)
    return make_plan(phase, wanted, roster, backoffs or {}, busy, now, plan_options)


def actions(*records: WorkerRecord, **more) -> list[Action]:
    return list(plan(*records, **more).actions)


# Keeping the counts


def test_a_pool_that_is_as_it_should_be_has_nothing_to_do_and_nothing_to_wait_for():
    counts = {"high": 2, "low": 0}
    assert plan(worker(1), worker(2), counts=counts) == Plan((), due=None, finished=False)


def test_an_empty_pool_waits_for_a_signal():
    assert plan() == Plan((), due=None, finished=False)


def test_missing_workers_are_forked_numbered_from_one_the_first_group_first():
    assert actions(counts={"low": 2, "high": 1}) == [
        Fork("low", 1),
        Fork("low", 2),
        Fork("high", 1),
    ]


@pytest.mark.parametrize(
    ("taken", "count", "forked"),
    [
        ([1, 3], 4, [2, 4]),
        ([2, 3], 3, [1]),
        ([5], 3, [1, 2]),
        ([4, 2], 5, [1, 3, 5]),
    ],
)
def test_forks_fill_the_gaps_between_numbers(taken, count, forked):
    records = [worker(10 + number, number=number) for number in taken]
    assert actions(*records, counts={"high": count}) == [Fork("high", n) for n in forked]


def test_groups_number_their_workers_apart():
    assert actions(worker(7, "low", 1), counts={"low": 1, "high": 1}) == [Fork("high", 1)]


def test_a_worker_that_is_not_ready_counts():
    assert actions(worker(1, ready=False), counts={"high": 1}) == []


@pytest.mark.parametrize("stop", list(Stop))
def test_a_leaving_worker_still_counts_against_its_group(stop):
    leaving = worker(1, stop=stop)
    assert actions(leaving, counts={"high": 1}) == []
    assert actions(leaving, counts={"high": 2}) == [Fork("high", 2)]


# Too many


def test_surplus_workers_are_asked_gracefully():
    assert actions(worker(1), worker(2), counts={"high": 1}) == [StopWorker(2, Stop.GRACEFUL)]


def test_a_group_that_is_wanted_no_more_is_asked_to_leave():
    assert actions(worker(1), worker(2, "low"), counts={"high": 1}) == [
        StopWorker(2, Stop.GRACEFUL)
    ]


def test_idle_workers_are_asked_before_busy_ones():
    records = [worker(pid) for pid in (1, 2, 3, 4)]
    asked = actions(*records, counts={"high": 2}, busy=(2, 4))
    assert asked == [StopWorker(3, Stop.GRACEFUL), StopWorker(1, Stop.GRACEFUL)]


def test_a_busy_worker_is_asked_only_when_the_idle_ones_are_not_enough():
    records = [worker(pid) for pid in (1, 2, 3)]
    asked = actions(*records, counts={"high": 0}, busy=(2, 3))
    assert asked == [
        StopWorker(1, Stop.GRACEFUL),
        StopWorker(3, Stop.GRACEFUL),
        StopWorker(2, Stop.GRACEFUL),
    ]


def test_workers_that_are_not_ready_are_asked_before_idle_ones():
    records = [worker(1, ready=False), worker(2), worker(3)]
    assert actions(*records, counts={"high": 2}) == [StopWorker(1, Stop.GRACEFUL)]


def test_a_surplus_worker_is_asked_once():
    leaving = worker(2, stop=Stop.GRACEFUL, asked_at=NOW - 1)
    assert plan(worker(1), leaving, counts={"high": 1}) == Plan((), due=None, finished=False)


def test_workers_on_their_way_out_are_part_of_the_surplus():
    records = [worker(1), worker(2), worker(3, stop=Stop.GRACEFUL)]
    assert actions(*records, counts={"high": 2}) == []
    assert actions(*records, counts={"high": 1}) == [StopWorker(2, Stop.GRACEFUL)]


def test_a_ready_worker_has_all_the_time_it_wants_for_a_graceful_stop():
    leaving = worker(2, stop=Stop.GRACEFUL, asked_at=NOW - 1e6)
    assert plan(worker(1), leaving, counts={"high": 1}, busy=(2,)).actions == ()


# Stops


@pytest.mark.parametrize(
    ("phase", "stop"),
    [
        (Phase.QUITTING, Stop.GRACEFUL),
        (Phase.LEAVING, Stop.GRACEFUL),
        (Phase.TERMINATING, Stop.IMMEDIATE),
    ],
)
def test_a_stop_asks_every_worker_and_forks_none(phase, stop):
    records = [worker(1), worker(2, "low", ready=False)]
    assert actions(*records, phase=phase, counts={"high": 5}) == [
        StopWorker(1, stop),
        StopWorker(2, stop),
    ]


@pytest.mark.parametrize("phase", [Phase.QUITTING, Phase.LEAVING])
@pytest.mark.parametrize("stop", list(Stop))
def test_a_graceful_stop_asks_nobody_a_second_time(phase, stop):
    assert actions(worker(1, stop=stop), phase=phase) == []


def test_an_immediate_stop_hardens_a_graceful_one():
    leaving = worker(1, stop=Stop.GRACEFUL, asked_at=NOW - 100)
    assert actions(leaving, phase=Phase.TERMINATING) == [StopWorker(1, Stop.IMMEDIATE)]


def test_an_immediate_stop_becomes_a_kill_when_the_grace_is_over_and_not_before():
    asked_at = NOW
    record = worker(1, stop=Stop.IMMEDIATE, asked_at=asked_at)
    over = asked_at + IMMEDIATE_STOP_GRACE
    early = plan(record, phase=Phase.TERMINATING, now=over - 0.001)
    assert early == Plan((), due=over, finished=False)
    late = plan(record, phase=Phase.TERMINATING, now=over)
    assert late.actions == (StopWorker(1, Stop.KILL),)


def test_the_plan_that_asks_names_the_time_to_look_again():
    assert plan(worker(1), phase=Phase.TERMINATING).due == NOW + IMMEDIATE_STOP_GRACE


def test_the_earliest_deadline_is_due():
    records = [
        worker(1, stop=Stop.IMMEDIATE, asked_at=NOW - 1),
        worker(2, stop=Stop.IMMEDIATE, asked_at=NOW - 3),
        worker(3, stop=Stop.IMMEDIATE, asked_at=NOW - 2),
    ]
    assert plan(*records, phase=Phase.TERMINATING).due == NOW - 3 + IMMEDIATE_STOP_GRACE


def test_after_a_kill_there_is_nothing_left_but_to_wait():
    killed = worker(1, stop=Stop.KILL, asked_at=NOW - 100)
    assert plan(killed, phase=Phase.TERMINATING) == Plan((), due=None, finished=False)


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.QUITTING])
def test_a_worker_that_was_never_ready_has_no_job_and_is_killed_after_the_grace(phase):
    asked_at = NOW
    record = worker(1, ready=False, stop=Stop.GRACEFUL, asked_at=asked_at)
    over = asked_at + IMMEDIATE_STOP_GRACE
    assert plan(record, phase=phase, now=over - 0.001) == Plan((), due=over, finished=False)
    assert actions(record, phase=phase, now=over) == [StopWorker(1, Stop.KILL)]


@pytest.mark.parametrize("grace", [0.5, 5.0, 20.0])
def test_the_grace_of_an_immediate_stop_is_what_the_pool_is_told(grace):
    record = worker(1, stop=Stop.IMMEDIATE, asked_at=NOW)
    stopping = {"phase": Phase.TERMINATING, "grace": grace}
    early = plan(record, now=NOW + grace - 0.01, **stopping)
    assert early == Plan((), due=NOW + grace, finished=False)
    assert actions(record, now=NOW + grace, **stopping) == [StopWorker(1, Stop.KILL)]


# Accounting for the dead


DEAD = UnrecoveredWorker("dead")
FAILING = replace(DEAD, failures=50, failed_at=NOW - 0.1, not_before=NOW + 6.0)
"""A worker whose recovery fails again and again, and has just done so."""


@pytest.mark.parametrize("phase", list(Phase))
def test_a_dead_worker_is_accounted_for_in_every_phase(phase):
    assert Recover("dead") in actions(phase=phase, unrecovered=(DEAD,))


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.HOLDING])
def test_a_recovery_process_that_has_failed_is_replaced_when_its_time_has_come(phase):
    waiting = plan(phase=phase, unrecovered=(FAILING,))
    assert waiting == Plan((), due=NOW + 6.0, finished=False)
    assert actions(phase=phase, unrecovered=(FAILING,), now=NOW + 6.0) == [Recover("dead")]


def test_recovery_processes_are_so_many_at_once_and_those_that_have_to_wait_keep_no_place():
    waiting = [replace(FAILING, name=f"waiting-{number}") for number in range(99)]
    dead = [UnrecoveredWorker(f"dead-{number}") for number in range(99)]
    at_work = (RecoveryProcess(60, "a"), RecoveryProcess(61, "b", guards=50))
    made = plan(unrecovered=(*waiting, *dead), recoveries=at_work)
    assert made.actions == tuple(Recover(each.name) for each in dead[: RECOVERIES_AT_ONCE - 1])
    assert made.due == NOW + 6.0


def test_a_pool_that_quits_takes_its_time_with_recoveries_while_a_worker_is_left():
    quitting = {"phase": Phase.QUITTING, "unrecovered": (FAILING,)}
    recovery = RecoveryProcess(60, "other")
    made = plan(worker(1, stop=Stop.GRACEFUL), recoveries=(recovery,), **quitting)
    assert made == Plan((), due=NOW + 6.0, finished=False)


@pytest.mark.parametrize("phase", [Phase.QUITTING, Phase.TERMINATING])
def test_a_pool_that_leaves_tries_once_more_and_soon(phase):
    soon = FAILING.failed_at + RETRY_DELAY
    made = plan(phase=phase, unrecovered=(FAILING,))
    assert made == Plan((), due=soon, finished=False)
    assert actions(phase=phase, unrecovered=(FAILING,), now=soon) == [Recover("dead")]


@pytest.mark.parametrize("phase", [Phase.QUITTING, Phase.TERMINATING])
def test_a_pool_that_leaves_does_not_ask_for_workers_that_redis_did_not_answer(phase):
    cut_off = [UnrecoveredWorker(f"dead-{number}", cut_off=True) for number in range(99)]
    nothing = LeftBehind((), NOW, NOW)
    made = plan(phase=phase, unrecovered=cut_off, left_behind=nothing)
    assert made == Plan((), due=None, finished=True)


def test_a_pool_that_stays_or_waits_for_a_worker_asks_for_those_that_redis_did_not_answer():
    cut_off = (UnrecoveredWorker("dead", cut_off=True),)
    assert actions(unrecovered=cut_off) == [Recover("dead")]
    last = worker(1, stop=Stop.GRACEFUL)
    assert actions(last, phase=Phase.QUITTING, unrecovered=cut_off) == [Recover("dead")]


def test_recovery_processes_are_left_alone_while_the_pool_runs():
    old = RecoveryProcess(60, "dead", asked_at=NOW - 1e6)
    assert plan(recoveries=(RecoveryProcess(61, "gone"), old)) == Plan((), due=None, finished=False)


@pytest.mark.parametrize("phase", STOPPING)
def test_a_stop_asks_each_recovery_process_once_to_give_up_where_redis_is_away(phase):
    new, asked = RecoveryProcess(60, "new"), RecoveryProcess(61, "asked", asked_at=NOW - 0.1)
    assert actions(phase=phase, recoveries=(new, asked)) == [StopRecovery(60, Stop.GRACEFUL)]


def test_an_immediate_stop_kills_a_recovery_process_after_the_grace_and_once():
    asked = RecoveryProcess(60, "dead", asked_at=NOW)
    over = NOW + IMMEDIATE_STOP_GRACE
    stopping = {"phase": Phase.TERMINATING, "recoveries": (asked,)}
    assert plan(now=over - 0.01, **stopping) == Plan((), due=over, finished=False)
    assert actions(now=over, **stopping) == [StopRecovery(60, Stop.KILL)]
    killed = replace(asked, killed=True)
    after = plan(phase=Phase.TERMINATING, recoveries=(killed,), now=over + 1)
    assert after == Plan((), due=None, finished=False)


def test_a_recovery_process_that_waits_for_an_orphan_is_not_killed():
    asked = RecoveryProcess(60, "dead", asked_at=NOW - 100)
    orphan = Orphan(50, "high", "job", ended=True)
    assert actions(phase=Phase.TERMINATING, recoveries=(asked,), orphans=(orphan,)) == []


def test_a_graceful_stop_never_kills_a_recovery_process():
    asked = RecoveryProcess(60, "dead", asked_at=NOW - 1e6)
    waiting = plan(phase=Phase.QUITTING, recoveries=(asked,))
    assert waiting == Plan((), due=None, finished=False)


@pytest.mark.parametrize("phase", [Phase.QUITTING, Phase.TERMINATING])
def test_a_stopped_pool_waits_until_every_dead_worker_is_accounted_for(phase):
    assert not plan(phase=phase, unrecovered=(DEAD,)).finished
    assert not plan(phase=phase, recoveries=(RecoveryProcess(60, "dead", killed=True),)).finished


def test_a_burst_waits_until_every_dead_worker_is_accounted_for():
    assert not plan(burst=True, unrecovered=(FAILING,)).finished
    assert not plan(burst=True, recoveries=(RecoveryProcess(60, "dead"),)).finished


# Leaving


@pytest.mark.parametrize("phase", [Phase.QUITTING, Phase.LEAVING])
def test_a_stopped_pool_is_finished_when_nobody_is_left(phase):
    assert plan(phase=phase, counts={"high": 3}) == Plan((), due=None, finished=True)


def test_an_immediate_stop_is_finished_when_nothing_of_the_jobs_is_left_either():
    stopping = {"phase": Phase.TERMINATING, "counts": {"high": 3}}
    assert plan(**stopping) == Plan((KillLeftBehind(),), due=None, finished=False)
    left = LeftBehind((70,), since=NOW, looked_at=NOW)
    soon = left.due(IMMEDIATE_STOP_GRACE)
    assert plan(left_behind=left, **stopping) == Plan((), due=soon, finished=False)
    assert actions(left_behind=left, now=soon, **stopping) == [KillLeftBehind()]
    gone = replace(left, pids=(), looked_at=soon)
    assert plan(left_behind=gone, now=soon, **stopping) == Plan((), due=None, finished=True)


@pytest.mark.parametrize("phase", STOPPING)
def test_a_pool_that_another_process_of_its_own_holds_up_neither_ends_nor_kills_it(phase):
    made = make_plan(phase, (), Roster(), {}, (), NOW, held_up=True)
    assert made == Plan((), due=None, finished=False)


def test_what_cannot_be_killed_keeps_an_immediate_stop_for_the_grace_only():
    over = NOW + IMMEDIATE_STOP_GRACE
    left = LeftBehind((70,), since=NOW, looked_at=over - 0.001)
    stopping = {"phase": Phase.TERMINATING, "now": over + 1}
    assert actions(left_behind=left, **stopping) == [KillLeftBehind()]
    left = replace(left, looked_at=over)
    assert plan(left_behind=left, **stopping) == Plan((), due=None, finished=True)


def test_nothing_is_looked_for_while_a_worker_or_a_horse_is_there():
    assert not actions(worker(1, stop=Stop.KILL), phase=Phase.TERMINATING)
    ended = Orphan(50, "high", "job", ended=True)
    assert not actions(phase=Phase.TERMINATING, orphans=(ended,))


@pytest.mark.parametrize("phase", [Phase.QUITTING, Phase.TERMINATING])
def test_a_stopped_pool_waits_for_its_last_worker(phase):
    for stop in (None, *Stop):
        assert not plan(worker(1, stop=stop), phase=phase).finished


@pytest.mark.parametrize("phase", [Phase.QUITTING, Phase.TERMINATING])
@pytest.mark.parametrize("ended", [False, True])
def test_a_stopped_pool_waits_for_horses_that_outlived_their_workers(phase, ended):
    orphan = Orphan(50, "high", "job", ended=ended)
    assert not plan(phase=phase, orphans=(orphan,)).finished


def test_leaving_finishes_at_once_and_has_asked_everybody():
    leaving = plan(worker(1), worker(2), phase=Phase.LEAVING, orphans=(Orphan(50, "high", "job"),))
    assert leaving.finished
    assert leaving.actions == (StopWorker(1, Stop.GRACEFUL), StopWorker(2, Stop.GRACEFUL))


def test_a_running_pool_never_finishes_by_itself():
    assert not plan().finished
    assert not plan(counts={"high": 0}).finished


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.QUITTING, Phase.LEAVING])
def test_orphans_are_left_to_finish_their_jobs(phase):
    assert actions(phase=phase, orphans=(Orphan(50, "high", "job"),)) == []


def test_an_immediate_stop_ends_each_orphan_once():
    orphans = (Orphan(50, "high", "a"), Orphan(51, "high", "b", ended=True))
    ending = plan(phase=Phase.TERMINATING, orphans=orphans)
    assert ending == Plan((KillHorse(50),), due=None, finished=False)


# Burst


def test_in_burst_mode_a_worker_that_has_finished_is_not_replaced():
    assert actions(worker(1), counts={"high": 2}, finished={"high": 1}, burst=True) == []


def test_in_burst_mode_a_worker_that_died_is_replaced():
    assert actions(worker(1), counts={"high": 3}, finished={"high": 1}, burst=True) == [
        Fork("high", 2)
    ]


def test_a_burst_is_over_when_every_worker_of_every_group_has_finished():
    counts = {"high": 2, "low": 1}
    assert not plan(counts=counts, finished={"high": 2}, burst=True).finished
    assert plan(counts=counts, finished={"high": 2, "low": 1}, burst=True) == Plan((), None, True)


def test_a_burst_waits_for_workers_and_orphans():
    done = {"counts": {"high": 1}, "finished": {"high": 1}, "burst": True}
    assert not plan(worker(1, stop=Stop.GRACEFUL), **done).finished
    assert not plan(orphans=(Orphan(50, "high", "job"),), **done).finished
    assert plan(**done).finished


def test_a_burst_of_nothing_is_over_at_once():
    assert plan(burst=True).finished
    assert plan(counts={"high": 0}, burst=True).finished


def test_more_finished_workers_than_wanted_ask_nobody_twice():
    assert actions(counts={"high": 1}, finished={"high": 4}, burst=True) == []


def test_finished_workers_are_replaced_when_it_is_no_burst():
    assert actions(counts={"high": 1}, finished={"high": 1}) == [Fork("high", 1)]


# Backoff

FAILED = Backoff(boot_failures=1, failed_at=NOW - 1.0, not_before=NOW + 3.0)


def test_a_group_is_not_forked_before_its_time():
    held = plan(counts={"high": 3}, backoffs={"high": FAILED})
    assert held == Plan((), due=NOW + 3.0, finished=False)


def test_a_held_group_does_not_hold_the_others():
    both = plan(counts={"high": 3, "low": 1}, backoffs={"high": FAILED})
    assert both.actions == (Fork("low", 1),)
    assert both.due == NOW + 3.0


def test_when_its_time_has_come_one_worker_goes_ahead():
    probing = plan(counts={"high": 3}, backoffs={"high": FAILED}, now=NOW + 3.0)
    assert probing.actions == (Fork("high", 1),)


def test_the_others_wait_until_the_first_is_ready():
    probe = worker(1, ready=False)
    assert actions(probe, counts={"high": 3}, backoffs={"high": FAILED}, now=NOW + 60) == []


def test_the_others_follow_when_the_first_is_ready():
    ready = {"high": FAILED.became_ready()}
    assert actions(worker(1), counts={"high": 3}, backoffs=ready, now=NOW + 4) == [
        Fork("high", 2),
        Fork("high", 3),
    ]


def test_workers_that_were_ready_before_the_failure_are_no_probe():
    records = [worker(1), worker(2)]
    assert actions(*records, counts={"high": 5}, backoffs={"high": FAILED}, now=NOW + 3) == [
        Fork("high", 3)
    ]


def test_a_group_with_all_its_workers_has_no_use_for_its_backoff():
    full = plan(worker(1), counts={"high": 1}, backoffs={"high": FAILED})
    assert full == Plan((), due=None, finished=False)


def test_a_group_that_keeps_dying_sends_one_worker_and_the_rest_once_it_has_survived():
    backoff = Backoff(quick_deaths=FREE_QUICK_DEATHS + 1, failed_at=NOW - 2, not_before=NOW)
    assert actions(counts={"high": 3}, backoffs={"high": backoff}) == [Fork("high", 1)]
    survived = plan(worker(1), counts={"high": 3}, backoffs={"high": backoff}, now=NOW + QUICK)
    assert survived.actions == (Fork("high", 2), Fork("high", 3))


@pytest.mark.parametrize(("ready_at", "now"), [(NOW + 0.1, NOW + 0.2), (None, NOW + QUICK + 0.5)])
def test_a_group_that_keeps_dying_waits_until_its_first_worker_has_survived(ready_at, now):
    backoff = Backoff(quick_deaths=FREE_QUICK_DEATHS + 1, failed_at=NOW - 2, not_before=NOW)
    probe = replace(worker(1), forked_at=NOW, ready_at=ready_at)
    assert actions(probe, counts={"high": 3}, backoffs={"high": backoff}, now=now) == []


def test_a_group_whose_workers_crash_and_fail_to_boot_is_not_given_up():
    backoff = Backoff(
        boot_failures=1, quick_deaths=FREE_QUICK_DEATHS + 1, failed_at=NOW - 2, not_before=NOW
    )
    survivor = worker(1)
    assert actions(survivor, counts={"high": 3}, backoffs={"high": backoff}) == [Fork("high", 2)]


def test_a_held_group_with_a_probe_is_looked_at_again():
    waiting = plan(
        worker(1, ready=False), counts={"high": 3}, backoffs={"high": FAILED}, now=NOW + 60
    )
    assert waiting.due is None or waiting.due > NOW + 60


# Many forks


def test_a_turn_forks_so_many_and_the_next_turn_the_rest():
    wanted = {"high": FORKS_PER_TURN + 3}
    first = actions(counts=wanted)
    assert first == [Fork("high", n) for n in range(1, FORKS_PER_TURN + 1)]
    born = [worker(n) for n in range(1, FORKS_PER_TURN + 1)]
    assert actions(*born, counts=wanted) == [Fork("high", FORKS_PER_TURN + n) for n in (1, 2, 3)]


def test_all_groups_share_the_forks_of_a_turn():
    crowded = actions(counts={"high": FORKS_PER_TURN - 1, "low": 5, "default": 1})
    assert Counter(fork.group for fork in crowded) == {"high": FORKS_PER_TURN - 1, "low": 1}


def test_surplus_is_asked_in_a_turn_however_many_forks_there_are():
    surplus = worker(1, "low")
    asked = actions(surplus, counts={"high": FORKS_PER_TURN + 1, "low": 0})
    assert asked[-1] == StopWorker(1, Stop.GRACEFUL)


# A delay between forks


def test_with_a_delay_one_worker_is_forked_and_the_next_not_before_its_time():
    assert actions(counts={"high": 2, "low": 1}, spawn_delay=0.5) == [Fork("high", 1)]
    just_forked = replace(worker(1, ready=False), forked_at=NOW)
    waiting = plan(just_forked, counts={"high": 2}, spawn_delay=0.5)
    assert waiting == Plan((), due=NOW + 0.5, finished=False)
    later = actions(just_forked, counts={"high": 2}, spawn_delay=0.5, now=NOW + 0.5)
    assert later == [Fork("high", 2)]


# Another generation


def test_one_worker_goes_first_when_a_generation_begins():
    old = [worker(1), worker(2), worker(3)]
    assert actions(*old, counts={"high": 3}, generation=1) == [StopWorker(3, Stop.GRACEFUL)]


def test_the_one_that_goes_first_is_idle_if_any_is():
    old = [worker(1), worker(2), worker(3)]
    asked = actions(*old, counts={"high": 3}, generation=1, busy=(2, 3))
    assert asked == [StopWorker(1, Stop.GRACEFUL)]


def test_one_goes_first_when_none_is_idle_too_and_the_next_one_when_it_is_idle():
    old = [worker(1), worker(2)]
    assert actions(*old, counts={"high": 2}, generation=1, busy=(1, 2)) == [
        StopWorker(2, Stop.GRACEFUL)
    ]
    pool = [worker(1), worker(2, stop=Stop.GRACEFUL, asked_at=NOW)]
    later = {"counts": {"high": 2}, "generation": 1, "now": NOW + IMMEDIATE_STOP_GRACE}
    waiting = plan(*pool, busy=(1, 2), **later)
    assert waiting == Plan((), due=NOW + 2 * IMMEDIATE_STOP_GRACE, finished=False)
    assert actions(*pool, busy=(2,), **later) == [StopWorker(1, Stop.GRACEFUL)]


@pytest.mark.parametrize("stop", [Stop.GRACEFUL, Stop.KILL])
def test_a_worker_that_was_never_ready_goes_first_and_no_other_before_its_successor_is_ready(stop):
    good, hangs = worker(1), worker(2, ready=False)
    renewed = {"counts": {"high": 2}, "generation": 1}
    assert actions(good, hangs, **renewed) == [StopWorker(2, Stop.GRACEFUL)]
    leaving = replace(hangs, stop=stop, asked_at=NOW)
    later = actions(good, leaving, now=NOW + IMMEDIATE_STOP_GRACE, **renewed)
    assert [each for each in later if each.pid == 1] == []
    successor = worker(3, ready=False, generation=1)
    assert actions(good, successor, now=NOW + 1e6, **renewed) == []


def test_its_successor_comes_when_it_has_gone_and_not_before():
    staying, leaving = worker(1), worker(2, stop=Stop.GRACEFUL)
    assert actions(staying, leaving, counts={"high": 2}, generation=1) == []
    assert actions(staying, counts={"high": 2}, generation=1) == [Fork("high", 2)]


def test_the_rest_stay_until_the_successor_is_ready():
    new = worker(2, ready=False, generation=1)
    assert plan(worker(1), new, counts={"high": 2}, generation=1).actions == ()
    new = worker(2, generation=1)
    assert actions(worker(1), new, counts={"high": 2}, generation=1) == [
        StopWorker(1, Stop.GRACEFUL)
    ]


def test_a_generation_that_cannot_boot_costs_the_group_one_worker():
    failing = {"high": Backoff().boot_failed(NOW, NOW, 0.5)}
    made = plan(worker(1), worker(2), counts={"high": 3}, generation=1, backoffs=failing)
    assert made == Plan((), due=failing["high"].not_before, finished=False)


def test_another_goes_when_the_first_has_taken_a_job_after_all():
    leaving = worker(3, stop=Stop.GRACEFUL, asked_at=NOW)
    pool = [worker(1), worker(2), leaving]
    waiting = plan(*pool, counts={"high": 3}, generation=1)
    assert waiting == Plan((), due=NOW + IMMEDIATE_STOP_GRACE, finished=False)
    later = actions(
        *pool, counts={"high": 3}, generation=1, busy=(3,), now=NOW + IMMEDIATE_STOP_GRACE
    )
    assert later == [StopWorker(2, Stop.GRACEFUL)]


def test_a_worker_that_a_higher_count_brings_goes_first():
    assert actions(worker(1), counts={"high": 2}, generation=1) == [Fork("high", 2)]


def test_groups_are_renewed_apart():
    high, low = worker(1), worker(2, "low", generation=1)
    assert actions(high, low, counts={"high": 1, "low": 1}, generation=1) == [
        StopWorker(1, Stop.GRACEFUL)
    ]


@pytest.mark.parametrize("phase", [Phase.HOLDING, Phase.RESUMING])
def test_a_pool_that_holds_asks_all_forks_none_and_does_not_end(phase):
    asked = actions(worker(1), worker(2), counts={"high": 4}, phase=phase)
    assert asked == [StopWorker(1, Stop.GRACEFUL), StopWorker(2, Stop.GRACEFUL)]
    assert plan(counts={"high": 4}, phase=phase) == Plan((), due=None, finished=False)
    assert plan(counts={}, phase=phase, burst=True) == Plan((), due=None, finished=False)


# A boot that hangs


def booting(pid: int, watched: float, *, roster_clock: float = 100.0, **more) -> WorkerRecord:
    """A worker with 30 s to boot, which the manager has watched for some seconds."""
    began = roster_clock - watched
    return replace(worker(pid, ready=False), boot_timeout=30.0, boot_began=began, **more)


def plan_boots(*records: WorkerRecord, phase: Phase = Phase.RUNNING, clock: float = 100.0) -> Plan:
    roster = roster_of(*records)
    roster.clock = WatchClock(clock, NOW)
    return make_plan(phase, wanted_of({"high": len(records)}), roster, {}, (), NOW)


def test_a_worker_that_was_not_ready_in_time_shows_where_it_hangs_and_is_then_killed():
    assert plan_boots(booting(1, 30.0)).actions == (EndBoot(1, kill=False),)
    showing = plan_boots(booting(1, 30.1, overdue=True))
    assert showing.actions == ()
    assert showing.due == pytest.approx(NOW + SHOW_TIME - 0.1)
    overdue = booting(1, 30.0 + SHOW_TIME, overdue=True)
    assert plan_boots(overdue).actions == (EndBoot(1, kill=True),)


def test_after_that_there_is_nothing_left_but_to_wait():
    assert plan_boots(booting(1, 99.0, overdue=True, killed=True)) == Plan((), None, False)


def test_a_boot_is_looked_at_often_and_at_its_end():
    assert plan_boots(booting(1, 3.0)) == Plan((), NOW + LOOK_AGAIN, False)
    assert plan_boots(booting(1, 29.75), booting(2, 1.0)).due == NOW + 0.25


@pytest.mark.parametrize(
    "more", [{"awaits_redis": True}, {"ready_at": NOW}, {"boot_timeout": float("inf")}], ids=str
)
def test_a_worker_that_is_ready_or_waits_for_redis_has_all_the_time(more):
    record = replace(booting(1, 90.0), **more)
    assert plan_boots(record).actions == ()


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.RUNNING])
def test_a_worker_that_is_asked_to_stop_is_ended_by_that(phase):
    assert [type(each) for each in plan_boots(booting(1, 90.0), phase=phase).actions] == [
        StopWorker
    ]


def test_what_a_worker_has_waited_for_a_processor_is_not_held_against_it():
    roster = roster_of(booting(1, 31.0))
    roster.clock = WatchClock(100.0, NOW)
    assert end_boots(roster.workers(), roster)[0] == [EndBoot(1, kill=False)]
    roster.mark_cpu_wait(1, 1.5)
    assert end_boots(roster.workers(), roster) == ([], 0.5)


def test_a_worker_that_goes_on_after_redis_was_away_begins_its_boot_anew():
    roster = roster_of(booting(1, 29.0))
    roster.clock = WatchClock(100.0, NOW)
    roster.mark_redis(1, awaited=True)
    roster.clock = WatchClock(500.0, NOW)
    assert make_plan(Phase.RUNNING, wanted_of({"high": 1}), roster, {}, (), NOW).due is None
    roster.mark_redis(1, awaited=False)
    assert end_boots(roster.workers(), roster) == ([], LOOK_AGAIN)
    roster.clock = WatchClock(530.0, NOW)
    assert end_boots(roster.workers(), roster)[0] == [EndBoot(1, kill=False)]


def test_the_clock_of_boots_stands_still_while_the_manager_does():
    clock = WatchClock().look(10.0)
    for second in range(11, 16):
        clock = clock.look(float(second))
    before = clock.seconds
    assert clock.look(15.5).seconds == before + 0.5
    assert clock.look(9_999.0).seconds == before + LONGEST_LOOK
    assert clock.look(3.0).seconds == before


# Worlds of chance

FATES = ["good", "bad", "short", "hangs"]
CALM_AT = 60.0
"""From this time on every worker boots, lives, and does as it is asked."""
SETTLED_BY = CALM_AT + 60.0
"""Longer than the longest delay with its jitter, a boot and a grace."""


@dataclass
class World:
    """A pool without processes: it carries out plans, and fate answers for the workers."""

    counts: dict[str, int]
    chance: random.Random
    calm_at: float = CALM_AT
    now: float = 0.0
    phase: Phase = Phase.RUNNING
    generation: int = 0
    roster: Roster = field(default_factory=Roster)
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    events: list[tuple[float, int, str, object]] = field(default_factory=list)
    pids: count = field(default_factory=lambda: count(1))
    order: count = field(default_factory=count)
    asked: Counter[tuple[int, Stop]] = field(default_factory=Counter)

    def at(self, when: float, what: str, subject: object) -> None:
        heapq.heappush(self.events, (when, next(self.order), what, subject))

    def live(self, group: str) -> int:
        return sum(record.group == group for record in self.roster.workers())

    def populate(self, group: str, ready: bool, stop: Stop | None) -> None:
        pid = next(self.pids)
        number = 1 + max((each.number for each in self.roster.workers()), default=0)
        self.roster.add(
            WorkerRecord(
                pid,
                group,
                number,
                str(pid),
                forked_at=-50.0,
                ready_at=-40.0 if ready else None,
                stop=stop,
                asked_at=-1.0,
            )
        )
        if not ready:
            self.at(self.chance.uniform(0, 10), "ready", pid)
        if stop is not None:
            self.obey(pid, stop)

    def obey(self, pid: int, stop: Stop) -> None:
        """A worker dies of a kill, and of anything else unless it hangs."""
        hangs = self.now < self.calm_at and self.chance.random() < 0.3
        if stop is Stop.KILL:
            self.at(self.now + 0.01, "death", pid)
        elif not hangs:
            self.at(self.now + self.chance.choice([0.0, 0.1, 2.0, 7.0]), "death", pid)
        elif stop is Stop.GRACEFUL:
            self.at(self.calm_at + self.chance.uniform(0, 20), "death", pid)

    def fork(self, action: Fork) -> None:
        records = [each for each in self.roster.workers() if each.group == action.group]
        assert self.phase is Phase.RUNNING
        assert len(records) < self.counts.get(action.group, 0), "a worker too many"
        assert action.number not in {each.number for each in records}
        assert action.number >= 1
        backoff = self.backoffs.get(action.group, Backoff())
        assert self.now >= backoff.not_before
        if backoff.boot_failures:
            assert all(each.ready_at is not None for each in records), "a second probe"
        pid = next(self.pids)
        self.roster.add(
            WorkerRecord(
                pid,
                action.group,
                action.number,
                str(pid),
                self.now,
                generation=self.generation,
                boot_timeout=5.0,
                boot_began=self.roster.clock.seconds,
            )
        )
        booted = self.now + self.chance.uniform(0, 2)
        fate = "good" if self.now >= self.calm_at else self.chance.choice(FATES)
        if fate == "bad":
            self.at(booted, "death", pid)
        elif fate != "hangs":
            self.at(booted, "ready", pid)
        if fate == "short":
            self.at(booted + self.chance.choice([0.1, 0.9, 5.0]), "death", pid)

    def ask(self, action: StopWorker) -> None:
        record = self.roster.get(action.pid)
        assert record is not None, "a stranger is asked"
        assert record.stop is None or record.stop < action.stop, "asked again"
        self.asked[action.pid, action.stop] += 1
        assert self.asked[action.pid, action.stop] == 1
        if action.stop is Stop.KILL:
            assert record.stop is Stop.IMMEDIATE or record.ready_at is None
            assert self.now - record.asked_at >= IMMEDIATE_STOP_GRACE - 1e-9
        elif self.phase is Phase.RUNNING:
            assert action.stop is Stop.GRACEFUL
            staying = [
                each
                for each in self.roster.workers()
                if each.group == record.group and each.stop is None
            ]
            surplus = len(staying) > self.counts.get(record.group, 0)
            assert surplus or record.generation != self.generation, "too few would stay"
        self.roster.mark_asked(action.pid, action.stop, self.now)
        self.obey(action.pid, action.stop)

    def end_boot(self, action: EndBoot) -> None:
        record = self.roster.get(action.pid)
        assert record is not None
        assert record.ready_at is None
        assert self.now - record.forked_at >= record.boot_timeout - 0.01
        assert (record.overdue, record.killed) == (action.kill, False), "ended twice"
        self.roster.mark_overdue(action.pid, killed=action.kill)
        if action.kill:
            self.at(self.now + 0.01, "death", action.pid)

    def ready(self, pid: int) -> None:
        record = self.roster.mark_ready(pid, self.now)
        if record is not None:
            backoff = self.backoffs.get(record.group, Backoff())
            self.backoffs[record.group] = backoff.became_ready()

    def death(self, pid: int) -> None:
        record = self.roster.remove(pid)
        if record is None or record.stop is not None:
            return
        backoff, chance = self.backoffs.get(record.group, Backoff()), self.chance.random()
        if record.ready_at is None:
            backoff = backoff.boot_failed(record.forked_at, self.now, chance)
        elif self.now - record.ready_at >= QUICK:
            backoff = backoff.ended_well()
        else:
            backoff = backoff.died_quickly(record.forked_at, self.now, chance)
        self.backoffs[record.group] = backoff

    def turn(self) -> Plan:
        pids = self.roster.pids()
        busy = {pid for pid in pids if pid % 3 == 0}
        self.roster.clock = self.roster.clock.look(self.now)
        made = make_plan(
            self.phase,
            wanted_of(self.counts, self.generation),
            self.roster,
            self.backoffs,
            busy,
            self.now,
        )
        for action in made.actions:
            if isinstance(action, Fork):
                self.fork(action)
            elif isinstance(action, StopWorker):
                self.ask(action)
            elif isinstance(action, EndBoot):
                self.end_boot(action)
            elif isinstance(action, KillLeftBehind):
                self.roster.left_behind = LeftBehind((), self.now, self.now)
        return made

    def run(self, until: float) -> Plan:
        """Turns the loop until a time, or until the pool has ended."""
        idle_turns = 0
        while True:
            made = self.turn()
            if made.finished:
                return made
            # After actions the plan is made again at once, otherwise when it says or fate does.
            due = self.now if made.actions else until if made.due is None else made.due
            wake_at = min(due, until, *(when for when, *_ in self.events[:1]))
            if not made.actions and self.now >= until:
                return made
            idle_turns = 0 if made.actions or wake_at > self.now else idle_turns + 1
            assert idle_turns <= 3, "the loop spins"
            self.now = max(self.now, wake_at)
            while self.events and self.events[0][0] <= self.now:
                _, _, what, pid = heapq.heappop(self.events)
                getattr(self, what)(pid)


GROUPS = st.sampled_from(["high", "low", "default"])
COUNTS = st.dictionaries(GROUPS, st.integers(0, 4), max_size=3)
POPULATION = st.lists(
    st.tuples(GROUPS, st.booleans(), st.sampled_from([None, None, Stop.GRACEFUL])), max_size=8
)
SEEDS = st.integers(0, 2**32)


def world(counts: dict[str, int], population, seed: int, **more) -> World:
    made = World(counts, random.Random(seed), **more)
    for group, ready, stop in population:
        made.populate(group, ready, stop)
    return made


def assert_settled(world: World) -> None:
    settled = world.run(until=world.now)
    assert settled == Plan((), due=None, finished=False)
    records = world.roster.workers()
    wanted = {name: workers for name, workers in world.counts.items() if workers}
    assert Counter(record.group for record in records) == wanted
    assert all(record.stop is None and record.ready_at is not None for record in records)
    assert all(record.generation == world.generation for record in records)


@given(counts=COUNTS, population=POPULATION, seed=SEEDS)
def test_whatever_happens_a_pool_settles_on_its_counts(counts, population, seed):
    pool = world(counts, population, seed)
    pool.run(until=SETTLED_BY)
    assert_settled(pool)


@given(first=COUNTS, second=COUNTS, third=COUNTS, population=POPULATION, seed=SEEDS)
def test_a_pool_whose_counts_change_settles_on_the_last(first, second, third, population, seed):
    pool = world(first, population, seed)
    pool.run(until=15.0)
    pool.counts = second
    pool.run(until=15.5)
    pool.counts = third
    pool.run(until=SETTLED_BY)
    assert_settled(pool)


@given(
    counts=COUNTS,
    population=POPULATION,
    seed=SEEDS,
    stops=st.sampled_from(
        [[Phase.QUITTING], [Phase.TERMINATING], [Phase.QUITTING, Phase.TERMINATING]]
    ),
)
def test_a_stopped_pool_ends_and_leaves_nobody_behind(counts, population, seed, stops):
    pool = world(counts, population, seed)
    pool.run(until=5.0)
    for number, phase in enumerate(stops):
        pool.phase = phase
        ended = pool.run(until=SETTLED_BY if number == len(stops) - 1 else 6.0)
    assert ended.finished
    assert len(pool.roster) == 0


@settings(max_examples=settings.default.max_examples // 2)
@given(counts=COUNTS.filter(any), population=POPULATION, seed=SEEDS)
def test_an_immediate_stop_is_over_soon_after_the_grace(counts, population, seed):
    pool = world(counts, population, seed, calm_at=1e9)
    pool.run(until=20.0)
    pool.phase = Phase.TERMINATING
    ended = pool.run(until=20.0 + IMMEDIATE_STOP_GRACE + 0.1)
    assert ended.finished
    assert len(pool.roster) == 0
