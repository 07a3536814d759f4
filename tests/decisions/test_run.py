"""What `tests/run.py` makes of its arguments."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import run


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], [*run.TWO_AT_A_TIME]),
        (["decisions"], ["tests/decisions", *run.TWO_AT_A_TIME]),
        (["system", "redis"], ["tests/system", "tests/redis", *run.TWO_AT_A_TIME]),
        (["decisions", "-k", "backoff"], ["tests/decisions", "-k", "backoff"]),
        (["-x", "pools"], ["-x", "tests/pools"]),
        (["-k", "redis"], ["-k", "redis"]),
        (["-m", "pools", "pools"], ["-m", "pools", "tests/pools"]),
        (["tests/redis", "-q"], ["tests/redis", "-q"]),
    ],
    ids=" ".join,
)
def test_a_word_that_names_a_floor_is_its_folder_and_all_else_is_for_pytest(given, told):
    assert run.pytest_arguments(given) == told


def test_every_floor_is_there_and_has_a_name():
    folders = {path.parent.name for path in Path(run.__file__).parent.glob("*/conftest.py")}
    assert folders == set(run.FLOORS)


def test_lint_goes_alone(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tests/run.py", "--lint", "-x"])
    with pytest.raises(SystemExit, match="--lint goes alone"):
        run.main()
