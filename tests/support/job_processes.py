"""Jobs that make processes of their own, in every way that projects use, and end them again."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.shared_memory import SharedMemory

from pool_jobs import client, hold, note


def stay(key: str) -> None:
    """Says that it is there, and stays."""
    note(key, str(os.getpid()))
    select.select([], [], [], 600)


def _await(key: str, number: int = 1) -> None:
    """Waits until so many processes have said that they are there."""
    connection = client()
    for _ in range(number):
        connection.blmove(key, f"{key}:seen", 600)


def _end_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# What a job ends itself


def pool(method: str) -> None:
    """Leaves the block of a pool whose processes are busy."""
    with multiprocessing.get_context(method).Pool(2) as pool:
        for _ in range(2):
            pool.apply_async(stay, ["there"])
        _await("there", 2)


def process_at_work(method: str) -> int:
    child = multiprocessing.get_context(method).Process(target=stay, args=["there"])
    child.start()
    _await("there")
    child.terminate()
    child.join()
    return child.exitcode


def process_at_once(method: str) -> int:
    """Ends processes before they have run their first instruction, or soon after."""
    children = [
        multiprocessing.get_context(method).Process(target=stay, args=["nobody"]) for _ in range(20)
    ]
    for child in children:
        child.start()
        child.terminate()
    for child in children:
        child.join()
    [exitcode] = {child.exitcode for child in children}
    return exitcode


def executor(method: str) -> str:
    """Ends the process of an executor, which notices that it is gone."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        future = executor.submit(stay, "there")
        _await("there")
        [child] = executor._processes.values()
        child.terminate()
        return type(future.exception()).__name__


def program() -> int:
    child = subprocess.Popen(["sleep", "600"])
    child.terminate()
    return child.wait()


def program_after_preparation() -> int:
    """Like `program`, with a function that runs in the child before the program does."""
    child = subprocess.Popen(["sleep", "600"], preexec_fn=os.getpid)
    child.terminate()
    return child.wait()


def fork() -> int:
    pid = os.fork()
    if pid == 0:
        stay("there")
    _await("there")
    os.kill(pid, signal.SIGTERM)
    return _end_of(pid)


def parallel() -> int:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    done = sum(Parallel(n_jobs=2, backend="loky")(delayed(abs)(-1) for _ in range(20)))
    get_reusable_executor().shutdown(wait=True, kill_workers=True)
    return done


def child_actions() -> list[str]:
    """What a forked process finds its signals to do."""
    numbers = [*signal.Signals]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        wakeup = signal.set_wakeup_fd(-1)
        unlike = [
            number.name
            for number in numbers
            if callable(signal.getsignal(number)) != (number == signal.SIGINT)
        ]
        blocked = [
            signal.Signals(each).name for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        ]
        os.write(writer, " ".join([str(wakeup), *unlike, *blocked]).encode())
        os._exit(0)
    os.close(writer)
    _end_of(pid)
    with os.fdopen(reader) as stream:
        return stream.read().split()


# What a job leaves running


def daemonise(key: str) -> None:
    """Starts a process that has nothing to do with the job any more."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            stay(key)
        os._exit(0)
    os.wait()


def make_family() -> None:
    """Makes one process of each kind that a job can leave behind. They ignore TERM."""
    note("group", str(_sleeper(lambda: None)))
    note("own group", str(_sleeper(os.setpgrp)))
    orphaned("own group, orphaned", os.setpgrp)
    orphaned("own session", os.setsid)


def make_family_and_hold(gate: str) -> None:
    make_family()
    hold(gate)


def share_memory_and_hold(gate: str) -> None:
    """Holds while it has shared memory, which a process of `multiprocessing` removes after it."""
    memory = SharedMemory(create=True, size=1)
    note("shared", memory.name)
    note("group", str(_sleeper(lambda: None)))
    hold(gate)


def _sleeper(prepare) -> int:
    def prepare_all() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        prepare()

    return subprocess.Popen(["sleep", "600"], preexec_fn=prepare_all).pid


def orphaned(key: str, prepare) -> None:
    """Makes a process whose parent ends."""
    if os.fork() == 0:
        note(key, str(_sleeper(prepare)))
        os._exit(0)
    os.wait()
