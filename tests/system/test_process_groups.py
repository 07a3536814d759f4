"""A signal to a child and its process group arrives once, whenever the child leads that."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from django_rq_pool.system import processes

Start = Callable[..., tuple[int, int]]


def _count(arrived: int, *, leads: bool, children: int) -> None:
    """Writes a byte for each signal that comes, in as many processes as asked for."""
    if leads:
        processes.lead_process_group()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGUSR1, lambda *_: os.write(arrived, b"."))
    for _ in range(children):
        if os.fork() == 0:
            break
    os.write(arrived, b"ready ")
    while True:
        signal.pause()


@pytest.fixture
def start() -> Iterator[Start]:
    """Forks a child that counts signals; returns its pid and what it writes to."""
    pids: list[int] = []

    def fork(*, leads: bool, children: int = 0) -> tuple[int, int]:
        receiver, sender = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _count(sender, leads=leads, children=children)
            finally:
                os._exit(1)
        os.close(sender)
        pids.append(pid)
        text = b""
        while text.count(b"ready ") <= children:
            text += os.read(receiver, 100)
        return pid, receiver

    yield fork
    for pid in pids:
        processes.signal_child_and_group(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def arrived(pid: int, receiver: int) -> bytes:
    """What has come when the processes have ended, which the next signal makes them do."""
    processes.signal_child_and_group(pid, signal.SIGTERM)
    text = b""
    while more := os.read(receiver, 100):
        text += more
    os.close(receiver)
    return text


@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("children", [0, 2])
def test_each_process_gets_it_once(start, leads, children):
    pid, receiver = start(leads=leads, children=children if leads else 0)
    text = b""
    processes.signal_child_and_group(pid, signal.SIGUSR1)
    while len(text) <= (children if leads else 0):
        text += os.read(receiver, 100)
    text += arrived(pid, receiver)
    assert text == b"." * (1 + (children if leads else 0))


def test_our_own_group_gets_nothing_however_early_it_is(start):
    pid, receiver = start(leads=False)
    assert os.getpgid(pid) == os.getpgid(0)
    processes.signal_child_and_group(pid, signal.SIGTERM)  # would end this process
    assert os.read(receiver, 100) == b""
    os.close(receiver)


def test_one_that_has_left_its_group_gets_it_too(start):
    first, first_receiver = start(leads=True)
    pid, receiver = start(leads=True)
    os.setpgid(pid, first)
    processes.signal_child_and_group(pid, signal.SIGUSR1)
    assert os.read(receiver, 100) == b"."
    assert arrived(pid, receiver) == b""
    os.close(first_receiver)


def test_one_that_has_ended_gets_nothing():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    processes.signal_child_and_group(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
