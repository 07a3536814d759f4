"""The group of servers with which tests fail over: what it says about forgotten writes is true."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from failover import SentinelGroup
from harness import DEADLINE, eventually


@pytest.fixture
def group(tmp_path: Path) -> Iterator[SentinelGroup]:
    with SentinelGroup(tmp_path / "group") as group:
        yield group


class Writer:
    """Pushes numbers to one server until it refuses them, and notes which it has acknowledged."""

    def __init__(self, port: int) -> None:
        self.acknowledged: list[int] = []
        self.error: Exception | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, args=(port,))
        self._thread.start()

    def _write(self, port: int) -> None:
        with redis.Redis(port=port, retry=None, socket_timeout=DEADLINE) as client:
            while not self._over.wait(0.001):
                number = len(self.acknowledged)
                try:
                    client.rpush("numbers", number)
                except redis.RedisError as error:
                    self.error = error
                    return
                self.acknowledged.append(number)

    def stop(self) -> None:
        self._over.set()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


def test_a_failover_tells_exactly_which_acknowledged_writes_it_forgot(group):
    for _ in range(2):  # and back
        old = group.master
        writer = Writer(old)
        eventually(lambda writer=writer: len(writer.acknowledged) > 10)
        result = group.failover()
        writer.stop()
        assert (result.old, result.new) == (old, group.master)
        assert old != group.master
        client = group.client()
        kept = set(map(int, client.lrange("numbers", 0, -1)))
        forgotten = set(writer.acknowledged) - kept
        assert forgotten, "an old master goes on acknowledging until it is told"
        for number in writer.acknowledged:
            pushed = b"RPUSH\r\n$7\r\nnumbers\r\n$%d\r\n%d\r\n" % (len(str(number)), number)
            assert (pushed in result.forgotten) == (number in forgotten)
        assert result.acknowledged - result.kept == len(result.forgotten)
        client.delete("numbers")
        client.wait(1, 0)
        client.close()


def test_a_coordinated_failover_forgets_nothing(group):
    old = group.master
    writer = Writer(old)
    eventually(lambda: len(writer.acknowledged) > 10)
    result = group.failover(coordinated=True)
    writer.stop()
    assert result.new == group.master != old
    assert result.forgotten == b""
    assert isinstance(writer.error, redis.RedisError), "the old master takes no writes any more"
    with group.client() as client:
        assert set(writer.acknowledged) <= set(map(int, client.lrange("numbers", 0, -1)))


def test_a_client_of_the_test_projects_settings_follows_the_master(group, talk):
    """The settings that a pool gets in a test, in a process of its own."""
    code = """
import os, sys, django
os.environ.update(DJANGO_SETTINGS_MODULE="shop.settings", REDIS_SENTINELS=sys.argv[1])
django.setup()
from django_rq import get_connection
for line in sys.stdin:
    print(get_connection("high").connection_pool.get_master_address()[1], flush=True)
"""
    process = talk(code, group.sentinels)
    before = group.master
    assert int(process.say().hear()) == before
    after = group.failover().new
    assert int(process.say().hear()) == after != before
