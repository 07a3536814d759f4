"""How long a lock file is locked: told by flock(1), as an operator would use it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator

import pytest

from django_rq_pool.system.lockfile import LockFileError, hold_lock
from harness import DEADLINE

HOLD = """
import logging, os, subprocess, sys
from django_rq_pool.system.lockfile import hold_lock, LockFileError

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
try:
    hold_lock(sys.argv[1], float(sys.argv[2]) if sys.argv[2:] else None)
except LockFileError as error:
    sys.exit(print(error, flush=True) or 1)
print("held", flush=True)
"""

FAMILY = """
forked = os.fork() == 0 and 1 + (os.fork() == 0)
sys.stdout.write(f"{('manager', 'worker', 'horse')[forked]} {os.getpid()}\\n")
sys.stdout.flush()
sys.stdin.readline()
"""

# The horse of a pool that is gone starts a program and ends.
LEAVES_A_PROGRAM = """
program = "import sys; print('here', flush=True); sys.stdin.readline()"
subprocess.Popen([sys.executable, "-c", program], close_fds=False)
os._exit(0)
"""

pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="flock(1) is not installed")


@contextlib.contextmanager
def exclusively(path) -> Iterator[None]:
    """Holds the lock as an operator does who wants no pool to run meanwhile."""
    path.touch(0o600)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_free(path) -> bool:
    """Whether nobody holds the lock in any mode."""
    done = subprocess.run(["flock", "--exclusive", "--nonblock", path, "true"], timeout=DEADLINE)
    return done.returncode == 0


def test_pools_share_the_lock_and_keep_an_exclusive_one_away(talk, tmp_path):
    path = tmp_path / "pool.lock"
    pools = [talk(HOLD + "sys.stdin.readline()", path) for _ in range(3)]
    assert {pool.hear() for pool in pools} == {"held"}
    for pool in pools:
        assert not is_free(path)
        pool.say().wait()
    assert is_free(path)


def test_the_lock_lives_until_the_last_process_of_the_pool_is_gone(talk, tmp_path):
    path = tmp_path / "pool.lock"
    pool = talk(HOLD + FAMILY, path)
    assert pool.hear() == "held"
    pids = dict(pool.hear().split() for _ in range(3))
    waiting = subprocess.Popen(["flock", "--exclusive", path, "true"], cwd=tmp_path)
    for who in ("manager", "worker", "horse"):
        assert waiting.poll() is None
        assert not is_free(path)
        os.kill(int(pids[who]), signal.SIGKILL)
    assert waiting.wait(DEADLINE) == 0
    pool.wait()


def test_a_program_that_a_job_starts_does_not_hold_the_lock(talk, tmp_path):
    path = tmp_path / "pool.lock"
    pool = talk(HOLD + LEAVES_A_PROGRAM, path)
    assert pool.hear() == "held"
    assert pool.hear() == "here"
    pool.wait()
    assert is_free(path)
    pool.say()  # to the program, which has been alive meanwhile


@pytest.mark.parametrize("limit", [[], [DEADLINE]], ids=["for ever", "within a limit"])
def test_while_somebody_holds_it_exclusively_a_start_says_so_and_waits(talk, tmp_path, limit):
    path = tmp_path / "pool.lock"
    with exclusively(path):
        pool = talk(HOLD + "sys.stdin.readline()", path, *limit)
        assert pool.hear() == (
            f"WARNING lock file {path}: waiting, because another process holds an exclusive lock "
            "(flock -x)"
        )
    assert pool.hear() == f"INFO lock file {path}: locked"
    assert pool.hear() == "held"
    assert not is_free(path)


def test_a_start_that_has_waited_for_as_long_as_it_may_gives_up_in_words(talk, tmp_path):
    path = tmp_path / "pool.lock"
    with exclusively(path):
        pool = talk(HOLD, path, 0.2)
        assert pool.hear().startswith("WARNING")
        assert pool.hear() == (
            f"lock file {path}: after 0.2 s (--swap-timeout), another process still holds an "
            f"exclusive lock (flock -x). Nothing was started. Let that process end first; `fuser "
            f"-v {path}` shows it."
        )
        assert pool.wait() == 1


@pytest.mark.parametrize("limit", [[], [DEADLINE]], ids=["for ever", "within a limit"])
def test_a_start_that_waits_for_the_lock_can_be_ended(talk, tmp_path, limit):
    path = tmp_path / "pool.lock"
    with exclusively(path):
        pool = talk(HOLD, path, *limit)
        assert pool.hear().startswith("WARNING")
        assert pool.send(signal.SIGTERM).wait() == -signal.SIGTERM


def test_an_operator_who_waits_does_not_keep_a_new_pool_out(talk, tmp_path):
    path = tmp_path / "pool.lock"
    old = talk(HOLD + "sys.stdin.readline()", path)
    assert old.hear() == "held"
    waiting = subprocess.Popen(["flock", "--exclusive", path, "true"], cwd=tmp_path)
    new = talk(HOLD + "sys.stdin.readline()", path)
    assert new.hear() == "held"
    old.say().wait()
    assert waiting.poll() is None
    new.say().wait()
    assert waiting.wait(DEADLINE) == 0


def test_folders_are_made_and_the_file_is_writable_by_nobody_else(tmp_path):
    path = tmp_path / "tmp" / "locks" / "pool.lock"
    before = os.umask(0)
    try:
        os.close(hold_lock(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # who can open it can lock it
    assert stat.S_IMODE((tmp_path / "tmp").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "tmp" / "locks").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("before", "after"), [(0o644, 0o600), (0o666, 0o600), (0o601, 0o600), (0o660, 0o660)]
)
def test_a_file_that_is_there_keeps_its_content_and_lets_not_everybody_in(tmp_path, before, after):
    path = tmp_path / "pool.lock"
    path.write_text("precious")
    path.chmod(before)
    os.close(hold_lock(path))
    assert path.read_text() == "precious"
    assert stat.S_IMODE(path.stat().st_mode) == after


@pytest.mark.parametrize("leads", [True, False], ids=["to a file", "nowhere"])
def test_a_symbolic_link_is_refused_and_not_followed(tmp_path, leads):
    target = tmp_path / "target"
    if leads:
        target.touch(0o644)
    path = tmp_path / "pool.lock"
    path.symlink_to(target)
    with pytest.raises(LockFileError, match=r"pool.lock: it is a symbolic link\. Give the path"):
        hold_lock(path)
    assert target.exists() is leads


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "fifo"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, make):
    path = tmp_path / "pool.lock"
    make(path)
    with pytest.raises(LockFileError, match=r"pool.lock: it is not a regular file\. Give the path"):
        hold_lock(path)


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LockFileError, match=r"cannot be opened: .+\. Give the path"):
        hold_lock(tmp_path / "file" / "pool.lock")
