"""The manager of a real pool, as another pool of its name sees it."""

from __future__ import annotations

import secrets
import signal

import psutil

from django_rq_pool.swap.discovery import RunningManager, title

FIND = """
import sys
from django_rq_pool.swap.discovery import find_older

print([other.pid for other in find_older(sys.argv[1])], flush=True)
"""


def test_the_manager_of_a_real_pool_is_found_and_obeys(start_pool, talk):
    name = f"found-{secrets.token_hex(4)}"
    pool = start_pool("high=1", "--name", name).expect_ready(1)
    other_app = start_pool("high=1", "--name", f"{name}2").expect_ready(1)
    assert talk(FIND, name, title=title(name, "managing []")).hear() == f"[{pool.manager_pid}]"

    manager = RunningManager(psutil.Process(pool.manager_pid), name)
    assert manager.send(signal.SIGQUIT)
    assert pool.wait() == 0
    assert manager.is_gone()
    manager.close()
    assert other_app.stop() == 0
