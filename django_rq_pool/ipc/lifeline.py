"""Lifeline: a pipe by which workers notice at once that their manager is gone.

Rule of the room: only the manager holds the write end. However it dies, even by SIGKILL, every
worker sees the end of the file. Nothing is ever written.
"""

from __future__ import annotations

import os


class Lifeline:
    """Both ends of the pipe. Made in the manager, and inherited by what it forks."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()

    def fileno(self) -> int:
        """What a worker waits on; readable once the manager is gone."""
        return self._read_end

    def become_worker(self) -> None:
        """Closes the write end in a forked process, which must not keep the manager alive."""
        os.close(self._write_end)

    def close(self) -> None:
        """Closes both ends, in the manager."""
        os.close(self._read_end)
        os.close(self._write_end)
