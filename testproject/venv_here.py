"""A virtual environment for one command, made when it is first needed and when it is outdated.

Standard library only, and nothing that Python 3.6 cannot read (annotations with brackets are
quoted): whoever has too old a Python shall be told so in words, not by a SyntaxError.
"""

import fcntl
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 10)


def require_python() -> None:
    """Exits with a sentence when this Python is too old for the project."""
    if sys.version_info < OLDEST:
        sys.exit(
            "This needs Python {}.{} or newer; {} is {}.{}. Start it with a newer one, such as "
            "python3.12.".format(*OLDEST, sys.executable, *sys.version_info[:2])
        )


def python_of(folder: Path, requirements: "Sequence[str]") -> Path:
    """The Python of an environment that has what is required, made now unless it is there.

    An outdated environment is made anew and not added to: it shall not have what a fresh clone
    would lack.

    Args:
        folder: where the environment is, or shall be.
        requirements: arguments of ``pip install``, which runs in the root of the project.
    """
    require_python()
    folder = folder.resolve()
    python = folder / "bin" / "python"
    stamp = folder / "made-for"
    wanted = _fingerprint(folder, requirements)
    with _locked(folder):
        if not python.exists() or not stamp.exists() or stamp.read_text() != wanted:
            _make(folder, python, requirements)
            stamp.write_text(wanted)
    return python


def _fingerprint(folder: Path, requirements: "Sequence[str]") -> str:
    """Differs whenever the environment has to be made anew; a clone that moved is one reason."""
    facts = [(ROOT / "pyproject.toml").read_text(), sys.version, str(folder), *requirements]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


@contextmanager
def _locked(folder: Path) -> "Iterator[None]":
    """Two commands that start at once make the environment once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path, python: Path, requirements: "Sequence[str]") -> None:
    shown = folder.relative_to(ROOT) if ROOT in folder.parents else folder
    version = "{}.{}.{}".format(*sys.version_info[:3])
    print(f"Making the virtual environment {shown} with Python {version} ...", flush=True)
    began = time.monotonic()
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], "cannot be made")
    # The pip that comes with an older Python knows no dependency groups.
    _run([*pip, "pip>=25.1"], "has a pip that cannot be brought up to date")
    _run([*pip, *requirements], "lacks what it needs")
    print(f"... done in {time.monotonic() - began:.0f} s.\n", flush=True)


def _run(command: "Sequence[str]", consequence: str) -> None:
    """Runs a command whose output is of interest only if it fails."""
    ended = subprocess.run(
        command, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if ended.returncode != 0:
        sys.exit(
            f"{ended.stdout.decode(errors='replace')}\n"
            f"The virtual environment {consequence}: this ended with status {ended.returncode}, "
            f"and what it said is above.\n  {' '.join(command)}"
        )
