"""What a process that runs a pool must find again afterwards, for scripts that compare it."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
from pathlib import Path

from rq.logutils import colorizer
from setproctitle import getproctitle

LOGGERS = ("", "django_rq_pool", "rq.worker", "rq.job")


def own(number: int, frame: object) -> None:
    """A handler of the script's own."""


def prepare() -> None:
    """Gives the process much that is its own: handlers, a wakeup descriptor, an alarm."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, own)
    _, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.setitimer(signal.ITIMER_REAL, 1000, 500)


def state() -> dict[str, object]:
    """All of it that can be asked for, by name."""
    wakeup_fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    subreaper = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(37, ctypes.byref(subreaper), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    return {
        "handlers": {int(n): signal.getsignal(n) for n in signal.valid_signals()},
        "wakeup": wakeup_fd,
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "alarm": (0 < left < 1000, interval),
        "subreaper": subreaper.value,
        "title": getproctitle(),
        "collects": gc.isenabled(),
        "frozen": gc.get_freeze_count() > 1000,
        "loggers": {
            name: (logging.getLogger(name).level, list(logging.getLogger(name).handlers))
            for name in LOGGERS
        },
        "colours": not colorizer.notty,
        "environment": dict(os.environ),
        "streams": [(each.line_buffering, each.write_through) for each in (sys.stdout, sys.stderr)],
        "descriptors": descriptors(),
        "children": children(),
    }


def descriptors() -> dict[int, str]:
    """What each open descriptor is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except OSError:  # the folder itself
            continue
    return found


def children() -> list[str]:
    """The pids of all children, zombies too."""
    return Path("/proc/thread-self/children").read_text().split()


def differences(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """What is not as it was."""
    return [
        f"{name}: {before[name]} -> {after[name]}" for name in before if before[name] != after[name]
    ]
