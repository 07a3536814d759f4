"""Containers: whether this looks like one, where a daemon is seldom what is wanted.

Rule of the room: signs only, and what to do instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path


def container_warning(
    pid: int, environment: Mapping[str, str], root: Path = Path("/")
) -> str | None:
    """What is wrong with a daemon in a container, if this looks like one; else None.

    Docker and podman leave a file, Kubernetes and systemd-nspawn a variable. A daemon can still be
    wanted there, as in a container that is used like a machine: so it is a warning.

    Args:
        pid: of the process that was asked to detach.
        environment: its variables.
        root: the file system.
    """
    if pid == 1:
        return (
            "--daemon: this command is PID 1, and when it ends the system ends every other process "
            "of the container, the daemon too. Start the pool without --daemon: it obeys signals "
            "as PID 1, and reaps orphans."
        )
    files = (f"/{name}" for name in ("run/.containerenv", ".dockerenv") if (root / name).exists())
    variables = (
        f"${name}" for name in ("KUBERNETES_SERVICE_HOST", "container") if environment.get(name)
    )
    sign = next(chain(files, variables), None)
    if sign is None:
        return None
    return (
        f"--daemon: this looks like a container ({sign}). It ends with its first process, whatever "
        "runs in it, and its log is what that process writes to standard output. Start the pool "
        "there as the first process, without --daemon."
    )
