"""Who gets a pid file, told by processes that want it at the same time."""

from __future__ import annotations

import signal

import pytest

from rivals import CLAIM

WAIT = "import sys; print('here', flush=True); sys.stdin.readline()"

ROUNDS = 25


@pytest.mark.parametrize("left_over", [None, "", "1\n", "gone"])
def test_of_managers_that_start_at_once_exactly_one_gets_the_file(talk, tmp_path, left_over):
    path = tmp_path / "pool.pid"
    rivals = [talk(CLAIM, path) for _ in range(6)]
    assert {rival.hear() for rival in rivals} == {"here"}
    for _ in range(ROUNDS):
        if left_over is not None:
            path.write_text(left_over)
        for rival in rivals:
            rival.say()
        answers = {rival: rival.hear() for rival in rivals}
        [winner] = [rival for rival, answer in answers.items() if answer == "won"]
        refusals = [answer for answer in answers.values() if answer != "won"]
        assert all("Stop that pool first, or give another path" in refusal for refusal in refusals)
        assert path.read_text() == f"{winner.pid}\n"
        assert winner.say().hear() == "released"
        assert list(tmp_path.iterdir()) == []


def test_a_manager_that_has_no_title_yet_keeps_its_file(talk, tmp_path):
    path = tmp_path / "pool.pid"
    first, second = talk(CLAIM, path), talk(CLAIM, path)
    first.hear(), second.hear()
    assert first.say().hear() == "won"
    assert second.say().hear() == (
        f"pid file {path}: process {first.pid} uses it. Stop that pool first, or give another "
        "path (--pidfile)."
    )
    assert path.read_text() == f"{first.pid}\n"


@pytest.mark.parametrize("title", ["vi", "rqpool-manager[shop]: managing []"])
def test_who_has_got_the_pid_of_a_killed_manager_keeps_nobody_out(talk, tmp_path, title):
    # Not even the manager of another pool: it does not hold the lock of this file.
    path = tmp_path / "pool.pid"
    process = talk(WAIT, title=title)
    process.hear()
    path.write_text(f"{process.pid}\n")
    claimer = talk(CLAIM, path)
    claimer.hear()
    assert claimer.say().hear() == "won"


def test_the_file_of_a_killed_manager_is_free_though_its_workers_live(talk, tmp_path):
    path = tmp_path / "pool.pid"
    killed = talk("import os\n" + CLAIM.replace('print("won"', 'os.fork() and print("won"'), path)
    killed.hear()
    assert killed.say().hear() == "won"
    killed.send(signal.SIGKILL)
    killed.wait()
    late = talk(CLAIM, path)
    late.hear()
    assert late.say().hear() == "won"
    # The process that it had forked is left, and must not remove the file of the other.
    assert killed.say().hear() == "released"
    assert path.read_text() == f"{late.pid}\n"


def test_a_program_that_the_manager_runs_does_not_get_the_descriptor(talk, tmp_path):
    code = CLAIM.replace(
        'print("won"', 'os.spawnv(os.P_WAIT, "/bin/ls", ["ls", "-l", "/proc/self/fd"]); print("won"'
    )
    claimer = talk(code, tmp_path / "pool.pid")
    claimer.hear()
    claimer.say()
    said = []
    while (line := claimer.hear()) != "won":
        said.append(line)
    assert said
    assert not [line for line in said if "pool.pid" in line]
