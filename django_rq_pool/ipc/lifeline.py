"""The lifeline: a pipe by which workers notice at once that their manager is gone.

Rule of the room: only the manager holds the write end, so however it dies, even by SIGKILL, every
worker sees the end of the file. Nothing is ever written.
"""

from __future__ import annotations

import os


class Lifeline:
    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()

    def fileno(self) -> int:
        """What a worker waits on; readable once the manager is gone."""
        return self._read_end

    def become_worker(self) -> None:
        """Lets go of the write end in a forked worker, which must not keep the manager alive."""
        os.close(self._write_end)

    def close(self) -> None:
        os.close(self._read_end)
        os.close(self._write_end)
