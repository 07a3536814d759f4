"""Loop: the manager, which waits, reaps, plans and acts.

Rule of the room: it decides nothing that `planning` can decide, knows nothing of RQ, starts no
thread, and never sleeps or blocks but in the one wait at the end of a turn.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from functools import partial

from setproctitle import setproctitle

from .. import hooks
from ..config.groups import Counts
from ..config.stop_policy import STOP_SIGNALS
from ..errors import ExitStatus
from ..ipc.counts_records import LoadResult
from ..ipc.reports import Event, Report
from ..planning import phases
from ..planning.actions import Fork
from ..planning.phases import Effect, Phase
from ..planning.plan import Plan, Wanted, make_plan
from ..planning.progress import start_result
from ..planning.targets import Targets
from ..swap import discovery
from ..system import processes
from .children import Children
from .counts_watcher import CountsWatcher
from .farewell import log_left
from .incidents import Incidents
from .parts import ManagerOptions, Parts
from .start_hooks import StartHookRunner
from .status_report import Activity, age, status_report

logger = logging.getLogger("django_rq_pool")


class Manager:
    """Keeps every queue group at its count until a signal ends it.

    Args:
        options: how it behaves.
        counts: the queue groups wanted at first.
        parts: what it is made of.
    """

    def __init__(self, options: ManagerOptions, counts: Counts, parts: Parts) -> None:
        self.name = options.name
        self.phase = Phase.RUNNING
        self._targets = Targets(counts)
        self._plan_options = options.plan
        self._watches_counts = options.watches_counts
        self._responses = phases.responses(options.stop_rules, may_hold=options.may_hold)
        self._start_goal = options.start_goal
        self._inbox = parts.inbox
        self._inbox.catch(STOP_SIGNALS)
        self._spawner = parts.spawner
        self._status = parts.status
        self._outgoing = parts.outgoing
        self._takeover = parts.takeover
        self._incidents = Incidents()
        self._children = Children(self._spawner, self._incidents, burst=options.plan.burst)
        self._start_hooks = StartHookRunner(self._spawner, options.plan.grace)
        self._counts_watcher = CountsWatcher(
            lambda load: self._spawner.fork_autoscaling(self._targets.counts, load=load),
            goes_on=options.watches_counts,
        )
        self._reloading = False
        self._paused = False
        # A deploy that may yet prove to be broken takes no job.
        self._unproven = self._takeover.replaces
        self._load_error = ""
        self._titled: list[int] | None = None
        self._began = processes.monotonic()
        self._exit_status = ExitStatus.ENDED

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
            self._takeover.close()
            self._spawner.close()
        log_left(self._children.roster, self._children.assignments())
        self._status.conclude()
        logger.info("manager %d of pool %s finished", os.getpid(), self.name)
        return self._exit_status

    def _turn(self) -> bool:
        """One turn of the loop; True when the pool has ended."""
        self._take_events()
        stopping = self.phase in phases.STOPS
        if stopping:
            self._counts_watcher.end()
        self._take_counts()
        self._outgoing.look(self._workers_held, leaving=stopping)
        wanted = self._targets.wanted(self._outgoing.keep)
        if stopping:
            self._takeover.give_up()
        elif self._takeover.is_midway and self._children.delays.fails_to_boot():
            logger.error("workers cannot boot: the older pool gets its workers back")
            self._exit_status = ExitStatus.FAILED
            self.phase = Phase.QUITTING
            self._takeover.give_up()
        self._takeover.look(wanted, self._children.roster)
        self._start_hooks.look(self.phase, processes.monotonic())
        plan = self._plan(self._start_hooks.restrict(self._takeover.restrict(wanted)))
        for action in plan.actions:
            if isinstance(action, Fork):
                self._fork(action)
            else:
                self._children.act(action)
        self._show_title()
        now = processes.monotonic()
        obstacle = self._start_hooks.obstacle(now)
        self._status.look(self.phase, wanted, self._children.roster, now, obstacle)
        decided = self._check_start(wanted, obstacle)
        if plan.finished and self._counts_watcher.has_left():
            return True
        if not decided:
            self._inbox.wait(self._filenos(), self._until_due(plan))
        return False

    def _take_events(self) -> None:
        """Handles the reports, deaths and signals that have come in."""
        for report in self._spawner.reports.take():
            self._handle_report(report)
        reap = processes.reap(self._children.end_process_group_of, self._spawner.others)
        for death in reap:
            for report in self._spawner.reports.take():  # what it said before it died
                self._handle_report(report)
            self._children.on_exit(death)
            self._counts_watcher.on_exit(death)
            self._start_hooks.on_exit(death)
        for signum in self._inbox.take():
            self._handle_signal(signum)

    def _handle_report(self, report: Report) -> None:
        """Takes in what a worker reports. A worker that is not on the roster is ignored."""
        self._start_hooks.handle(report)
        record = self._children.roster.get(report.pid)
        if record is None:
            return
        if report.event is Event.READY:
            self._children.mark_ready(record)
        elif report.event in (Event.REDIS_LOST, Event.REDIS_BACK):
            awaited = report.event is Event.REDIS_LOST
            self._children.roster.mark_redis(record.pid, awaited=awaited)
        self._incidents.handle(record.group, report, processes.monotonic())

    def _workers_held(self) -> dict[str, int]:
        """How many workers each group has, with those that are to be forked."""
        held = self._children.roster.counts()
        for want in self._targets.wanted(self._outgoing.keep):
            held[want.group] = max(held[want.group], want.workers)
        return dict(held)

    def _filenos(self) -> list[int]:
        return [
            self._spawner.reports.fileno(),
            *self._counts_watcher.filenos(),
            *self._outgoing.filenos(),
            *self._takeover.filenos(),
        ]

    def _plan(self, wanted: Sequence[Wanted]) -> Plan:
        self._children.roster.clock = self._children.roster.clock.look(processes.monotonic())
        return make_plan(
            self.phase,
            wanted,
            self._children.roster,
            self._children.delays.backoffs,
            self._children.busy(),
            processes.monotonic(),
            self._plan_options,
            held_up=self._start_hooks.holds_up(self.phase),
        )

    def _until_due(self, plan: Plan) -> float | None:
        """Seconds until the next turn if nothing happens; None: no such time."""
        if plan.actions:
            return 0.0  # what was done may call for more, or may have failed
        given = [plan.due, self._counts_watcher.due, self._status.due, self._takeover.due]
        given.append(self._start_hooks.due)
        if self._start_goal is not None:
            given.append(self._start_goal.until)
        dues = [due for due in given if due is not None]
        return max(0.0, min(dues) - processes.monotonic()) if dues else None

    def _fork(self, action: Fork) -> None:
        self._children.fork(
            self._targets.group(action.group),
            action.number,
            generation=self._targets.generation(action.group),
            paused=self._paused or self._unproven,
        )

    def _check_start(self, wanted: Sequence[Wanted], obstacle: str) -> bool:
        """Asks whether the start has succeeded or failed, and draws the consequences once.

        Returns:
            Whether that became known now: there is more to do then.
        """
        if self._start_goal is None:
            return False
        result = start_result(
            self._start_goal,
            self.phase,
            wanted,
            self._children.roster,
            self._children.delays.backoffs,
            processes.monotonic(),
            obstacle,
        )
        if result is None:
            return False
        self._start_goal = None
        if result.success:
            self._unproven = False
            if not self._paused:
                self._children.signal_workers(signal.SIGCONT)
            if self._takeover.replaces:
                self._status.take_over(os.getpid())
            self._takeover.begin()
            self._status.start_succeeded()
        else:
            self._exit_status = ExitStatus.FAILED
            self._status.start_failed(result.text)
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
            self._status.reloading()
            self._counts_watcher.begin()
        elif response.effect is Effect.REOPEN:
            self._children.reopen_logs()
        elif response.effect is Effect.FORWARD:
            if signum != signal.SIGUSR1:
                self._paused = signum == signal.SIGUSR2
            if not (signum == signal.SIGCONT and self._unproven):
                self._children.signal_workers(signum)
        elif response.effect is Effect.REPORT:
            self._report()

    def _report(self) -> None:
        """Logs the status report, and runs the project's siginfo hooks."""
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
            self._children.delays.backoffs,
            activities,
            self._targets.reasons,
            self._children.delays.causes,
            partial(self._incidents.of, now=now),
            now,
        )
        lines += [f"  {line}" for line in (self._start_hooks.obstacle(now),) if line]
        if self._load_error:
            lines.append(f"  the counts are the last that could be loaded: {self._load_error}")
        if self._incidents.imported:
            lines.append(f"  jobs have imported: {', '.join(self._incidents.imported)}")
        for line in lines:
            logger.info("%s", line)
        hooks.siginfo.run(self._children.roster)

    # Counts

    def _take_counts(self) -> None:
        """Handles what the autoscaling process has said, and answers what it asks."""
        for result in self._counts_watcher.take():
            self._handle_load_result(result)
        scaled, self._counts_watcher.scaled = self._counts_watcher.scaled, None
        if scaled is not None:
            for name in self._targets.scale(scaled.workers, scaled.reasons):
                logger.info("group %s: %s", name, scaled.reasons[name])
        if self._counts_watcher.asked and not self._unproven:  # nothing is scaled before a swap
            stats = self._children.worker_stats(self._targets.bounded())
            self._counts_watcher.answer(stats)

    def _handle_load_result(self, result: LoadResult) -> None:
        self._load_error = result.error.partition("\n")[0]
        if result.counts is None:
            logger.error("keeping the previous counts: %s", result.error)
        else:
            if result.failures:
                logger.info("the counts can be loaded again, after %d failures", result.failures)
            for warning in result.counts.warnings:
                logger.warning("%s", warning)
            if self._targets.adopt(result.counts):
                logger.info("counts: %s", self._targets)
                self._outgoing.serves(result.counts.queues)
        if self._reloading:
            self._reloading = False
            self._status.reloaded()
            self.phase = phases.after_load(self.phase)
            self._children.reopen_logs()
            self._children.delays.backoffs.clear()
            self._targets.renew()

    def _show_title(self) -> None:
        pids = self._children.roster.pids()
        if pids != self._titled:
            self._titled = pids
            setproctitle(discovery.title(self.name, f"managing {pids}"))
