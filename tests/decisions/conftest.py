"""Decisions are functions of their arguments: their tests need nothing but this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

FORBIDDEN = ("os.fork", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")
"""Audit events of what belongs on another floor."""

_decides = False


def _refuse(event: str, arguments: object) -> None:
    if _decides and event in FORBIDDEN:
        raise AssertionError(f"the test of a decision does {event}: move it to another floor")


sys.addaudithook(_refuse)


@pytest.fixture(scope="session", autouse=True)
def guardian() -> None:
    """Nothing is started that could be left."""


@pytest.fixture
def tmp_path() -> None:
    pytest.fail("the test of a decision needs no file: move it to another floor")


@pytest.fixture(autouse=True)
def only_this_process() -> Iterator[None]:
    global _decides
    _decides = True
    yield
    _decides = False
