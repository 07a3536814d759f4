"""Another user of the host: what one can do to files that are not theirs, done for real."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest

ANOTHER = 12345
"""A user that nobody is."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@contextlib.contextmanager
def another_user(act: Callable[[], object]) -> Iterator[bool]:
    """Has a process of another user do something, and stay until the block ends.

    Yields:
        Whether it could be done; the system may forbid it.
    """
    done_reads, done_writes = os.pipe()
    over_reads, over_writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(over_writes)
            os.setgroups([])
            os.setresgid(ANOTHER, ANOTHER, ANOTHER)
            os.setresuid(ANOTHER, ANOTHER, ANOTHER)
            try:
                kept = act()  # noqa: F841 - open files stay open
                os.write(done_writes, b"y")
            except OSError:
                os.write(done_writes, b"n")
            os.read(over_reads, 1)
        finally:
            os._exit(0)
    os.close(over_reads)
    os.close(done_writes)
    try:
        yield os.read(done_reads, 1) == b"y"
    finally:
        os.close(over_writes)
        os.close(done_reads)
        os.waitpid(pid, 0)
