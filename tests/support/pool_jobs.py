"""Jobs and worker classes that only the tests use; on the path of the pools that they start."""

import contextlib
import fcntl
import logging
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import redis
from redis.connection import AbstractConnection
from rq import Queue, SimpleWorker, Worker, get_current_job
from rq.job import Job, JobStatus

THE_CAUSE = "this worker class raises at boot"


def client() -> redis.Redis:
    return redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=None)


def hold(gate: str) -> str:
    """Says that it runs, then waits until the test opens its gate."""
    connection = client()
    connection.rpush(f"{gate}:running", os.getpid())
    connection.blpop([f"{gate}:open"], 600)
    connection.rpush(f"{gate}:done", os.getpid())
    return gate


def hold_and_clean_up(gate: str) -> None:
    """Holds, and leaves a trace of what ended it."""
    try:
        hold(gate)
    except BaseException as reason:
        client().rpush(f"{gate}:clean", type(reason).__name__)
        raise


def hold_stubbornly(gate: str) -> None:
    """Goes on holding whatever it is told."""
    while True:
        with contextlib.suppress(BaseException):
            hold(gate)


def hold_with_child(gate: str) -> None:
    """Holds while a process of its own runs too."""
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    client().rpush(f"{gate}:child", child.pid)
    hold(gate)


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def note(key: str, value: str = "") -> str:
    """Leaves a trace in a list: what ran, in which order."""
    client().rpush(key, value)
    return value


def kill_own_worker() -> None:
    """Kills the worker that forked this horse; the horse lives on."""
    os.kill(os.getppid(), signal.SIGKILL)
    client().rpush("orphaned", os.getpid())
    client().blpop(["orphan:open"], 600)


def speak(word: str) -> None:
    """Says a word on every way to a log file."""
    print(word)
    print(word, file=sys.stderr)
    logging.getLogger("shop").warning(word)


def short() -> None:
    """Takes some milliseconds and leaves a trace when it is done."""
    client().blpop(["nothing"], 0.01)
    client().rpush("done", get_current_job().id)


def nothing() -> None:
    """Does nothing."""


def process_state(key: str) -> None:
    """Reports what the process of a job looks like."""
    note(key, f"{os.getpid()} {os.getppid()} {os.getpgrp()}")


def failed(job: Job, *exc_info: object) -> None:
    """A failure callback that leaves a trace."""
    client().rpush("failed", job.id)


def wait_for_file(path: str) -> None:
    """Waits for a sign that does not come through Redis."""
    while not Path(path).exists():
        select.select([], [], [], 0.01)


def succeeded(job: Job, *result: object) -> None:
    """A success callback that leaves a trace."""
    client().rpush("succeeded", job.id)


def fail() -> float:
    return 1 / 0


def fail_once() -> None:
    if client().rpush("tries", 1) == 1:
        raise RuntimeError("the first time it fails")


def answer_limit() -> float:
    """The socket timeout of the connections that RQ gives to a job, in seconds."""
    return float(get_current_job().connection.connection_pool.connection_kwargs["socket_timeout"])


def write_meta() -> None:
    job = get_current_job()
    job.meta["job"] = job.id
    job.save_meta()


def handle(job: Job, *exc_info: object) -> None:
    """An exception handler that leaves a trace."""
    note("handled", job.id)


def crash() -> None:
    """Ends the process without a word, as a segmentation fault in a library does."""
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(status: int, gate: str = "") -> None:
    """Ends the process with a status, at once or when the test has opened its gate."""
    if gate:
        hold(gate)
    os._exit(status)


class CustomJob(Job):
    pass


class BreaksRecoveries(Queue):
    """Cannot be made while a key is there."""

    def __init__(self, *args, **kwargs):
        if client().exists("broken"):
            raise RuntimeError("this queue class is broken")
        super().__init__(*args, **kwargs)


class KilledOnTheWay(Job):
    """Kills worker and horse when it is called scheduled and is not written anywhere yet."""

    def set_status(self, status, pipeline=None):
        super().set_status(status, pipeline)
        if status == JobStatus.SCHEDULED and client().set("shot", 1, nx=True):
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)


class CustomWorker(Worker):
    """A project's own worker class."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.push_exc_handler(handle)

    def handle_work_horse_killed(self, job, retpid, ret_val, rusage):
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)
        self.connection.rpush("horse killed", job.id)

    def execute_job(self, job, queue):
        self.connection.rpush("custom", job.id)
        super().execute_job(job, queue)


class Interrupted(Worker):
    """Interrupts itself at the n-th command that it, or its horse, sends to Redis after it first
    waited for a job; n is 1 for the first worker, and one more for each that follows."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if kwargs.get("prepare_for_work", True):
            self.number = client().incr("workers so far")
            self.waits_to_come = len(self.queues) + 1  # it rehearses one
            self.left = mmap.mmap(-1, 8)  # counted by worker and horse together
            self.left[:] = self.number.to_bytes(8, "little")
            self.send = AbstractConnection.send_packed_command
            AbstractConnection.send_packed_command = self.count_and_send()

    def count_and_send(self):
        def send(connection, command, *args, **kwargs):
            if self.waits_to_come == 0:
                self.count()
            elif b"BLMOVE" in b"".join(command):
                self.waits_to_come -= 1
                if self.waits_to_come == 0:
                    Path(os.environ["INTERRUPTED"]).with_name(f"waits-{self.number}").touch()
            return self.send(connection, command, *args, **kwargs)

        return send

    def count(self):
        left = int.from_bytes(self.left[:], "little") - 1
        if left >= 0:
            self.left[:] = left.to_bytes(8, "little")
        if left == 0:
            what = os.environ["INTERRUPTION"]
            Path(os.environ["INTERRUPTED"], str(self.number)).touch()
            if what == "quit":
                os.kill(self.pid, signal.SIGQUIT)
            else:
                os.kill(self.pid, signal.SIGKILL)
                if what == "kill-both":
                    os.kill(os.getpid(), signal.SIGKILL)


