"""Lists of hooks: what is on them, what they call, and what becomes of an exception."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import pytest

from django_rq_pool.hooks import (
    Hooks,
    after_prefork,
    after_spawn,
    before_fork,
    reopen_connections,
    siginfo,
)


def first(*arguments: object) -> None:
    """A hook that does nothing."""


def second(*arguments: object) -> None:
    """Another."""


def fails(*arguments: object) -> None:
    raise LookupError("the hook's own reason")


@pytest.fixture
def hooks() -> Hooks:
    return Hooks("moment", must_succeed=False)


def test_a_hook_is_registered_and_returned_unchanged(hooks):
    def own() -> None: ...

    assert hooks(own) is own
    assert list(hooks) == [own]


def test_hooks_run_in_the_order_of_their_registration_with_what_they_are_given(hooks):
    calls: list[object] = []

    @hooks
    def one(*arguments: object) -> None:
        calls.append(("one", *arguments))

    @hooks
    def two(*arguments: object) -> None:
        calls.append(("two", *arguments))

    hooks.run("record", 5)
    hooks.run()
    assert calls == [("one", "record", 5), ("two", "record", 5), ("one",), ("two",)]


def test_a_hook_can_be_removed(hooks):
    hooks(first)
    hooks(second)
    hooks.remove(first)
    assert list(hooks) == [second]


def test_removing_what_is_not_there_says_what_is(hooks):
    hooks(first)
    with pytest.raises(ValueError, match=r"^\S+\.second is not a hook of moment\(\S+\.first\)\.$"):
        hooks.remove(second)


def test_all_hooks_can_be_replaced(hooks):
    hooks(first)
    hooks.replace(hook for hook in (second, fails))
    assert list(hooks) == [second, fails]
    hooks.replace([])
    assert len(hooks) == 0


def test_a_hook_may_remove_itself_while_the_others_run(hooks):
    calls: list[str] = []

    @hooks
    def once() -> None:
        calls.append("once")
        hooks.remove(once)

    hooks(lambda: calls.append("always"))
    hooks.run()
    hooks.run()
    assert calls == ["once", "always", "always"]


def test_a_list_shows_where_its_hooks_are_found(hooks):
    assert repr(hooks) == "moment()"
    hooks(first)
    hooks(functools.partial(second, 1))
    assert repr(hooks).startswith(f"moment({__name__}.first, functools.partial(<function second")


def test_hooks_can_be_named_and_called_one_by_one(hooks):
    calls: list[int] = []

    @hooks
    def other() -> None:
        calls.append(1)

    hooks(first)
    assert [name.rpartition(".")[2] for name in hooks.names()] == ["other", "first"]
    hooks.call(1)
    assert calls == []
    hooks.call(0)
    assert calls == [1]


def test_where_hooks_must_succeed_an_exception_goes_through_and_ends_the_run():
    calls: list[str] = []
    hooks = Hooks("moment", must_succeed=True)
    hooks(fails)
    hooks(lambda: calls.append("later"))
    with pytest.raises(LookupError, match="own reason"):
        hooks.run()
    assert calls == []


def test_elsewhere_it_is_logged_with_its_traceback_and_the_next_hook_runs(hooks, caplog):
    calls: list[str] = []
    hooks(fails)
    hooks(lambda: calls.append("later"))
    hooks.run()
    assert calls == ["later"]
    [record] = caplog.records
    assert record.getMessage() == f"moment: the hook {__name__}.fails failed"
    assert record.levelname == "ERROR"
    assert "LookupError: the hook's own reason" in caplog.text


def test_a_list_may_begin_with_a_hook_of_the_pools_which_is_like_any_other():
    hooks = Hooks("moment", must_succeed=True, first=first)
    hooks(second)
    assert list(hooks) == [first, second]
    hooks.remove(first)
    assert list(hooks) == [second]


def test_the_last_step_comes_after_every_hook_even_one_that_fails_and_cannot_be_replaced(caplog):
    calls: list[str] = []
    hooks = Hooks("moment", must_succeed=False, last=lambda: calls.append("last"))
    hooks(lambda: calls.append("hook"))
    hooks(fails)
    hooks.run()
    assert len(hooks) == 2
    hooks.replace([])
    hooks.run()
    assert calls == ["hook", "last", "last"]


def test_connections_are_reopened_before_all_other_hooks_of_a_worker():
    assert list(after_prefork) == [reopen_connections]


@pytest.mark.parametrize("hooks", [before_fork, after_spawn, siginfo], ids=lambda each: each.name)
def test_a_failing_hook_in_the_manager_does_not_end_it(hooks, caplog):
    hooks(fails)
    try:
        hooks.run()
    finally:
        hooks.remove(fails)
    assert f"{hooks.name}: the hook" in caplog.text


def test_a_failing_hook_in_a_worker_keeps_it_from_becoming_ready():
    before = list(after_prefork)
    after_prefork.replace([fails])
    try:
        with pytest.raises(LookupError):
            after_prefork.run(None)
    finally:
        after_prefork.replace(before)


def python(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_hooks_can_be_registered_before_there_are_settings():
    done = python(
        """
import sys
from django_rq_pool.hooks import after_prefork

@after_prefork
def own(worker): ...

assert not {"django", "rq", "django_rq", "redis"} & set(sys.modules)
""",
        env={key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"},
    )
    assert done.returncode == 0, done.stderr
