"""Control groups: what a process may use, read from made-up trees of every kind and a real one."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from django_rq_pool.system.cgroups import (
    Limits,
    Resources,
    allowed,
    cgroup_limits,
    usable_resources,
)

V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1_CPU = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:4 - cgroup cgroup rw,cpu,cpuacct"
V1_CPUSET = "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
V1_MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
UNLIMITED_IN_V1 = "9223372036854771712"

UNIFIED = Path("sys/fs/cgroup")
"""Where most systems mount version 2."""


class Tree:
    """A made-up root of a file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)

    def process(self, groups: str, *mounts: str) -> None:
        """Says in which groups the process is, and what is mounted."""
        (self.root / "proc/self/cgroup").write_text(groups)
        other = "22 1 8:1 / / rw,relatime - ext4 /dev/root rw"
        (self.root / "proc/self/mountinfo").write_text("\n".join((other, *mounts, "")))

    def group(self, folder: Path | str, **files: str) -> None:
        """Makes a group; a dot in a file's name is two underscores here."""
        path = self.root / folder
        path.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (path / name.replace("__", ".")).write_text(f"{text}\n")

    def limits(self) -> Limits:
        return cgroup_limits(self.root)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


# Version 2


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", None),
        ("200000 100000", 2.0),
        ("150000 100000", 1.5),
        ("5000 100000", 0.05),
        ("", None),
        ("1000", None),
        ("1000 0", None),
        ("many 100000", None),
    ],
)
def test_a_quota_of_version_2_is_seconds_per_second(tree, quota, expected):
    tree.process("0::/app\n", V2)
    tree.group(UNIFIED / "app", cpu__max=quota)
    assert tree.limits() == Limits(quota=expected)


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [("0", 1), ("0-3", 4), ("0-1,6", 3), ("0,2,4-7,9", 7), ("", None), ("all", None)],
)
def test_a_set_of_cpus_is_counted(tree, cpus, expected):
    tree.process("0::/app\n", V2)
    tree.group(UNIFIED / "app", cpuset__cpus__effective=cpus)
    assert tree.limits() == Limits(cpuset=expected)


@pytest.mark.parametrize(("memory", "expected"), [("max", None), ("536870912", 2**29)])
def test_memory_of_version_2_is_in_bytes_or_without_limit(tree, memory, expected):
    tree.process("0::/app\n", V2)
    tree.group(UNIFIED / "app", memory__max=memory)
    assert tree.limits() == Limits(memory=expected)


def test_the_least_of_a_group_and_of_those_above_it_holds(tree):
    tree.process("0::/pods/pod7/app\n", V2)
    tree.group(UNIFIED / "pods", cpu__max="300000 100000", memory__max="4000")
    tree.group(UNIFIED / "pods/pod7", cpu__max="max 100000", memory__max="1000")
    tree.group(
        UNIFIED / "pods/pod7/app",
        cpu__max="400000 100000",
        memory__max="max",
        cpuset__cpus__effective="0-7",
    )
    tree.group(UNIFIED / "pods/pod8", cpu__max="100000 100000", memory__max="1")
    assert tree.limits() == Limits(cpuset=8, quota=3.0, memory=1000)


def test_in_a_container_the_topmost_group_is_its_own(tree):
    """As with a control group namespace: the process sees itself at the top."""
    tree.process("0::/\n", V2)
    tree.group(UNIFIED, cpu__max="50000 100000", memory__max="1000")
    assert tree.limits() == Limits(quota=0.5, memory=1000)


@pytest.mark.parametrize("group", ["/../../other", "/docker/abc", "/docker/abc/deep"])
def test_a_group_that_is_not_in_what_is_mounted_has_the_limits_of_what_is(tree, group):
    tree.process(f"0::{group}\n", V2.replace(" / /sys", " /mine /sys"))
    tree.group(UNIFIED, cpu__max="50000 100000")
    assert tree.limits() == Limits(quota=0.5)


