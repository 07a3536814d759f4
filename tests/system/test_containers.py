"""The signs of a container, on file systems and environments of this test's own."""

from __future__ import annotations

import pytest

from django_rq_pool.system.containers import container_warning


def test_elsewhere_there_is_nothing_to_warn_of(tmp_path):
    assert container_warning(4711, {"HOME": "/root"}, tmp_path) is None


def test_a_daemon_of_pid_1_ends_with_the_command(tmp_path):
    warning = container_warning(1, {}, tmp_path)
    assert "is PID 1" in warning
    assert "Start the pool without --daemon" in warning


@pytest.mark.parametrize(
    ("file", "variable"),
    [
        (".dockerenv", None),
        ("run/.containerenv", None),
        (None, "KUBERNETES_SERVICE_HOST"),
        (None, "container"),
    ],
)
def test_the_warning_names_its_sign_and_says_what_to_do(tmp_path, file, variable):
    if file:
        (tmp_path / "run").mkdir()
        (tmp_path / file).touch()
    warning = container_warning(4711, {variable: "yes"} if variable else {}, tmp_path)
    assert f"looks like a container ({f'/{file}' if file else f'${variable}'})" in warning
    assert "without --daemon" in warning


def test_an_empty_variable_is_no_sign(tmp_path):
    assert container_warning(4711, {"container": ""}, tmp_path) is None
