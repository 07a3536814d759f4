"""Runs the tests, from a fresh clone, in a virtual environment of their own.

    python3 tests/run.py                          everything, two tests at a time
    python3 tests/run.py decisions -k backoff     a floor, and more arguments of pytest
    python3 tests/run.py --lint

The floors, the quickest first: decisions (pure), system (forks and files), redis (a server), pools
(whole pools). pytest runs in the root of the project. `--lint` checks style, types and imports
instead.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "testproject"))

import venv_here  # noqa: E402

FLOORS = ("decisions", "system", "redis", "pools")
TWO_AT_A_TIME = ("-n", "2", "--dist", "worksteal")
TAKE_A_WORD = ("-k", "-m")
"""Options of pytest after which the name of a floor is a word like any other."""

REQUIREMENTS = ("--editable", ".", "--group", "test", "--group", "lint")
LINTERS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports", "--no-cache"),
    ("sphinx-build", "-W", "--keep-going", "-n", "-q", "-E", "docs", "docs/_build/html"),
)


def main() -> int:
    arguments = sys.argv[1:]
    if "--lint" in arguments and len(arguments) > 1:
        sys.exit("--lint goes alone: pytest, which the other arguments are for, is not run.")
    python = str(venv_here.python_of(ROOT / ".venv" / "test", REQUIREMENTS))
    os.chdir(str(ROOT))
    if "--lint" in arguments:
        return lint(python)
    # This process becomes pytest, which alone shall have a Ctrl-C: it ends what its tests started.
    command = [python, "-m", "pytest", *pytest_arguments(arguments)]
    os.execv(python, command)  # noqa: S606 - a shell has no part here


def pytest_arguments(given: "list[str]") -> "list[str]":
    """What pytest is told, whose arguments may name floors."""
    found = [
        f"tests/{word}" if word in FLOORS and before not in TAKE_A_WORD else word
        for before, word in zip(["", *given], given)
    ]
    # Two at a time: tests wait more than they compute. Whoever is done first takes some of the
    # other's, because some tests take a minute. Other arguments may want the output live.
    return found if set(given) - set(FLOORS) else [*found, *TWO_AT_A_TIME]


def lint(python: str) -> int:
    """Runs every linter, whatever those before it said; 1 if one of them complains, else 0."""
    failed = []
    for linter in LINTERS:
        print("$", *linter, flush=True)
        program, *arguments = linter
        if subprocess.call([str(Path(python).parent / program), *arguments]) != 0:
            failed.append(linter[0])
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
