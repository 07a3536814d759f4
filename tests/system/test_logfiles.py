"""Log files: real ones, moved while they are written to. Standard streams need a process each."""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from django_rq_pool.system.logfiles import LogFiles

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a script in a process whose own output goes to a pipe; returns what comes out there."""

    def run(script: str, **variables: str) -> str:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import os, sys\nfrom django_rq_pool.system.logfiles import *\n{script}",
            ],
            cwd=tmp_path,
            env={
                **{key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


def test_what_is_written_goes_to_the_files_from_then_on(run, tmp_path):
    before = run(
        """
print("before")
LogFiles("out.log", "err.log").redirect()
print("to stdout")
print("to stderr", file=sys.stderr)
os.system("echo from another program")
"""
    )
    assert before == "before\n"
    assert (tmp_path / "out.log").read_text() == "to stdout\nfrom another program\n"
    assert (tmp_path / "err.log").read_text() == "to stderr\n"


def test_a_stream_without_a_file_is_left_where_it_is(run, tmp_path):
    assert run("LogFiles(stderr='err.log').redirect()\nprint('here')") == "here\n"


def test_files_are_added_to_and_missing_directories_made(run, tmp_path):
    script = "LogFiles('a/b/out.log').redirect()\nprint('line')"
    run(script)
    run(script)
    assert (tmp_path / "a/b/out.log").read_text() == "line\nline\n"


def test_only_the_group_may_read_a_new_file_and_nobody_else_write_whatever_the_umask(run, tmp_path):
    run("os.umask(0)\nLogFiles('all/logs/out.log').redirect()")
    assert stat.S_IMODE((tmp_path / "all/logs/out.log").stat().st_mode) == 0o640
    for folder in ("all", "all/logs"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o755


def test_a_file_that_cannot_be_opened_is_told_in_a_sentence_and_no_stream_moves(run, tmp_path):
    (tmp_path / "folder").mkdir()
    told = run(
        """
try:
    LogFiles("out.log", "folder").redirect()
except LogFileError as error:
    print(error)
"""
    )
    assert told == (
        f"log file {tmp_path}/folder cannot be opened: Is a directory. "
        "Give a file that this user may write to.\n"
    )


def test_a_relative_path_is_that_of_the_directory_where_the_pool_started(run, tmp_path):
    run(
        """
files = LogFiles("out.log")
files.redirect()
os.chdir("/")
os.rename(os.environ["PATH_OF_IT"], os.environ["PATH_OF_IT"] + ".1")
files.reopen()
print("new")
""",
        PATH_OF_IT=str(tmp_path / "out.log"),
    )
    assert (tmp_path / "out.log").read_text() == "new\n"


MOVED = """
files = LogFiles("out.log", "err.log")
files.redirect()
print("old out")
print("old err", file=sys.stderr)
before = os.fstat(1).st_ino, os.fstat(2).st_ino
os.rename("out.log", "out.log.1")
print("still old")
reopened = files.reopen()
print("new out")
print("new err", file=sys.stderr)
os.system("echo from another program")
assert reopened == [os.path.abspath("out.log")], reopened
assert os.fstat(2).st_ino == before[1]
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_moved_file_is_opened_anew_and_one_that_was_not_is_left_alone(run, tmp_path, unbuffered):
    assert run(MOVED, PYTHONUNBUFFERED=unbuffered) == ""
    assert (tmp_path / "out.log.1").read_text() == "old out\nstill old\n"
    assert (tmp_path / "out.log").read_text() == "new out\nfrom another program\n"
    assert (tmp_path / "err.log").read_text() == "old err\nnew err\n"


def test_a_file_that_somebody_else_made_anew_is_added_to(run, tmp_path):
    run(
        """
files = LogFiles("out.log")
files.redirect()
os.rename("out.log", "out.log.1")
open("out.log", "w").write("made by logrotate\\n")
files.reopen()
print("new")
"""
    )
    assert (tmp_path / "out.log").read_text() == "made by logrotate\nnew\n"


