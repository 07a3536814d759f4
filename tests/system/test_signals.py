"""The inbox of signals: nothing is lost, and a wait ends when something arrives."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from django_rq_pool.planning.phases import MANAGER_SIGNALS
from django_rq_pool.system.signals import Interrupted, SignalInbox, blocked, time_limit, unblock
from harness import eventually

KINDS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGWINCH, signal.SIGCONT]
FOR_EVER = 30.0
"""Seconds: a wait that ends long before this was ended by something."""


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    numbers = {*MANAGER_SIGNALS, signal.SIGCHLD}
    handlers = {number: signal.getsignal(number) for number in numbers}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    wakeup_fd = signal.set_wakeup_fd(-1)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.set_wakeup_fd(wakeup_fd)


@pytest.fixture
def inbox() -> Iterator[SignalInbox]:
    inbox = SignalInbox(MANAGER_SIGNALS)
    yield inbox
    inbox.close()


def send(number: int) -> None:
    signal.raise_signal(number)  # to this thread: others of the test runner may be there


def seconds(started: float) -> float:
    return time.monotonic() - started


def test_nothing_has_arrived_before_anything_is_sent(inbox):
    assert inbox.take() == []


@pytest.mark.parametrize("number", MANAGER_SIGNALS)
def test_a_signal_is_noted_and_taken_once(inbox, number):
    send(number)
    assert inbox.take() == [number]
    assert inbox.take() == []


def test_a_signal_that_ends_the_process_is_noted_for_the_case_that_something_swallows_it(inbox):
    inbox.exit_on([signal.SIGTERM])
    with pytest.raises(SystemExit) as caught:
        send(signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert inbox.take() == [signal.SIGTERM]


def test_what_is_taken_has_a_name(inbox):
    send(signal.SIGHUP)
    assert [number.name for number in inbox.take()] == ["SIGHUP"]


def test_different_signals_are_taken_in_the_order_of_their_last_arrivals(inbox):
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        send(number)
    assert inbox.take() == [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


def test_a_thousand_signals_coalesce_and_no_kind_is_lost(inbox):
    for number in range(1000):
        send(signal.SIGUSR1)
        if number % 250 == 0:
            send(KINDS[1 + number // 250])
    assert sorted(inbox.take()) == sorted(KINDS)
    assert inbox.take() == []


def test_a_full_wakeup_pipe_loses_no_signal(inbox):
    for _ in range(70_000):
        send(signal.SIGUSR1)
    send(signal.SIGTERM)
    assert inbox.wait([], FOR_EVER) == set()
    assert inbox.take() == [signal.SIGUSR1, signal.SIGTERM]


def test_a_signal_that_came_before_a_wait_ends_it(inbox):
    send(signal.SIGUSR1)
    started = time.monotonic()
    assert inbox.wait([], FOR_EVER) == set()
    assert seconds(started) < FOR_EVER / 2


def test_a_signal_that_comes_during_a_wait_ends_it():
    inbox = SignalInbox([signal.SIGALRM])
    try:
        started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        assert inbox.wait([], FOR_EVER) == set()
        assert seconds(started) < FOR_EVER / 2
        assert inbox.take() == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        inbox.close()


def test_the_death_of_a_child_ends_a_wait_and_is_not_reported(inbox):
    send(signal.SIGCHLD)
    started = time.monotonic()
    assert inbox.wait([], FOR_EVER) == set()
    assert seconds(started) < FOR_EVER / 2
    assert inbox.take() == []


def test_a_signal_ends_one_wait_only(inbox):
    send(signal.SIGUSR1)
    inbox.wait([], FOR_EVER)
    started = time.monotonic()
    assert inbox.wait([], 0.02) == set()
    assert seconds(started) >= 0.02


def test_a_wait_is_never_shorter_than_asked(inbox):
    started = time.monotonic()
    inbox.wait([], 0.0101)
    assert seconds(started) >= 0.0101


@pytest.mark.parametrize("timeout", [0, 0.0, -1.0])
def test_a_wait_without_time_only_looks(inbox, timeout):
    started = time.monotonic()
    assert inbox.wait([], timeout) == set()
    assert seconds(started) < FOR_EVER / 2


def test_a_wait_returns_the_descriptors_that_are_readable(inbox):
    read_end, write_end = os.pipe()
    quiet_read_end, quiet_write_end = os.pipe()
    try:
        assert inbox.wait([read_end, quiet_read_end], 0) == set()
        os.write(write_end, b"!")
        assert inbox.wait([read_end, quiet_read_end], None) == {read_end}
        send(signal.SIGUSR1)
        assert inbox.wait([read_end, quiet_read_end], None) == {read_end}
    finally:
        for fd in (read_end, write_end, quiet_read_end, quiet_write_end):
            os.close(fd)


def test_the_end_of_a_file_counts_as_readable(inbox):
    read_end, write_end = os.pipe()
    os.close(write_end)
    try:
        assert inbox.wait([read_end], None) == {read_end}
    finally:
        os.close(read_end)


def test_a_closed_inbox_gives_every_signal_its_default_action_back():
    SignalInbox(MANAGER_SIGNALS).close()
    for number in (*MANAGER_SIGNALS, signal.SIGCHLD):
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        assert signal.getsignal(number) == default
    assert signal.set_wakeup_fd(-1) == -1


def test_an_inbox_gives_each_signal_and_the_wakeup_descriptor_back():
    def own(number: int, frame: object) -> None:
        pass

    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    try:
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, own)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        inbox = SignalInbox(MANAGER_SIGNALS)
        inbox.exit_on([signal.SIGTERM])
        inbox.catch([signal.SIGTERM])
        inbox.give_back()
        assert signal.getsignal(signal.SIGCHLD) is signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGQUIT) == signal.SIG_DFL
        assert signal.set_wakeup_fd(-1) == write_end
    finally:
        os.close(read_end)
        os.close(write_end)


@pytest.mark.parametrize("left", [500.0, 0.001])
def test_a_timer_goes_on_after_a_time_limit(left):
    rung = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    try:
        with time_limit(FOR_EVER, "never"):
            pass
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        signal.setitimer(signal.ITIMER_REAL, left, 600.0)
        with time_limit(FOR_EVER, "never"):
            while left < 1 and signal.getitimer(signal.ITIMER_REAL)[0] > FOR_EVER - 0.01:
                pass  # its time comes in the block
        if left < 1:
            eventually(lambda: rung == [signal.SIGALRM])
            assert signal.getitimer(signal.ITIMER_REAL)[1] == 600.0
        else:
            after, interval = signal.getitimer(signal.ITIMER_REAL)
            assert 0 < after < left
            assert interval == 600.0
            assert rung == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_signals_are_held_back_while_blocked_and_none_is_lost(inbox):
    with blocked():
        for number in KINDS:
            send(number)
        assert inbox.take() == []
    assert sorted(inbox.take()) == sorted(KINDS)


def test_blocking_ends_with_the_mask_that_was_there_before(inbox):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    with blocked(), blocked():
        send(signal.SIGHUP)
        send(signal.SIGUSR1)
    assert inbox.take() == [signal.SIGUSR1]
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert inbox.take() == [signal.SIGHUP]


def test_blocking_ends_when_the_block_raises(inbox):
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(OSError, match="no memory"), blocked():
        raise OSError("no memory")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_unblocking_lets_every_signal_through_at_once(inbox):
    with blocked():
        send(signal.SIGUSR2)
        unblock()
        assert inbox.take() == [signal.SIGUSR2]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_signals_may_arrive_while_others_are_taken():
    # A handler runs between any two bytecodes, those of `take` among them.
    inbox = SignalInbox(KINDS)
    stop = threading.Event()
    pid = os.getpid()

    def storm() -> None:
        while not stop.is_set():
            for number in KINDS:
                os.kill(pid, number)

    sender = threading.Thread(target=storm)
    sender.start()
    try:
        taken = 0
        while taken < 500:
            taken += len(inbox.take())
    finally:
        stop.set()
        sender.join()
        inbox.take()
        inbox.close()


def test_a_signal_ends_a_block_that_asks_for_that_and_is_noted_all_the_same(inbox):
    with inbox.interruptible([signal.SIGQUIT]):
        send(signal.SIGHUP)  # another one ends nothing
        with pytest.raises(Interrupted):
            send(signal.SIGQUIT)
    send(signal.SIGQUIT)  # after the block
    assert inbox.take() == [signal.SIGHUP, signal.SIGQUIT]


def test_a_block_ends_before_it_begins_where_its_signal_has_come_before(inbox):
    send(signal.SIGQUIT)
    with pytest.raises(Interrupted), inbox.interruptible([signal.SIGQUIT]):
        pytest.fail("it begins")
    assert inbox.take() == [signal.SIGQUIT]


def test_a_block_is_ended_once(inbox):
    with inbox.interruptible([signal.SIGQUIT]):
        with pytest.raises(Interrupted):
            send(signal.SIGQUIT)
        send(signal.SIGQUIT)  # so that it can be cleaned up in peace
