"""The nursery: forks the pool's processes, and owns what they share with the manager.

Rule of the room: what a forked process must let go of, it lets go of here, before anything else.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import hooks
from ..config.groups import Counts, QueueGroup
from ..config.stop_policy import StopRules
from ..ipc.assignment import Assignment, DeadWorker, EntryPoints, worker_name
from ..ipc.counts_channel import CountsChannel
from ..ipc.lifeline import Lifeline
from ..ipc.reports import Reports
from ..ipc.scoreboard import Scoreboard
from ..system import processes
from ..system.signals import SignalInbox


class Spawner:
    """Open from its construction until `close`.

    Args:
        pool: the name of the pool.
        inbox: the manager's signals, which a forked process has no business with.
        lives: what forked processes do.
        rules: what signals mean to workers.
        burst: workers leave when their queues are empty.
        single_process_group: workers stay in the manager's process group.
        learns: workers tell what their jobs import.
        reopen_logs: reopens the log files of the process it is called in.
        let_go: called in each forked process, which has no business with what else the manager
            holds.
    """

    def __init__(
        self,
        pool: str,
        inbox: SignalInbox,
        entry_points: EntryPoints,
        *,
        rules: StopRules,
        burst: bool,
        single_process_group: bool,
        tracks_imports: bool,
        reopen_logs: Callable[[], object],
        release_inherited: Callable[[], object],
    ) -> None:
        self.reports = Reports()
        self._pool = pool
        self._inbox = inbox
        self._entry_points = entry_points
        self._rules = rules
        self._burst = burst
        self._own_process_groups = not single_process_group
        self._tracks_imports = tracks_imports
        self._reopen_logs = reopen_logs
        self._release_inherited = release_inherited
        self._lifeline = Lifeline()
        self._scoreboard = Scoreboard()
        self._counts_channel: CountsChannel | None = None

    def fork_worker(
        self, group: QueueGroup, number: int, *, paused: bool
    ) -> tuple[int, Assignment]:
        """Forks a worker.

        Returns:
            Its pid, and what it was handed; to be given back to `forget` when it is gone.

        Raises:
            OSError: see `processes.fork`.
        """
        assignment = Assignment(
            pool=self._pool,
            group=group,
            number=number,
            name=worker_name(self._pool, group.name, number),
            burst=self._burst,
            paused=paused,
            rules=self._rules,
            slot=self._scoreboard.acquire(),
            reports=self.reports,
            lifeline=self._lifeline,
            reopen_logs=self._reopen_logs,
            tracks_imports=self._tracks_imports,
        )
        try:
            # RQ's scheduler process is ended by its worker's group.
            leads = group.options.with_scheduler
            pid = self._fork(lambda: self._entry_points.worker(assignment), leads=leads)
        except OSError:
            self.forget(assignment)
            raise
        return pid, assignment

    def fork_recovery(self, dead_worker: DeadWorker) -> int:
        """Forks a recovery process for a dead worker and returns its pid.

        Raises:
            OSError: see `processes.fork`.
        """
        return self._fork(lambda: self._entry_points.recovery(dead_worker))

    def fork_autoscaling(self, counts: Counts, *, load: bool) -> tuple[int, CountsChannel]:
        """Forks an autoscaling process.

        Args:
            counts: those that hold now.
            load: whether it loads them anew at once.

        Returns:
            Its pid, and the line on which it sends what it finds.

        Raises:
            OSError: see `processes.fork`.
        """
        line = CountsChannel()

        def run() -> int:
            self._reopen_logs()  # HUP has it forked before the manager reopens its own
            return self._entry_points.autoscaling(line, self._lifeline, counts, load)

        try:
            pid = self._fork(run)
        except OSError:
            line.close()
            raise
        finally:
            line.become_manager()
        self._counts_channel = line
        return pid, line

    def _fork(self, run: Callable[[], int], *, leads: bool = False) -> int:
        leads = leads or self._own_process_groups

        def child() -> int:
            self._inbox.close()
            self.reports.become_worker()
            self._lifeline.become_worker()
            if self._counts_channel is not None:
                self._counts_channel.close()
            self._release_inherited()
            if leads:
                processes.lead_process_group()
            return run()

        hooks.before_fork.run()
        pid = processes.fork(child)
        if leads:
            processes.lead_process_group(pid)
        return pid

    def forget(self, assignment: Assignment) -> None:
        """Takes back the slot of a worker that is gone."""
        self._scoreboard.release(assignment.slot)

    def close(self) -> None:
        """Lets workers notice that the manager is gone."""
        self.reports.close()
        self._lifeline.close()
