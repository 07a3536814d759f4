"""Stacks: what a forked process shows of itself when it hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from django_rq_pool.system import processes, stacks
from django_rq_pool.system.signals import SHOW_STACK
from harness import eventually

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has them")


@pytest.fixture
def stack_file() -> Iterator[stacks.StackFile]:
    file = stacks.StackFile()
    yield file
    file.close()


@pytest.fixture
def forked() -> Iterator[Callable[[Callable[[], int]], int]]:
    """Forks a process that runs a function; it is killed after the test."""
    pids: list[int] = []

    def fork(child: Callable[[], int]) -> int:
        pids.append(processes.fork(child))
        return pids[-1]

    yield fork
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def arrived() -> Iterator[tuple[int, int]]:
    """A pipe to which a forked process writes when it is where it shall be."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def wait_for_nobody(arrived: tuple[int, int]) -> int:
    lock = threading.Lock()
    lock.acquire()
    os.write(arrived[1], b".")
    lock.acquire()
    return 0


def pause(arrived: tuple[int, int]) -> int:
    os.write(arrived[1], b".")
    signal.pause()
    return 0


def test_a_process_that_hangs_with_its_signals_blocked_shows_where(stack_file, forked, arrived):
    pid = forked(lambda: wait_for_nobody(arrived))
    os.read(arrived[0], 1)
    stack_file.ask(pid)
    text = eventually(lambda: "wait_for_nobody" in stack_file.read() and stack_file.read())
    assert f'File "{__file__}", line' in text
    assert stacks.place(text).startswith(f"wait_for_nobody, {__file__} line ")
    assert len(text.splitlines()) == 3  # what called the fork is its parent's


def test_each_is_heard_for_itself(stack_file, forked, arrived):
    first, second = forked(lambda: pause(arrived)), forked(lambda: wait_for_nobody(arrived))
    assert len(os.read(arrived[0], 1) + os.read(arrived[0], 1)) == 2
    stack_file.ask(first)
    eventually(lambda: "in pause" in stack_file.read())
    # It pauses no longer, and has written all of its stack when it has ended.
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    stack_file.ask(second)
    eventually(lambda: "in wait_for_nobody" in stack_file.read())
    assert "in pause" not in stack_file.read()


def test_a_process_that_does_not_hang_shows_nothing_more(stack_file, forked):
    def forget() -> int:
        stacks.forget()
        signal.pause()
        return 0

    pid = forked(forget)
    eventually(lambda: not _is_caught(pid))
    assert stack_file.read() == ""


def _is_caught(pid: int) -> bool:
    """Whether a process handles the signal, by what the system knows (Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        pytest.skip("this system does not tell which signals a process handles")
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(mask, 16) >> (SHOW_STACK - 1) & 1)


def test_the_signal_has_its_own_action_again_after_the_end(stack_file):
    assert _is_caught(os.getpid())
    stack_file.close()
    assert not _is_caught(os.getpid())


def test_a_system_without_room_for_the_file_has_no_stacks(monkeypatch):
    def refuse(name: str) -> int:
        raise OSError("no file today")

    monkeypatch.setattr(os, "memfd_create", refuse)
    file = stacks.StackFile()
    file.ask(os.getpid())
    assert file.read() == ""
    file.close()


STORM = """
import os, signal
from django_rq_pool.planning.phases import MANAGER_SIGNALS
from django_rq_pool.system import signals, stacks

file = stacks.StackFile()
inbox = signals.SignalInbox(MANAGER_SIGNALS)
for _ in range(100):
    with signals.blocked():
        for number in MANAGER_SIGNALS:
            os.kill(os.getpid(), number)
    assert len(inbox.take()) == len(MANAGER_SIGNALS)
"""


def test_any_number_of_signals_may_come_at_once_all_the_same():
    # Each needs a frame on the stack of signals, and the one that faulthandler brings is small.
    done = subprocess.run([sys.executable, "-c", STORM], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


STACK = """\
Thread 0x1 (most recent call first):
  File "/srv/shop/elsewhere.py", line 1 in other

Current thread 0x2 (most recent call first):
  File "{library}/threading.py", line 327 in wait
  File "{library}/site-packages/agent/core.py", line 12 in start
  File "/srv/shop/rqpool.py", line 7 in connect

Thread 0x3 (most recent call first):
  File "/srv/shop/elsewhere.py", line 1 in other
"""


def test_the_place_is_the_innermost_call_outside_of_pythons_library():
    library = Path(threading.__file__).parent
    text = STACK.format(library=library)
    assert stacks.place(text) == f"start, {library}/site-packages/agent/core.py line 12"
    inner = 'Current thread 0x2 (most recent call first):\n  File "<frozen os>", line 3 in read\n'
    assert stacks.place(inner) == "read, <frozen os> line 3"


@pytest.mark.parametrize("text", ["", "Current thread 0x2 (most recent call first):\n  <no frame>"])
def test_a_stack_that_says_nothing_has_no_place(text):
    assert stacks.place(text) == ""
