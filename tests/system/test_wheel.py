"""What an installation from the wheel has: every module, and the mark of its types."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from harness import ROOT

PACKAGE = ROOT / "django_rq_pool"

IMPORT = """
import importlib, sys
from pathlib import Path
import django

django.setup()
folder, *modules = sys.argv[1:]
for name in modules:
    module = importlib.import_module(name)
    assert Path(folder) in Path(module.__file__).parents, f"{name} is not in the wheel"
"""


def pip(*arguments: str | Path) -> None:
    line = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources: what an earlier build has left here is no part of it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.rst", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, source / PACKAGE.name, ignore=ignored)
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source)
    [wheel] = folder.glob("*.whl")
    return wheel


def modules() -> list[str]:
    """The names of all modules in the source tree."""
    parts = (path.relative_to(ROOT).with_suffix("").parts for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(each).removesuffix(".__init__") for each in parts)


def test_every_module_can_be_imported_from_the_wheel(wheel, tmp_path):
    pip("install", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel)
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT / "testproject")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT, str(tmp_path / "site"), *modules()],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_wheel_says_that_its_types_can_be_used(wheel):
    assert "django_rq_pool/py.typed" in ZipFile(wheel).namelist()
