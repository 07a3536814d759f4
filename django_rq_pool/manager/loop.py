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
from ..config.stop_policy import StopRules
from ..ipc.counts_channel import LoadResult
from ..planning import phases
from ..planning.phases import Effect, Phase
from ..planning.plan import Fork, Plan, PlanOptions, Wanted, make_plan
from ..planning.targets import Targets
from ..swap import discovery
from ..swap.release import OutgoingPool
from ..swap.takeover import Takeover
from ..system import processes, signals
from .children import Children
from .counts_watcher import CountsWatcher
from .incidents import News
from .spawner import Spawner
from .status_notifier import StatusNotifier
from .status_report import Activity, age, status_report

logger = logging.getLogger("django_rq_pool")


class Manager:
    """Keeps every queue group at its count until a signal ends it.

    Args:
        name: the name of the pool, in titles and logs.
        counts: the queue groups wanted at first.
        nursery: where the pool's processes come from.
        inbox: has caught `phases.OTHER_SIGNALS` since the start.
        herald: tells those outside how the pool is doing.
        outgoing: lets a newer pool take over step by step.
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
        spawner: Spawner,
        inbox: signals.SignalInbox,
        status_notifier: StatusNotifier,
        outgoing: OutgoingPool,
        *,
        rules: StopRules,
        plan_options: PlanOptions,
        watches_counts: bool,
        is_daemon: bool,
        takeover: Takeover | None,
        reopen_logs: Callable[[], object],
    ) -> None:
        self.name = name
        self.phase = Phase.RUNNING
        self._targets = Targets(counts)
        self._plan_options = plan_options
        self._watches_counts = watches_counts
        self._reopen_logs = reopen_logs
        self._responses = phases.responses(rules, may_hold=is_daemon)
        self._inbox = inbox
        inbox.catch(phases.STOP_SIGNALS)
        self._spawner = spawner
        self._status_notifier = status_notifier
        self._takeover = takeover
        self._outgoing = outgoing
        self._children = Children(self._spawner, burst=plan_options.burst)
        self._news = News(self._children)
        self._counts_watcher = CountsWatcher(
            lambda load: spawner.fork_autoscaling(self._targets.counts, load=load),
            goes_on=watches_counts,
        )
        self._reloading = False
        self._paused = False
        # What may yet turn out to be a broken deploy takes no job.
        self._unproven = takeover is not None
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
            self._counts_watcher.begin(load=False)
        try:
            while not self._turn():
                pass
        finally:
            self._counts_watcher.end()
            self._outgoing.close()
            self._spawner.close()
        self._status_notifier.conclude()
        logger.info("manager %d of pool %s finished", os.getpid(), self.name)
        return self._status

    def _turn(self) -> bool:
        """One turn of the loop; True when the pool has ended."""
        for report in self._spawner.reports.take():
            self._news.handle(report)
        for death in processes.reap(before=self._children.end_process_group_of):
            for report in self._spawner.reports.take():  # what it said before it died
                self._news.handle(report)
            self._children.on_exit(death)
            self._counts_watcher.on_exit(death)
        for signum in self._inbox.take():
            self._handle_signal(signum)
        stopping = self.phase in phases.STOPS
        if stopping:
            self._counts_watcher.end()
        self._handle_counts()
        self._outgoing.look(self._held, leaving=stopping)
        wanted = self._targets.wanted(self._outgoing.keep)
        may_have: Sequence[Wanted] = wanted
        if self._takeover is not None:
            if stopping:
                self._takeover.give_up()
            elif self._takeover.is_midway and self._children.fails_to_boot():
                logger.error("workers cannot boot: the older pool gets back what it has given up")
                self._status = 1
                self.phase = Phase.QUITTING
                self._takeover.give_up()
            self._takeover.look(wanted, self._children.roster)
            may_have = self._takeover.restrict(wanted)
        plan = self._plan(may_have)
        for action in plan.actions:
            if isinstance(action, Fork):
                self._fork(action)
            else:
                self._children.act(action)
        self._show_title()
        decided = self._start_is_decided(wanted)
        if plan.finished:
            return True
        if not decided:
            self._inbox.wait(self._filenos(), self._until_due(plan))
        return False

    def _held(self) -> dict[str, int]:
        """The workers of each group, those included that are to be forked."""
        held = self._children.roster.counts()
        for want in self._targets.wanted(self._outgoing.keep):
            held[want.group] = max(held[want.group], want.workers)
        return dict(held)

    def _filenos(self) -> list[int]:
        watched = [
            self._spawner.reports.fileno(),
            *self._counts_watcher.filenos(),
            *self._outgoing.filenos(),
        ]
        return watched if self._takeover is None else [*watched, *self._takeover.filenos()]

    def _plan(self, wanted: Sequence[Wanted]) -> Plan:
        return make_plan(
            self.phase,
            wanted,
            self._children.roster,
            self._children.backoffs,
            self._children.busy(),
            processes.monotonic(),
            self._plan_options,
        )

    def _until_due(self, plan: Plan) -> float | None:
        """Seconds until the next turn if nothing happens; None: no such time."""
        if plan.actions:
            return 0.0  # what was done may call for more, or may have failed
        given = [plan.due, self._counts_watcher.due, self._status_notifier.due]
        if self._takeover is not None:
            given.append(self._takeover.due)
        dues = [due for due in given if due is not None]
        return max(0.0, min(dues) - processes.monotonic()) if dues else None

    def _fork(self, action: Fork) -> None:
        self._children.fork(
            self._targets.group(action.group),
            action.number,
            generation=self._targets.generation(action.group),
            paused=self._paused or self._unproven,
        )

    def _start_is_decided(self, wanted: Sequence[Wanted]) -> bool:
        """Draws the consequences at the moment when the start has succeeded or failed.

        Returns:
            Whether this is that moment: there is more to do then.
        """
        result = self._status_notifier.look(
            self.phase,
            wanted,
            self._children.roster,
            self._children.backoffs,
            processes.monotonic(),
        )
        if result is None:
            return False
        if result.success:
            self._unproven = False
            if not self._paused:
                self._children.signal_workers(signal.SIGCONT)
            if self._takeover is not None:
                self._status_notifier.take_over(os.getpid())
                self._takeover.begin()
            self._status_notifier.succeed()
        else:
            self._status = 1
            if self.phase not in phases.STOPS:
                self.phase = Phase.TERMINATING
        return True

    # Signals

    def _handle_signal(self, signum: signal.Signals) -> None:
        before = self.phase
        response = self._responses[before, signum]
        self.phase = response.phase
        if response.effect is not Effect.NOTHING:
            logger.info("signal %s: %s", phases.name_of(signum), response.effect.value)
        elif self.phase is not before:
            logger.info("signal %s: %s", phases.name_of(signum), self.phase.value)
        else:
            logger.info("signal %s changes nothing: %s", phases.name_of(signum), before.value)
        if response.effect is Effect.RELOAD:
            self._reloading = True
            self._status_notifier.reloading()
            self._counts_watcher.begin()
        elif response.effect is Effect.REOPEN:
            self._reopen_all_logs()
        elif response.effect is Effect.FORWARD:
            if signum != signal.SIGUSR1:
                self._paused = signum == signal.SIGUSR2
            if not (signum == signal.SIGCONT and self._unproven):
                self._children.signal_workers(signum)
        elif response.effect is Effect.REPORT:
            self._report()

    def _reopen_all_logs(self) -> None:
        self._reopen_logs()
        self._children.signal_workers(signal.SIGHUP)

    def _report(self) -> None:
        now = processes.monotonic()
        activities = {
            pid: Activity(each.slot.job_id, each.slot.paused, processes.memory(pid))
            for pid, each in self._children.assignments().items()
        }
        title = (
            f"manager {os.getpid()} of pool {self.name}: {self.phase.value}"
            f"{', paused' if self._paused else ''}, {age(now - self._began)} old"
        )
        lines = status_report(
            title,
            self._targets.wanted(self._outgoing.keep),
            self._children.roster,
            self._children.backoffs,
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
        hooks.siginfo.run(self._children.roster)

    # Results

    def _handle_counts(self) -> None:
        for result in self._counts_watcher.take():
            self._handle_load_result(result)
        scaled, self._counts_watcher.scaled = self._counts_watcher.scaled, None
        if scaled is not None:
            for name in self._targets.scale(scaled.workers, scaled.reasons):
                logger.info("group %s: %s", name, scaled.reasons[name])
        if self._counts_watcher.asked and not self._unproven:  # nothing is scaled before a swap
            self._counts_watcher.answer(self._children.worker_stats(self._targets.bounded()))

    def _handle_load_result(self, result: LoadResult) -> None:
        self._unusable = result.error.partition("\n")[0]
        if result.counts is None:
            logger.error("keeping the previous counts: %s", result.error)
        else:
            if result.failures:
                logger.info("the counts can be loaded again, after %d failures", result.failures)
            for warning in result.counts.warnings:
                logger.warning("%s", warning)
            if self._targets.adopt(result.counts):
                logger.info("counts: %s", self._targets)
        if self._reloading:
            self._reloading = False
            self._status_notifier.reloaded()
            self.phase = phases.after_load(self.phase)
            self._reopen_all_logs()
            self._children.backoffs.clear()
            self._targets.renew()

    def _show_title(self) -> None:
        pids = self._children.roster.pids()
        if pids != self._titled:
            self._titled = pids
            setproctitle(discovery.title(self.name, f"managing {pids}"))
