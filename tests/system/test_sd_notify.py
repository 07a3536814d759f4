"""systemd's protocol, spoken to real sockets of this test's own."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_rq_pool.system.sd_notify import EXTENSION, RETRY, Notifier


class Systemd:
    """The other end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(10_000).decode())
            except BlockingIOError:
                return messages

    def fill(self) -> None:
        """Lets its queue become full, as when systemd is busy."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.sendto(b"X_OTHER=1", self.socket.getsockname())


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(str(tmp_path / "notify"))
    yield systemd
    systemd.socket.close()


def notifier(systemd: Systemd, **more: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": systemd.address, **more})


@pytest.mark.parametrize(
    ("tell", "message"),
    [
        (Notifier.ready, "READY=1"),
        (Notifier.stopping, "STOPPING=1"),
        (lambda notifier: notifier.main_pid(4711), "MAINPID=4711"),
        (lambda notifier: notifier.status("5 of 5 workers"), "STATUS=5 of 5 workers"),
        (lambda notifier: notifier.status("one\ntwo\r\n three"), "STATUS=one two  three"),
        (lambda notifier: notifier.status("fünf \udcff"), "STATUS=fünf ?"),
        (
            lambda notifier: notifier.tick(0.0, extending=True),
            f"EXTEND_TIMEOUT_USEC={EXTENSION:.0f}000000",
        ),
    ],
)
def test_each_message_is_one_datagram(systemd, tell, message):
    tell(notifier(systemd))
    assert systemd.heard() == [message]


def test_a_reload_gives_the_time_of_the_monotonic_clock_in_microseconds(systemd):
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier(systemd).reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    [message] = systemd.heard()
    match = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", message)
    assert before <= int(match[1]) <= after


def test_the_address_may_be_a_name_in_the_abstract_space():
    systemd = Systemd(f"@rqpool-test-{os.getpid()}")
    notifier(systemd).ready()
    assert systemd.heard() == ["READY=1"]
    systemd.socket.close()


def everything(notifier: Notifier) -> None:
    notifier.ready()
    notifier.reloading()
    notifier.stopping()
    notifier.main_pid(1)
    notifier.status("all is well")


def test_without_the_variable_nothing_happens_and_nothing_is_due(caplog):
    caplog.set_level(logging.DEBUG)
    silent = Notifier({"WATCHDOG_USEC": "1000000"})
    everything(silent)
    assert silent.tick(0.0, extending=True) is None
    assert caplog.text == ""


@pytest.mark.parametrize("address", ["notify", "vsock:2:1234"])
def test_an_address_of_another_kind_is_told_once_and_then_ignored(address, caplog):
    silent = Notifier({"NOTIFY_SOCKET": address})
    everything(silent)
    assert caplog.messages == [
        f"NOTIFY_SOCKET: {address!r} is neither an absolute path nor an abstract name (@). "
        "systemd is not notified."
    ]


def test_a_status_is_sent_when_it_has_changed(systemd):
    talker = notifier(systemd)
    for text in ("4 of 5", "4 of 5", "5 of 5", "4 of 5"):
        talker.status(text)
    assert systemd.heard() == ["STATUS=4 of 5", "STATUS=5 of 5", "STATUS=4 of 5"]


def test_after_it_has_handed_over_a_pool_is_silent(systemd):
    talker = notifier(systemd, WATCHDOG_USEC="2000000")
    talker.mute()
    everything(talker)
    assert talker.tick(100.0, extending=True) is None
    assert systemd.heard() == []


# Who may speak


def test_the_variables_are_taken_out_so_that_no_worker_speaks_for_the_pool(systemd):
    environment = {
        "NOTIFY_SOCKET": systemd.address,
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    Notifier(environment)
    assert environment == {"HOME": "/"}


NO_VARIABLE = """
import os, subprocess, sys
from django_rq_pool.system.sd_notify import Notifier

