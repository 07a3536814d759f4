"""Containers: detects whether this is a container, where a daemon is seldom useful.

Rule of the room: it reads signs and returns a warning, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path


def container_warning(
    pid: int, environment: Mapping[str, str], root: Path = Path("/")
) -> str | None:
    """Why a daemon is a problem here.

    Docker and podman create a file, Kubernetes and systemd-nspawn set an environment variable. It
    is only a warning, because some containers are used like machines.

    Args:
        pid: the pid of the process that starts the daemon.
        environment: its environment variables.
        root: the root of the file system.

    Returns:
        A warning, or None if this does not look like a container.
    """
    if pid == 1:
        return (
            "--daemon: this command is PID 1 of a container. When it ends, the system kills every "
            "other process, the daemon too. Start the pool without --daemon: as PID 1 it handles "
            "signals and reaps orphans."
        )
    files = (f"/{name}" for name in ("run/.containerenv", ".dockerenv") if (root / name).exists())
    variables = (
        f"${name}" for name in ("KUBERNETES_SERVICE_HOST", "container") if environment.get(name)
    )
    sign = next(chain(files, variables), None)
    if sign is None:
        return None
    return (
        f"--daemon: this looks like a container ({sign}). It ends when its first process ends, and "
        "its log is the standard output of that process. Start the pool as the first process, "
        "without --daemon."
    )
