"""Spawner: forks the pool's processes, and owns what they share with the manager.

Rule of the room: what a forked process must not keep, it closes here, before anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .. import hooks
from ..config.groups import Counts, QueueGroup
from ..config.stop_policy import StopRules
from ..ipc.assignment import Assignment, DeadWorker, EntryPoints, worker_name
from ..ipc.counts_channel import CountsChannel
from ..ipc.lifeline import Lifeline
from ..ipc.reports import Reports
from ..ipc.scoreboard import Scoreboard
from ..system import processes
from ..system.stacks import StackFile


@dataclass(frozen=True)
class SpawnOptions:
    """What all workers of a pool have in common.

    Attributes:
        pool: the name of the pool.
        stop_rules: what signals mean to workers.
        burst: workers leave when their queues are empty.
        tracks_imports: workers report what their jobs import.
        own_process_groups: each worker leads a process group of its own, and does not stay in the
            manager's.
    """

    pool: str
    stop_rules: StopRules = StopRules()
    burst: bool = False
    tracks_imports: bool = False
    own_process_groups: bool = True


class Spawner:
    """Forks the pool's processes. Open from its construction until `close`.

    Args:
        options: what all workers have in common.
        entry_points: what the forked processes do.
        reopen_logs: reopens the log files of the process it is called in.
        release_inherited: called in each forked process, to close what else it has inherited and
            only the manager may hold.

    Attributes:
        reports: what the workers report.
        stack_file: where a forked process shows where it hangs.
        reopen_logs: see above.
        others: the pids of the children that this process had already. They are not the pool's,
            and somebody else waits for them.
    """

    def __init__(
        self,
        options: SpawnOptions,
        entry_points: EntryPoints,
        *,
        reopen_logs: Callable[[], object],
        release_inherited: Callable[[], object],
    ) -> None:
        self.reports = Reports()
        self.stack_file = StackFile()
        self.reopen_logs = reopen_logs
        self.others = processes.children()
        self._options = options
        self._entry_points = entry_points
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
            pool=self._options.pool,
            group=group,
            number=number,
            name=worker_name(self._options.pool, group.name, number),
            burst=self._options.burst,
            paused=paused,
            stop_rules=self._options.stop_rules,
            slot=self._scoreboard.acquire(),
            reports=self.reports,
            lifeline=self._lifeline,
            reopen_logs=self.reopen_logs,
            tracks_imports=self._options.tracks_imports,
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
        """Forks a recovery process for a dead worker, and returns its pid.

        Raises:
            OSError: see `processes.fork`.
        """
        return self._fork(lambda: self._entry_points.recovery(dead_worker))

    def fork_start_hook(self, number: int) -> int:
        """Forks a process for a ``before_start`` hook, and returns its pid.

        Args:
            number: which of the hooks, from 0.

        Raises:
            OSError: see `processes.fork`.
        """
        run = self._entry_points.start_hook
        return self._fork(lambda: run(self._options.pool, number, self._lifeline, self.reports))

    def fork_autoscaling(self, counts: Counts, *, load: bool) -> tuple[int, CountsChannel]:
        """Forks the autoscaling process.

        Args:
            counts: those that hold now.
            load: whether it loads them again at once.

        Returns:
            Its pid, and the channel to it.

        Raises:
            OSError: see `processes.fork`.
        """
        channel = CountsChannel()

        def run() -> int:
            self.reopen_logs()  # HUP has it forked before the manager reopens its own
            return self._entry_points.autoscaling(channel, self._lifeline, counts, load)

        try:
            pid = self._fork(run)
        except OSError:
            channel.close()
            raise
        finally:
            channel.become_manager()
        self._counts_channel = channel
        return pid, channel

    def _fork(self, run: Callable[[], int], *, leads: bool = False) -> int:
        leads = leads or self._options.own_process_groups

        def child() -> int:
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
        self.others.discard(pid)  # it was another's, who has waited for it since
        if leads:
            processes.lead_process_group(pid)
        return pid

    def forget(self, assignment: Assignment) -> None:
        """Takes back the slot of a worker that is gone."""
        self._scoreboard.release(assignment.slot)

    def close(self) -> None:
        """Lets workers notice that the manager is gone."""
        self.stack_file.close()
        self.reports.close()
        self._lifeline.close()
