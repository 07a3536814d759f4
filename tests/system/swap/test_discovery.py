"""Which processes count as other pools' managers, and that a signal reaches no other process."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from conversations import Conversation
from django_rq_pool.swap.discovery import RunningManager, find_older, title
from harness import DEADLINE, eventually, python_command

MANAGER = """
import sys
print("here", flush=True)
sys.stdin.readline()
"""

FIND = """
import sys
from django_rq_pool.swap.discovery import find_older, has_younger

print("here", flush=True)
for line in sys.stdin:
    if line.strip():
        print(has_younger(sys.argv[-1]), flush=True)
    else:
        print([other.pid for other in find_older(sys.argv[-1])], flush=True)
"""

NAME = f"{os.getpid()}shop"
"""A name of this run's own: other pools of this user's may live on this machine."""

SHOP = title(NAME, "managing []")


@pytest.fixture
def manager(talk: Callable[..., Conversation]) -> Conversation:
    """A process that looks like the manager of this run's pool."""
    process = talk(MANAGER, title=SHOP)
    process.hear()
    return process


@pytest.fixture(params=["pidfd", "no pidfd"])
def other(
    request: pytest.FixtureRequest, manager: Conversation, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningManager]:
    """That manager as another pool sees it, on a system that has pidfds or one that has not."""
    if request.param == "no pidfd":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    elif not hasattr(os, "pidfd_open"):
        pytest.skip("this system has no pidfd")
    other = RunningManager(psutil.Process(manager.pid), NAME)
    assert (other.fileno() is None) == (request.param == "no pidfd")
    yield other
    other.close()


def has_title(pid: int) -> bool:
    return " ".join(psutil.Process(pid).cmdline()).startswith(SHOP)


def found_by(process: Conversation) -> list[int]:
    return [int(pid) for pid in process.say().hear().strip("[]").split(",") if pid]


# Finding older pools


def test_the_older_managers_of_the_pool_are_found_the_oldest_first(talk, tmp_path):
    folders = [tmp_path / f"release{number}" for number in range(4)]
    for folder in folders:
        folder.mkdir()
    pools = [talk(FIND, NAME, title=SHOP, cwd=folder) for folder in folders]
    assert {pool.hear() for pool in pools} == {"here"}
    for number, pool in enumerate(pools):
        assert found_by(pool) == [older.pid for older in pools[:number]]


def test_a_pool_knows_whether_a_younger_one_replaces_it(talk):
    pools = [talk(FIND, NAME, title=SHOP) for _ in range(3)]
    assert {pool.hear() for pool in pools} == {"here"}
    younger = talk(FIND, f"{NAME}2", title=title(f"{NAME}2", ""))
    younger.hear()
    answers = [pool.say("younger?").hear() for pool in pools]
    assert answers == ["True", "True", "False"]


FORKS_AND_LOOKS = """
import os, sys
from django_rq_pool.swap.discovery import has_younger

over, ours = os.pipe()
if os.fork() == 0:
    os.close(ours)
    os.read(over, 1)
    os._exit(0)
print(has_younger(sys.argv[1]), flush=True)
"""


def test_a_worker_that_still_has_its_managers_title_is_no_younger_pool(talk):
    assert talk(FORKS_AND_LOOKS, NAME, title=SHOP).hear() == "False"


LOOK_AT_EACH_OTHER = """
import os, signal, sys
from setproctitle import setproctitle
from django_rq_pool.swap.discovery import find_older, title

_, number, name = sys.argv
setproctitle(title(name, "starting"))
over, ours = os.pipe()
for _ in range(int(number)):
    if os.fork() == 0:
        break
else:
    print("here", flush=True)
    signal.pause()
os.close(ours)
os.read(0, 1)
pids = " ".join(str(other.pid) for other in find_older(name))
os.write(1, f"{os.getpid()} {pids}\\n".encode())
os.read(over, 1)
"""


def test_of_two_that_look_at_each_other_exactly_one_is_older_even_in_one_instant(talk):
    # The clock of the system's records ticks every 10 ms: most of these have the same start.
    number = 12
    family = talk(LOOK_AT_EACH_OTHER, number, NAME)
    assert family.hear() == "here"
    family.process.stdin.write(b"." * number)
    looks = [[int(pid) for pid in family.hear().split()] for _ in range(number)]
    finds = {pid: found for pid, *found in looks}
    assert len(finds) == number
    for one in finds:
        assert family.pid in finds[one]
        for two in finds:
            assert one == two or (one in finds[two]) != (two in finds[one])


@pytest.mark.parametrize(
    "looks_like",
    [
        title(f"{NAME}2", "managing []"),
        title(NAME[:-1], "managing []"),
        title(f"{NAME}]", "managing []"),
        f"rqpool-manager[{NAME}]",
        f"rqpool-manager[{NAME}]:managing []",
        f" {SHOP}",
        f"/usr/bin/{SHOP}",
        f"grep {SHOP}",
        "vi",
        f"rqpool-recovery[{NAME}]: accounting for {NAME}.web1",
        f"rq:worker:{NAME}.web1.high.1-a9079f80: Listening on high",
    ],
    ids=lambda title: title.replace(str(os.getpid()), ""),
)
def test_what_is_no_manager_of_this_pool_is_not_found(talk, looks_like):
    process = talk(MANAGER, SHOP, title=looks_like)
    process.hear()
    finder = talk(FIND, NAME, title=SHOP)
    finder.hear()
    assert found_by(finder) == []


