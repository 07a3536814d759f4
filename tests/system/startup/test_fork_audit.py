"""The audit: each finding in a process of its own, which has nothing else."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from django_rq_pool.startup.known_threads import KNOWN_THREADS, Kind, known

Audit = Callable[..., list[str]]

PREPARE = """
import logging.handlers, os, queue, signal, socket, sys, threading, _thread
from django_rq_pool.startup.fork_audit import audit

kept = []
gate = threading.Event()
"""

FINISH = """
for finding in audit():
    print(finding.text if BARE else f"{finding.kind.name} {finding.text}")
sys.stdout.flush()
os._exit(0)
"""

linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")


@pytest.fixture
def audit_of() -> Audit:
    """Runs some lines, then the audit, in a process; returns the findings."""

    def audit_of(lines: str, *, kinds: bool = False, **options: object) -> list[str]:
        script = f"{PREPARE}BARE = {not kinds}\n{lines}{FINISH}"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            **options,
        )
        return done.stdout.splitlines()

    return audit_of


def test_a_process_with_nothing_to_hide_has_no_findings(audit_of):
    assert audit_of("import django, redis, rq, psutil") == []


# Threads


def test_a_thread_is_told_by_its_name_and_module_with_what_to_do_about_it(audit_of):
    [finding] = audit_of("logging.handlers.QueueListener(queue.Queue()).start()")
    assert re.fullmatch(
        r"Thread 'Thread-1 \(_monitor\)' \(logging\.handlers\.QueueListener\) runs in the manager: "
        r"log records that a worker puts into its queue are written by nobody\. "
        r"Start it in an after_prefork hook\.",
        finding,
    )


def test_a_thread_of_the_project_is_told_by_its_name_and_module(audit_of):
    [finding] = audit_of(
        "threading.Thread(target=gate.wait, name='ticker', daemon=True).start()", kinds=True
    )
    assert finding.startswith("MISSING Thread 'ticker' runs in the manager: workers do not have it")
    [finding] = audit_of("import socketserver\nthreading.Timer(1000, int).start()")
    assert finding.startswith("Thread 'Thread-1' runs in the manager: ")


def test_a_wrapper_in_which_every_thread_begins_does_not_hide_what_it_runs(audit_of):
    [finding] = audit_of(
        """
wrapper = {"__name__": "sentry_sdk.integrations.threading"}
exec("def run(self): old_run(self)", wrapper)
wrapper["old_run"] = threading.Thread.run
threading.Thread.run = wrapper["run"]
logging.handlers.QueueListener(queue.Queue()).start()
"""
    )
    assert "(logging.handlers.QueueListener)" in finding


def test_each_thread_is_told_and_a_daemon_is_no_exception(audit_of):
    findings = audit_of(
        """
for name in ("one", "two"):
    threading.Thread(target=gate.wait, name=name, daemon=True).start()
"""
    )
    assert [finding.partition(" runs")[0] for finding in findings] == [
        "Thread 'one'",
        "Thread 'two'",
    ]


NATIVE = """
import ctypes

def compute(name):
    ctypes.CDLL(None).prctl(15, name)  # PR_SET_NAME
    started.set()
    gate.acquire()

gate = _thread.allocate_lock()
gate.acquire()
for name in NAMES:
    started = threading.Event()
    _thread.start_new_thread(compute, (name,))
    started.wait()
