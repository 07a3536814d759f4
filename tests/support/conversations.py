"""A process that a test talks with, a line each way: nothing is guessed about when it is ready."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness import DEADLINE


class Conversation:
    """Runs Python code that answers on its standard output and waits on its standard input.

    Args:
        code: the source; ``sys.argv[1:]`` are the arguments.
        arguments: more of the command line.
        cwd: where it runs; the harness looks there for what is left of it.
        title: what stands at the start of its command line instead of the path of Python.
        options: more for ``Popen``.
    """

    def __init__(
        self,
        code: str,
        *arguments: str,
        cwd: Path,
        title: str = sys.executable,
        **options: object,
    ) -> None:
        self._unread = b""
        self.process = subprocess.Popen(
            [title, "-c", code, *arguments],
            executable=sys.executable,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            **options,
        )
        self.pid = self.process.pid

    def hear(self) -> str:
        """The next line that it says; the empty string once it has ended."""
        end = time.monotonic() + DEADLINE
        fd = self.process.stdout.fileno()
        while b"\n" not in self._unread:
            ready, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"it has not said a line after {DEADLINE} s, only {self._unread!r}"
            more = os.read(fd, 4096)
            if not more:
                return self._unread.decode()
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def say(self, line: str = "") -> Conversation:
        self.process.stdin.write(f"{line}\n".encode())
        return self

    def send(self, signum: int) -> Conversation:
        self.process.send_signal(signum)
        return self

    def wait(self) -> int:
        return self.process.wait(DEADLINE)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
