"""Overrides that RQ calls and a pool does not are known, each of them, and told by name."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.test import override_settings
from rq import Queue, SimpleWorker, Worker
from rq.worker import BaseWorker, HerokuWorker, RandomWorker, RoundRobinWorker

import own_classes
from django_rq_pool.config import settings
from django_rq_pool.config.overrides import (
    QUEUE_METHODS,
    WORKER_METHODS,
    Called,
    left_out,
    override_problems,
)
from django_rq_pool.config.problems import Kind
from django_rq_pool.worker.bases import BASES, pooled
from django_rq_pool.worker.pooled_worker import PooledWorker

pytestmark = pytest.mark.usefixtures("folder")


def told(worker_class=Worker, queue_class=Queue) -> list[str]:
    """The names of the methods that the problems tell of."""
    problems = list(override_problems(worker_class, queue_class))
    assert all(problem.kind is Kind.OVERRIDE for problem in problems)
    return [problem.text.partition(":")[0].rpartition(".")[2] for problem in problems]


# The tables are complete: what RQ's code calls is read from it, and so is what the pool's calls.


def names_in(attribute: object) -> set[str]:
    """Every name in the code of a method or property."""
    attribute = getattr(attribute, "__func__", attribute)
    found = [attribute.fget, attribute.fset] if isinstance(attribute, property) else [attribute]
    todo = [each.__code__ for each in found if hasattr(each, "__code__")]
    names: set[str] = set()
    while todo:
        code = todo.pop()
        names.update(code.co_names)
        todo += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return names


def reached(cls: type, start: set[str]) -> Iterator[tuple[str, type]]:
    """Each attribute that is used from these on, with every class whose own is used."""
    todo, done = [*start], set[str]()
    while todo:
        name = todo.pop()
        if name in done or name.startswith("__"):
            continue
        done.add(name)
        for owner in cls.__mro__[:-1]:
            if name in vars(owner):
                yield name, owner
                names = names_in(vars(owner)[name])
                todo += names
                if not {"super", name} <= names:
                    break


def constructor(cls: type) -> set[str]:
    return names_in(cls.__init__) | {"work"}


def unused(stock: type, ours: type, start: set[str]) -> set[str]:
    """What RQ's code uses of a class of its own, and not of one under the pool."""
    found = set(reached(ours, {*start, "attach"}))
    return {name for name, owner in reached(stock, start) if (name, owner) not in found}


@pytest.mark.parametrize("worker_class", [Worker, SimpleWorker])
def test_every_method_that_rq_calls_and_the_pool_does_not_is_in_the_table(worker_class):
    start = constructor(BaseWorker)
    missing = unused(worker_class, pooled(worker_class), start)
    used_by_rq = {name for name, _ in reached(worker_class, start)}
    assert missing == used_by_rq & WORKER_METHODS.keys()
    if worker_class is Worker:
        assert missing == WORKER_METHODS.keys()


def test_a_project_s_override_that_calls_super_is_used_unless_the_table_says_no():
    def override(name):
        def method(self, *args):
            return super().method(*args)

        # The names in its code are those of a method that calls the same method of super().
        names = tuple(name if each == "method" else each for each in method.__code__.co_names)
        return types.FunctionType(method.__code__.replace(co_names=names), {"__name__": "own"})

    names = {name for owner in Worker.__mro__[:-1] for name in vars(owner)}
    methods = {n: override(n) for n in names if callable(getattr(Worker, n)) and "__" not in n}
    project = type("Project", (Worker,), methods)
    stock = {name for name, owner in reached(Worker, constructor(BaseWorker))}
    never = {name for name, each in WORKER_METHODS.items() if each.called is Called.NEVER}
    called = {
        name
        for name, owner in reached(pooled(project), constructor(BaseWorker) | {"attach"})
        if owner is project
    }
    assert (stock & methods.keys()) - called == never & methods.keys()


def test_every_method_of_a_queue_that_rq_calls_and_the_pool_does_not_is_in_the_table():
    def used(cls):
        start = constructor(BaseWorker) | {"attach"}
        names = {n for name, owner in reached(cls, start) for n in names_in(vars(owner)[name])}
        return {name for name, _ in reached(Queue, {n for n in names if n in vars(Queue)})}

    assert used(Worker) - used(pooled(Worker)) == set(QUEUE_METHODS)


def test_what_stands_beneath_the_project_s_class_is_in_the_table_or_has_rqs_name():
    for base in BASES[1:]:
        ours = {name for name in vars(base) if not name.startswith("__")} - {"warn_horse"}
        assert ours <= {n for n, each in WORKER_METHODS.items() if each.called is not Called.NEVER}


# What is found in a project's class


@pytest.mark.parametrize(
    "worker_class", [Worker, SimpleWorker, HerokuWorker, RandomWorker, RoundRobinWorker]
)
def test_rqs_own_classes_override_nothing(worker_class):
    assert told(worker_class) == []
    assert left_out(worker_class) == set()


@pytest.mark.parametrize(
    "worker_class",
    [
        own_classes.AddsToAll,
        own_classes.PreparesJobs,
        own_classes.RegistersAgain,
        own_classes.LimitsItself,
        own_classes.OwnLoop,
        own_classes.ToldBeforeItBegins,
        type("Later", (own_classes.AddsToAll,), {}),
    ],
)
def test_an_override_that_calls_super_is_called(worker_class):
    assert told(worker_class) == []
    assert left_out(worker_class) == set()


REPLACED = {name for name in vars(own_classes.ReplacesAll) if name in WORKER_METHODS}


def test_an_override_that_replaces_is_told_and_left_out():
    assert set(told(own_classes.ReplacesAll)) == REPLACED
    assert left_out(own_classes.ReplacesAll) == REPLACED - {"_install_signal_handlers"}


