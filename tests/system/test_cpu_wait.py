"""How long a process has waited for a processor, which tells a slow one from one that hangs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from django_rq_pool.system import processes, signals
from harness import eventually


def work() -> int:
    signals.unblock()
    while True:
        pass


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not tell")
def test_of_two_processes_that_work_on_one_processor_each_waits_for_it():
    pids = [processes.fork(work) for _ in range(2)]
    try:
        for pid in pids:
            os.sched_setaffinity(pid, [min(os.sched_getaffinity(0))])
        eventually(lambda: all(processes.cpu_wait(pid) > 0.2 for pid in pids))
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert processes.cpu_wait(pids[0]) == 0.0
