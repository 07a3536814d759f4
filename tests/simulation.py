"""A small world in which the autoscaling can be watched: jobs, queues, hosts and a clock.

It knows nothing of processes or Redis, and nothing in it is left to chance but what the caller
draws: the same arrivals give the same history. The tests of the decision and the plots of the
documentation both look at it.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from django_rq_pool.autoscaling.demand import Observation, State
from django_rq_pool.autoscaling.peers import Peer
from django_rq_pool.autoscaling.policy import Decision, decide
from django_rq_pool.config.options import Bounds

BOOT = 0.4
"""Seconds from a decision until a new worker takes jobs."""
LOOK = 1.0
"""Seconds between two observations."""


@dataclass(frozen=True)
class Job:
    arrives: float
    takes: float


@dataclass(eq=False)
class Worker:
    ready_at: float
    job: Job | None = None
    leaving: bool = False


@dataclass(frozen=True)
class Sample:
    """The world at one moment."""

    time: float
    waiting: int
    oldest: float
    count: int
    busy: int


@dataclass(frozen=True)
class Change:
    """A count that was changed."""

    time: float
    host: str
    before: int
    after: int
    why: str


@dataclass(eq=False)
class Host:
    name: str
    count: int
    looks_at: float
    state: State = State()
    workers: list[Worker] = field(default_factory=list)
    ended: int = 0
    run_seconds: float = 0.0
    shown: Peer | None = None
    decision: Decision | None = None

    @property
    def busy(self) -> int:
        return sum(worker.job is not None for worker in self.workers)


class World:
    """One group on some hosts.

    Args:
        jobs: by the time of their arrival.
        bounds: of the group, on every host.
        target: its ``target_latency``.
        hosts: how many.
        boot: seconds until a new worker takes jobs.
        may_take: whether workers may take jobs at a time, for queues that are suspended.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        bounds: Bounds,
        target: float = 5.0,
        *,
        hosts: int = 1,
        boot: float = BOOT,
        may_take: Callable[[float], bool] = lambda time: True,
    ) -> None:
        self.jobs = deque(sorted(jobs, key=lambda job: job.arrives))
        self.bounds = bounds
        self.target = target
        self.boot = boot
        self.may_take = may_take
        self.now = 0.0
        self.waiting: deque[Job] = deque()
        self.waits: list[tuple[float, float]] = []
        """For each job that was begun: when it came, and how long it waited."""
        self.samples: list[Sample] = []
        self.changes: list[Change] = []
        self.hosts: list[Host] = []
        self._booting: list[Worker] = []
        for number in range(hosts):
            self.join((number + 0.5) * LOOK / hosts)
        self._ends: list[tuple[float, int, Host, Worker]] = []
        self._ticket = itertools.count()

    def join(self, looks_at: float) -> Host:
        """Adds a host, which begins at the lower bound and first looks at a time."""
        host = Host(f"host{len(self.hosts)}", self.bounds.min, looks_at)
        host.workers = [self._fork() for _ in range(host.count)]
        self.hosts.append(host)
        return host

    def run(self, until: float) -> World:
        """Lets the world go on until a time."""
        while self._step(until):
            pass
        self.now = until
        return self

    def _step(self, until: float) -> bool:
        """Goes to the next moment at which something happens; False when it is too late."""
        moments = [host.looks_at for host in self.hosts]
        self._booting = [worker for worker in self._booting if worker.ready_at > self.now]
        moments += [worker.ready_at for worker in self._booting if not worker.leaving]
        moments += [self.jobs[0].arrives] if self.jobs else []
        moments += [self._ends[0][0]] if self._ends else []
        self.now = min(moments)
        if self.now > until:
            return False
        while self.jobs and self.jobs[0].arrives <= self.now:
            self.waiting.append(self.jobs.popleft())
        while self._ends and self._ends[0][0] <= self.now:
            self._end(*self._ends[0][2:])
            heapq.heappop(self._ends)
        self._take()
        for host in self.hosts:
            if host.looks_at <= self.now:
                self._look(host)
                host.looks_at += LOOK
        return True

    def _fork(self) -> Worker:
        self._booting.append(Worker(self.now + self.boot))
        return self._booting[-1]

    def _all(self) -> list[Worker]:
        return [worker for host in self.hosts for worker in host.workers]

    def _end(self, host: Host, worker: Worker) -> None:
        assert worker.job is not None
        host.ended += 1
        host.run_seconds += worker.job.takes
        worker.job = None
        host.workers.remove(worker)
        if not worker.leaving:
            # To the end of the line: a server answers the client first that has waited longest.
            host.workers.append(worker)

    def _take(self) -> None:
        """Gives waiting jobs to idle workers, host by host in turn."""
        if not self.waiting or not self.may_take(self.now):
            return
        idle = [
            [w for w in host.workers if w.job is None and w.ready_at <= self.now]
            for host in self.hosts
        ]
        for row in itertools.zip_longest(*idle):
            for host, worker in zip(self.hosts, row):
                if worker is not None and self.waiting:
                    worker.job = self.waiting.popleft()
                    self.waits.append((worker.job.arrives, self.now - worker.job.arrives))
                    if worker.job.takes < math.inf:
                        end = self.now + worker.job.takes
                        heapq.heappush(self._ends, (end, next(self._ticket), host, worker))

    def _look(self, host: Host) -> None:
        mine = Peer(host.name, host.count, host.busy, self.bounds)
        others = tuple(h.shown for h in self.hosts if h is not host and h.shown is not None)
        seen = Observation(
            oldest=self.now - self.waiting[0].arrives if self.waiting else 0.0,
            waiting=len(self.waiting),
            running=sum(h.busy for h in self.hosts),
            live=sum(worker.ready_at <= self.now for worker in self._all()),
            ended=host.ended,
            run_seconds=host.run_seconds,
            mine=mine,
            others=others,
        )
        host.ended, host.run_seconds = 0, 0.0
        host.state, host.decision = decide(self.target, seen, host.state, self.now)
        self._set(host, host.decision)
        host.shown = host.decision.applied_to(mine)
        if host is self.hosts[0]:
            count = sum(h.count for h in self.hosts)
            self.samples.append(
                Sample(self.now, seen.waiting, seen.oldest, count, sum(h.busy for h in self.hosts))
            )

    def _set(self, host: Host, decision: Decision) -> None:
        if decision.count == host.count:
            return
        self.changes.append(Change(self.now, host.name, host.count, decision.count, str(decision)))
        host.count = decision.count
        staying = [worker for worker in host.workers if not worker.leaving]
        for _ in range(host.count - len(staying)):
            host.workers.append(self._fork())
        surplus = len(staying) - host.count
        for worker in sorted(staying, key=lambda worker: worker.job is not None)[: max(0, surplus)]:
            worker.leaving = True
            if worker.job is None:
                host.workers.remove(worker)