def test_so_is_one_that_is_inherited_or_stands_behind_another():
    class Behind(own_classes.ReplacesAll):
        def kill_horse(self, sig=9):
            super().kill_horse(sig)

    assert set(told(Behind)) == REPLACED
    assert "kill_horse" in left_out(Behind)


def decorated(function):
    def wrapper(*args):
        return function(*args)

    return wrapper


def test_a_decorator_does_not_hide_that_an_override_calls_super():
    class Decorated(Worker):
        @decorated
        def request_stop(self, signum, frame):
            super().request_stop(signum, frame)

        @functools.wraps(print)
        def kill_horse(self, sig=9):
            super().kill_horse(sig)

        @functools.lru_cache(1)  # noqa: B019
        def wait_for_horse(self):
            return super().wait_for_horse()

    assert told(Decorated) == []


def test_a_value_in_the_place_of_rqs_is_told():
    patient = type("Patient", (Worker,), {"max_connection_wait_time": 5.0, "connection_timeout": 9})
    assert sorted(told(patient)) == ["connection_timeout", "max_connection_wait_time"]


def test_what_something_has_put_into_rqs_class_is_told(monkeypatch):
    def kill_horse(self, sig=9):
        super(Worker, self).kill_horse(sig)

    monkeypatch.setattr(Worker, "kill_horse", kill_horse)
    (problem,) = override_problems(Worker, Queue)
    assert problem.text.startswith("rq.worker.worker_classes.Worker.kill_horse: it is not RQ's own")


def test_one_that_waits_for_its_work_horse_by_itself_is_told():
    class Waits(Worker):
        def monitor_work_horse(self, job, queue, execution):
            import os

            os.waitpid(self.horse_pid, 0)

    class Asks(Worker):
        def monitor_work_horse(self, job, queue, execution):
            self.wait_for_horse()

    assert told(Waits) == ["monitor_work_horse"]
    assert told(Asks) == []


def test_the_way_in_which_a_queue_class_takes_jobs_is_told():
    (problem,) = override_problems(Worker, own_classes.PopsItself)
    assert problem.text == (
        "own_classes.PopsItself.dequeue_any: the pool does not use it. The pool moves each job to "
        "a list of its worker and pops none."
    )
    assert "dequeue_strategy" in problem.hint


# What is done with it


def test_a_class_that_names_its_base_s_method_without_super_does_not_reach_rqs():
    found = pooled(own_classes.ReplacesAll)
    for name in left_out(own_classes.ReplacesAll):
        owners = [owner for owner in found.__mro__ if name in vars(owner)]
        assert own_classes.ReplacesAll not in owners[: 1 + (owners[0] is PooledWorker)]


def test_the_command_and_the_check_tell_of_it_once(capsys):
    group = {"workers": 1, "worker_class": "own_classes.ReplacesAll"}
    with override_settings(RQ_POOL={"high": group, "low": group}):
        call_command("rqpool", check=True)
        found = list(run_checks(tags=["rq"]))
    lines = capsys.readouterr().err.splitlines()
    for name in REPLACED:
        assert sum(line.startswith(f"own_classes.ReplacesAll.{name}: ") for line in lines) == 1
    assert {message.id for message in found} == {"django_rq_pool.W004"}
    assert len(found) == len(REPLACED)
    assert all(message.hint for message in found)


@pytest.mark.parametrize("key", ["WORKER_CLASS", "QUEUE_CLASS"])
def test_the_classes_of_the_settings_are_looked_through_too(key):
    path = {"WORKER_CLASS": "own_classes.ReplacesAll", "QUEUE_CLASS": "own_classes.PopsItself"}
    with override_settings(RQ={key: path[key]}):
        warnings = settings.configure(counts={"high": 1}).warnings
    assert {problem.kind for problem in warnings} == {Kind.OVERRIDE}


# Names


@pytest.mark.parametrize("name", ["group", "_redis", "sweep", "_link"])
def test_a_class_with_an_attribute_of_the_pool_s_name_is_refused_in_words(name):
    shares = type("Shares", (Worker,), {name: None, "__module__": "own"})
    with pytest.raises(TypeError, match=rf"own\.Shares: .* of the same names: '{name}'\. Rename"):
        pooled(type("Inherits", (shares,), {"__module__": "own", "__qualname__": "Shares"}))


def test_other_classes_share_no_name_with_the_pool():
    for found in vars(own_classes).values():
        if isinstance(found, type) and issubclass(found, BaseWorker):
            pooled(found)


# Heroku


@pytest.mark.parametrize(
    ("classes", "term_child", "warned"),
    [
        (["rq.worker.HerokuWorker"], None, False),
        (["rq.worker.HerokuWorker", "rq.Worker"], None, True),
        (["rq.Worker"], None, True),
        (["rq.Worker"], "1", False),
        ([], None, True),
    ],
)
def test_a_dyno_needs_no_term_child_where_every_worker_is_heroku_s(
    monkeypatch, classes, term_child, warned
):
    monkeypatch.setenv("DYNO", "worker.1")
    if term_child:
        monkeypatch.setenv("TERM_CHILD", term_child)
    names = ("high", "low")
    counts = {n: {"workers": 1, "worker_class": path} for n, path in zip(names, classes)}
    kinds = [
        problem.kind for problem in settings.configure(counts=counts, allow_empty=True).warnings
    ]
    assert (Kind.DYNO in kinds) is warned


def test_where_there_is_no_sigrtmin_heroku_s_worker_is_refused_in_words(monkeypatch):
    import signal

    from django_rq_pool.config.classes import why_unusable

    monkeypatch.delattr(signal, "SIGRTMIN")
    assert "SIGRTMIN" in (why_unusable(own_classes.ToldAtOnce) or "")
    assert why_unusable(Worker) is None