def test_a_file_that_is_there_keeps_its_mode(run, tmp_path):
    (tmp_path / "out.log").touch()
    (tmp_path / "out.log").chmod(0o644)
    run("LogFiles('out.log').redirect()")
    assert stat.S_IMODE((tmp_path / "out.log").stat().st_mode) == 0o644


def test_the_new_file_has_the_mode_of_the_old(run, tmp_path):
    run(
        """
files = LogFiles("out.log")
files.redirect()
os.chmod("out.log", 0o600)
os.remove("out.log")
files.reopen()
"""
    )
    assert stat.S_IMODE((tmp_path / "out.log").stat().st_mode) == 0o600


def test_one_file_can_take_both_streams_and_no_line_overwrites_another(run, tmp_path):
    run(
        """
files = LogFiles("both.log", "./both.log")
files.redirect()
for number in range(100):
    print("out", number)
    print("err", number, file=sys.stderr)
os.rename("both.log", "both.log.1")
assert len(files.reopen()) == 1
for number in range(100, 200):
    print("out", number)
    print("err", number, file=sys.stderr)
"""
    )
    old = (tmp_path / "both.log.1").read_text().splitlines()
    new = (tmp_path / "both.log").read_text().splitlines()
    expected = [f"{stream} {number}" for number in range(200) for stream in ("out", "err")]
    assert old + new == expected


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_lines_of_several_processes_are_not_torn(run, tmp_path, unbuffered):
    run(
        """
LogFiles("out.log").redirect()
for each in range(4):
    if os.fork() == 0:
        for number in range(2000):
            print(each, "x" * 50, number)
        os._exit(0)
for each in range(4):
    os.wait()
""",
        PYTHONUNBUFFERED=unbuffered,
    )
    lines = (tmp_path / "out.log").read_text().splitlines()
    assert sorted(lines) == sorted(
        f"{each} {'x' * 50} {number}" for each in range(4) for number in range(2000)
    )


@pytest.mark.parametrize(("sync", "written"), [(True, "line\n"), (False, "")])
def test_a_line_is_written_at_once_unless_told_otherwise(run, tmp_path, sync, written):
    run(f"LogFiles('out.log', sync={sync}).redirect()\nprint('line')\nos._exit(0)")
    assert (tmp_path / "out.log").read_text() == written


def test_standard_error_is_written_at_once_in_any_case(run, tmp_path):
    run(
        "LogFiles(stderr='err.log', sync=False).redirect()\n"
        "print('line', file=sys.stderr)\nos._exit(0)"
    )
    assert (tmp_path / "err.log").read_text() == "line\n"


def test_what_was_buffered_goes_to_the_file_that_was_moved(run, tmp_path):
    run(
        """
files = LogFiles("out.log", sync=False)
files.redirect()
print("old")
os.rename("out.log", "out.log.1")
files.reopen()
print("new")
"""
    )
    assert (tmp_path / "out.log.1").read_text() == "old\n"
    assert (tmp_path / "out.log").read_text() == "new\n"


def test_a_file_that_cannot_be_opened_anew_is_reported_and_the_old_one_kept(run, tmp_path):
    told = run(
        """
files = LogFiles("logs/out.log")
files.redirect()
os.rename("logs", "gone")
assert files.reopen() == []
print("kept")
os.mkdir("logs")
assert files.reopen() == [os.path.abspath("logs/out.log")]
print("new")
"""
    )
    assert told.startswith(f"log file {tmp_path}/logs/out.log cannot be reopened: ")
    assert "No such file or directory" in told
    assert (tmp_path / "gone/out.log").read_text() == "kept\n"
    assert (tmp_path / "logs/out.log").read_text() == "new\n"


# The handlers of logging, in this process


@pytest.fixture
def own_logger() -> Iterator[logging.Logger]:
    own = logging.getLogger("test_logfiles")
    own.propagate = False
    yield own
    while own.handlers:
        handler = own.handlers[0]
        own.removeHandler(handler)
        handler.close()


