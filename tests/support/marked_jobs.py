"""Jobs that leave marks on disk: what happened to them, whatever a server forgets.

Rule of the room: one file for each job, named by its id; one line for each thing that happened.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rq import get_current_job
from rq.job import Job

FOLDER = "MARKS"
"""The environment variable that says where the marks are."""
GATE = "GATE"
"""The environment variable of the file that a callback waits for."""
DURATION = 0.01
"""Seconds that a job takes."""


@dataclass(frozen=True)
class Marks:
    """What one job has left.

    Attributes:
        begun: the process ids of those who began it, in their order.
        ended: how often it came to its end.
        told: how often its callback has begun.
    """

    begun: tuple[int, ...] = ()
    ended: int = 0
    told: int = 0


def read_marks(folder: Path, job_id: str) -> Marks:
    """What a job has left until now."""
    path = folder / job_id
    lines = path.read_text().splitlines() if path.exists() else []
    words = [line.split() for line in lines]
    return Marks(
        tuple(int(pid) for word, pid in words if word == "begun"),
        sum(word == "ended" for word, _ in words),
        sum(word == "told" for word, _ in words),
    )


def plain() -> None:
    """Takes some milliseconds."""
    with _marked():
        time.sleep(DURATION)


def fails_at_first() -> None:
    """Fails, unless it has failed before."""
    with _marked() as path:
        time.sleep(DURATION)
        if "failed" not in path.read_text():
            _mark(path, "failed")
            raise RuntimeError("the first time it fails")


def held(gate: str) -> None:
    """Takes until a file is there."""
    with _marked():
        while not Path(gate).exists():
            time.sleep(DURATION)


def ended_and_waits(job: Job, *result: object) -> None:
    """A callback that leaves a mark, and takes until a file is there."""
    _mark(Path(os.environ[FOLDER], job.id), "told")
    while not Path(os.environ[GATE]).exists():
        time.sleep(DURATION)


@contextmanager
def _marked() -> Iterator[Path]:
    job = get_current_job()
    assert job is not None
    path = Path(os.environ[FOLDER], job.id)
    _mark(path, "begun")
    yield path
    _mark(path, "ended")


def _mark(path: Path, word: str) -> None:
    with path.open("ab", buffering=0) as stream:
        stream.write(f"{word} {os.getpid()}\n".encode())