"""


@linux
def test_a_thread_that_python_does_not_know_is_told_by_the_kernels_name(audit_of):
    [finding] = audit_of(f"NAMES = [b'strange-0']\n{NATIVE}", kinds=True)
    assert finding.startswith("MAY_HANG A library's thread 'strange-0' runs in the manager: ")
    assert "Use the library in jobs only" in finding


@linux
def test_threads_of_one_name_make_one_finding(audit_of):
    findings = audit_of(f"NAMES = [b'odd', b'even', b'odd', b'odd']\n{NATIVE}")
    assert sorted(finding.partition(" in the")[0] for finding in findings) == [
        "3 of a library's threads 'odd' run",
        "A library's thread 'even' runs",
    ]


@linux
def test_a_thread_that_has_only_the_name_of_its_process_is_told_as_nameless(audit_of):
    name = Path(sys.executable).name[:15].encode()
    [finding] = audit_of(f"NAMES = [{name!r}]\n{NATIVE}")
    assert "It has no name of its own: OpenMP" in finding
    assert "OMP_NUM_THREADS=1" in finding


@linux
def test_all_threads_of_which_the_same_is_known_make_one_finding(audit_of):
    names = [b"polars-0", b"polars-1", b"polars-2", b"async-executor-", b"polars-0", b"tokio-rt"]
    rust, polars = sorted(audit_of(f"NAMES = {names}\n{NATIVE}", kinds=True), key=len)
    assert rust.startswith("MAY_HANG Thread 'tokio-rt' (tokio or rayon, of a library in Rust) runs")
    assert re.match(
        r"MAY_HANG Threads '[^']+', '[^']+', '[^']+' and 1 more \(polars 2\.1\) run in the "
        "manager: polars has computed in the manager",
        polars,
    )


@linux
@pytest.mark.parametrize("name", ["jemalloc_bg_thd", "polars-ooc-clea"])
def test_a_thread_that_is_known_to_be_harmless_is_told_as_such(audit_of, name):
    [finding] = audit_of(f"NAMES = [b'{name}']\n{NATIVE}", kinds=True)
    assert finding.startswith(f"HARMLESS Thread '{name}' (")


@pytest.mark.parametrize(
    ("lines", "kind", "library"),
    [
        (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "pool = ThreadPoolExecutor(2, thread_name_prefix='own')\npool.submit(int).result()",
            "MAY_HANG",
            "concurrent.futures.ThreadPoolExecutor",
        ),
        (
            "from multiprocessing.pool import ThreadPool\npool = ThreadPool(2)",
            "MAY_HANG",
            "multiprocessing.pool.ThreadPool",
        ),
        (
            "import multiprocessing\nmade = multiprocessing.Queue()\nmade.put(1)",
            "MISSING",
            "multiprocessing.Queue",
        ),
        (
            "import redis.client\n"
            "class Subscription:\n"
            "    subscribed = True\n"
            "    def get_message(self, **options): gate.wait()\n"
            "redis.client.PubSubWorkerThread(Subscription(), 1.0, daemon=True).start()",
            "MISSING",
            "redis 8.1, PubSubWorkerThread",
        ),
        (
            "threading.Thread(target=gate.wait, name='django-main-thread', daemon=True).start()",
            "MISSING",
            "Django 6.1, runserver's reloader",
        ),
        (
            "threading.Thread(target=gate.wait, name='sentry-sdk.BackgroundWorker').start()",
            "HARMLESS",
            "sentry-sdk 2.75",
        ),
        (
            "threading.Thread(target=gate.wait, name='OtelBatchSpanRecordProcessor').start()",
            "HARMLESS",
            "opentelemetry-sdk 1.45",
        ),
    ],
)
def test_threads_of_python_are_known_by_their_names_or_modules(audit_of, lines, kind, library):
    [finding] = audit_of(f"{lines}\n", kinds=True)
    assert finding.startswith(f"{kind} Thread")
    assert f"({library})" in finding


def test_each_row_knows_its_own_kind_of_thread_only():
    assert known("polars-0", None).kind is Kind.MAY_HANG
    assert known("polars-0", "") is None
    assert known("Thread-1", "posthog.consumer").kind is Kind.HARMLESS
    assert known("Thread-1", None) is None
    for row in KNOWN_THREADS:
        assert row.sentence.endswith(".")
        assert row.name != ".*" or row.module not in (None, ".*")


STOPS_AROUND_FORKS = """
def start():
    global thread, gate
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait)
    thread.start()

def stop():
    gate.set()
    thread.join()

os.register_at_fork(before=stop, after_in_parent=start)
start()
assert threading.active_count() == 2
"""


def test_threads_that_are_stopped_before_each_fork_are_no_finding(audit_of):
    assert audit_of(STOPS_AROUND_FORKS) == []


def test_a_fork_handler_that_waits_for_ever_does_not_hang_the_audit(audit_of):
    [finding] = audit_of(
        """
os.register_at_fork(after_in_child=signal.pause)
threading.Thread(target=gate.wait, name="one").start()
"""
    )
    assert finding.startswith("Thread 'one'")


# Sockets


def test_a_connection_is_told_by_its_descriptor_kind_and_peer(audit_of):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        [finding] = audit_of(
            f"with socket.create_connection(('127.0.0.1', {port})) as connection:\n"
            "    os.dup2(connection.fileno(), 50)"
        )
    assert re.fullmatch(
        rf"Socket 50 \(TCP, to 127\.0\.0\.1:{port}\) is open in the manager: .+"
        r"Close it before the pool forks, or open it in an after_prefork hook\.",
        finding,
    )


def test_a_socket_without_a_peer_is_told_by_its_own_address(audit_of):
    [finding] = audit_of("kept.append(socket.create_server(('127.0.0.1', 0)))")
    assert re.match(r"Socket \d+ \(TCP, at 127\.0\.0\.1:\d+\) is open", finding)


def test_unix_sockets_are_told_by_their_paths(audit_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server, client = audit_of(
        """
kept.append(socket.socket(socket.AF_UNIX))
kept[0].bind("server.sock")
kept[0].listen()
kept.append(socket.socket(socket.AF_UNIX))
kept[1].connect("server.sock")
"""
    )
    assert "(Unix, at server.sock)" in server
    assert "(Unix, to server.sock)" in client


def test_both_ends_of_a_socket_pair_are_told(audit_of):
    findings = audit_of("kept.append(socket.socketpair())")
    assert len(findings) == 2
    assert all("(Unix, to a socket without a name)" in finding for finding in findings)


def test_ipv6_addresses_can_be_read(audit_of):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
            port = server.getsockname()[1]
            [finding] = audit_of(f"kept.append(socket.create_connection(('::1', {port})))")
    except OSError:
        pytest.skip("no IPv6 here")
    assert f"(TCP, to [::1]:{port})" in finding


def test_datagrams_pipes_files_and_standard_streams_are_no_findings(audit_of):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert (
            audit_of(
                """
kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
kept.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
kept.append(os.pipe())
kept.append(open(os.devnull))
kept.append(os.dup(0))
""",
                stdin=theirs,
                stderr=theirs,
            )
            == []
        )


def test_an_audit_opens_and_closes_nothing(audit_of):
    counts = audit_of(
        """
kept.append(socket.socketpair())
def fds(): return sorted(os.listdir("/dev/fd"))
before = fds()
audit()
print(before == fds())
kept[0][0].send(b"x")
print(kept[0][1].recv(1))
"""
    )
    assert counts[:2] == ["True", "b'x'"]
