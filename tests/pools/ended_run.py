"""Not collected: the tests of the guardian run this one by its name, and kill the run."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def test_that_never_ends(start_pool, enqueue, valkey, own_server, postgres, talk):
    pool = start_pool("high=2").expect_ready(2)
    enqueue("high", "hold_with_child", "gate")
    valkey.blpop(["gate:running"])
    daemon = start_pool("--daemon", "low=1").become_daemon().expect_ready(1)
    talk("import signal; signal.pause()")
    if (fork := os.fork()) == 0:  # of the run itself, whose folder it works in
        signal.pause()
    started = (pool.manager_pid, daemon.manager_pid, fork)
    path = Path(os.environ["STARTED"])
    path.with_suffix(".new").write_text(" ".join(map(str, started)))
    path.with_suffix(".new").rename(path)
    signal.pause()
