"""The test project's settings, for what asks Django, and a process that stays as it is."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import django
import pytest

django.setup()


def handlers() -> dict[int, object]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """What a test starts would inherit the signals that one before it has ignored or blocked."""
    before = handlers(), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    assert (handlers(), signal.pthread_sigmask(signal.SIG_BLOCK, ())) == before
