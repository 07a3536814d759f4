"""The examples of the documentation, word for word: where counts may come from."""

from __future__ import annotations

import secrets
import signal
import socket
import sqlite3
import zoneinfo
from contextlib import closing
from datetime import datetime, timezone

import pytest

from django_rq_pool.config import yaml_file
from django_rq_pool.system.cgroups import Resources, usable_resources
from documentation import example
from harness import DEADLINE, MANAGE, eventually, python_command

# From a key in Redis

REDIS_KEY = example("loader-redis")


def test_counts_follow_a_key_in_redis(start_with, valkey):
    pool = start_with('RQ_POOL = "pool_counts.counts"', modules={"pool_counts": REDIS_KEY})
    pool.expect_ready(3)
    valkey.set("pool:high", 4)
    pool.expect_ready(5)
    valkey.set("pool:high", 1)
    eventually(lambda: len(pool.worker_pids()) == 2)
    assert pool.stop() == 0


def test_a_key_that_holds_no_number_leaves_the_counts_as_they_are(start_with, valkey):
    pool = start_with('RQ_POOL = "pool_counts.counts"', modules={"pool_counts": REDIS_KEY})
    pool.expect_ready(3)
    valkey.set("pool:high", "many")
    pool.expect(r"ValueError: invalid literal for int\(\)")
    valkey.set("pool:high", 3)
    pool.expect_ready(4)
    assert len(pool.worker_pids()) == 4
    assert pool.stop() == 0


# From a model

MODELS = example("loader-model-models")

ADMIN = example("loader-model-admin")

POOL = example("loader-model-pool")

WITH_ADMIN = """
INSTALLED_APPS += [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "staff",
]
RQ_POOL = "staff.pool.counts"
"""


def test_counts_follow_a_model_that_is_edited_in_djangos_admin(start_with, tmp_path):
    (tmp_path / "staff").mkdir()
    for name, source in {"__init__": "", "models": MODELS, "admin": ADMIN, "pool": POOL}.items():
        (tmp_path / "staff" / f"{name}.py").write_text(source)
    migrate = python_command(str(MANAGE), "migrate", "--run-syncdb", "--skip-checks")
    assert start_with(WITH_ADMIN, command=migrate).wait() == 0

    def edit(statement: str, *values: object) -> None:
        connection = sqlite3.connect(tmp_path / "shop.sqlite3", timeout=DEADLINE)
        with closing(connection), connection:  # the inner one commits
            connection.execute(statement, values)

    edit("insert into staff_poolcount (queues, workers) values (?, ?)", "high,default", 2)
    pool = start_with(WITH_ADMIN).expect_ready(2)
    edit("update staff_poolcount set workers = 3")
    edit("insert into staff_poolcount (queues, workers) values ('low', 1)")
    pool.send(signal.SIGHUP)  # does not wait for the ten seconds
    eventually(lambda: len(pool.worker_pids()) == 4)
    edit("update staff_poolcount set workers = 1")
    eventually(lambda: len(pool.worker_pids()) == 2)
    assert pool.stop() == 0


# By the time of day

TIME_OF_DAY = example("loader-time-of-day")


@pytest.mark.parametrize(("hour", "workers"), [(12, 3), (23, 1)])
def test_counts_follow_the_time_of_day(start_with, hour, workers):
    ahead = (hour - datetime.now(timezone.utc).hour + 12) % 24 - 12
    zone = f"Etc/GMT{-ahead:+d}"  # whose signs are turned round
    zoneinfo.ZoneInfo(zone)
    settings = f'RQ_POOL = "pool_counts.counts"\nTIME_ZONE = {zone!r}'
    pool = start_with(settings, modules={"pool_counts": TIME_OF_DAY}).expect_ready(workers)
    assert len(pool.worker_pids()) == workers
    assert pool.stop() == 0


# A file that is a template

TEMPLATE = example("counts-template")


@pytest.mark.parametrize(("given", "low"), [({}, 1), ({"LOW_WORKERS": "3"}, 3)])
@pytest.mark.parametrize("here", [False, True])
def test_a_file_is_a_template(start_pool, given, low, here):
    text = TEMPLATE.replace("web1", socket.gethostname()) if here else TEMPLATE
    pool = start_pool("--check", yaml=text, env=given)
    assert pool.wait() == 0
    rows = [line.split()[:2] for line in pool.text().splitlines()[2:-2]]
    assert rows == [
        ["high", str(2 * usable_resources().cpus)],
        ["low", str(low)],
        *([["default", "1"]] if here else []),
    ]


@pytest.mark.parametrize(
    ("cpus", "gigabytes", "high"), [(8, 2, 5), (4, 64, 4), (1, 2, 1), (32, 64, 32), (4, 0.1, 0)]
)
def test_a_template_may_take_the_lesser_of_cpus_and_memory(
    tmp_path, monkeypatch, cpus, gigabytes, high
):
    has = Resources(cpus, int(gigabytes * 2**30))
    monkeypatch.setattr(yaml_file, "usable_resources", lambda: has)
    (tmp_path / "rqpool.yml").write_text(example("counts-template-memory"))
    assert yaml_file.read_yaml(str(tmp_path / "rqpool.yml"), None) == {"high": high}


# Bounds

SCALED = example("counts-bounds")


@pytest.mark.parametrize(
    ("environment", "rows"),
    [
        (None, ["high,default  1..10", "low           0..4", "foo           1"]),
        ("production", ["high,default  4..40", "low           2", "foo           1"]),
    ],
)
def test_a_group_may_have_bounds(start_pool, environment, rows):
    arguments = [] if environment is None else ["--environment", environment]
    pool = start_pool("--check", *arguments, yaml=SCALED)
    assert pool.wait() == 0
    for row, line in zip(rows, pool.text().splitlines()[2:]):
        assert line.startswith(row + " ")


# From a script


def test_a_script_runs_the_pool(start_pool):
    pool = start_pool(command=python_command("-c", example("api-run-pool"))).expect_ready(5)
    pool.expect("of pool shop started: high,default=4, low=1")
    assert pool.stop() == 0


def test_a_command_runs_the_pool(start_pool):
    # It replaces whatever has its name: pools of other tests have the example's.
    name = f"command-{secrets.token_hex(4)}"
    given = example("api-call-command")
    assert 'name="shop"' in given
    given = given.replace('name="shop"', f"name={name!r}")
    script = f"import django\ndjango.setup()\n{given}print('goes on')\n"
    pool = start_pool(command=python_command("-c", script)).expect_ready(4)
    pool.expect(f"of pool {name} started: high,default=4")
    assert pool.stop() == 0
    assert pool.found("^goes on$")