# What is asked of a world


def rises(world: World) -> list[Change]:
    return [change for change in world.changes if change.after > change.before]


def falls(world: World) -> list[Change]:
    return [change for change in world.changes if change.after < change.before]


def longest_wait(world: World) -> float:
    return max(wait for _, wait in world.waits)


def late_share(world: World) -> float:
    return sum(wait > world.target for _, wait in world.waits) / len(world.waits)


def counts(world: World, since: float, until: float) -> list[int]:
    return [sample.count for sample in world.samples if since <= sample.time < until]


# Arrivals


def stream(
    load: Callable[[float], float],
    takes: float,
    until: float,
    draw: Callable[[], float] | None = None,
) -> list[Job]:
    """Jobs that keep ``load(time)`` workers busy.

    Args:
        load: the offered load, in workers.
        takes: how long a job takes, on the average.
        until: the time of the last arrival.
        draw: returns numbers of mean 1, for the gaps and run times; without it both are even.
    """
    jobs, due, time, step = [], 1.0, 0.0, 0.01
    draw = draw or (lambda: 1.0)
    while time < until:
        due -= load(time) / takes * step
        while due <= 0:
            jobs.append(Job(time, takes * draw()))
            due += draw()
        time += step
    return jobs


def at_random(seed: int) -> Callable[[], float]:
    """Draws for `stream`: gaps and run times as those of people who know nothing of each other."""
    chance = random.Random(seed)
    return lambda: chance.expovariate(1.0)


# What is tested, and drawn


@dataclass(frozen=True)
class Scenario:
    """A load and the world that it meets.

    Attributes:
        load: the offered load, in workers, at a time.
        world: makes the world.
        until: when it ends.
    """

    load: Callable[[float], float]
    world: Callable[[], World]
    until: float

    def run(self) -> World:
        return self.world().run(self.until)


def _step_load(time: float) -> float:
    return 8.0 if 10 <= time < 120 else 0.5


def _ramp_load(time: float) -> float:
    return time / 20 if time < 200 else 0.0


def _sawtooth_load(time: float) -> float:
    return 6 * (time % 60) / 60


def _many_load(time: float) -> float:
    return 30.0 if 10 <= time < 120 else 2.0


def _nothing(time: float) -> float:
    return 0.0


SCENARIOS = {
    "step": Scenario(
        _step_load, lambda: World(stream(_step_load, 1.0, 240), Bounds(1, 20)), until=240
    ),
    "ramp": Scenario(
        _ramp_load, lambda: World(stream(_ramp_load, 0.5, 200), Bounds(1, 20)), until=300
    ),
    "burst": Scenario(_nothing, lambda: World([Job(10.0, 0.1)] * 1000, Bounds(1, 10)), until=150),
    "sawtooth": Scenario(
        _sawtooth_load, lambda: World(stream(_sawtooth_load, 0.5, 600), Bounds(1, 10)), until=600
    ),
    "long jobs": Scenario(
        lambda time: 3.0,
        lambda: World(stream(lambda time: 3.0, 60.0, 1800, at_random(2)), Bounds(1, 10)),
        until=1800,
    ),
    "steady": Scenario(
        lambda time: 4.0,
        lambda: World(stream(lambda time: 4.0, 0.2, 600, at_random(3)), Bounds(1, 10)),
        until=600,
    ),
    "stuck": Scenario(
        _nothing,
        lambda: World([Job(5 + n / 2, math.inf) for n in range(40)], Bounds(1, 10)),
        until=300,
    ),
    "suspended": Scenario(
        lambda time: 2.0,
        lambda: World(
            stream(lambda time: 2.0, 0.5, 300),
            Bounds(1, 10),
            may_take=lambda time: not 50 <= time < 150,
        ),
        until=300,
    ),
    "from zero": Scenario(
        _nothing,
        lambda: World([Job(10.0, 0.1)] + [Job(70.0, 0.1)] * 300, Bounds(0, 10)),
        until=200,
    ),
    "ten hosts": Scenario(
        _many_load, lambda: World(stream(_many_load, 0.5, 240), Bounds(1, 10), hosts=10), until=300
    ),
}