def test_an_ended_manager_that_nobody_has_reaped_is_not_found(talk, manager):
    manager.send(signal.SIGKILL)
    eventually(lambda: psutil.Process(manager.pid).status() == psutil.STATUS_ZOMBIE)
    finder = talk(FIND, NAME, title=SHOP)
    finder.hear()
    assert found_by(finder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another user's process")
def test_another_users_manager_is_not_found(talk, tmp_path):
    process = subprocess.Popen(
        [SHOP, "infinity"], executable=shutil.which("sleep"), cwd=tmp_path, user=12345
    )
    try:
        eventually(lambda: psutil.Process(process.pid).uids().effective == 12345)
        eventually(lambda: has_title(process.pid))
        finder = talk(FIND, NAME, title=SHOP)
        finder.hear()
        assert found_by(finder) == []
    finally:
        process.kill()
        process.wait()


IN_A_CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def require_a_pid_namespace() -> None:
    if shutil.which("unshare") is None or subprocess.run([*IN_A_CONTAINER, "true"]).returncode:
        pytest.skip("this user cannot make a PID namespace with unshare")


def test_a_manager_in_a_container_is_not_found_from_the_host(talk, tmp_path):
    require_a_pid_namespace()
    contained = subprocess.Popen(
        [*IN_A_CONTAINER, "bash", "-c", f"exec -a '{SHOP}' sleep infinity"], cwd=tmp_path
    )
    try:
        [inner] = eventually(
            lambda: [
                child for child in psutil.Process(contained.pid).children() if has_title(child.pid)
            ]
        )
        finder = talk(FIND, NAME, title=SHOP)
        finder.hear()
        assert inner.is_running()
        assert found_by(finder) == []
    finally:
        contained.kill()
        contained.wait()


def test_this_process_is_no_manager():
    assert find_older(NAME) == []


# Signals


def test_a_signal_reaches_the_manager_once_and_no_more_when_it_is_gone(other, manager):
    assert other.is_it()
    assert other.send(signal.SIGTERM)
    assert manager.wait() == -signal.SIGTERM
    assert not other.is_it()
    assert not other.send(signal.SIGTERM)


def test_a_manager_that_has_become_another_program_gets_no_signal(talk, other, manager):
    changing = talk(
        "import os, sys\nprint('here', flush=True)\nsys.stdin.readline()\n"
        "os.execv(sys.argv[1], ['vi', '-c', \"print('vi', flush=True); input()\"])",
        sys.executable,
        title=SHOP,
    )
    changing.hear()
    changed = RunningManager(psutil.Process(changing.pid), NAME)
    assert changed.is_it()
    assert changing.say().hear() == "vi"
    assert not changed.send(signal.SIGTERM)
    changed.close()
    assert changing.say().wait() == 0


RECYCLE = """
import os, signal, subprocess, sys
import psutil
from django_rq_pool.swap.discovery import RunningManager, title

if sys.argv[1] == "no pidfd":
    del os.pidfd_open

def start(pid=None):
    if pid:
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(str(pid - 1))
    process = subprocess.Popen([title("shop", ""), "infinity"], executable="/bin/sleep")
    assert pid in (None, process.pid)
    return process

def end(process):
    process.kill()
    process.wait()

first = start()
began = psutil.Process(first.pid).create_time()
other = RunningManager(psutil.Process(first.pid), "shop")
while not other.is_it():
    pass  # exec has closed the descriptor that Popen waits on, and shows the arguments a bit later
end(first)
second = start(first.pid)
while psutil.Process(second.pid).create_time() == began:  # the clock has not ticked yet
    end(second)
    second = start(first.pid)
print("sent" if other.send(signal.SIGTERM) else "not sent", flush=True)
print("gone" if other.is_gone() else "not gone", flush=True)
print("touched" if second.poll() is not None else "untouched", flush=True)
end(second)
"""


@pytest.mark.parametrize("system", ["pidfd", "no pidfd"])
def test_who_has_got_the_pid_of_a_manager_since_gets_no_signal_though_it_is_a_manager(
    tmp_path, system
):
    require_a_pid_namespace()
    done = subprocess.run(
        [*IN_A_CONTAINER, *python_command("-c", RECYCLE, system)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    if "ns_last_pid" in done.stderr:
        pytest.skip("this user cannot choose pids")
    assert done.stdout.split("\n")[:3] == ["not sent", "gone", "untouched"], done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_signal_that_the_system_forbids_is_logged(other, manager, caplog):
    os.setresuid(12345, 12345, 0)
    try:
        assert not other.send(signal.SIGTERM)
    finally:
        os.setresuid(0, 0, 0)
    assert f"manager {manager.pid} of pool {NAME}: cannot send SIGTERM" in caplog.text
    assert manager.process.poll() is None


# Waiting


def test_a_poll_loop_notices_that_the_manager_has_ended_before_anybody_reaps_it(other, manager):
    assert not other.is_gone()
    if (fd := other.fileno()) is not None:
        assert not select.select([fd], [], [], 0)[0]
    manager.say()
    if fd is not None:
        assert select.select([fd], [], [], DEADLINE)[0] == [fd]
    eventually(other.is_gone)
    assert psutil.Process(manager.pid).status() == psutil.STATUS_ZOMBIE
    manager.wait()
    assert other.is_gone()


def test_closing_gives_every_descriptor_back(manager):
    before = psutil.Process().num_fds()
    other = RunningManager(psutil.Process(manager.pid), NAME)
    other.close()
    other.close()
    assert psutil.Process().num_fds() == before
    assert other.fileno() is None