@pytest.mark.parametrize(
    "make",
    [
        logging.FileHandler,
        lambda path: logging.FileHandler(path, mode="w"),
        logging.handlers.RotatingFileHandler,
        logging.handlers.TimedRotatingFileHandler,
        logging.handlers.WatchedFileHandler,
    ],
    ids=["plain", "mode w", "rotating", "timed", "watched"],
)
def test_a_moved_log_file_is_opened_anew_beneath_its_descriptor(own_logger, tmp_path, make):
    path = tmp_path / "own.log"
    handler = make(path)
    own_logger.addHandler(handler)
    own_logger.warning("old")
    stream, fd = handler.stream, handler.stream.fileno()
    path.rename(tmp_path / "own.log.1")
    path.write_text("made by logrotate\n")

    assert LogFiles().reopen() == [str(path)]
    assert handler.stream is stream
    assert stream.fileno() == fd
    assert not os.get_inheritable(fd)
    own_logger.warning("new")
    assert path.read_text() == "made by logrotate\nnew\n"
    assert (tmp_path / "own.log.1").read_text() == "old\n"
    assert LogFiles().reopen() == []


def test_a_delayed_handler_stays_delayed_and_opens_what_is_there_then(own_logger, tmp_path):
    path = tmp_path / "own.log"
    handler = logging.FileHandler(path, delay=True)
    own_logger.addHandler(handler)
    assert LogFiles().reopen() == []
    assert not path.exists()
    own_logger.warning("first")
    path.rename(tmp_path / "own.log.1")
    assert LogFiles().reopen() == [str(path)]


def test_a_handler_behind_a_buffer_is_found(own_logger, tmp_path):
    path = tmp_path / "own.log"
    target = logging.FileHandler(path)
    own_logger.addHandler(logging.handlers.MemoryHandler(100, logging.ERROR, target))
    own_logger.warning("buffered")
    path.rename(tmp_path / "own.log.1")
    assert LogFiles().reopen() == [str(path)]
    own_logger.error("new")
    assert path.read_text() == "buffered\nnew\n"
    target.close()


def test_a_handler_behind_a_queue_is_found_while_its_thread_writes(own_logger, tmp_path):
    path = tmp_path / "own.log"
    target = logging.FileHandler(path)
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    own_logger.addHandler(logging.handlers.QueueHandler(records))
    listener = logging.handlers.QueueListener(records, target)
    listener.start()
    for number in range(50):
        for line in range(20):
            own_logger.warning("%d", 20 * number + line)
        path.rename(tmp_path / f"own.log.{number}")
        assert LogFiles().reopen() == [str(path)]
    listener.stop()
    target.close()
    files = [*(tmp_path / f"own.log.{number}" for number in range(50)), path]
    assert "".join(each.read_text() for each in files).split() == [str(n) for n in range(1000)]


def test_a_handler_that_dictconfig_forgot_is_found(run, tmp_path):
    run(
        """
import logging.config
logging.getLogger("early").addHandler(logging.FileHandler("own.log"))
logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
logging.getLogger("early").warning("old")
os.rename("own.log", "own.log.1")
assert LogFiles().reopen() == [os.path.abspath("own.log")]
logging.getLogger("early").warning("new")
"""
    )
    assert (tmp_path / "own.log").read_text() == "new\n"


def test_a_log_file_that_cannot_be_opened_anew_is_reported_and_the_others_are(
    own_logger, tmp_path, caplog
):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        own_logger.addHandler(logging.FileHandler(tmp_path / name / "own.log"))
    (tmp_path / "a").rename(tmp_path / "gone")
    (tmp_path / "b" / "own.log").unlink()

    assert LogFiles().reopen() == [str(tmp_path / "b" / "own.log")]
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == (
        f"log file {tmp_path}/a/own.log cannot be reopened: No such file or directory. The old "
        "file stays in use. Give this user write access, then send HUP again."
    )
    own_logger.warning("line")
    assert (tmp_path / "gone" / "own.log").read_text() == "line\n"


def test_a_handler_whose_stream_was_closed_does_no_harm(own_logger, tmp_path, caplog):
    handler = logging.FileHandler(tmp_path / "closed.log")
    handler.stream.close()
    own_logger.addHandler(handler)
    assert LogFiles().reopen() == []
    assert f"log file {tmp_path}/closed.log cannot be reopened: I/O operation" in caplog.text
    handler.stream = None  # or its end would fail
