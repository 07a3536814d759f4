"""RQ's colours are for terminals only, wherever the output goes in the end."""

from __future__ import annotations

import signal

from harness import MANAGE, eventually, python_command

AT_A_TERMINAL = """
import os, pty, sys
terminal, output = pty.openpty()
os.set_inheritable(terminal, True)  # one that nobody has open is none
os.dup2(output, 1)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_log_file_has_no_colours_though_the_pool_was_started_at_a_terminal(start_pool, enqueue):
    command = python_command("-c", AT_A_TERMINAL, *python_command(str(MANAGE), "rqpool"))
    pool = start_pool("high=1", "--stdout", "out.log", command=command)
    log = pool.cwd / "out.log"
    eventually(lambda: log.exists() and " ready\n" in log.read_text())
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    pool.process.send_signal(signal.SIGQUIT)
    assert pool.wait() == 0
    assert "Job OK" in log.read_text()
    assert "\x1b" not in log.read_text()
