"""Runs the tests, from a fresh clone, in a virtual environment of their own.

    python3 tests/run.py [arguments of pytest, which runs in the root of the project]
    python3 tests/run.py --lint

`--lint` checks style, types and imports instead.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "testproject"))

import venv_here  # noqa: E402

REQUIREMENTS = ("--editable", ".", "--group", "test", "--group", "lint")
LINTERS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports", "--no-cache"),
)


def main() -> int:
    arguments = sys.argv[1:]
    if "--lint" in arguments and len(arguments) > 1:
        sys.exit("--lint goes alone: pytest, which the other arguments are for, is not run.")
    python = str(venv_here.python_of(ROOT / ".venv" / "test", REQUIREMENTS))
    os.chdir(str(ROOT))
    if "--lint" in arguments:
        return lint(python)
    # Two at a time: process tests wait more than they compute. Arguments may want the output live.
    arguments = arguments or ["-n", "2"]
    # This process becomes pytest, which alone shall have a Ctrl-C: it ends what its tests started.
    os.execv(python, [python, "-m", "pytest", *arguments])  # noqa: S606 - a shell has no part here


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
