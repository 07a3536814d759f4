"""Where counts come from, in which order, and what is said about a source that is no good."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.test import override_settings

from django_rq_pool.config import loaders, settings
from django_rq_pool.config.problems import CountsError, Kind, Problem
from django_rq_pool.system.signals import Stopped

pytestmark = pytest.mark.usefixtures("folder")


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return name


def load(setting: object = None, environment: str | None = None, **options) -> object:
    return loaders.find_source(setting, **options).load(environment)


def only_problem(what_fails, *arguments, **options) -> Problem:
    with pytest.raises(CountsError) as caught:
        what_fails(*arguments, **options)
    (problem,) = caught.value.problems
    assert problem.hint
    return problem


# Precedence

SOURCES = [
    "command line",
    "option.yml",
    "variable.yml",
    "RQ_POOL",
    "rqpool.yml",
    "config/rqpool.yml",
]


@pytest.mark.parametrize("missing", range(len(SOURCES)))
def test_the_first_source_that_is_given_counts(missing, monkeypatch):
    given = SOURCES[missing:]
    for number, name in enumerate(SOURCES):
        if name in given and name.endswith(".yml"):
            write(name, f"high: {number}")
    if "variable.yml" in given:
        monkeypatch.setenv("RQ_POOL_CONFIG", "variable.yml")
    source = loaders.find_source(
        {"high": SOURCES.index("RQ_POOL")} if "RQ_POOL" in given else None,
        command_line=["high=0"] if "command line" in given else [],
        config="option.yml" if "option.yml" in given else None,
    )
    assert source.name == SOURCES[missing]
    assert source.load(None) == {"high": missing}


def test_nothing_at_all_is_an_empty_pool_and_the_source_says_where_it_looked():
    assert loaders.find_source(None) is loaders.NOTHING
    assert loaders.NOTHING.load(None) == {}
    for name in ("RQ_POOL", "rqpool.yml", "config/rqpool.yml"):
        assert name in loaders.NOTHING.name


def test_an_empty_setting_is_a_setting():
    write("rqpool.yml", "high: 1")
    assert load({}) == {}


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("RQ_POOL_CONFIG", "")
    assert load({"high": 1}) == {"high": 1}


@pytest.mark.parametrize("name", loaders.FILES)
def test_a_file_that_is_found_and_no_good_is_not_passed_over(name):
    Path(name).mkdir(parents=True)
    write("config/rqpool.yml" if name == "rqpool.yml" else "other.yml", "high: 1")
    assert only_problem(load).kind is Kind.SOURCE


# The command line


def test_the_command_line_gives_groups_in_its_order():
    counts = load(command_line=["low=0", "high, default=4"])
    assert list(counts.items()) == [("low", 0), ("high, default", 4)]


def test_a_queue_name_on_the_command_line_may_hold_an_equals_sign():
    assert load(command_line=["a=b=2"]) == {"a=b": 2}


def test_a_word_without_a_count_is_refused_with_what_would_be_right():
    problem = only_problem(load, command_line=["high=1", "low"])
    assert problem.kind is Kind.COUNT
    assert "command line" in problem.text
    assert "'low'" in problem.text
    assert "low=1" in problem.hint


def test_a_group_given_twice_on_the_command_line_is_refused():
    problem = only_problem(load, command_line=["high=1", "high=2"])
    assert problem.kind is Kind.QUEUE_NAME
    assert "'high'" in problem.text
    assert "twice" in problem.text


@pytest.mark.parametrize("text", ["", "many", "1.5", "1e3", "0x10"])
def test_a_count_that_is_no_number_reaches_the_parser_as_it_was_written(text):
    assert load(command_line=[f"high={text}"]) == {"high": text}


# The setting


def counts_for(environment):
    return {"high": 1 if environment is None else 2}


class Loader:
    def __call__(self, environment):
        return counts_for(environment)


@pytest.mark.parametrize("loader", [counts_for, Loader()])
def test_a_callable_is_called_with_the_environment_each_time(loader):
    source = loaders.find_source(loader)
    assert source.name == "RQ_POOL"
    assert source.load(None) == {"high": 1}
    assert source.load("production") == {"high": 2}


def test_a_callable_is_not_called_before_the_counts_are_wanted():
    loaders.find_source(lambda environment: pytest.fail("called too early"))


def test_a_dotted_path_names_a_callable():
    write("own_loader.py", "def counts(environment):\n    return {'high': environment}\n")
    source = loaders.find_source("own_loader.counts")
    assert source.load("production") == {"high": "production"}
    assert "own_loader.counts" in source.name


@pytest.mark.parametrize("name", ["pool.yml", "pool.yaml", "./pool", "etc/pool"])
def test_text_that_looks_like_a_file_is_the_path_of_one(name):
    write(name, "high: 3")
    assert load(name) == {"high": 3}
    assert loaders.find_source(name).name == name


def test_a_path_object_is_the_path_of_a_file():
    path = Path(write("pool", "high: 3"))
    assert load(path) == {"high": 3}
    assert load(path.resolve()) == {"high": 3}


@pytest.mark.parametrize(
    "path", ["nothing", "", "no.such.module", "shop.settings.NOTHING", "shop.nothing.counts"]
)
def test_a_dotted_path_that_cannot_be_imported_is_refused(path):
    problem = only_problem(loaders.find_source, path)
    assert problem.kind is Kind.IMPORT
    assert "RQ_POOL" in problem.text
    assert repr(path) in problem.text
    assert "dotted path of a callable" in problem.hint


@pytest.mark.parametrize("path", [".counts", "..counts"])
def test_a_relative_dotted_path_is_refused_like_any_other_bad_one(path):
    assert only_problem(loaders.find_source, path).kind is Kind.IMPORT


@pytest.mark.parametrize("code", ["this is no Python", "1 / 0", "{}['key']"])
def test_a_loader_whose_module_breaks_is_refused_with_the_reason(code):
    write("broken_loader.py", code)
    problem = only_problem(loaders.find_source, "broken_loader.counts")
    assert problem.kind is Kind.IMPORT
    assert "broken_loader" in problem.text


def test_a_loader_whose_module_misses_another_is_refused_with_the_name_of_that():
    write("needy_loader.py", "import module_that_is_not_there")
    assert "module_that_is_not_there" in only_problem(loaders.find_source, "needy_loader.x").text


@pytest.mark.parametrize("setting", [5, 2.5, True, ["high"], {"high"}, b"pool.yml"])
def test_a_setting_of_no_known_kind_is_refused(setting):
    problem = only_problem(loaders.find_source, setting)
    assert problem.kind is Kind.SOURCE
    assert "RQ_POOL" in problem.text
    assert type(setting).__name__ in problem.text
    assert "mapping" in problem.hint


def test_a_dotted_path_to_what_cannot_be_called_is_refused():
    problem = only_problem(loaders.find_source, "shop.settings.RQ_QUEUES")
    assert problem.kind is Kind.SOURCE
    assert "'shop.settings.RQ_QUEUES'" in problem.text
    assert "dict" in problem.text


@pytest.mark.parametrize(
    "error", [ValueError("no table yet"), KeyError("A"), CountsError(), SystemExit("3")]
)
def test_a_loader_that_raises_is_reported_with_what_it_raised(error):
    def loader(environment):
        raise error

    problem = only_problem(load, loader)
    assert problem.kind is Kind.SOURCE
    assert "RQ_POOL" in problem.text
    assert type(error).__name__ in problem.text
    assert str(error) in problem.text


def test_a_loader_that_takes_no_environment_is_reported():
    assert "TypeError" in only_problem(load, lambda: {"high": 1}).text


def test_the_place_in_the_project_is_told_at_which_a_loader_failed(folder):
    write("own_table.py", "import json\n\ndef read():\n    return json.loads('x')\n")
    write("failing_loader.py", "import own_table\ndef counts(environment):\n    own_table.read()\n")
    problem = only_problem(load, "failing_loader.counts")
    assert problem.text.endswith("(own_table.py:4).")


@pytest.mark.parametrize(
    ("source", "line"),
    [("1 / 0\n", 1), ("\nimport no_such_module\n", 2), ("\n\ndef counts(:\n", 3)],
)
def test_the_line_is_told_at_which_a_loaders_module_fails(folder, source, line):
    name = f"loader_of_line_{line}"
    write(f"{name}.py", source)
    problem = only_problem(loaders.find_source, f"{name}.counts")
    assert problem.text.endswith(f"({name}.py:{line}).")


def test_a_loader_that_takes_too_long_is_told_with_the_line_at_which_it_was(folder):
    write(
        "slow_loader.py",
        "import threading\n\ndef counts(environment):\n    threading.Event().wait()\n",
    )
    with override_settings(RQ_POOL="slow_loader.counts", RQ_POOL_LOADER_TIMEOUT=0.1):
        problem = only_problem(settings.configure)
    assert "took longer than 0.1 s" in problem.text
    assert problem.text.endswith("(slow_loader.py:4).")


def test_an_interrupt_inside_a_loader_is_nobodys_to_swallow():
    def loader(environment):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(loader)


def test_only_a_callable_is_dynamic():
    write("pool.yml", "high: 1")
    write("own_loader.py", "def counts(environment):\n    return {}\n")
    dynamic = {
        "callable": loaders.find_source(counts_for),
        "dotted path": loaders.find_source("own_loader.counts"),
    }
    static = {
        "mapping": loaders.find_source({"high": 1}),
        "file": loaders.find_source("pool.yml"),
        "command line": loaders.find_source(None, command_line=["high=1"]),
        "nothing": loaders.NOTHING,
    }
    assert {name: source.dynamic for name, source in (dynamic | static).items()} == {
        **dict.fromkeys(dynamic, True),
        **dict.fromkeys(static, False),
    }
    for source in static.values():
        source.reset()


class Keeper:
    """A loader that keeps its first answer until it is reset."""

    def __init__(self):
        self.calls = 0
        self.kept = None

    def __call__(self, environment):
        if self.kept is None:
            self.calls += 1
            self.kept = {"high": self.calls}
        return self.kept

    def reset(self):
        self.kept = None


def test_a_loader_is_reset_through_its_source():
    source = loaders.find_source(Keeper())
    assert [source.load(None), source.load(None)] == [{"high": 1}, {"high": 1}]
    source.reset()
    assert source.load(None) == {"high": 2}


def test_a_loader_without_a_reset_has_none_to_call():
    source = loaders.find_source(counts_for)
    source.reset()
    assert source.load(None) == {"high": 1}


def test_a_reset_that_raises_is_reported_with_what_it_raised():
    class Stubborn(Loader):
        def reset(self):
            raise LookupError("the table is away")

    problem = only_problem(loaders.find_source(Stubborn()).reset)
    assert problem.kind is Kind.SOURCE
    assert "RQ_POOL: the loader's reset() raised LookupError: the table is away" in problem.text
    assert "test_loaders.py:" in problem.text


def test_a_reset_that_cannot_be_called_is_refused():
    class Confused(Loader):
        reset = True

    problem = only_problem(loaders.find_source, Confused())
    assert problem.kind is Kind.SOURCE
    assert "a bool" in problem.text


def test_what_a_loader_raised_can_be_traced():
    def loader(environment):
        raise LookupError("the table is away")

    with pytest.raises(CountsError) as caught:
        load(loader)
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.__cause__.__traceback__ is not None


def test_messages_call_a_source_by_the_name_under_which_it_was_given():
    assert only_problem(loaders.source_of, 5, "counts").text.startswith("counts: ")
    assert only_problem(loaders.source_of, "no.such.loader", "counts").text.startswith("counts: ")
    assert loaders.source_of({"high": 1}, "counts").name == "counts"


def test_the_environment_reaches_the_template_of_a_file():
    write("pool.yml", "high: {% if environment == 'production' %}4{% else %}1{% endif %}")
    assert load("pool.yml") == {"high": 1}
    assert load("pool.yml", "production") == {"high": 4}


def test_a_file_is_read_anew_each_time():
    source = loaders.find_source(write("pool.yml", "high: 1"))
    write("pool.yml", "high: 2")
    assert source.load(None) == {"high": 2}


def test_a_file_that_the_environment_names_and_is_missing_is_refused(monkeypatch):
    write("rqpool.yml", "high: 1")
    monkeypatch.setenv("RQ_POOL_CONFIG", "gone.yml")
    assert "gone.yml" in only_problem(load, {"high": 1}).text


def test_paths_are_taken_from_the_current_directory(folder, monkeypatch):
    write("pool.yml", "high: 1")
    (folder / "deeper").mkdir()
    monkeypatch.chdir("deeper")
    assert load(config=os.path.join("..", "pool.yml")) == {"high": 1}  # noqa: PTH118
    only_problem(load, config="pool.yml")


def test_a_stop_that_comes_while_a_loader_runs_is_no_failure_of_the_loader(folder):
    def stopped(environment):
        raise Stopped(143)

    with pytest.raises(Stopped):
        loaders.source_of(stopped, "RQ_POOL").load(None)
