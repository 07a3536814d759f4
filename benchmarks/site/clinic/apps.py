"""The site's app, and the one thing that the benchmark needs inside of every process."""

import gc
import os
import signal
from pathlib import Path

from django.apps import AppConfig

COLLECT = signal.SIGRTMIN
"""Asks a process for a full garbage collection. Nobody else uses this signal, so that it works in
each contender's processes, whose forks inherit its handler."""


class ClinicConfig(AppConfig):
    name = "clinic"

    def ready(self):
        signal.signal(COLLECT, collect)


def collect(signum, frame):
    """Collects, and says so by a file in the current directory."""
    gc.collect()
    Path(f"collected-{os.getpid()}").touch()
