"""Log files that are moved away while the pool writes to them, as logrotate does."""

from __future__ import annotations

import re
import signal

from harness import eventually

LOGGING = """
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "own.log"}},
    "loggers": {"shop": {"handlers": ["file"]}},
}
"""
NAMES = ["out.log", "err.log", "own.log"]


def words(folder, name: str) -> list[str]:
    """What jobs have said to a log and to those that it was moved to."""
    files = sorted(folder.glob(f"{name}*"))
    return [word for file in files for word in re.findall(r"^word-\d+$", file.read_text(), re.M)]


def ready(folder) -> int:
    """How many workers have become ready, by all logs."""
    return sum(file.read_text().count(" ready\n") for file in folder.glob("out.log*"))


def test_logs_that_are_rotated_under_load_lose_nothing_and_mix_nothing_up(start_with, enqueue):
    pool = start_with(LOGGING, "high,default=3", "--stdout", "out.log", "--stderr", "err.log")
    eventually(lambda: ready(pool.cwd) == 3)
    jobs = []
    for turn in range(1, 5):
        jobs += [enqueue("high", "speak", f"word-{turn}{number:03}") for number in range(40)]
        for name in NAMES:
            (pool.cwd / name).rename(pool.cwd / f"{name}.{turn}")
        pool.process.send_signal(signal.SIGHUP)
        jobs += [enqueue("default", "speak", f"word-{turn}{number:03}") for number in range(40, 60)]
        eventually(lambda turn=turn: ready(pool.cwd) == 3 + 3 * turn)
        # From here on every process writes to the new files.
        sizes = {file: file.stat().st_size for file in pool.cwd.glob("*.log.*")}
        last = enqueue("high", "speak", f"word-{turn}999")
        jobs.append(last)
        eventually(lambda last=last: last.is_finished)
        eventually(lambda turn=turn: len(words(pool.cwd, "own.log")) == 61 * turn)
        assert {file: file.stat().st_size for file in sizes} == sizes

    pool.process.send_signal(signal.SIGQUIT)
    assert pool.wait() == 0
    said = sorted(job.args[0] for job in jobs)
    for name in NAMES:
        assert sorted(words(pool.cwd, name)) == said
    errors = "".join(file.read_text() for file in pool.cwd.glob("err.log*"))
    assert not re.sub(r"^word-\d+\n", "", errors, flags=re.M)
    assert pool.text() == ""


def test_a_directory_for_logs_is_made_and_one_that_cannot_be_is_an_error(start_pool):
    pool = start_pool("high=1", "--stdout", "log/pool/out.log", "--stderr", "log/pool/out.log")
    eventually(lambda: list(pool.cwd.glob("log/pool/out.log")) and ready(pool.cwd / "log/pool"))
    pool.process.send_signal(signal.SIGQUIT)
    assert pool.wait() == 0

    refused = start_pool("high=1", "--stdout", "/proc/no/such/place.log")
    assert refused.wait() == 1
    assert refused.text().startswith("CommandError: log file /proc/no/such/place.log cannot be")
