"""The limits that keep the house one that a stranger finds his way in; see CONTRIBUTING.rst."""

from __future__ import annotations

import subprocess

from harness import ROOT

PACKAGE = ROOT / "django_rq_pool"


def test_no_room_has_more_than_350_lines():
    lines = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): number for path, number in lines.items() if number > 350} == {}


def test_few_files_are_outside_of_a_package():
    outside = [path.name for path in PACKAGE.iterdir() if path.is_file()]
    assert len(outside) <= 10, outside


def test_each_package_says_what_its_rule_is():
    rules = {path: path.read_text() for path in PACKAGE.glob("*/__init__.py")}
    rules.pop(PACKAGE / "management" / "__init__.py", None)
    assert len(rules) == 10
    assert [str(path) for path, text in rules.items() if "Rule of the package:" not in text] == []


def test_each_room_says_what_its_rule_is():
    rooms = [path for path in PACKAGE.glob("*/*.py") if path.name != "__init__.py"]
    assert [str(path) for path in rooms if "Rule of the room:" not in path.read_text()] == []


def test_the_readme_is_one_page():
    assert len((ROOT / "README.rst").read_bytes()) <= 8000


def test_no_wheel_is_tracked():
    tracked = subprocess.run(["git", "ls-files", "*.whl"], cwd=ROOT, capture_output=True, text=True)
    assert tracked.stdout == ""
