"""Start: from launch until N workers are ready.

Begins before the first command is started (all N commands of N x ``rqworker`` are started in a row,
as a supervisor does) and ends when the server has N workers registered and each of them waits in a
blocked connection, looked at every 5 ms. CPU is that of all processes by then, those that have
ended included. The file cache is warm: a launch that is not counted goes before. ``cold`` has the
files of the interpreter, its packages and the site dropped from the file cache before; what another
process has mapped stays there, so no other Python of the same installation should run.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from contenders import MANAGE
from figures import Effort, Measure, Numbers, Step
from life import Life


def measure(life: Life, effort: Effort) -> Numbers:
    return {"ready": life.launch.seconds, "ready_cpu": life.launch.cpu}


def measure_cold(life: Life, effort: Effort) -> Numbers:
    return {"ready_cold": life.launch.seconds}


STEP = Step(
    "start",
    (
        Measure("ready", "all workers ready", "s"),
        Measure("ready_cpu", "CPU until they are", "s"),
    ),
    measure,
)
COLD = Step(
    "cold", (Measure("ready_cold", "all workers ready, cold file cache", "s"),), measure_cold
)


def drop_file_cache() -> None:
    """Has the system forget the contents of every file that a launch reads."""
    for path in _files():
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _files() -> Iterator[Path]:
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    package = Path(__file__).resolve().parent.parent.parent / "django_rq_pool"
    for folder in (*map(Path, folders), MANAGE.parent, package):
        yield from (path for path in folder.rglob("*") if path.is_file())
    yield Path(sys.executable).resolve()
