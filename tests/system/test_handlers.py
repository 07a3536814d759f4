"""What a process forks has none of its signal handlers, and no signal is lost on the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

PREAMBLE = """
import os, signal, subprocess, threading
from django_rq_pool.system.handlers import Handlers, do_nothing
from django_rq_pool.system.signals import SignalInbox

NUMBERS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM, signal.SIGCHLD]
NEW = [signal.getsignal(number) for number in NUMBERS]

def is_new():
    return [signal.getsignal(number) for number in NUMBERS] == NEW

def end_of(child):
    pid = os.fork()
    if pid == 0:
        os._exit(child())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def term_oneself():
    os.kill(os.getpid(), signal.SIGTERM)
    return 0

def made_inbox():
    return SignalInbox(NUMBERS[:3], [signal.SIGALRM])
"""

TERM_FIRST = """
import os, signal
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
"""
"""The first of all fork handlers, so that the child still has its parent's handlers."""

Run = Callable[..., list[str]]


@pytest.fixture
def run(talk) -> Run:
    """Runs code in a process of its own; returns the lines that it prints."""

    def run(code: str, before: str = "") -> list[str]:
        conversation = talk(before + PREAMBLE + code)
        lines = []
        while line := conversation.hear():
            lines.append(line)
        assert conversation.wait() == 0
        return lines

    return run


def test_a_forked_process_has_the_actions_of_a_new_python(run):
    assert run(
        """
inbox = made_inbox()
print(is_new(), end_of(is_new))
inbox.close()
print(is_new())
"""
    ) == ["False 1", "True"]


def test_a_forked_process_has_nothing_of_the_inbox(run):
    assert run(
        """
fds = set(os.listdir("/dev/fd"))
inbox = made_inbox()
def child():
    return 10 * (signal.set_wakeup_fd(-1) == -1) + (set(os.listdir("/dev/fd")) == fds)
print(end_of(child))
"""
    ) == ["11"]


def test_the_process_itself_keeps_its_handlers_and_its_mask(run):
    assert run(
        """
inbox = made_inbox()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
end_of(is_new)
inbox.take()
os.kill(os.getpid(), signal.SIGTERM)
print([each.name for each in inbox.take()])
print([each.name for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])])
"""
    ) == ["['SIGTERM']", "['SIGHUP']"]


def test_a_signal_that_comes_before_its_actions_are_reset_ends_a_forked_process(run):
    assert run(
        """
inbox = made_inbox()
print(end_of(lambda: 0), inbox.take())
""",
        before=TERM_FIRST,
    ) == ["-15 []"]


def test_a_signal_for_a_forked_process_does_not_wake_the_one_that_has_forked(run):
    assert run(
        """
import select
inbox = made_inbox()
gate, opened = os.pipe()
def child():
    signal.signal(signal.SIGTERM, lambda *_: os.write(opened, b"!"))
    term_oneself()
    os.read(gate, 1)
    os._exit(0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # its end would
print(end_of(child))
print(select.select([inbox._read_end], [], [], 0)[0])
"""
    ) == ["0", "[]"]


def test_a_handler_that_somebody_else_has_set_is_inherited(run):
    assert run(
        """
inbox = made_inbox()
def own(number, frame):
    os._exit(7)
signal.signal(signal.SIGTERM, own)
print(end_of(term_oneself))
inbox.close()
print(signal.getsignal(signal.SIGTERM) is own)
"""
    ) == ["7", "True"]


def test_a_handler_that_was_adopted_is_not_inherited(run):
    assert run(
        """
handlers = Handlers()
signal.signal(signal.SIGALRM, lambda *_: None)
handlers.adopt(signal.SIGALRM)
print(end_of(is_new))
"""
    ) == ["1"]


def test_a_time_limit_is_not_inherited_and_gives_the_handler_before_it_back(run):
    assert run(
        """
from django_rq_pool.system.signals import time_limit
inbox = made_inbox()
before = signal.getsignal(signal.SIGALRM)
with time_limit(600, "too long"):
    print(end_of(is_new))
    os.kill(os.getpid(), signal.SIGALRM)  # somebody else's
print(signal.getsignal(signal.SIGALRM) is before, end_of(is_new))
"""
    ) == ["1", "True 1"]


def test_what_a_thread_forks_has_no_handlers_either(run):
    assert run(
        """
inbox = made_inbox()
thread = threading.Thread(target=lambda: print(end_of(lambda: 0)))
thread.start()
thread.join()
""",
        before=TERM_FIRST,
    ) == ["-15"]


def test_a_fork_within_a_fork_keeps_both_masks_apart(run):
    assert run(
        """
def fork_too():
    if not forking:
        forking.append(1)
        print(end_of(is_new))
forking = []
os.register_at_fork(before=fork_too)
inbox = made_inbox()
print(end_of(is_new), signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    ) == ["1", "1 set()"]


def test_handlers_that_are_no_longer_needed_cost_a_fork_nothing(run):
    assert run(
        """
import gc, weakref
inbox = made_inbox()
gone = weakref.ref(inbox)
inbox.close()
del inbox
gc.collect()
print(gone(), end_of(is_new))
"""
    ) == ["None 1"]


def test_programs_find_default_actions_too(run):
    assert run(
        """
inbox = made_inbox()
handlers = Handlers()
handlers.install([signal.SIGTERM], do_nothing)
sleeper = subprocess.Popen(["sleep", "600"])
sleeper.terminate()
print(sleeper.wait())
"""
    ) == ["-15"]


def test_signals_without_effect_end_nothing_and_stay_so_when_others_give_them_back(run):
    assert run(
        """
inbox = made_inbox()
os.kill(os.getpid(), signal.SIGALRM)
signal.signal(signal.SIGALRM, signal.SIG_DFL)  # as RQ's time limits do at their end
inbox.wait([], 0)
os.kill(os.getpid(), signal.SIGALRM)
print(inbox.take())
"""
    ) == ["[]"]


def test_a_handler_of_project_code_stays_where_a_signal_has_no_effect(run):
    assert run(
        """
def own(number, frame):
    print("own")
signal.signal(signal.SIGALRM, own)
inbox = made_inbox()
inbox.wait([], 0)
os.kill(os.getpid(), signal.SIGALRM)
"""
    ) == ["own"]


def test_a_wait_ends_by_a_signal_after_an_event_loop_had_the_wakeup_descriptor(run):
    assert run(
        """
import asyncio
inbox = made_inbox()
async def job():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR2, print)
    loop.remove_signal_handler(signal.SIGUSR2)
asyncio.run(job())
threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
inbox.wait([], 600)
print([each.name for each in inbox.take()])
"""
    ) == ["['SIGTERM']"]
