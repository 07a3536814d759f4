"""Differences: RQ's tests that end otherwise with pooled workers, each with its reason.

Rule of the room: data. The documentation has its table from here, and `rq_suite.py` its
expectation.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """A test of RQ that passes with RQ's workers and not with pooled ones.

    Attributes:
        test: as pytest names it.
        reason: why that is intended.
    """

    test: str
    reason: str


_IN_FLIGHT = (
    "A job that is taken moves to the in-flight list of its worker, where the pool finds it when "
    "the worker is gone. RQ's intermediate queue stays empty, and its clean-up, which fails a job "
    "after a minute, has nothing to do. (Where the test replaces ``execute_job`` by nothing, the "
    "pool's own included, the worker takes the same job again and again.)"
)
_ENDED = (
    "A job whose process has ended without a record of how the job ended is failed at once, with "
    "the reason. RQ has it queued, in no queue, until a clean-up."
)
_REGISTERS = (
    "A worker looks with its heartbeats whether Redis still knows it, and registers again if not. "
    "The test sends heartbeats of a worker that has never registered, which a pool has not."
)
_TIMEOUT = (
    "A worker has a Redis client of its own, with short timeouts, and leaves the project's alone. "
    "RQ sets the socket timeout of the project's client to 415 s."
)
_INT = (
    "INT is an immediate stop. RQ's ``WorkerPool``, which the test starts, stops its workers by "
    "INT; the pool's manager does so by QUIT."
)
_ONE_STEP = (
    "A job is settled by a script, in one step that watches no key. The test has the EXEC of RQ's "
    "transaction fail, and waits for RQ to send it again."
)

_REASONS = {
    "test_executions.py::TestRegistry::test_execution_index_ttl_follows_heartbeat": _REGISTERS,
    "test_intermediate_queue.py::TestIntermediateQueue"
    "::test_cleanup_intermediate_queue": _IN_FLIGHT,
    "test_intermediate_queue.py::TestIntermediateQueue"
    "::test_cleanup_intermediate_queue_in_maintenance": _IN_FLIGHT,
    "test_intermediate_queue.py::TestIntermediateQueue"
    "::test_no_cleanup_while_in_started_queue": _ENDED,
    "test_queue.py::TestQueue::test_intermediate_queue": _IN_FLIGHT,
    "test_rate_limit.py::TestRateLimitEnqueue"
    "::test_release_after_aborted_immediate_repeat": _ONE_STEP,
    "test_worker.py::TestWorker::test_maintain_heartbeats": _REGISTERS,
    "test_worker.py::TestWorker::test_maintain_heartbeats_working_time_from_started_at": _REGISTERS,
    "test_worker.py::TestWorker"
    "::test_prepare_job_execution_removes_key_from_intermediate_queue": _IN_FLIGHT,
    "test_worker.py::TestWorker::test_worker_configures_socket_timeout": _TIMEOUT,
    "test_worker_pool.py::TestWorkerPool::test_pool_ignores_consecutive_shutdown_signals": _INT,
}

DIFFERENCES = tuple(Difference(f"tests/{test}", reason) for test, reason in _REASONS.items())
