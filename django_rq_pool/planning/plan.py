"""The plan: what has to be done now so that the workers become what the counts say.

Rule of the room: everything that matters comes in as an argument, actions come out; the manager
carries them out and tells the roster. Called at every turn of the loop, it never repeats itself:
a worker is asked once per stage.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from .backoff import QUICK, Backoff
from .phases import STOPS, Phase
from .roster import Roster, Stop, WorkerRecord

IMMEDIATE_STOP_GRACE = 5.0
"""Seconds that a worker has for an immediate stop before it is killed; normally it takes
milliseconds. The same for a graceful stop of a worker that never got ready: it has no job."""

FORKS_PER_TURN = 16
"""So many forks at most before the loop looks at signals and deaths again."""

RECOVERIES_AT_ONCE = 16
"""Recovery processes at most, without those that wait for a horse: a pool whose workers all die at
once must not fork as many again."""


@dataclass(frozen=True)
class Wanted:
    """What a queue group shall have: so many workers, all of this generation."""

    group: str
    workers: int
    generation: int = 0


@dataclass(frozen=True)
class PlanOptions:
    """How a pool goes about it.

    Attributes:
        burst: a worker that has finished is not replaced.
        grace: seconds that an immediate stop may take.
        spawn_delay: seconds between two forks.
    """

    burst: bool = False
    grace: float = IMMEDIATE_STOP_GRACE
    spawn_delay: float = 0.0


@dataclass(frozen=True)
class Fork:
    """Make a worker for this group, at this place in it."""

    group: str
    number: int


@dataclass(frozen=True)
class StopWorker:
    """Ask this worker to stop in this way."""

    pid: int
    stop: Stop


@dataclass(frozen=True)
class KillHorse:
    """Kill this horse, whose worker is gone."""

    pid: int


@dataclass(frozen=True)
class Recover:
    """Fork a recovery process for the dead worker that had this pid."""

    pid: int


@dataclass(frozen=True)
class StopRecovery:
    """Ask this recovery process to give up if Redis is away, or kill it."""

    pid: int
    stop: Stop


Action = Fork | StopWorker | KillHorse | Recover | StopRecovery


@dataclass(frozen=True)
class Plan:
    """What to do now.

    Attributes:
        actions: in this order.
        due: when the plan must be made again though nothing happened; None: no such time. After
            actions it must be made again at once: there may be more to do than one turn allows.
        finished: the manager may leave once the actions are done.
    """

    actions: tuple[Action, ...]
    due: float | None
    finished: bool


def make_plan(
    phase: Phase,
    wanted: Iterable[Wanted],
    roster: Roster,
    backoffs: Mapping[str, Backoff],
    busy: Container[int],
    now: float,
    plan_options: PlanOptions = PlanOptions(),
) -> Plan:
    """Compares what is wanted with what there is.

    Args:
        phase: what the signals have made of the manager.
        wanted: for each queue group. Workers of a group that is not here are surplus.
        roster: the live workers.
        backoffs: by group name; a group without one has had no failure.
        busy: pids of the workers that run a job.
        now: monotonic clock, seconds.
        habits: how the pool goes about it.
    """
    planner = _Planner(roster, backoffs, busy, now, plan_options)
    planner.account()
    wanting = False
    if phase is Phase.RUNNING:
        for want in wanted:
            done = roster.finished[want.group] if plan_options.burst else 0
            planner.wanted[want.group] = replace(want, workers=max(0, want.workers - done))
        planner.keep()
        wanting = any(want.workers for want in planner.wanted.values())
    elif phase is Phase.TERMINATING:
        planner.stop(roster.workers(), Stop.IMMEDIATE)
        planner.actions += [
            KillHorse(orphan.pid) for orphan in roster.orphans.values() if not orphan.ended
        ]
    else:
        planner.stop(roster.workers(), Stop.GRACEFUL)
    if phase in STOPS:
        planner.hurry_recoveries(kill=phase is Phase.TERMINATING)
    may_end = phase in STOPS or (phase is Phase.RUNNING and plan_options.burst and not wanting)
    return planner.plan(finished=phase is Phase.LEAVING or (may_end and roster.is_empty()))


class _Planner:
    def __init__(
        self,
        roster: Roster,
        backoffs: Mapping[str, Backoff],
        busy: Container[int],
        now: float,
        plan_options: PlanOptions,
    ) -> None:
        self.roster = roster
        self.backoffs = backoffs
        self.busy = busy
        self.now = now
        self.grace = plan_options.grace
        self.spawn_delay = plan_options.spawn_delay
        self.wanted: dict[str, Wanted] = {}
        self.actions: list[Action] = []
        self.due: float | None = None

    def plan(self, finished: bool) -> Plan:
        return Plan(tuple(self.actions), self.due, finished)

    def wake_at(self, when: float) -> None:
        self.due = when if self.due is None else min(self.due, when)

    def keep(self) -> None:
        """Brings every group to its count and its generation."""
        have: dict[str, list[WorkerRecord]] = {name: [] for name in self.wanted}
        for record in self.roster.workers():
            have.setdefault(record.group, []).append(record)
        forks_left = 1 if self.spawn_delay else FORKS_PER_TURN
        for name, records in have.items():
            want = self.wanted.get(name, Wanted(name, 0))
            staying = sorted((each for each in records if each.stop is None), key=self.usefulness)
            leaving = [each for each in records if each.stop is not None]
            surplus = max(0, len(staying) - want.workers)
            self.stop(staying[:surplus], Stop.GRACEFUL)
            self.stop(leaving, Stop.GRACEFUL)
            self.renew(want, staying[surplus:], leaving)
            forks_left -= self.fork(name, want.workers - len(records), records, forks_left)

    def renew(self, want: Wanted, staying: list[WorkerRecord], leaving: list[WorkerRecord]) -> None:
        """Asks workers of an older generation to make room.

        One goes first, and the rest when its successor is ready: what keeps workers of the new
        generation from booting must not cost the group the workers that it has.
        """
        old = [each for each in staying if each.generation != want.generation]
        new = [each for each in staying if each.generation == want.generation]
        if not old:
            return
        if any(each.ready_at is not None for each in new):
            self.stop(old, Stop.GRACEFUL)
        elif not new and len(staying) + len(leaving) >= want.workers:
            # One that was idle when it was asked may have taken a job: then the next is asked.
            room_by = max((each.asked_at for each in leaving), default=-math.inf) + self.grace
            if self.now < room_by:
                self.wake_at(room_by)
            else:
                self.stop(self.idle(old)[:1] or old, Stop.GRACEFUL)

    def idle(self, records: list[WorkerRecord]) -> list[WorkerRecord]:
        return [each for each in records if each.pid not in self.busy]

    def account(self) -> None:
        """Has every dead worker accounted for, whatever the phase."""
        at_work = sum(recovery.guards == 0 for recovery in self.roster.recoveries.values())
        free = max(0, RECOVERIES_AT_ONCE - at_work)
        for pid, not_before in list(self.roster.unrecovered.items())[:free]:
            if self.now >= not_before:
                self.actions.append(Recover(pid))
            else:
                self.wake_at(not_before)

    def hurry_recoveries(self, kill: bool) -> None:
        """What a recovery process cannot do because Redis is away, the next pool does."""
        for recovery in self.roster.recoveries.values():
            if recovery.asked_at is None:
                self.actions.append(StopRecovery(recovery.pid, Stop.GRACEFUL))
            elif kill and not recovery.killed and not self.roster.orphans:
                deadline = recovery.asked_at + self.grace
                if self.now >= deadline:
                    self.actions.append(StopRecovery(recovery.pid, Stop.KILL))
                else:
                    self.wake_at(deadline)

    def usefulness(self, record: WorkerRecord) -> tuple[bool, bool, int]:
        """Sorts those that go first to the front: not ready, then idle, and high numbers."""
        return record.pid in self.busy, record.ready_at is not None, -record.number

    def fork(self, group: str, missing: int, records: list[WorkerRecord], most: int) -> int:
        """Adds the forks for a group; returns how many, ``most`` at most."""
        if missing <= 0:
            return 0
        backoff = self.backoffs.get(group, Backoff())
        if self.now < backoff.not_before:
            self.wake_at(backoff.not_before)
            return 0
        if self.now < self.roster.forked_at + self.spawn_delay:
            self.wake_at(self.roster.forked_at + self.spawn_delay)
            return 0
        # A group that fails sends one worker ahead. The rest follow when it is ready, or, where
        # workers crashed after that, when it has survived.
        if backoff.boot_failures:
            missing = 0 if any(record.ready_at is None for record in records) else 1
        elif backoff.keeps_dying and not self.any_survives(records):
            missing = 0 if records else 1
        missing = min(missing, most)
        taken = {record.number for record in records}
        free = (number for number in range(1, len(records) + missing + 1) if number not in taken)
        self.actions += [Fork(group, next(free)) for _ in range(missing)]
        return missing

    def any_survives(self, records: list[WorkerRecord]) -> bool:
        """Whether a worker of the group has been ready for longer than quick deaths take."""
        proofs = [record.ready_at + QUICK for record in records if record.ready_at is not None]
        for proof in proofs:
            if self.now < proof:
                self.wake_at(proof)
        return any(self.now >= proof for proof in proofs)

    def stop(self, records: Iterable[WorkerRecord], stop: Stop) -> None:
        for record in records:
            if record.stop is None or record.stop < stop:
                self.actions.append(StopWorker(record.pid, stop))
                self.wake_at(self.now + self.grace)
            elif record.stop is Stop.IMMEDIATE or (
                record.stop is Stop.GRACEFUL and record.ready_at is None
            ):
                deadline = record.asked_at + self.grace
                if self.now >= deadline:
                    self.actions.append(StopWorker(record.pid, Stop.KILL))
                else:
                    self.wake_at(deadline)
