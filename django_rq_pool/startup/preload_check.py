"""Preload check: imports what a start would import, to see what fails.

Rule of the room: a module may end its process, start threads or change settings. So it is imported
in a process that was forked for that, and every failure is told, not only the first.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import IO

from ..errors import StartError
from ..system import processes, signals
from .job_modules import ImportFailure, all_modules, attempt, ended


def failing_imports(modules: Iterable[str], exclude: Sequence[str]) -> list[ImportFailure]:
    """Imports everything that is imported before the first fork.

    Args:
        modules: dotted names, from the setting ``RQ_POOL_PRELOAD``.
        exclude: apps and modules that are not imported (``RQ_POOL_PRELOAD_EXCLUDE``).

    Returns:
        What cannot be imported. After a module that ends the process nothing more was tried.

    Raises:
        StartError: there is no process, or no file, to try it in.
    """
    modules = list(modules)
    try:
        with tempfile.TemporaryFile("w+") as results:
            pid = processes.fork(lambda: _try_all(modules, exclude, results))
            death = processes.wait_for_death(pid)
            results.seek(0)
            lines = [json.loads(line) for line in results]
    except OSError as error:
        raise StartError(f"--preload: the modules cannot be tried: {error}") from error
    failures = [ImportFailure(**line) for line in lines if isinstance(line, dict)]
    if lines[-1:] != [_DONE]:
        last = next((name for name in reversed(lines) if isinstance(name, str)), "")
        each = (module for module in all_modules(modules, exclude) if module.name == last)
        failures += [ended(module, str(death)) for module in [*each][:1]]
    return failures


_DONE = 0
"""What is written last."""


def _try_all(modules: Iterable[str], exclude: Sequence[str], results: IO[str]) -> int:
    """Runs in the forked process. It writes the name of each module before it is imported, then the
    failure, a line each."""
    signals.unblock()
    for module in all_modules(modules, exclude):
        _write(results, module.name)
        failure = attempt(module)
        if failure is not None:
            _write(results, dataclasses.asdict(failure))
    _write(results, _DONE)
    return os.EX_OK


def _write(results: IO[str], line: object) -> None:
    results.write(json.dumps(line) + "\n")
    results.flush()
