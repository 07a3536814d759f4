"""What a process waits for that is asked to stop: for an answer a moment, and then for none.

The client here would wait for a minute. The process of the test plays the one that is to stop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import django_rq.settings
import pytest
from redis.exceptions import ConnectionError, TimeoutError

from django_rq_pool.config import redis_clients, stop_aware
from django_rq_pool.config.groups import QueueGroup
from django_rq_pool.config.pool_redis import PoolRedis
from django_rq_pool.config.stop_aware import GIVEN_UP, StopAware
from django_rq_pool.system.signals import SignalInbox
from fault_proxy import FaultProxy
from fault_rules import ONCE, Direction, command
from harness import DEADLINE, eventually

GROUP = QueueGroup("high", ("high",), 0)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_clients, "COMMAND_TIMEOUT", DEADLINE)
    monkeypatch.setattr(stop_aware, "LEAVING_TIMEOUT", 0.2)


@pytest.fixture
def proxy(server, valkey) -> Iterator[FaultProxy]:
    with FaultProxy(server.connection_url) as proxy:
        yield proxy


@dataclass
class Process:
    """The process as its connections know it; the signal for it to stop is USR1."""

    inbox: SignalInbox
    stopping: bool = False
    busy: bool = False
    waits: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stop_aware = StopAware(
            self.wait,
            self.is_leaving,
            self.inbox.interruptible,
            lambda: self.busy,
            [signal.SIGUSR1],
        )

    def wait(self, fds: list[int], seconds: float) -> set[int]:
        self.waits.append(seconds)
        return self.inbox.wait(fds, seconds)

    def is_leaving(self) -> bool:
        self.stopping = self.stopping or signal.SIGUSR1 in self.inbox.take()
        return self.stopping


@pytest.fixture
def process() -> Iterator[Process]:
    wakeup_fd = signal.set_wakeup_fd(-1)
    inbox = SignalInbox([signal.SIGUSR1])
    yield Process(inbox)
    inbox.close()
    signal.set_wakeup_fd(wakeup_fd)


@pytest.fixture
def make_client(monkeypatch, process) -> Callable[[str], PoolRedis]:
    def make(url: str) -> PoolRedis:
        monkeypatch.setitem(django_rq.settings.QUEUES, "high", {"URL": url})
        return redis_clients.client(GROUP, process.stop_aware)

    return make


@pytest.fixture
def client(make_client, proxy) -> PoolRedis:
    return make_client(proxy.url)


@contextlib.contextmanager
def stopped_when(ready: Callable[[], object]) -> Iterator[None]:
    """Asks the process to stop once something is so, whatever it waits for."""

    def ask() -> None:
        eventually(ready)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def anything(request) -> bool:
    return True


def test_a_process_that_stays_gets_its_answers(client, process):
    assert client.set("key", "value")
    assert client.get("key") == b"value"
    with client.pipeline() as pipeline:
        pipeline.get("key").get("none").execute()
    assert not process.stop_aware.gave_up


def test_one_that_is_asked_to_stop_gets_the_answers_of_a_server_that_is_well(client, process):
    process.stopping = True
    assert client.set("key", "value")
    assert client.get("key") == b"value"
    assert not process.stop_aware.gave_up


def test_a_stop_ends_the_wait_for_an_answer_and_nothing_is_asked_after_that(
    client, process, proxy, valkey
):
    client.ping()
    rule = proxy.hold(command("INCRBY"), Direction.TO_CLIENT)
    with stopped_when(lambda: rule.hits), pytest.raises(TimeoutError, match="Timeout reading"):
        client.incr("count")
    assert process.stop_aware.gave_up
    with pytest.raises(TimeoutError, match=GIVEN_UP):
        client.incr("count")
    assert valkey.get("count") == b"1"


@pytest.mark.parametrize("handshake", ["CLIENT", "HELLO", "SET"])
def test_a_stop_ends_whatever_a_new_connection_waits_for(make_client, process, proxy, handshake):
    protocol = 3 if handshake == "HELLO" else 2
    client = make_client(f"{proxy.url}?protocol={protocol}")
    rule = proxy.blackhole(command(handshake))
    with stopped_when(lambda: rule.hits), pytest.raises(TimeoutError):
        client.set("key", "value")
    assert process.stop_aware.gave_up


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_ends_the_handshake_for_tls(make_client, process):
    # The interpreter closes the first socket, and says so to whoever wants to know.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = make_client(f"rediss://127.0.0.1:{listener.getsockname()[1]}")
        accepted: list[socket.socket] = []

        def asked() -> bool:
            accepted.append(listener.accept()[0])
            return bool(accepted[0].recv(1))

        with stopped_when(asked), pytest.raises(TimeoutError):
            client.ping()
        accepted[0].close()
    assert process.stop_aware.gave_up


def test_a_connection_that_a_stop_interrupts_is_opened_where_the_server_is_well(
    client, process, monkeypatch
):
    opened = []

    def stop_once(real):
        def connect(connection):
            opened.append(connection)
            if len(opened) == 1:
                signal.raise_signal(signal.SIGUSR1)
            return real(connection)

        return connect

    base = client.connection_pool.connection_class.__mro__[2]
    monkeypatch.setattr(base, "_connect", stop_once(base._connect))
    assert client.ping()
    assert len(opened) == 2
    assert process.stopping
    assert not process.stop_aware.gave_up


def test_a_process_with_a_job_waits_as_long_as_the_server_takes(client, process, proxy):
    process.stopping = process.busy = True
    proxy.delay(command("INCRBY"), 3 * stop_aware.LEAVING_TIMEOUT)
    assert client.incr("count") == 1
    assert process.waits == []


@pytest.mark.parametrize("where", ["thread", "child"])
def test_a_thread_or_a_child_of_the_process_waits_as_redis_py_does(client, process, proxy, where):
    process.stopping = True
    proxy.delay(command("INCRBY"), 3 * stop_aware.LEAVING_TIMEOUT)
    if where == "thread":
        thread = threading.Thread(target=client.incr, args=["count"])
        thread.start()
        thread.join()
    else:
        child = os.fork()
        if child == 0:
            try:
                client.incr("count")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    proxy.heal()
    assert client.get("count") == b"1"
    assert not process.stop_aware.gave_up


def test_an_answer_that_has_been_received_is_not_waited_for(client, process):
    connection = client.connection_pool.get_connection()
    connection.send_command("PING")
    assert connection.can_read(DEADLINE)
    process.waits.clear()
    assert connection.read_response() == b"PONG"
    assert process.waits == []
    client.connection_pool.release(connection)


def test_a_connection_that_has_ended_is_replaced(client, process, proxy):
    client.ping()
    proxy.cut(command("INCRBY"), ONCE)
    with pytest.raises(ConnectionError):
        client.incr("count")
    assert client.incr("count") == 1


def test_a_silent_sentinel_does_not_keep_it_either(monkeypatch, process):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = {"SENTINELS": [listener.getsockname()], "MASTER_NAME": "shop", "DB": 0}
        monkeypatch.setitem(django_rq.settings.QUEUES, "high", settings)
        client = redis_clients.client(GROUP, process.stop_aware)
        accepted: list[socket.socket] = []

        def asked() -> bool:
            accepted.append(listener.accept()[0])
            return bool(accepted[0].recv(1))

        with stopped_when(asked), pytest.raises(ConnectionError):
            client.ping()
        accepted[0].close()
    assert process.stop_aware.gave_up
