"""The manager: one loop that waits, reaps, plans and acts.

Rule of the room: it decides nothing that plan or phases can decide, knows nothing of RQ, starts no
thread, and never sleeps or blocks but in the one wait at the end of a turn.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence

from setproctitle import setproctitle

from .. import hooks
from ..config.groups import Counts
from ..ipc.counts_channel import Finding, Survey
from ..ipc.swap_channel import GivesWay
from ..planning import phases
from ..planning.phases import Order, Phase, StopRules
from ..planning.plan import Fork, Habits, Plan, Wanted, make_plan
from ..planning.targets import Targets
from ..swap import discovery
from ..swap.takeover import Succession
from ..system import processes, signals
from .children import Crew
from .incidents import News
from .spawner import Nursery
from .status_notifier import Herald
from .status_report import Activity, age, overview

logger = logging.getLogger("django_rq_pool")


class Manager:
    """Keeps every queue group at its count until a signal ends it.

    Args:
        name: the name of the pool, in titles and logs.
        counts: the queue groups wanted at first.
        nursery: where the pool's processes come from.
        inbox: has caught `phases.OTHER_SIGNALS` since the start.
        herald: tells those outside how the pool is doing.
        gives_way: lets a newer pool take over step by step.
        rules: how the pool stops.
        habits: how it goes about it.
        watches_counts: whether the counts may change by themselves, and not on HUP only.
        is_daemon: whether no terminal is there to send WINCH by itself.
        succession: takes the place of older pools once the start has succeeded, or None.
        reopen_logs: reopens the log files of the process it is called in.
    """

    def __init__(
        self,
        name: str,
        counts: Counts,
        nursery: Nursery,
        inbox: signals.SignalInbox,
        herald: Herald,
        gives_way: GivesWay,
        *,
        rules: StopRules,
        habits: Habits,
        watches_counts: bool,
        is_daemon: bool,
        succession: Succession | None,
        reopen_logs: Callable[[], object],
    ) -> None:
        self.name = name
        self.phase = Phase.RUNNING
        self._targets = Targets(counts)
        self._habits = habits
        self._watches_counts = watches_counts
        self._reopen_logs = reopen_logs
        self._responses = phases.responses(rules, may_hold=is_daemon)
        self._inbox = inbox
        inbox.catch(phases.STOP_SIGNALS)
        self._nursery = nursery
        self._herald = herald
        self._succession = succession
        self._gives_way = gives_way
        self._crew = Crew(self._nursery, burst=habits.burst)
        self._news = News(self._crew)
        self._survey = Survey(
            lambda load: nursery.fork_surveyor(self._targets.counts, load=load),
            goes_on=watches_counts,
        )
        self._reloading = False
        self._paused = False
        # What may yet turn out to be a broken deploy takes no job.
        self._on_probation = succession is not None
        self._unusable = ""
        self._titled: list[int] | None = None
        self._began = processes.monotonic()
        self._status = 0

    def run(self) -> int:
        """Runs the pool until it has ended.

        Returns:
            The exit status of the command: 0 for a pool that was told to end or has finished, 1
            for one whose start has failed.
        """
        self._show_title()
        logger.info("manager %d of pool %s started: %s", os.getpid(), self.name, self._targets)
        if self._watches_counts:
            self._survey.begin(load=False)
        try:
            while not self._turn():
                pass
        finally:
            self._survey.end()
            self._gives_way.close()
            self._nursery.close()
        self._herald.conclude()
        logger.info("manager %d of pool %s finished", os.getpid(), self.name)
        return self._status

    def _turn(self) -> bool:
        """One turn of the loop; True when the pool has ended."""
        for report in self._nursery.reports.take():
            self._news.heed(report)
        for death in processes.reap(before=self._crew.release_group):
            for report in self._nursery.reports.take():  # what it said before it died
                self._news.heed(report)
            self._crew.bury(death)
            self._survey.bury(death)
        for signum in self._inbox.take():
            self._heed_signal(signum)
        stopping = self.phase in phases.STOPS
        if stopping:
            self._survey.end()
        self._heed_survey()
        self._gives_way.look(self._held, leaving=stopping)
        wanted = self._targets.wanted(self._gives_way.keep)
        may_have: Sequence[Wanted] = wanted
        if self._succession is not None:
            if stopping:
                self._succession.give_up()
            elif self._succession.is_midway and self._crew.fails_to_boot():
                logger.error("workers cannot boot: the older pool gets back what it has given up")
                self._status = 1
                self.phase = Phase.QUITTING
                self._succession.give_up()
            self._succession.look(wanted, self._crew.roster)
            may_have = self._succession.restrict(wanted)
        plan = self._plan(may_have)
        for action in plan.actions:
            if isinstance(action, Fork):
                self._fork(action)
            else:
                self._crew.act(action)
        self._show_title()
        decided = self._start_is_decided(wanted)
        if plan.finished:
            return True
        if not decided:
            self._inbox.wait(self._filenos(), self._until_due(plan))
        return False

    def _held(self) -> dict[str, int]:
        """The workers of each group, those included that are to be forked."""
        held = self._crew.roster.counts()
        for want in self._targets.wanted(self._gives_way.keep):
            held[want.group] = max(held[want.group], want.workers)
        return dict(held)

    def _filenos(self) -> list[int]:
        watched = [
            self._nursery.reports.fileno(),
            *self._survey.filenos(),
            *self._gives_way.filenos(),
        ]
        return watched if self._succession is None else [*watched, *self._succession.filenos()]

    def _plan(self, wanted: Sequence[Wanted]) -> Plan:
        return make_plan(
            self.phase,
            wanted,
            self._crew.roster,
            self._crew.backoffs,
            self._crew.busy(),
            processes.monotonic(),
            self._habits,
        )

    def _until_due(self, plan: Plan) -> float | None:
        """Seconds until the next turn if nothing happens; None: no such time."""
        if plan.actions:
            return 0.0  # what was done may call for more, or may have failed
        given = [plan.due, self._survey.due, self._herald.due]
        if self._succession is not None:
            given.append(self._succession.due)
        dues = [due for due in given if due is not None]
        return max(0.0, min(dues) - processes.monotonic()) if dues else None

    def _fork(self, action: Fork) -> None:
        self._crew.fork(
            self._targets.group(action.group),
            action.number,
            generation=self._targets.generation(action.group),
            paused=self._paused or self._on_probation,
        )

    def _start_is_decided(self, wanted: Sequence[Wanted]) -> bool:
        """Draws the consequences at the moment when the start has succeeded or failed.

        Returns:
            Whether this is that moment: there is more to do then.
        """
        verdict = self._herald.look(
            self.phase, wanted, self._crew.roster, self._crew.backoffs, processes.monotonic()
        )
        if verdict is None:
            return False
        if verdict.success:
            self._on_probation = False
            if not self._paused:
                self._crew.tell_workers(signal.SIGCONT)
            if self._succession is not None:
                self._herald.take_over(os.getpid())
                self._succession.begin()
            self._herald.succeed()
        else:
            self._status = 1
            if self.phase not in phases.STOPS:
                self.phase = Phase.TERMINATING
        return True

    # Signals

    def _heed_signal(self, signum: signal.Signals) -> None:
        before = self.phase
        response = self._responses[before, signum]
        self.phase = response.phase
        if response.order is not Order.NOTHING:
            logger.info("signal %s: %s", phases.name_of(signum), response.order.value)
        elif self.phase is not before:
            logger.info("signal %s: %s", phases.name_of(signum), self.phase.value)
        else:
            logger.info("signal %s changes nothing: %s", phases.name_of(signum), before.value)
        if response.order is Order.RELOAD:
            self._reloading = True
            self._herald.reloading()
            self._survey.begin()
        elif response.order is Order.REOPEN:
            self._reopen_all_logs()
        elif response.order is Order.FORWARD:
            if signum != signal.SIGUSR1:
                self._paused = signum == signal.SIGUSR2
            if not (signum == signal.SIGCONT and self._on_probation):
                self._crew.tell_workers(signum)
        elif response.order is Order.REPORT:
            self._report()

    def _reopen_all_logs(self) -> None:
        self._reopen_logs()
        self._crew.tell_workers(signal.SIGHUP)

    def _report(self) -> None:
        now = processes.monotonic()
        activities = {
            pid: Activity(each.slot.job_id, each.slot.paused, processes.memory(pid))
            for pid, each in self._crew.assignments().items()
        }
        title = (
            f"manager {os.getpid()} of pool {self.name}: {self.phase.value}"
            f"{', paused' if self._paused else ''}, {age(now - self._began)} old"
        )
        lines = overview(
            title,
            self._targets.wanted(self._gives_way.keep),
            self._crew.roster,
            self._crew.backoffs,
            activities,
            self._targets.reasons,
            self._news.troubles_of,
            now,
        )
        if self._unusable:
            lines.append(f"  the counts are the last that could be loaded: {self._unusable}")
        if self._news.imported:
            lines.append(f"  jobs have imported: {', '.join(self._news.imported)}")
        for line in lines:
            logger.info("%s", line)
        hooks.siginfo.run(self._crew.roster)

    # Findings

    def _heed_survey(self) -> None:
        for finding in self._survey.take():
            self._heed_finding(finding)
        scaled, self._survey.scaled = self._survey.scaled, None
        if scaled is not None:
            for name in self._targets.scale(scaled.workers, scaled.reasons):
                logger.info("group %s: %s", name, scaled.reasons[name])
        if self._survey.asked and not self._on_probation:  # nothing is scaled before a swap
            self._survey.answer(self._crew.muster(self._targets.bounded()))

    def _heed_finding(self, finding: Finding) -> None:
        self._unusable = finding.error.partition("\n")[0]
        if finding.counts is None:
            logger.error("the counts stay as they are: %s", finding.error)
        else:
            if finding.failures:
                logger.info("the counts can be loaded again, after %d failures", finding.failures)
            for warning in finding.counts.warnings:
                logger.warning("%s", warning)
            if self._targets.adopt(finding.counts):
                logger.info("counts: %s", self._targets)
        if self._reloading:
            self._reloading = False
            self._herald.reloaded()
            self.phase = phases.after_load(self.phase)
            self._reopen_all_logs()
            self._crew.backoffs.clear()
            self._targets.renew()

    def _show_title(self) -> None:
        pids = self._crew.roster.pids()
        if pids != self._titled:
            self._titled = pids
            setproctitle(discovery.title(self.name, f"managing {pids}"))
