"""A process and what it has made: who belongs to it, and that nobody gets away."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from django_rq_pool.system import families
from guardian import living
from harness import eventually


@pytest.fixture(params=[True, False], ids=["children listed", "not listed"], autouse=True)
def kernel(request, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that lists the children of a process, if this one does, and one that does not."""
    listed = request.param and families._KERNEL_LISTS_CHILDREN
    monkeypatch.setattr(families, "_KERNEL_LISTS_CHILDREN", listed)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator:
    """Starts a script in a shell, in a group of its own, which says when it is ready."""
    started: list[subprocess.Popen] = []

    def start(script: str) -> subprocess.Popen:
        process = subprocess.Popen(
            ["bash", "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, preexec_fn=os.setpgrp
        )
        started.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        process.stdout.close()
        for left in living(tmp_path):
            left.kill()
        process.wait()


MANY = """
sleep 600 &
bash -c 'sleep 600 & wait' &
setsid bash -c 'sleep 600 & echo ready; wait' &
wait
"""


def names(found) -> list[str]:
    return sorted(each.name() for each in found)


def test_descendants_are_those_that_have_not_left_the_session(shell):
    process = shell(MANY)
    eventually(lambda: names(families.descendants(process.pid)) == ["bash", "sleep", "sleep"])


def test_a_process_that_has_ended_has_no_family(shell):
    process = shell("echo ready")
    process.wait()
    assert families.family(process.pid) == []
    families.end_with_family(process.pid)


def test_those_whose_parent_has_ended_are_of_the_family_by_their_group(shell):
    process = shell("(sleep 600 &); echo ready; exec sleep 600")
    eventually(lambda: names(families.family(process.pid)) == ["sleep"])
    assert families.descendants(process.pid) == []


def test_all_of_a_family_is_killed_and_those_with_a_session_of_their_own_live(shell, tmp_path):
    process = shell(MANY)
    eventually(lambda: len(families.descendants(process.pid)) == 3)
    families.end_with_family(process.pid)
    process.wait()
    eventually(lambda: names(living(tmp_path)) == ["bash", "sleep"])


def test_nobody_gets_away_by_forking(shell, tmp_path):
    # Each background process of a shell with job control leads a group of its own.
    forks = "set -m; trap '' TERM HUP; while :; do sleep 600 & sleep 0.001; done"
    process = shell(f'bash -c "{forks}" & echo ready; wait')
    eventually(lambda: len(families.descendants(process.pid)) > 20)
    families.end_with_family(process.pid)
    process.wait()
    eventually(lambda: living(tmp_path) == [])


def test_a_pid_that_another_process_has_meanwhile_is_left_alone(shell):
    process = shell("echo ready; exec sleep 600")
    stale = psutil.Process(process.pid)
    stale._create_time = stale._ident = (process.pid, 1.0)  # of one that had the pid before
    families.kill([stale])
    assert families.is_alive(psutil.Process(process.pid))


def test_a_process_that_has_ended_is_not_alive_though_nobody_has_reaped_it(shell):
    process = shell("echo ready")
    seen = psutil.Process(process.pid)
    eventually(lambda: not families.is_alive(seen))
    assert seen.is_running()