def talk(text: str, times: int = 1) -> None:
    """Prints, and leaves it to others that it is written."""
    for _ in range(times):
        print(text)


def talk_and_fail(text: str) -> None:
    talk(text)
    fail()


def trade(number: int) -> int:
    """Writes a row, which may be there from a run that was cut short, reads it, uses the cache."""
    from django.core.cache import cache

    from shop.models import Order

    Order.objects.update_or_create(number=number, defaults={"shipped": True})
    cache.set(f"order-{number}", Order.objects.get(number=number).shipped)
    assert cache.get(f"order-{number}") is True
    return number


def trade_and_hold(number: int, gate: str) -> None:
    """Holds with a database and a cache that are open."""
    trade(number)
    hold(gate)


def backend() -> int:
    """Which of the server's processes a job talks to."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


def backends(number: int) -> None:
    """Waits until so many of the server's processes talk to the processes of this test."""
    from django.db import connection

    with connection.cursor() as cursor:
        found = 0
        while found < number:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            )
            found = cursor.fetchone()[0]


class TalkingWorker(Worker):
    """Prints before each job, likewise."""

    def execute_job(self, job, queue):
        print("the worker talks")
        super().execute_job(job, queue)


class InProcessWorker(SimpleWorker):
    """Runs jobs without a horse."""


class FailsToBoot(Worker):
    def __init__(self, *args, **kwargs):
        raise RuntimeError(THE_CAUSE)


class CrashesWhenReady(Worker):
    def run_maintenance_tasks(self):
        os.kill(os.getpid(), signal.SIGSEGV)


class BreaksWhenReady(Worker):
    def run_maintenance_tasks(self):
        raise RuntimeError("something is wrong with this class")


class BootsSlowly(Worker):
    """Fails to boot when a worker of another group has become ready, as one that loads more."""

    def __init__(self, *args, **kwargs):
        log = Path("log/rqpool.stdout.log")
        while "of high ready" not in log.read_text():
            select.select([], [], [], 0.01)
        raise RuntimeError(THE_CAUSE)


class BootsTwice(Worker):
    """Boots for the first two workers, and not for those that follow."""

    def __init__(self, *args, **kwargs):
        if kwargs.get("prepare_for_work", True) and client().incr("boots") > 2:
            raise RuntimeError(THE_CAUSE)
        super().__init__(*args, **kwargs)


class DiesAtBoot(Worker):
    def __init__(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGSEGV)


class CountsForks(Worker):
    """Counts, in a file that all workers share, how often one of them forks."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if kwargs.get("prepare_for_work", True):
            with Path(os.environ["FORKS"]).open("r+b") as stream:
                self.forks = mmap.mmap(stream.fileno(), 8)
            os.register_at_fork(before=self.count)

    def count(self):
        with Path(os.environ["FORKS"]).open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            so_far = int.from_bytes(self.forks[:], "little")
            self.forks[:] = (so_far + 1).to_bytes(8, "little")


class LooksOften(Worker):
    """Looks after each job whether it holds one that it does not know of."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.own_look_seconds = 0.0


class AskedInMaintenance(Worker):
    """Is told something by a signal just before it asks Redis for the last time and waits."""

    def run_maintenance_tasks(self):
        if client().set("asked", 1, nx=True):
            os.kill(os.getpid(), getattr(signal, os.environ["ASKED"]))
        super().run_maintenance_tasks()


class LosesRedis(Worker):
    """Loses Redis in its first maintenance."""

    def clean_registries(self):
        if client().set("lost once", 1, nx=True):
            raise redis.exceptions.ConnectionError("gone")
        super().clean_registries()


class StoppedWhileRedisGoes(Worker):
    """Loses Redis when it asks what has become of a job whose horse the user has stopped."""

    def _handle_stopped_job(self, job, queue, execution):
        raise redis.exceptions.ConnectionError("gone")


def await_nobody() -> None:
    """Waits for a lock that nobody releases."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


class HangsAtBoot(Worker):
    """Never gets through its constructor."""

    def __init__(self, *args, **kwargs):
        if kwargs.get("prepare_for_work", True):
            await_nobody()
        super().__init__(*args, **kwargs)


class HangsButOne(Worker):
    """The first boots; those that follow hang."""

    def __init__(self, *args, **kwargs):
        if kwargs.get("prepare_for_work", True) and client().incr("boots") > 1:
            await_nobody()
        super().__init__(*args, **kwargs)


class BootsAtASign(Worker):
    """Says that it boots, and goes on when the test says so."""

    def __init__(self, *args, **kwargs):
        if kwargs.get("prepare_for_work", True):
            client().rpush("boots", os.getpid())
            client().blpop(["boot"], 600)
        super().__init__(*args, **kwargs)


def note_killed(job: Job, pid: int | None, status: int | None, usage: object) -> None:
    """A group's handler for work horses that were killed."""
    signum = None if status is None else os.waitstatus_to_exitcode(status)
    client().rpush("killed", f"{job.id} {pid} {signum} {usage is not None}")