notifier = Notifier(os.environ)
notifier.ready()
code = "import os; print(sorted(n for n in os.environ if n.startswith(('NOTIFY', 'WATCHDOG'))))"
subprocess.run([sys.executable, "-c", code], check=True)
"""


def test_what_a_job_starts_finds_no_variable_and_no_descriptor(systemd):
    before = len(list(Path("/dev/fd").iterdir()))
    everything(notifier(systemd))
    assert len(list(Path("/dev/fd").iterdir())) == before
    systemd.heard()

    done = subprocess.run(
        [sys.executable, "-c", NO_VARIABLE],
        env={**os.environ, "NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "1000000"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
    assert systemd.heard() == ["READY=1"]


# The watchdog


def test_a_ping_is_due_at_once_and_then_at_half_of_what_the_watchdog_allows(systemd):
    talker = notifier(systemd, WATCHDOG_USEC="20000000")
    assert talker.tick(100.0) == 110.0
    assert talker.tick(109.9) == 110.0
    assert systemd.heard() == ["WATCHDOG=1"]
    assert talker.tick(110.0) == 120.0
    assert systemd.heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    ("pid", "pings"),
    [("own", True), ("", True), ("parent's", False), ("soon", False)],
)
def test_a_watchdog_that_is_meant_for_another_process_is_left_to_it(systemd, pid, pings):
    pid = {"own": str(os.getpid()), "parent's": str(os.getppid())}.get(pid, pid)
    talker = notifier(systemd, WATCHDOG_USEC="2000000", WATCHDOG_PID=pid)
    assert (talker.tick(0.0) is not None) is pings
    assert bool(systemd.heard()) is pings


@pytest.mark.parametrize("given", ["", "0", "soon", "-1", "1.5", "²"])
def test_no_watchdog_is_served_by_a_time_that_is_none(systemd, given):
    assert notifier(systemd, WATCHDOG_USEC=given).tick(0.0) is None
    assert systemd.heard() == []


# A stop that takes long


def test_a_stop_is_extended_in_good_time_for_as_long_as_it_takes(systemd):
    talker = notifier(systemd)
    assert talker.tick(0.0) is None
    due = talker.tick(100.0, extending=True)
    assert 100.0 < due < 100.0 + EXTENSION / 2
    assert talker.tick(due - 0.1, extending=True) == due
    assert len(systemd.heard()) == 1
    assert talker.tick(due, extending=True) > due
    assert len(systemd.heard()) == 1
    assert talker.tick(due + 0.1, extending=False) is None
    assert systemd.heard() == []


# A socket that does not take it


def gone(systemd: Systemd) -> None:
    systemd.socket.close()


def vanished(systemd: Systemd) -> None:
    Path(systemd.address).unlink()


@pytest.mark.parametrize("becomes", [gone, vanished])
def test_a_socket_that_is_gone_is_logged_once_at_debug_and_not_tried_again(
    systemd, caplog, becomes
):
    caplog.set_level(logging.DEBUG, "django_rq_pool")
    talker = notifier(systemd)
    becomes(systemd)
    everything(talker)
    assert talker.tick(0.0) is None
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
    assert caplog.messages[0].startswith("NOTIFY_SOCKET: sending 'READY=1' failed")


def test_what_must_arrive_is_sent_again_in_its_order_when_the_queue_was_full(systemd, caplog):
    caplog.set_level(logging.DEBUG, "django_rq_pool")
    talker = notifier(systemd)
    systemd.fill()
    talker.ready()
    talker.main_pid(7)
    assert talker.tick(100.0) == 100.0 + RETRY
    systemd.heard()
    assert talker.tick(100.5) == 100.0 + RETRY
    assert systemd.heard() == []
    assert talker.tick(100.0 + RETRY) is None
    assert systemd.heard() == ["READY=1", "MAINPID=7"]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "send",
    [
        lambda notifier: notifier.status("5 of 5"),
        lambda notifier: notifier.tick(100.0),
        lambda notifier: notifier.tick(100.0, extending=True),
    ],
    ids=["status", "ping", "extension"],
)
def test_what_is_said_again_anyway_does_not_pile_up(systemd, send):
    talker = notifier(systemd, WATCHDOG_USEC="20000000")
    systemd.fill()
    for _ in range(3):
        send(talker)
    systemd.heard()
    send(talker)
    assert len(systemd.heard()) <= 1
    due = talker.tick(100.0 + RETRY, extending=True)
    assert due > 100.0 + RETRY
    assert "WATCHDOG=1" in systemd.heard()


def test_a_queue_that_stays_full_makes_no_call_wait_and_keeps_what_was_said_last(systemd):
    talker = notifier(systemd)
    systemd.fill()
    for pid in range(1000):
        talker.main_pid(pid)
    assert talker.tick(0.0) == RETRY
    systemd.heard()
    talker.tick(RETRY)
    assert systemd.heard()[-1] == "MAINPID=999"
