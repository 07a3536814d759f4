"""The floor of decisions refuses what belongs on another."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest


def connect() -> None:
    with socket.socket() as client:
        client.connect(("127.0.0.1", 1))


@pytest.mark.parametrize(
    "act",
    [os.fork, lambda: subprocess.run(["true"]), connect],
    ids=["fork", "program", "connection"],
)
def test_a_process_or_a_connection_is_refused(act):
    with pytest.raises(AssertionError, match="move it to another floor"):
        act()


def test_so_is_a_file(request):
    with pytest.raises(pytest.fail.Exception, match="move it to another floor"):
        request.getfixturevalue("tmp_path")
