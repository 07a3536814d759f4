"""Fork audit: finds threads and sockets of the manager that forked workers would miss or share.

Rule of the room: it reports, each finding with what to do about it, and changes nothing. What is
known to survive a fork is no finding: a warning that nobody can act on is noise.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..errors import StartError
from ..system import processes

_TASKS = Path("/proc/self/task")
_DESCRIPTORS = Path("/dev/fd")
"""This process's, on Linux and macOS alike."""

_SURVIVES_FORKS = "jemalloc_bg_thd"
"""What the kernel calls jemalloc's thread (pyarrow brings one): its own fork handlers restart
it."""


class ForkError(StartError):
    """This process holds what must not be forked, and ``strict_fork`` is set; the text says
    what."""


def audit() -> tuple[str, ...]:
    """Looks at this process before its first fork.

    Returns:
        A sentence or two for each thread and each socket that a forked worker would miss or share.
    """
    return (*_threads(), *_sockets())


# Threads


def _threads() -> Iterator[str]:
    python, native = _python_threads(), _native_threads()
    if python or native:
        # Libraries such as OpenBLAS, which numpy brings, stop their threads before any fork and
        # start others when they need them. A finding is what a fork leaves running.
        with contextlib.suppress(OSError):
            processes.rehearse_fork()
        python = {tid: text for tid, text in _python_threads().items() if tid in python}
        native = {tid: name for tid, name in _native_threads().items() if tid in native}
    for text in python.values():
        yield (
            f"Thread {text} runs in the manager: workers do not have it, and a lock that it holds "
            "at a fork stays locked in them. Start it in an after_prefork hook."
        )
    for name, number in Counter(native.values()).items():
        threads = f"A library's thread {name!r} runs"
        if number > 1:
            threads = f"{number} of a library's threads {name!r} run"
        yield (
            f"{threads} in the manager: workers do not have it, and may wait for it for ever. Use "
            "the library in jobs only, not while modules are imported. One that computes with "
            "OpenMP starts no thread when the environment has OMP_NUM_THREADS=1."
        )


def _python_threads() -> dict[int, str]:
    """Every other thread that Python knows: its name and the module whose code it runs."""
    found = {}
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.native_id is None:
            continue
        frame, module = frames.get(thread.ident or 0), ""
        while frame is not None:
            name = frame.f_globals.get("__name__", "")
            module = module if name == threading.__name__ else name
            frame = frame.f_back
        found[thread.native_id] = repr(thread.name) + (f" of {module}" if module else "")
    return found


def _native_threads() -> dict[int, str]:
    """The threads that Python does not know, by what the kernel calls them (Linux)."""
    known = {os.getpid(), *(thread.native_id for thread in threading.enumerate())}
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for task in _TASKS.iterdir():
            with contextlib.suppress(OSError):  # it has ended
                name = (task / "comm").read_text().rstrip("\n")
                if int(task.name) not in known and name != _SURVIVES_FORKS:
                    found[int(task.name)] = name
    return found


# Sockets


def _sockets() -> Iterator[str]:
    for fd in _descriptors():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as each:
            if each.type == socket.SOCK_DGRAM:
                continue  # a datagram arrives whole, whoever sends it: syslog, statsd
            yield (
                f"Socket {fd} ({_describe(each)}) is open in the manager: workers would talk on it "
                "all at once. Close it before the pool forks, or open it in an after_prefork hook."
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
