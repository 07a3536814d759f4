"""Children of a process: which of them are reaped, and which are left to whoever waits for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from django_rq_pool.system import parents, processes

ENDED = ["sh", "-c", "exit 41"]


def ended_child() -> subprocess.Popen[bytes]:
    child = subprocess.Popen(ENDED)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return child


def reap(*others: int) -> dict[int, int | None]:
    """The exit codes of the children that are reaped."""
    deaths = processes.reap(lambda pid: None, others)
    return {death.pid: death.exit_code for death in deaths}


def forked(status: int) -> int:
    pid = processes.fork(lambda: status)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def test_a_child_of_somebody_else_is_left_and_hides_nobody():
    """The system names children in the order of their forks: the first hides all others."""
    first, ours, second, also_ours = ended_child(), forked(3), ended_child(), forked(4)
    assert reap(first.pid, second.pid) == {ours: 3, also_ours: 4}
    assert reap(first.pid, second.pid) == {}
    assert (first.wait(), second.wait()) == (41, 41)


@pytest.mark.parametrize("tasks", ["/proc/self/task", "/no/such/folder"])
def test_children_are_known_by_their_pids_dead_or_alive(monkeypatch, tasks):
    monkeypatch.setattr(processes, "_TASKS", Path(tasks))
    before = processes.children()
    alive = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    dead = ended_child()
    assert processes.children() - before == {alive.pid, dead.pid}
    alive.communicate()
    dead.wait()
    assert processes.children() == before


def test_a_process_may_stop_adopting_orphans():
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux lets a process adopt orphans")
    before = parents.adopts_orphans()
    try:
        for adopts in (True, False, True):
            assert parents.adopt_orphans(adopts)
            assert parents.adopts_orphans() is adopts
        here = processes.children()
        parent = processes.fork(lambda: processes.fork(lambda: 0) < 0)
        os.waitpid(parent, 0)
        (orphan,) = processes.children() - here
        os.waitpid(orphan, 0)
    finally:
        parents.adopt_orphans(before)
