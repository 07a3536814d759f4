"""Functions that are registered with atexit run once, in the process that has registered them."""

from __future__ import annotations

from collections.abc import Callable

from conversations import Conversation

FORK = """
import atexit, os, sys
from django_rq_pool.system import processes

def at_exit(what):
    atexit.register(lambda: os.write(1, f"{what}\\n".encode()))

def fork(child):
    _, status = os.waitpid(processes.fork(child), 0)
    os.write(1, f"status {os.waitstatus_to_exitcode(status)}\\n".encode())
"""


def said(talk: Callable[..., Conversation], code: str) -> list[str]:
    conversation = talk(FORK + code)
    return list(iter(conversation.hear, ""))


def test_a_child_runs_what_it_has_registered_and_not_what_its_parent_has(talk):
    code = """
at_exit("parent")
fork(lambda: at_exit("child") or 3)
"""
    assert said(talk, code) == ["child", "status 3", "parent"]


def test_a_function_that_raises_keeps_neither_the_others_nor_the_exit_status(talk):
    code = """
def child():
    at_exit("first registered")
    atexit.register(lambda: 1 / 0)
    atexit.register(sys.exit, 5)
    return 3
fork(child)
"""
    assert said(talk, code) == ["first registered", "status 3"]


def test_a_child_that_fails_runs_what_it_has_registered(talk):
    code = """
def child():
    at_exit("child")
    raise RuntimeError("as it happens")
fork(child)
"""
    assert said(talk, code) == ["child", "status 1"]
