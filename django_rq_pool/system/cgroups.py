"""Cgroups: how many CPUs and how much memory this process may use, container or not.

Rule of the room: it reads the system's files and decides nothing. What cannot be read limits
nothing, because a kernel without control groups has no such files. The formats are those of
Linux's ``Documentation/admin-guide/cgroup-v2.rst`` and ``cgroup-v1/``.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil


@dataclass(frozen=True)
class Resources:
    """What a process may use.

    Attributes:
        cpus: how many CPUs, 1 or more. A part of a CPU counts as one.
        memory: bytes of memory.
    """

    cpus: int
    memory: int

    def __str__(self) -> str:
        """Such as ``2 CPUs, 4.0 GB of memory``."""
        cpus = "1 CPU" if self.cpus == 1 else f"{self.cpus} CPUs"
        return f"{cpus}, {self.memory / 2**30:.1f} GB of memory"


@dataclass(frozen=True)
class Limits:
    """What the control groups of a process allow.

    Attributes:
        cpuset: how many CPUs are in its set, or None for no limit.
        quota: how much CPU time it may use, in seconds per second, or None.
        memory: bytes of memory, or None.
    """

    cpuset: int | None = None
    quota: float | None = None
    memory: int | None = None


def usable_resources() -> Resources:
    """What this process may use: what the machine has, or less if its affinity or a control group
    says so."""
    affine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    cpus = len(affine) or os.cpu_count() or 1
    return allowed(Resources(cpus, psutil.virtual_memory().total), cgroup_limits())


def allowed(has: Resources, limits: Limits) -> Resources:
    """What may be used of what there is.

    Args:
        has: what there is.
        limits: what control groups allow.

    Returns:
        The least of each. A quota is rounded up: with 1.5 CPUs, two processes can compute at once.
    """
    quota = None if limits.quota is None else math.ceil(limits.quota)
    cpus = min(each for each in (has.cpus, limits.cpuset, quota) if each is not None)
    memory = has.memory if limits.memory is None else min(has.memory, limits.memory)
    return Resources(max(1, cpus), memory)


def cgroup_limits(root: Path = Path("/")) -> Limits:
    """The limits of this process's own control groups and of all above them that can be seen.

    Versions 1 and 2 are read, and both where a system has both. In a container, the groups above
    its own are seldom visible; the limits of its own hold there.

    Args:
        root: the root of the file system.
    """
    found: list[Limits] = []
    for hierarchy in _hierarchies(root):
        found += map(_of_v2 if hierarchy.unified else _of_v1, hierarchy.folders())
    return Limits(
        min((each.cpuset for each in found if each.cpuset is not None), default=None),
        min((each.quota for each in found if each.quota is not None), default=None),
        min((each.memory for each in found if each.memory is not None), default=None),
    )


@dataclass(frozen=True)
class _Hierarchy:
    """A tree of control groups that is mounted, and this process's place in it.

    Attributes:
        unified: whether it is that of version 2.
        mount: the folder in which it is mounted.
        below: the path of the process's group below that folder.
    """

    unified: bool
    mount: Path
    below: PurePosixPath

    def folders(self) -> Iterator[Path]:
        """The folder of the process's own group, then those above it."""
        for path in (self.below, *self.below.parents):
            yield self.mount / path


def _hierarchies(root: Path) -> Iterator[_Hierarchy]:
    own = _own_groups(root)
    for line in _lines(root / "proc/self/mountinfo"):
        # See proc_pid_mountinfo(5): the fields before " - " vary in number.
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        top, mounted = PurePosixPath(_unescaped(fields[3])), _unescaped(fields[4])
        mount = root / mounted.lstrip("/")
        if kind[0] == "cgroup2" and "" in own:
            yield _Hierarchy(True, mount, _below(own[""], top))
        elif kind[0] == "cgroup":
            for controller in {"cpu", "cpuset", "memory"} & set(kind[2].split(",")) & set(own):
                yield _Hierarchy(False, mount, _below(own[controller], top))


def _own_groups(root: Path) -> dict[str, PurePosixPath]:
    """The group of this process for each controller of version 1, and for version 2 by ``""``."""
    groups = {}
    for line in _lines(root / "proc/self/cgroup"):
        fields = line.split(":", 2)
        if len(fields) == 3:
            for controller in fields[1].split(","):
                groups[controller] = PurePosixPath(fields[2])
    return groups


def _below(group: PurePosixPath, top: PurePosixPath) -> PurePosixPath:
    """The path of a group below the folder in which the group ``top`` is mounted. A group outside
    of what is mounted cannot be seen: the limits of the topmost one hold, if any."""
    if ".." in group.parts or not group.is_relative_to(top):
        return PurePosixPath()
    return group.relative_to(top)


def _of_v2(folder: Path) -> Limits:
    quota = None
    allowance, period = ([*_text(folder / "cpu.max").split(), "", ""])[:2]
    if allowance.isdecimal() and period.isdecimal() and int(period):
        quota = int(allowance) / int(period)
    memory = _text(folder / "memory.max")
    return Limits(
        _cpus_of(_text(folder / "cpuset.cpus.effective")),
        quota,
        int(memory) if memory.isdecimal() else None,
    )


def _of_v1(folder: Path) -> Limits:
    quota = None
    allowance = _text(folder / "cpu.cfs_quota_us")  # -1 for none
    period = _text(folder / "cpu.cfs_period_us")
    if allowance.isdecimal() and period.isdecimal() and int(period):
        quota = int(allowance) / int(period)
    cpuset = _text(folder / "cpuset.effective_cpus") or _text(folder / "cpuset.cpus")
    memory = _text(folder / "memory.limit_in_bytes")  # without a limit, more than a machine has
    return Limits(_cpus_of(cpuset), quota, int(memory) if memory.isdecimal() else None)


def _cpus_of(ranges: str) -> int | None:
    """How many CPUs a list such as ``0-3,8`` has; None for an empty or unreadable one."""
    cpus = 0
    try:
        for each in filter(None, ranges.split(",")):
            first, _, last = each.partition("-")
            cpus += int(last or first) - int(first) + 1
    except ValueError:
        return None
    return cpus or None


def _unescaped(path: str) -> str:
    r"""A path of mountinfo, in which a space is ``\040``."""
    for escaped, character in (("\\040", " "), ("\\011", "\t"), ("\\134", "\\")):
        path = path.replace(escaped, character)
    return path


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip()
    return ""
