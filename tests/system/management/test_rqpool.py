"""``manage.py rqpool --check``: the table of a good pool, the sentences about a bad one."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings

from django_rq_pool.config import settings
from django_rq_pool.log import LOGGERS
from django_rq_pool.management.commands.rqpool import Command
from django_rq_pool.system.cgroups import usable_resources
from harness import ROOT

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    before = {
        logger: (logger.level, list(logger.handlers)) for logger in map(logging.getLogger, LOGGERS)
    }
    yield
    for logger, (level, handlers) in before.items():
        logger.setLevel(level)
        logger.handlers[:] = handlers


def check(*arguments: str) -> tuple[str, str]:
    """What ``rqpool --check`` prints about the pool, and what it prints for people to worry about.
    What the machine has is left out."""
    out, err = StringIO(), StringIO()
    call_command("rqpool", "--check", *arguments, stdout=out, stderr=err)
    machine = r"\d+ CPUs?, \d+\.\d GB of memory may be used"
    printed = out.getvalue().splitlines()
    lines = [line for line in printed if not re.fullmatch(machine, line)]
    assert len(printed) - len(lines) == 1
    return "\n".join(lines), err.getvalue()


def refusal(*arguments: str) -> str:
    with pytest.raises(CommandError) as caught:
        check(*arguments)
    assert caught.value.returncode == 1
    return str(caught.value)


def test_what_the_pool_may_use_is_printed_last(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    out = StringIO()
    call_command("rqpool", "--check", "high=1", stdout=out)
    gigabytes = usable_resources().memory / 2**30
    assert out.getvalue().splitlines()[-1] == f"1 CPU, {gigabytes:.1f} GB of memory may be used"


def test_a_good_pool_is_printed_as_a_table():
    counts = {
        "high,default": 4,
        "low": {"workers": 2, "max_jobs": 500, "with_scheduler": True},
        "elsewhere": 0,
    }
    with override_settings(RQ_POOL=counts):
        out, err = check("--name", "corner")
    assert out.splitlines() == [
        "pool corner, counts from: RQ_POOL",
        "GROUP         WORKERS  QUEUES        OPTIONS",
        "high,default  4        high default  -",
        "low           2        low           max_jobs=500 with_scheduler=True",
        "elsewhere     0        elsewhere     -",
        "6 workers",
    ]
    assert err == ""


def test_the_table_shows_between_which_counts_a_group_is_scaled():
    counts = {
        "high": {"workers": {"min": 1, "max": 10}, "target_latency": 2.5},
        "default": {"workers": {"min": 0, "max": 3}},
        "low": 2,
    }
    with override_settings(RQ_POOL=counts):
        out, _ = check("--name", "corner")
    assert out.splitlines() == [
        "pool corner, counts from: RQ_POOL",
        "GROUP    WORKERS  QUEUES   OPTIONS",
        "high     1..10    high     target_latency=2.5",
        "default  0..3     default  -",
        "low      2        low      -",
        "3 to 15 workers",
    ]


def test_the_table_shows_what_a_star_stands_for():
    url = {"URL": "redis://localhost/0"}
    with override_settings(RQ_QUEUES={"b": url, "c": url, "a": url}):
        out, _ = check("c,*=1")
    assert "c,*    1        c b a   -" in out.splitlines()


def test_name_and_environment_are_shown():
    with override_settings(RQ_POOL={"high": 1, "production": {"high": 3}}):
        out, _ = check("--name", "corner", "--environment", "production")
    assert out.splitlines()[0] == ("pool corner, counts from: RQ_POOL, environment: production")
    assert out.splitlines()[-1] == "3 workers"


@pytest.mark.parametrize("option", ["--name", "--appname", "-a"])
def test_the_name_has_several_spellings(option):
    assert check("high=1", option, "corner")[0].startswith("pool corner,")


def test_the_environment_comes_from_the_process_unless_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("DJANGO_ENV", "staging")
    counts = {"high": 1, "staging": {"high": 2}, "production": {"high": 3}}
    with override_settings(RQ_POOL=counts):
        assert check()[0].splitlines()[-1] == "2 workers"
        assert check("-E", "production")[0].splitlines()[-1] == "3 workers"


def test_counts_on_the_command_line_replace_all_others():
    Path("rqpool.yml").write_text("high: -1")
    with override_settings(RQ_POOL={"high": -1}):
        out, _ = check("high,default=4", "low=1")
    assert out.splitlines()[0].endswith(", counts from: command line")
    assert [line.split()[:2] for line in out.splitlines()[2:-1]] == [
        ["high,default", "4"],
        ["low", "1"],
    ]


def test_a_file_on_the_command_line_replaces_the_setting():
    Path("own.yml").write_text("low: 3")
    with override_settings(RQ_POOL={"high": -1}):
        assert check("--config", "own.yml")[0].splitlines()[0].endswith("counts from: own.yml")
        assert check("-c", "own.yml")[0].splitlines()[-1] == "3 workers"


def test_the_pool_is_called_after_the_project_unless_it_is_told():
    assert check("high=1")[0].splitlines()[0] == "pool shop, counts from: command line"


def test_a_file_beside_counts_on_the_command_line_is_refused():
    Path("rqpool.yml").write_text("high: 1")
    assert refusal("low=1", "--config", "rqpool.yml") == (
        "--config: counts on the command line replace it. Give one of the two."
    )


def test_no_counts_anywhere_are_refused():
    sentence = refusal()
    assert "rqpool.yml" in sentence
    assert "there is no queue group" in sentence


def test_an_empty_pool_that_is_allowed_says_so():
    out, err = check("--allow-empty")
    assert out.splitlines()[-1] == "0 workers"
    assert "there is no queue group" in err


@pytest.mark.parametrize("text", ["", "# high: 1", "{}", "---"])
def test_an_empty_file_is_refused(text):
    Path("rqpool.yml").write_text(text)
    assert refusal().startswith("rqpool.yml: there is no queue group.")


def test_an_unknown_environment_is_refused():
    with override_settings(RQ_POOL={"high": 1, "production": {"high": 2}}):
        assert refusal("--environment", "prod") == (
            "RQ_POOL: there is no environment 'prod'. It has 'production'."
        )


def test_an_unknown_environment_of_other_tools_is_a_warning(monkeypatch):
    monkeypatch.setenv("DJANGO_ENV", "development")
    with override_settings(RQ_POOL={"high": 1, "production": {"high": 2}}):
        out, err = check()
    assert out.splitlines()[-1] == "1 worker"
    assert "no environment 'development'" in err


def test_a_wrong_queue_in_another_environment_is_refused_beside_the_table():
    out = StringIO()
    with (
        override_settings(RQ_POOL={"high": 1, "production": {"hihg": 2}}),
        pytest.raises(CommandError, match="'production': 'hihg'") as caught,
    ):
        call_command("rqpool", "--check", stdout=out)
    assert caught.value.returncode == 1
    assert "1 worker" in out.getvalue().splitlines()


def test_a_wrong_class_in_another_environment_is_refused_by_the_check_and_no_start():
    wrong = {"workers": 1, "worker_class": "no.such.Worker"}
    with override_settings(RQ_POOL={"high": 1, "production": {"high": wrong}}):
        assert "no.such.Worker" in refusal()
        assert settings.configure().warnings == ()


def test_a_count_that_is_called_otherwise_is_refused():
    with override_settings(RQ_POOL={"low": 1, "high": {"count": 2}}):
        assert "'high': it is a queue group with 'count' but no 'workers'" in refusal()


def test_all_problems_are_told_one_a_line():
    with override_settings(RQ_POOL={"high": -1, "hihg": 1, "low": {"workers": 1, "max_job": 2}}):
        lines = refusal().splitlines()
    assert len(lines) == 3
    assert any("'high'" in line and "whole number" in line for line in lines)
    assert any("'hihg'" in line and "'high'" in line for line in lines)
    assert any("Did you mean 'max_jobs'?" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["high"], "high=1"),
        (["high=many"], "'many' is not a count"),
        (["high=-1"], "-1 is not a count"),
        (["=1"], "a queue name is empty"),
        (["high=1", "high=2"], "twice"),
        (["high=1", " high=2"], "twice"),
        (["hihg=1"], "RQ_QUEUES has no queue 'hihg'"),
        (["high,elsewhere=1"], "another Redis connection"),
        (["--config", "gone.yml"], "gone.yml: there is no such file"),
    ],
)
def test_bad_arguments_are_refused_in_words(arguments, words):
    assert words in refusal(*arguments)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no.such.Worker", "no.such.Worker"),
        ("rq.Queue", "is not an RQ worker class"),
        ("rq.SpawnWorker", "starts a new interpreter for every job"),
    ],
)
def test_a_bad_worker_class_is_refused_wherever_it_is_said(value, words):
    with override_settings(RQ_POOL={"high": {"workers": 1, "worker_class": value}}):
        own = refusal()
    with override_settings(RQ_POOL={"high": 1}, RQ={"WORKER_CLASS": value}):
        everybodys = refusal()
    for sentence in (own, everybodys):
        assert sentence.startswith("RQ_POOL: 'high': the worker_class ")
        assert words in sentence


def test_a_raising_loader_is_refused_in_words():
    def loader(environment):
        raise LookupError("the table of counts is away")

    with override_settings(RQ_POOL=loader):
        assert "LookupError: the table of counts is away" in refusal()


def test_a_bad_preload_setting_is_refused_in_words():
    with override_settings(RQ_POOL_PRELOAD="shop.tasks"):
        assert "RQ_POOL_PRELOAD: 'shop.tasks' is not a list of dotted names" in refusal("high=1")


def test_a_module_of_a_worker_class_that_calls_sys_exit_is_refused_in_words(folder):
    (folder / "leaves.py").write_text("import sys\nsys.exit(0)")
    with override_settings(RQ_POOL={"high": {"workers": 1, "worker_class": "leaves.Worker"}}):
        assert "the worker_class 'leaves.Worker' cannot be used: SystemExit: 0" in refusal()


def test_a_name_that_leaves_nothing_out_of_the_preload_is_told():
    with override_settings(RQ_POOL_PRELOAD_EXCLUDE=["shp"]):
        out, err = check("high=1", "--preload")
    assert err.startswith("RQ_POOL_PRELOAD_EXCLUDE: 'shp' is no installed app")
    assert out.splitlines()[-1] == "all modules can be imported"


def test_sentences_end_with_one_full_stop():
    with override_settings(RQ_POOL={"high": {"workers": 1, "worker_class": "rq.SpawnWorker"}}):
        assert ".." not in refusal()


EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize(
    "path", [path for path in sorted(EXAMPLES.rglob("*")) if path.is_file()], ids=lambda p: p.name
)
def test_the_examples_use_options_that_there_are(path):
    parser = Command().create_parser("manage.py", "rqpool")
    commands = re.findall(r"manage\.py[\", ]+rqpool\b(.*)", path.read_text())
    used = {option for line in commands for option in re.findall(r"(?<![\w-])--[a-z-]+", line)}
    assert used <= set(parser._option_string_actions)


def test_a_limit_is_shown_and_counted():
    counts = {"max_total": 5, "high": {"workers": {"min": 1, "max": 9}}, "low": 1}
    with override_settings(RQ_POOL=counts):
        assert check()[0].splitlines()[-1] == "2 to 5 workers, at most 5"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_log_file_and_check_go_together(stream, capsys):
    with override_settings(RQ_POOL={"high": 1}):
        call_command("rqpool", "--check", f"--{stream}", "/no/such/file")
    assert "high   1" in capsys.readouterr().out


def test_servers_are_asked_by_the_check_only():
    with (
        override_settings(RQ_POOL={"high": 1}),
        pytest.raises(CommandError, match=r"--redis: .* Add --check\."),
    ):
        call_command("rqpool", "--redis")


def test_what_the_start_refuses_the_check_refuses_too():
    with (
        override_settings(RQ_POOL={"high": 1}),
        pytest.raises(CommandError, match="--no-wait: the command waits for a daemon only"),
    ):
        call_command("rqpool", "--check", "--no-wait")


@pytest.mark.parametrize(
    ("queue", "reason"),
    [
        ({}, "KeyError"),
        ({"HOST": "localhost"}, "KeyError: 'PORT'"),
        ({"URL": "foo://x"}, "Redis URL must specify one of"),
        ({"URL": "redis://x", "SERIALIZER": "no.such"}, "no.such"),
        ({"URL": None}, "URL: a value of type NoneType is not a URL"),
        ({"URL": "redis://x:abc/0"}, "abc"),
        ({"HOST": "x", "PORT": "abc"}, "PORT: 'abc' is not a port number"),
        ({"HOST": "x", "PORT": 70000}, "PORT: 70000 is not a port number"),
        ({"HOST": "x", "PORT": 6379, "DB": "abc"}, "DB: 'abc' is not the number of a database"),
        ({"HOST": "x", "PORT": 6379, "DB": -1}, "DB: -1 is not the number of a database"),
        ({"HOST": "x", "PORT": 6379, "SSL": "False"}, "SSL: 'False' is a text"),
        ({"HOST": "x", "PORT": 6379, "SSL": True, "SSL_CERT_REQS": "some"}, "some"),
        ({"HOST": "x", "PORT": 6379, "REDIS_CLIENT_KWARGS": {"hots": 1}}, "hots"),
        ({"SENTINELS": ["x:26379"], "MASTER_NAME": "m"}, "a pair of a host and a port"),
        ({"SENTINELS": [("x", "abc")], "MASTER_NAME": "m"}, "SENTINELS: 'abc' is not a port"),
        ({"SENTINELS": [], "MASTER_NAME": "m"}, "there is no Sentinel"),
        ({"SENTINELS": [("x", 26379)]}, "MASTER_NAME"),
        (
            {
                "SENTINELS": [("x", 26379)],
                "MASTER_NAME": "m",
                "CONNECTION_KWARGS": {"socket_timeuot": 1},
            },
            "socket_timeuot",
        ),
        (
            {
                "SENTINELS": [("x", 26379)],
                "MASTER_NAME": "m",
                "SENTINEL_KWARGS": {"socket_timeuot": 1},
            },
            "socket_timeuot",
        ),
    ],
)
def test_a_queue_that_cannot_be_connected_to_is_told(queue, reason):
    with (
        override_settings(RQ_POOL={"high": 1}, RQ_QUEUES={"high": queue}),
        pytest.raises(CommandError, match=reason) as caught,
    ):
        call_command("rqpool", "--check")
    assert "RQ_QUEUES" in str(caught.value)


@pytest.mark.parametrize(
    "queue",
    [
        {"HOST": "x", "PORT": "6379", "DB": "0"},
        {"HOST": "x", "PORT": 6379, "SSL": True},
        {"URL": "rediss://:secret@x/3", "SSL_CERT_REQS": None},
        {"URL": "redis://x", "DB": "", "PORT": ""},
        {"UNIX_SOCKET_PATH": "/x", "DB": 0, "PORT": None},
        {"SENTINELS": [("x", 26379), ["y", "26379"]], "MASTER_NAME": "m", "PASSWORD": "secret"},
    ],
)
def test_a_queue_that_can_be_connected_to_is_not_told(queue):
    with override_settings(RQ_POOL={"high": 1}, RQ_QUEUES={"high": queue}):
        assert check()[1] == ""
