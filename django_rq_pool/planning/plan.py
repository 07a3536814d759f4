"""Plan: the actions that bring the workers to what the counts say.

Rule of the room: state goes in as arguments, actions come out. The manager executes them and
updates the roster. It plans at each turn of its loop, yet asks a worker only once per kind of stop.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from .actions import Action, Fork, KillHorse, Recover, StopRecovery, StopWorker
from .backoff import QUICK, Backoff
from .boots import end_boots
from .left_behind import KillLeftBehind
from .phases import STOPS, Phase
from .roster import Roster, Stop, WorkerRecord

IMMEDIATE_STOP_GRACE = 5.0
"""Seconds that an immediate stop may take before the worker is killed. Normally it takes
milliseconds. A graceful stop of a worker that is not ready has the same limit, because it has no
job."""

FORKS_PER_TURN = 16
"""The most forks in one turn of the loop, so that signals and deaths are handled in between."""

RECOVERIES_AT_ONCE = 16
"""The most recovery processes at once, so that a pool whose workers all die does not fork as many
again. Those that wait for a work horse do not count."""


@dataclass(frozen=True)
class Wanted:
    """What a queue group shall have.

    Attributes:
        group: the name of the queue group.
        workers: how many workers.
        generation: the generation that all of them shall have; a reload begins another one.
    """

    group: str
    workers: int
    generation: int = 0


@dataclass(frozen=True)
class PlanOptions:
    """Options of the plan.

    Attributes:
        burst: do not replace a worker that has finished.
        grace: seconds that an immediate stop may take before the worker is killed.
        spawn_delay: seconds between two forks.
    """

    burst: bool = False
    grace: float = IMMEDIATE_STOP_GRACE
    spawn_delay: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What to do now.

    Attributes:
        actions: what to do, in this order. If there are any, plan again at once, because one turn
            may not do everything.
        due: when to plan again even if nothing happens, in monotonic seconds. None: no need.
        finished: whether the manager may leave after the actions.
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
    *,
    held_up: bool = False,
) -> Plan:
    """Compares what is wanted with what there is.

    Args:
        phase: the phase of the manager.
        wanted: what each queue group shall have. Workers of other groups are surplus.
        roster: the processes that the pool has.
        backoffs: the failures of each group, by name. A group without failures may be missing.
        busy: the pids of the workers that run a job.
        now: the time, in monotonic seconds.
        plan_options: options of the pool.
        held_up: whether the pool has another process of its own that has to end first.
    """
    planner = _Planner(roster, backoffs, busy, now, plan_options)
    # A pool that waits for its workers has time for recoveries that fail.
    leaves = phase in STOPS and not (phase is Phase.QUITTING and len(roster))
    planner.recover_dead(last_try=leaves)
    wanting = False
    if phase is Phase.RUNNING:
        for want in wanted:
            done = roster.finished[want.group] if plan_options.burst else 0
            planner.wanted[want.group] = replace(want, workers=max(0, want.workers - done))
        planner.match_counts()
        wanting = any(want.workers for want in planner.wanted.values())
    elif phase is Phase.TERMINATING:
        planner.stop(roster.workers(), Stop.IMMEDIATE)
        planner.actions += [
            KillHorse(orphan.pid) for orphan in roster.orphans.values() if not orphan.ended
        ]
    else:
        planner.stop(roster.workers(), Stop.GRACEFUL)
    if leaves:
        planner.stop_recoveries(kill=phase is Phase.TERMINATING)
    may_end = phase in STOPS or (phase is Phase.RUNNING and plan_options.burst and not wanting)
    finished = phase is Phase.LEAVING or (may_end and roster.is_empty(leaves=leaves))
    finished = finished and not held_up
    if finished and phase is Phase.TERMINATING:
        finished = planner.kill_left_behind()
    return planner.plan(finished)


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

    def match_counts(self) -> None:
        """Brings every group to its count and its generation."""
        have: dict[str, list[WorkerRecord]] = {name: [] for name in self.wanted}
        for record in self.roster.workers():
            have.setdefault(record.group, []).append(record)
        forks_left = 1 if self.spawn_delay else FORKS_PER_TURN
        for name, records in have.items():
            want = self.wanted.get(name, Wanted(name, 0))
            staying = sorted((each for each in records if each.stop is None), key=self.stop_order)
            leaving = [each for each in records if each.stop is not None]
            surplus = max(0, len(staying) - want.workers)
            self.stop(staying[:surplus], Stop.GRACEFUL)
            self.stop(leaving, Stop.GRACEFUL)
            self.end_boots(staying[surplus:])
            self.replace_old(want, staying[surplus:], leaving)
            forks_left -= self.fork(name, want.workers - len(records), records, forks_left)

    def replace_old(
        self, want: Wanted, staying: list[WorkerRecord], leaving: list[WorkerRecord]
    ) -> None:
        """Asks workers of an older generation to leave.

        One leaves first, and the others when its successor is ready. If workers of the new
        generation cannot boot, the group keeps its other workers.
        """
        old = [each for each in staying if each.generation != want.generation]
        new = [each for each in staying if each.generation == want.generation]
        if not old:
            return
        if any(each.ready_at is not None for each in new):
            self.stop(old, Stop.GRACEFUL)
        elif new or len(staying) + len(leaving) < want.workers:
            return
        elif not leaving:
            self.stop((self.idle(old) or old)[:1], Stop.GRACEFUL)
        elif all(each.ready_at is not None for each in leaving):
            # It was idle when it was asked, but may have taken a job since. An idle one goes too if
            # it has not left in time. One that was never ready goes in any case: it is killed.
            room_by = max(each.asked_at for each in leaving) + self.grace
            if self.now >= room_by:
                self.stop(self.idle(old)[:1], Stop.GRACEFUL)
                room_by = self.now + self.grace
            self.wake_at(room_by)

    def end_boots(self, records: list[WorkerRecord]) -> None:
        """Ends workers that hang in their boot."""
        actions, look_again = end_boots(records, self.roster)
        self.actions += actions
        if look_again < math.inf:
            self.wake_at(self.now + look_again)

    def idle(self, records: list[WorkerRecord]) -> list[WorkerRecord]:
        return [each for each in records if each.pid not in self.busy]

    def recover_dead(self, *, last_try: bool) -> None:
        """Forks recovery processes for dead workers, in every phase."""
        at_work = sum(recovery.guards == 0 for recovery in self.roster.recoveries.values())
        free = max(0, RECOVERIES_AT_ONCE - at_work)
        for dead in self.roster.unrecovered.values():
            if last_try and dead.cut_off:
                continue
            due = dead.due(last_try=last_try)
            if self.now < due:
                self.wake_at(due)
            elif free:
                free -= 1
                self.actions.append(Recover(dead.name))

    def stop_recoveries(self, kill: bool) -> None:
        """Asks recovery processes to give up if Redis cannot be reached.

        The next pool does what they could not do.
        """
        for recovery in self.roster.recoveries.values():
            if recovery.asked_at is None:
                self.actions.append(StopRecovery(recovery.pid, Stop.GRACEFUL))
            elif kill and not recovery.killed and not self.roster.orphans:
                deadline = recovery.asked_at + self.grace
                if self.now >= deadline:
                    self.actions.append(StopRecovery(recovery.pid, Stop.KILL))
                else:
                    self.wake_at(deadline)

    def kill_left_behind(self) -> bool:
        """Kills what jobs have left running, at the end of an immediate stop. Returns whether
        nothing is left, or what is left cannot be killed."""
        left = self.roster.left_behind
        due = self.now if left is None else left.due(self.grace)
        if due is None:
            return True
        if self.now >= due:
            self.actions.append(KillLeftBehind())
        else:
            self.wake_at(due)
        return False

    def stop_order(self, record: WorkerRecord) -> tuple[bool, bool, int]:
        """Sorts workers to stop: idle ones first, then those not ready, then high numbers."""
        return record.pid in self.busy, record.ready_at is not None, -record.number

    def fork(self, group: str, missing: int, records: list[WorkerRecord], most: int) -> int:
        """Adds the forks for a group. Returns how many there are, ``most`` at most."""
        if missing <= 0:
            return 0
        backoff = self.backoffs.get(group, Backoff())
        if self.now < backoff.not_before:
            self.wake_at(backoff.not_before)
            return 0
        if self.now < self.roster.forked_at + self.spawn_delay:
            self.wake_at(self.roster.forked_at + self.spawn_delay)
            return 0
        # After failures, one worker is forked as a test. The others follow when it is ready, or
        # when it has lived longer than a quick death takes.
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
        """Whether a worker of the group has been ready for at least `QUICK` seconds."""
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
