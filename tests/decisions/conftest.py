"""The test project's settings, and an environment that says nothing about pools."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import django
import pytest
from hypothesis import settings

PROJECT = str(Path(__file__).resolve().parent.parent.parent / "testproject")
if PROJECT not in sys.path:
    sys.path.insert(0, PROJECT)
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()

VARIABLES = (
    "RQ_POOL_ENV",
    "DJANGO_ENV",
    "RQ_POOL_CONFIG",
    "TERM_CHILD",
    "RQ_TERM_TIMEOUT",
    "DYNO",
)

settings.register_profile("unit", max_examples=50, deadline=None, database=None)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def silent_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, also on the import path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path
