"""Files and sockets without a path: who reaches them, and what is left of them."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from django_rq_pool.system import process_files
from harness import eventually
from other_user import another_user, needs_root

pytestmark = pytest.mark.skipif(
    not process_files.available(), reason="this system has no /proc/PID/fd"
)

OWNER = """
import os, socket, sys, tempfile
from django_rq_pool.system import process_files

tempfile.tempdir = sys.argv[1]
fd = process_files.make_file("note", b"here\\n")
with socket.socket(socket.AF_UNIX) as listener:
    place = process_files.listen_at(listener, "door")
    listener.listen(4)
    print("here", flush=True)
    listener.accept()
    print("came", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=["a short path", "a path longer than a socket's may be"])
def temporary(request, tmp_path) -> Path:
    folder = tmp_path / ("long" * 40 if "longer" in request.param else "short")
    folder.mkdir()
    return folder


def test_another_process_of_this_user_reads_the_file_and_reaches_the_socket(talk, temporary):
    owner = talk(OWNER, temporary)
    assert owner.hear() == "here"
    assert process_files.read_file(owner.pid, "note") == b"here\n"
    assert process_files.read_file(owner.pid, "other") is None
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(process_files.path_of(owner.pid, "door"))
        assert owner.hear() == "came"


def test_nothing_stands_in_the_folder_and_nothing_is_left_of_one_that_was_killed(talk, temporary):
    owner = talk(OWNER, temporary)
    assert owner.hear() == "here"
    assert list(temporary.iterdir()) == []
    owner.send(signal.SIGKILL)
    eventually(lambda: process_files.read_file(owner.pid, "note") is None)
    owner.wait()
    assert process_files.path_of(owner.pid, "door") is None


def test_a_file_of_that_name_that_is_somewhere_else_does_not_count(tmp_path):
    own = tmp_path / "note"
    with own.open("w"):
        own.unlink()
        assert process_files.read_file(os.getpid(), "note") is None


def test_where_no_temporary_file_can_be_made_that_is_an_os_error(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    with pytest.raises(OSError, match="No such file"):
        process_files.make_file("note", b"")


@needs_root
def test_another_user_reaches_neither():
    fd = process_files.make_file("note", b"")
    paths = [process_files.path_of(os.getpid(), "note")]
    with socket.socket(socket.AF_UNIX) as listener:
        place = process_files.listen_at(listener, "door")
        listener.listen(1)
        paths.append(process_files.path_of(os.getpid(), "door"))
        pid = os.getpid()

        def opens() -> object:
            return [os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY)]

        def connects() -> object:
            client = socket.socket(socket.AF_UNIX)
            client.connect(paths[1])
            return client

        for act in (opens, connects):
            with another_user(act) as could:
                assert not could
        os.close(place)
    os.close(fd)
    assert None not in paths
