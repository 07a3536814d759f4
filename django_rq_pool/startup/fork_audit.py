"""Fork audit: finds threads and sockets of the manager that forked workers would miss or share.

Rule of the room: it reports, each finding with what it means and what to do about it, and changes
nothing. What is known to be harmless is told as such, and no reason to refuse a start.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import StartError
from ..system import processes
from ..text import listed
from .known_threads import (
    NAMELESS_THREAD,
    NATIVE_THREAD,
    PYTHON_THREAD,
    Kind,
    KnownThread,
    known,
)

_TASKS = Path("/proc/self/task")
_DESCRIPTORS = Path("/dev/fd")
"""This process's, on Linux and macOS alike."""

_WRAPPERS = (threading.__name__, "sentry_sdk.integrations.threading")
"""Modules in which every thread begins, whatever it runs."""

_SHOWN = 3
"""The most names of threads in a finding."""

_NAME_LENGTH = 15
"""The most bytes of a thread's name that the kernel keeps."""


class ForkError(StartError):
    """This process holds what must not be forked, and ``strict_fork`` is set; the text says
    what."""


@dataclass(frozen=True)
class Finding:
    """What a forked worker would miss or share.

    Attributes:
        text: a sentence or two, with what to do about it.
        kind: what it means to workers.
    """

    text: str
    kind: Kind

    @property
    def counts(self) -> bool:
        """Whether ``--strict-fork`` refuses to start because of it."""
        return self.kind is not Kind.HARMLESS


def audit() -> tuple[Finding, ...]:
    """Looks at this process before its first fork.

    Returns:
        A finding for each thread and each socket that a forked worker would miss or share.
    """
    return (*_threads(), *_sockets())


# Threads


def _threads() -> Iterator[Finding]:
    python, native = _python_threads(), _native_threads()
    if python or native:
        # Libraries such as OpenBLAS, which numpy brings, stop their threads before any fork and
        # start others when they need them. A finding is what a fork leaves running.
        with contextlib.suppress(OSError):
            processes.rehearse_fork()
        python = {tid: each for tid, each in _python_threads().items() if tid in python}
        native = {tid: name for tid, name in _native_threads().items() if tid in native}
    yield from _known([*python.values(), *((name, None) for name in native.values())])
    for name, module in python.values():
        if known(name, module) is None:
            whose = f"{name!r} of {module}" if module else repr(name)
            yield Finding(f"Thread {whose} runs in the manager: {PYTHON_THREAD}", Kind.MISSING)
    own_names = _own_names()
    for name, number in Counter(native.values()).items():
        if known(name, None) is None:
            whose = f"A library's thread {name!r} runs"
            if number > 1:
                whose = f"{number} of a library's threads {name!r} run"
            sentence = NAMELESS_THREAD if name in own_names else NATIVE_THREAD
            yield Finding(f"{whose} in the manager: {sentence}", Kind.MAY_HANG)


def _known(threads: Iterable[tuple[str, str | None]]) -> Iterator[Finding]:
    """One finding for all threads of which the same is known."""
    names: dict[KnownThread, dict[str, None]] = {}
    for name, module in threads:
        row = known(name, module)
        if row is not None:
            names.setdefault(row, {})[name] = None
    for row, found in names.items():
        shown = listed(list(found)[:_SHOWN])
        if len(found) > _SHOWN:
            shown += f" and {len(found) - _SHOWN} more"
        subject = f"Thread {shown} ({row.library}) runs"
        if len(found) > 1:
            subject = f"Threads {shown} ({row.library}) run"
        yield Finding(f"{subject} in the manager: {row.sentence}", row.kind)


def _python_threads() -> dict[int, tuple[str, str]]:
    """Every other thread that Python knows: its name and the module whose code it runs."""
    found = {}
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.native_id is None:
            continue
        frame, module = frames.get(thread.ident or 0), ""
        while frame is not None:
            name = frame.f_globals.get("__name__", "")
            module = module if name in _WRAPPERS else name
            frame = frame.f_back
        found[thread.native_id] = (thread.name, module)
    return found


def _native_threads() -> dict[int, str]:
    """The threads that Python does not know, by what the kernel calls them (Linux)."""
    known_tids = {os.getpid(), *(thread.native_id for thread in threading.enumerate())}
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for task in _TASKS.iterdir():
            with contextlib.suppress(OSError):  # it has ended
                name = _name_of(task)
                if int(task.name) not in known_tids:
                    found[int(task.name)] = name
    return found


def _own_names() -> set[str]:
    """What the kernel may call a thread that has given itself no name: the name of the process when
    it was started, which the process may have changed since."""
    paths = (sys.executable, *sys.orig_argv[:1], *sys.argv[:1])
    names = {Path(path).name[:_NAME_LENGTH] for path in paths}
    with contextlib.suppress(OSError):
        names.add(_name_of(_TASKS / str(os.getpid())))
    return names


def _name_of(task: Path) -> str:
    return (task / "comm").read_text().rstrip("\n")


# Sockets


def _sockets() -> Iterator[Finding]:
    for fd in _descriptors():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as each:
            if each.type == socket.SOCK_DGRAM:
                continue  # a datagram arrives whole, whoever sends it: syslog, statsd
            yield Finding(
                f"Socket {fd} ({_describe(each)}) is open in the manager: workers would talk on it "
                "all at once. Close it before the pool forks, or open it in an after_prefork hook.",
                Kind.MAY_HANG,
            )


def _descriptors() -> list[int]:
    """The descriptors of sockets, the standard streams' left out: journald gives sockets there."""
    standard, found = set(), []
    try:
        fds = sorted(int(entry.name) for entry in _DESCRIPTORS.iterdir())
    except FileNotFoundError:
        return []
    for fd in fds:
        try:
            status = os.fstat(fd)
        except OSError:  # what the folder was read with
            continue
        file = status.st_dev, status.st_ino
        if fd <= 2:
            standard.add(file)
        elif stat.S_ISSOCK(status.st_mode) and file not in standard:
            found.append(fd)
    return found


def _describe(each: socket.socket) -> str:
    """What kind of socket it is, and whom it talks to, or else where it listens."""
    kinds = {socket.AF_INET: "TCP", socket.AF_INET6: "TCP", socket.AF_UNIX: "Unix"}
    kind = kinds.get(each.family, getattr(each.family, "name", f"family {each.family}"))
    try:
        return f"{kind}, to {_address(each.getpeername())}"
    except OSError:  # it has no peer
        return f"{kind}, at {_address(each.getsockname())}"


def _address(address: object) -> str:
    if isinstance(address, tuple):
        host, port = map(str, address[:2])
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(address, bytes):  # of the abstract kind
        return "@" + address.lstrip(b"\0").decode(errors="replace")
    return str(address) or "a socket without a name"
