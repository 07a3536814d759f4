"""The nursery: forks workers and accountants, and owns what they share with the manager.

Rule of the room: what a forked process must let go of, it lets go of here, before anything else.
"""

from __future__ import annotations

from collections.abc import Callable

from . import processes
from .assignment import Assignment, Casualty, RunAccountant, RunWorker, worker_name
from .groups import QueueGroup
from .lifeline import Lifeline
from .phases import StopRules
from .reports import Reports
from .scoreboard import Scoreboard
from .unix_signals import SignalInbox


class Nursery:
    """Open from its construction until `close`.

    Args:
        pool: the name of the pool.
        inbox: the manager's signals, which a forked process has no business with.
        run_worker: lives a worker's life in a forked process.
        run_accountant: accounts for a dead worker in a forked process.
        rules: what signals mean to workers.
        burst: workers leave when their queues are empty.
    """

    def __init__(
        self,
        pool: str,
        inbox: SignalInbox,
        run_worker: RunWorker,
        run_accountant: RunAccountant,
        *,
        rules: StopRules,
        burst: bool,
    ) -> None:
        self.reports = Reports()
        self._pool = pool
        self._inbox = inbox
        self._run_worker = run_worker
        self._run_accountant = run_accountant
        self._rules = rules
        self._burst = burst
        self._lifeline = Lifeline()
        self._scoreboard = Scoreboard()

    def fork_worker(self, group: QueueGroup, number: int) -> tuple[int, Assignment]:
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
            rules=self._rules,
            slot=self._scoreboard.acquire(),
            reports=self.reports,
            lifeline=self._lifeline,
        )
        try:
            pid = self._fork(lambda: self._run_worker(assignment))
        except OSError:
            self.forget(assignment)
            raise
        return pid, assignment

    def fork_accountant(self, casualty: Casualty) -> int:
        """Forks an accountant for a dead worker and returns its pid.

        Raises:
            OSError: see `processes.fork`.
        """
        return self._fork(lambda: self._run_accountant(casualty))

    def _fork(self, run: Callable[[], int]) -> int:
        def child() -> int:
            self._inbox.close()
            self.reports.become_worker()
            self._lifeline.become_worker()
            processes.lead_group()
            return run()

        pid = processes.fork(child)
        processes.lead_group(pid)
        return pid

    def forget(self, assignment: Assignment) -> None:
        """Takes back the slot of a worker that is gone."""
        self._scoreboard.release(assignment.slot)

    def close(self) -> None:
        """Lets workers notice that the manager is gone."""
        self.reports.close()
        self._lifeline.close()
