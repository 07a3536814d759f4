"""Closing and opening connections, in a process of its own each, against real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import MANAGE, ROOT, environment

Run = Callable[..., None]

PREPARE = """
import logging, os, sys, threading, time
import django
from django.conf import settings

settings.DATABASES["other"] = {**settings.DATABASES["default"]}
django.setup()

from django.core.cache import cache, caches
from django.db import connection, connections
from django_rq_pool.connections import *

def ask(alias="default"):
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)

def held():
    "What this process has open besides the standard streams and what it was started with."
    found = set()
    for fd in os.listdir("/dev/fd"):
        try:
            found.add((int(fd), os.fstat(int(fd)).st_ino))
        except OSError:
            pass  # what the folder was read with
    return found - before

before = set()
before = held()
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a script in the test project with the given environment variables."""

    def run(script: str, **variables: str) -> None:
        env = environment("redis://nowhere", SHOP_DATABASE=str(tmp_path / "a.sqlite3"))
        done = subprocess.run(
            [sys.executable, "-c", PREPARE + script],
            cwd=tmp_path,
            env={**env, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture(params=["sqlite", "postgresql", "postgresql with a pool"])
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    chosen = {"SHOP_POSTGRES": str(request.getfixturevalue("postgres").folder)}
    if request.param.endswith("pool"):
        chosen["SHOP_POSTGRES_POOL"] = "1"
    return chosen


def test_closing_names_the_databases_that_were_open_and_leaves_nothing_open(run, database):
    run(
        """
ask()
assert held()
assert close_connections() == ("default",)
assert held() == set(), held()
assert threading.active_count() == 1
assert close_connections() == ()
ask("other")
ask()
assert set(close_connections()) == {"default", "other"}
assert held() == set(), held()
""",
        **database,
    )


def test_a_pool_is_open_when_its_connections_have_been_given_back(run, postgres):
    run(
        """
ask()
connection.close()
assert held()
assert close_connections() == ("default",)
assert held() == set(), held()
""",
        SHOP_POSTGRES=str(postgres.folder),
        SHOP_POSTGRES_POOL="1",
    )


def test_what_was_never_used_is_not_made_to_be_closed(run, database):
    run(
        """
connection.vendor, cache.key_prefix  # there are objects, without a connection
assert close_connections() == ()
assert not getattr(connection, "_connection_pools", {})
assert held() == set(), held()
""",
        **database,
    )


def test_databases_and_caches_work_again_afterwards(run, database, server):
    run(
        """
kept = caches["default"]
for number in range(3):
    ask()
    kept.set("number", number)
    assert cache.get("number") == number
    assert close_connections() == ("default",)
    assert held() == set(), held()
""",
        SHOP_CACHE=server.connection_url,
        **database,
    )


@pytest.mark.parametrize("with_pool", [False, True])
def test_a_connection_that_the_server_has_ended_can_be_closed(run, postgres, with_pool):
    run(
        """
ask()
with connections["other"].cursor() as cursor:
    cursor.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
assert set(close_connections()) == {"default", "other"}
assert held() == set(), held()
ask()
""",
        SHOP_POSTGRES=str(postgres.folder),
        **({"SHOP_POSTGRES_POOL": "1"} if with_pool else {}),
    )


BROKEN_CACHE = """
from django.core.cache.backends.locmem import LocMemCache

class BrokenCache(LocMemCache):
    def close(self):
        raise RuntimeError("it does\\n  not close")
"""


def test_a_cache_that_fails_to_close_is_reported_and_the_others_are_closed(run, server, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN_CACHE)
    run(
        """
settings.CACHES = {"broken": {"BACKEND": "broken.BrokenCache"}, **settings.CACHES}
told = []
logging.getLogger("django_rq_pool").addFilter(lambda record: told.append(record.getMessage()))
caches["broken"].set("a", 1)
cache.set("a", 1)
close_connections()
assert told == ["cache 'broken': closing failed: it does not close"], told
assert held() == set(), held()
""",
        SHOP_CACHE=server.connection_url,
        PYTHONPATH=os.pathsep.join([str(ROOT), str(MANAGE.parent), str(tmp_path)]),
    )


def test_a_database_in_memory_stays(run):
    run(
        """
settings.DATABASES["default"]["NAME"] = ":memory:"
with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE kept (number)")
close_connections()
with connection.cursor() as cursor:
    cursor.execute("SELECT * FROM kept")
"""
    )


def test_with_nothing_open_it_does_next_to_nothing(run, database, server):
    run(
        """
ask(), cache.get("a"), close_connections()
calls = []
sys.setprofile(lambda frame, event, argument: calls.append(event))
manager_connections.close()
sys.setprofile(None)
assert len(calls) < 500, len(calls)
""",
        SHOP_CACHE=server.connection_url,
        **database,
    )


def test_what_was_open_at_any_close_is_opened_again_and_nothing_else(run, database):
    run(
        """
ours = ManagerConnections()
ours.close()
ask("other")
ours.close()
ours.close()
assert held() == set()
ours.reopen("w")
assert connections["other"].connection is not None
assert connection.connection is None
""",
        **database,
    )


@pytest.mark.parametrize("with_pool", [False, True])
def test_what_cannot_be_opened_is_reported_and_the_rest_is_opened(run, postgres, with_pool):
    run(
        """
told = []
logging.getLogger("django_rq_pool").addFilter(lambda record: told.append(record.getMessage()))
ours = ManagerConnections()
ask("other"), ask(), ours.close()
connections["default"].settings_dict["HOST"] = "/nowhere"
ours.reopen("w1")
[line] = told
assert line.startswith("worker w1: database 'default' cannot be reached: connection"), line
assert line.endswith(". Jobs will connect again.")
assert "/nowhere" in line and "\\n" not in line
assert connections["other"].connection is not None
assert "default" not in getattr(connection, "_connection_pools", {})
""",
        SHOP_POSTGRES=str(postgres.folder),
        **({"SHOP_POSTGRES_POOL": "1"} if with_pool else {}),
    )


def test_between_jobs_a_persistent_connection_stays_while_it_works(run, postgres):
    run(
        """
ask()
kept = connection.connection
renew_connections()
assert connection.connection is kept
with connections["other"].cursor() as cursor:
    cursor.execute(f"SELECT pg_terminate_backend({kept.info.backend_pid}, 10000)")
try:
    ask()
except django.db.OperationalError:
    pass
else:
    raise AssertionError("it did not break")
renew_connections()
assert connection.connection is None
ask()
""",
        SHOP_POSTGRES=str(postgres.folder),
        SHOP_CONN_MAX_AGE="600",
    )


def test_between_jobs_any_other_is_closed(run, database):
    run("ask()\nrenew_connections()\nassert connection.connection is None", **database)
