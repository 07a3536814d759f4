"""What another user of a shared host can do to a pool's files: nothing that keeps a pool out."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from django_rq_pool.system import ownership
from django_rq_pool.system.lockfile import LockFileError, hold_lock
from django_rq_pool.system.pidfile import PidFile, PidFileError
from guardian import Guardian
from other_user import ANOTHER, another_user, needs_root
from rivals import CLAIM

pytestmark = needs_root


@pytest.fixture
def shared(guardian: Guardian) -> Iterator[Path]:
    """A folder like ``/tmp``, which every user can enter and write to; the run's own is private."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    guardian.watch(folder, remove=True)
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def flocks(path: Path) -> Callable[[], TextIO]:
    def act() -> TextIO:
        file = path.open()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    return act


def locks_shared(path: Path) -> Callable[[], TextIO]:
    def act() -> TextIO:
        file = path.open()
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return file

    return act


def test_nobody_else_can_lock_a_lock_file_that_a_pool_has_made(shared):
    path = shared / "pool.lock"
    os.close(hold_lock(path))
    with another_user(flocks(path)) as could:
        assert not could
        os.close(hold_lock(path, 0.1))


def test_nobody_else_can_lock_one_that_an_earlier_version_has_made_once_a_pool_has_had_it(shared):
    path = shared / "pool.lock"
    path.touch(0o644)
    os.close(hold_lock(path))
    with another_user(flocks(path)) as could:
        assert not could


def test_who_has_locked_one_of_an_earlier_version_keeps_a_pool_waiting_for_its_limit_only(shared):
    path = shared / "pool.lock"
    path.touch(0o644)
    with another_user(flocks(path)) as could:
        assert could
        with pytest.raises(LockFileError, match=r"after 0\.2 s \(--swap-timeout\)"):
            hold_lock(path, 0.2)
    os.close(hold_lock(path, 0.1))


def test_a_lock_file_of_another_user_is_refused_at_once(shared):
    path = shared / "pool.lock"
    with another_user(lambda: path.touch(0o666)) as could:
        assert could
        with pytest.raises(
            LockFileError, match=f"it belongs to user {ANOTHER}, but this is user {os.geteuid()}"
        ):
            hold_lock(path)


def test_a_shared_lock_on_the_pid_file_of_a_killed_manager_keeps_no_manager_out(shared):
    path = shared / "pool.pid"
    path.write_text("1\n")
    path.chmod(0o644)  # an earlier version's
    with another_user(locks_shared(path)) as could:
        assert could
        pidfile = PidFile(path)
        pidfile.claim()
        assert path.read_text() == f"{os.getpid()}\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        pidfile.release()
    assert list(shared.iterdir()) == []


def test_of_managers_that_start_at_once_one_gets_the_file_though_a_stranger_has_a_shared_lock(
    shared, talk
):
    path = shared / "pool.pid"
    rivals = [talk(CLAIM, path) for _ in range(5)]
    assert {rival.hear() for rival in rivals} == {"here"}
    for _ in range(20):
        path.write_text("1\n")
        path.chmod(0o644)
        with another_user(locks_shared(path)) as could:
            assert could
            for rival in rivals:
                rival.say()
            answers = {rival: rival.hear() for rival in rivals}
            [winner] = [rival for rival, answer in answers.items() if answer == "won"]
            assert path.read_text() == f"{winner.pid}\n"
            assert winner.say().hear() == "released"


def test_nobody_else_can_lock_or_read_a_pid_file(shared):
    path = shared / "pool.pid"
    pidfile = PidFile(path)
    pidfile.claim()
    with another_user(locks_shared(path)) as could:
        assert not could
    pidfile.release()


def test_what_another_user_has_put_where_the_pid_file_is_claimed_is_refused_at_once(shared):
    beside = shared / ".pool.pid.claim"
    with another_user(lambda: beside.touch(0o666)) as could:
        assert could
        with pytest.raises(PidFileError, match=f"claim: it belongs to user {ANOTHER}"):
            PidFile(shared / "pool.pid").claim()


def test_a_process_of_another_user_is_not_ours():
    assert ownership.is_ours(os.geteuid())
    assert not ownership.is_ours(ANOTHER)
