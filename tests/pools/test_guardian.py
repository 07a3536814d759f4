"""A run of the tests that is ended from outside leaves no process and no folder behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness import ROOT, eventually

ENDED_RUN = ROOT / "tests" / "pools" / "ended_run.py"


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
def folders() -> Iterator[Path]:
    """Where the run makes its folders. Not in the test's: the paths of sockets must be short."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o711)  # the user that PostgreSQL runs as for root goes through it
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_a_run_that_is_killed_takes_everything_with_it_that_it_has_started(
    tmp_path, folders, workers
):
    started = tmp_path / "started"
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *workers, str(ENDED_RUN)],
        cwd=ROOT,
        env={**os.environ, "STARTED": str(started), "TMPDIR": str(folders), "PYTEST_ADDOPTS": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: started.exists() or run.poll() is not None)
        assert run.poll() is None
        known = {process.pid: process for process in family(run.pid)}
        for pid in map(int, started.read_text().split()):
            known.update((process.pid, process) for process in family(pid))
        names = {process.name() for process in known.values()}
        assert any("valkey" in name for name in names)
        assert "postgres" in names
        assert len(known) > 15
    finally:
        run.kill()
        run.wait()
    eventually(lambda: not [process for process in known.values() if is_alive(process)])
    # What pytest itself makes stays, as after any run.
    assert not [path for path in folders.iterdir() if not path.name.startswith("pytest-of-")]
