"""What a pid file does with what is in its place; test_pidfile_rivals.py has who gets it."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from django_rq_pool.system.pidfile import PidFile, PidFileError

OURS = f"{os.getpid()}\n"


@pytest.fixture
def claim(tmp_path: Path) -> Iterator[Callable[..., PidFile]]:
    claimed: list[PidFile] = []

    def claim(path: str | Path = tmp_path / "pool.pid") -> PidFile:
        pidfile = PidFile(path)
        pidfile.claim()
        claimed.append(pidfile)
        return pidfile

    yield claim
    for pidfile in claimed:
        pidfile.release()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pool.pid"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "django_rq_pool")
    return caplog


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0)
    os.umask(before)
    yield os.umask
    os.umask(before)


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_a_claim_writes_the_pid_and_leaves_nothing_beside_it(claim, path):
    claim()
    assert path.read_text() == OURS
    assert list(path.parent.iterdir()) == [path]


def test_a_release_removes_the_file(claim, path):
    pidfile = claim()
    pidfile.release()
    assert not path.exists()


def test_a_file_that_was_never_claimed_is_not_removed(path):
    path.write_text(OURS)
    PidFile(path).release()
    assert path.read_text() == OURS


def test_missing_folders_are_made(claim, tmp_path):
    claim(tmp_path / "tmp" / "pids" / "pool.pid")
    assert (tmp_path / "tmp" / "pids" / "pool.pid").read_text() == OURS


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_mode_is_0600_whatever_the_umask(claim, path, umask, mask):
    umask(mask)
    claim()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_folders_that_were_made_are_writable_by_nobody_else(claim, tmp_path, umask):
    umask(0)
    claim(tmp_path / "tmp" / "pids" / "pool.pid")
    for folder in ("tmp", "tmp/pids"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o755


def test_a_relative_path_means_the_directory_in_which_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pidfile = PidFile("pool.pid")
    monkeypatch.chdir("/")
    pidfile.claim()
    assert (tmp_path / "pool.pid").exists()
    pidfile.release()
    assert not (tmp_path / "pool.pid").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"pool\n", b"-5\n", b"0\n", b"12 34\n", b"1" * 12, b"9" * 100_000, b"\xff\0"],
    ids=["empty", "newline", "word", "negative", "zero", "two", "long", "huge", "binary"],
)
def test_what_is_no_pid_is_replaced_and_the_log_says_so(claim, path, log, content):
    path.write_bytes(content)
    claim()
    assert path.read_text() == OURS
    assert f"pid file {path}: replaced, because it holds no pid" in log.text


def test_the_pid_of_a_process_that_is_gone_is_replaced_and_the_log_says_so(claim, path, log):
    pid = dead_pid()
    path.write_text(f"{pid}\n")
    claim()
    assert path.read_text() == OURS
    assert f"pid file {path}: replaced, because process {pid} has ended" in log.text


@pytest.mark.parametrize("pid", [os.getpid(), os.getppid()], ids=["this one", "another"])
def test_the_pid_of_a_process_that_does_not_hold_the_lock_is_replaced(claim, path, log, pid):
    path.write_text(f"{pid}\n")
    claim()
    assert path.read_text() == OURS
    assert f"pid file {path}: replaced, because process {pid}, which is another" in log.text


@pytest.mark.parametrize("leads", [True, False], ids=["to a file", "nowhere"])
def test_a_symbolic_link_is_refused_and_not_followed(claim, path, tmp_path, leads):
    target = tmp_path / "target"
    if leads:
        target.write_text("precious")
    path.symlink_to(target)
    with pytest.raises(PidFileError, match=r"pool.pid: it is a symbolic link\. Remove it, or"):
        claim()
    assert path.is_symlink()
    assert target.exists() is leads
    assert not leads or target.read_text() == "precious"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "fifo"])
def test_what_is_no_regular_file_is_refused_at_once(claim, path, make):
    make(path)
    with pytest.raises(PidFileError, match="it is not a regular file"):
        claim()


def test_nobody_is_told_to_remove_a_device():
    with pytest.raises(PidFileError, match=r"/dev/null: it is not a regular file\.") as caught:
        PidFile("/dev/null").claim()
    assert "Remove" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_refused_though_we_could_write_to_it(claim, path):
    path.write_text("1\n")
    os.chown(path, 12345, -1)
    with pytest.raises(
        PidFileError, match=f"it belongs to user 12345, but this is user {os.geteuid()}"
    ):
        claim()
    assert path.read_text() == "1\n"


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(claim, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PidFileError, match=r"cannot be written: .+\. Give a path in a folder"):
        claim(tmp_path / "file" / "pool.pid")


def test_a_refused_claim_leaves_no_file_and_no_descriptor_behind(claim, path):
    path.symlink_to("nowhere")
    before = open_descriptors()
    with pytest.raises(PidFileError):
        claim()
    assert open_descriptors() == before
    assert list(path.parent.iterdir()) == [path]


def replaced_by_a_copy(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def overwritten_with_another_pid(path: Path) -> None:
    path.write_text("1\n")


@pytest.mark.parametrize("change", [replaced_by_a_copy, overwritten_with_another_pid])
def test_a_release_leaves_alone_what_is_not_its_own(claim, path, change):
    pidfile = claim()
    change(path)
    content = path.read_text()
    pidfile.release()
    assert path.read_text() == content


def test_a_release_after_somebody_removed_the_file_is_quiet(claim, path):
    pidfile = claim()
    path.unlink()
    pidfile.release()
    assert not path.exists()


def test_a_forked_process_does_not_remove_the_managers_file(claim, path):
    pidfile = claim()
    pid = os.fork()
    if pid == 0:
        pidfile.release()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert path.read_text() == OURS