def test_a_part_of_the_tree_may_be_mounted(tree):
    tree.process("0::/docker/abc/deep\n", V2.replace(" / /sys", " /docker/abc /sys"))
    tree.group(UNIFIED, memory__max="4000")
    tree.group(UNIFIED / "deep", memory__max="3000")
    assert tree.limits() == Limits(memory=3000)


def test_it_may_be_mounted_in_a_folder_with_a_space(tree):
    tree.process("0::/\n", V2.replace("/sys/fs/cgroup", "/control\\040groups"))
    tree.group("control groups", memory__max="4000")
    assert tree.limits() == Limits(memory=4000)


# Version 1, and both


def test_version_1_has_a_tree_for_each_controller(tree):
    tree.process(
        "5:memory:/app/job\n4:cpuset:/app\n3:cpu,cpuacct:/app/job\n1:name=systemd:/\n",
        V1_CPU,
        V1_CPUSET,
        V1_MEMORY,
    )
    tree.group(UNIFIED / "cpu,cpuacct/app", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    tree.group(UNIFIED / "cpu,cpuacct/app/job", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    tree.group(UNIFIED / "cpuset/app", cpuset__effective_cpus="0-2", cpuset__cpus="0-7")
    tree.group(UNIFIED / "memory/app", memory__limit_in_bytes="4000")
    tree.group(UNIFIED / "memory/app/job", memory__limit_in_bytes=UNLIMITED_IN_V1)
    assert tree.limits() == Limits(cpuset=3, quota=2.5, memory=4000)


def test_an_older_kernel_has_the_set_of_cpus_only_as_it_was_configured(tree):
    tree.process("4:cpuset:/app\n", V1_CPUSET)
    tree.group(UNIFIED / "cpuset/app", cpuset__cpus="0-4")
    assert tree.limits() == Limits(cpuset=5)


def test_a_system_with_both_versions_may_have_limits_in_either(tree):
    tree.process(
        "5:memory:/app\n3:cpu,cpuacct:/\n0::/app\n",
        V1_CPU,
        V1_MEMORY,
        V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
    )
    tree.group(UNIFIED / "memory/app", memory__limit_in_bytes="4000")
    tree.group(UNIFIED / "unified/app", cpu__max="100000 100000")
    assert tree.limits() == Limits(quota=1.0, memory=4000)


# Neither


def test_a_system_without_control_groups_has_no_limits(tree):
    assert tree.limits() == Limits()
    tree.process("", "")
    assert tree.limits() == Limits()


def test_lines_that_nobody_understands_limit_nothing(tree):
    tree.process("0\nnonsense\n0::/app\n", "- - -", "31 23 - cgroup2", V2)
    tree.group(UNIFIED / "app", memory__max="4000")
    (tree.root / UNIFIED / "app" / "cpu.max").write_bytes(b"\xff\xff 1")
    assert tree.limits() == Limits(memory=4000)


# What may be used


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(), Resources(8, 1000)),
        (Limits(cpuset=3), Resources(3, 1000)),
        (Limits(quota=1.5), Resources(2, 1000)),
        (Limits(quota=0.05), Resources(1, 1000)),
        (Limits(quota=0.0), Resources(1, 1000)),
        (Limits(cpuset=6, quota=4.0, memory=10), Resources(4, 10)),
        (Limits(cpuset=64, quota=64.0, memory=int(UNLIMITED_IN_V1)), Resources(8, 1000)),
    ],
)
def test_the_least_counts_and_a_part_of_a_cpu_is_one(limits, expected):
    assert allowed(Resources(8, 1000), limits) == expected


def test_resources_can_be_read():
    assert str(Resources(1, 2**29)) == "1 CPU, 0.5 GB of memory"
    assert str(Resources(12, 4 * 2**30)) == "12 CPUs, 4.0 GB of memory"


def test_this_process_may_use_what_its_system_says(monkeypatch):
    here = usable_resources()
    assert 1 <= here.cpus <= (os.cpu_count() or 1)
    assert 0 < here.memory <= psutil.virtual_memory().total
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert usable_resources().cpus == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_resources().cpus >= 1
