"""What a pool tells systemd, heard by a real socket in systemd's place."""

from __future__ import annotations

import re
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Pool, eventually


class Systemd:
    """Listens where systemd would, and keeps what it hears."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        """Every message so far, in order."""
        while True:
            try:
                self._heard.append(self._socket.recv(65_536).decode())
            except BlockingIOError:
                return self._heard

    def expect(self, pattern: str, times: int = 1) -> list[str]:
        def look() -> list[str]:
            found = [message for message in self.heard() if re.fullmatch(pattern, message)]
            assert len(found) >= times, f"{self._heard} lacks {pattern!r}"
            return found

        return eventually(look)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.close()


@pytest.fixture
def start_named(start_pool, systemd):
    """Starts pools of one name that no other pool on this machine has, with systemd above them."""
    name = f"served-{secrets.token_hex(4)}"

    def start(*arguments: str, env: dict[str, str] | None = None) -> Pool:
        variables = {**systemd.environment, **(env or {})}
        return start_pool("--name", name, *arguments, env=variables)

    return start


def test_a_pool_is_ready_when_it_is_whole_and_says_what_it_has(start_named, systemd):
    pool = start_named("high=2", "low=1").expect_ready(3)
    systemd.expect("READY=1")
    systemd.expect("STATUS=running: high 2 of 2, low 1 of 1")
    assert pool.stop() == 0
    systemd.expect("STOPPING=1")
    assert "READY=1" not in systemd.heard()[systemd.heard().index("STOPPING=1") :]


def test_a_pool_without_its_redis_is_not_ready_and_asks_for_time(start_named, systemd, own_server):
    own_server.stop()
    pool = start_named("high=1", env={"REDIS_URL": own_server.url})
    systemd.expect(r"EXTEND_TIMEOUT_USEC=\d+")
    pool.expect("Redis cannot be reached")
    assert "READY=1" not in systemd.heard()
    own_server.start()
    systemd.expect("READY=1")
    assert pool.stop() == 0


def test_a_reload_is_told_from_its_beginning_to_its_end(start_named, systemd):
    pool = start_named("high=2").expect_ready(2)
    systemd.expect("READY=1")
    pool.send(signal.SIGHUP)
    pool.expect_ready(4)
    systemd.expect("READY=1", 2)
    told = [each for each in systemd.heard() if each.startswith(("READY", "RELOADING"))]
    assert [each.partition("\n")[0] for each in told] == ["READY=1", "RELOADING=1", "READY=1"]
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", told[1])
    assert pool.stop() == 0


def test_a_stop_is_extended_for_as_long_as_jobs_take(start_named, systemd, enqueue, valkey):
    pool = start_named("high=1").expect_ready(1)
    systemd.expect("READY=1")
    enqueue("high", "hold", "gate")
    eventually(lambda: valkey.llen("gate:running"))
    before = len(systemd.heard())
    pool.send(signal.SIGQUIT)
    systemd.expect("STOPPING=1")
    # Its start was extended, too; that was before.
    eventually(lambda: "EXTEND_TIMEOUT_USEC=30000000" in systemd.heard()[before:])
    valkey.rpush("gate:open", 1)
    assert pool.wait() == 0


def test_the_loop_feeds_the_watchdog_and_a_loop_that_hangs_does_not(start_named, systemd):
    pool = start_named("high=1", env={"WATCHDOG_USEC": "400000"}).expect_ready(1)
    systemd.expect("WATCHDOG=1", 3)
    pool.send(signal.SIGSTOP)
    heard = eventually(lambda: pool.manager.status() == "stopped" and len(systemd.heard()))
    pool.send(signal.SIGCONT)
    eventually(lambda: len(systemd.heard()) > heard)
    assert pool.stop() == 0


def test_workers_and_jobs_do_not_speak_for_the_pool(start_named, systemd, enqueue, valkey):
    pool = start_named("high=1").expect_ready(1)
    code = "import os; assert 'NOTIFY_SOCKET' not in os.environ"
    job = enqueue("high", "run_python", code)
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


def test_a_swap_hands_the_service_over_and_the_older_pool_is_silent(start_named, systemd):
    old = start_named("high=1").expect_ready(1)
    systemd.expect("READY=1")
    new = start_named("high=1", "--hot-swap")
    assert old.wait() == 0
    systemd.expect(f"MAINPID={new.manager_pid}")
    systemd.expect("READY=1", 2)
    assert "STOPPING=1" not in systemd.heard()
    assert new.stop() == 0
    systemd.expect("STOPPING=1")
