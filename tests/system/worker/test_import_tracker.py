"""The import tracker: a horse's imports reach its worker, once, in order, up to a limit."""

from __future__ import annotations

import importlib
import os
import sys
import types

import pytest

from django_rq_pool.ipc.reports import MAX_MODULES
from django_rq_pool.worker.import_tracker import ImportTracker


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that makes a module, or a package with a submodule, that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made = []

    def make(name, source="", submodule=None):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text(source)
        if submodule:
            (folder / f"{submodule}.py").write_text("")
        importlib.invalidate_caches()
        made.append(name)
        return name

    yield make
    for name in [each for each in sys.modules if each.partition(".")[0] in made]:
        del sys.modules[name]


def run_in_horse(tracker, *names):
    """Imports modules as a job does: in a forked process that ends."""
    pid = os.fork()
    if pid == 0:
        try:
            tracker.begin()
            for name in names:
                importlib.import_module(name)
            tracker.end()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def test_a_horses_imports_reach_its_worker(package):
    tracker = ImportTracker()
    run_in_horse(tracker, package("learnt_one"), package("learnt_two"))
    assert tracker.take() == ["learnt_two", "learnt_one"]
    assert "learnt_one" not in sys.modules


def test_a_module_comes_before_what_it_imported(package):
    package("learnt_inner")
    package("learnt_outer", "import learnt_inner")
    tracker = ImportTracker()
    run_in_horse(tracker, "learnt_outer")
    assert tracker.take() == ["learnt_outer", "learnt_inner"]


def test_a_module_is_told_once_however_many_jobs_import_it(package):
    tracker = ImportTracker()
    first, second = package("learnt_one"), package("learnt_two")
    run_in_horse(tracker, first)
    tracker.take()
    run_in_horse(tracker, first, second)
    assert tracker.take() == ["learnt_two"]


def test_a_job_that_imports_nothing_teaches_nothing():
    tracker = ImportTracker()
    run_in_horse(tracker)
    assert tracker.take() == []


def test_nothing_is_taken_twice(package):
    tracker = ImportTracker()
    run_in_horse(tracker, package("learnt_one"))
    tracker.take()
    assert tracker.take() == []


def test_of_a_small_package_the_module_is_named_that_was_needed(package):
    package("learnt_package", submodule="part")
    tracker = ImportTracker()
    run_in_horse(tracker, "learnt_package.part")
    assert tracker.take() == ["learnt_package.part"]


def test_of_a_large_package_nothing_is_named_beside_it(package, tmp_path):
    parts = [f"part{number}" for number in range(11)]
    package("learnt_large", f"from . import {', '.join(parts)}")
    for part in parts:
        (tmp_path / "learnt_large" / f"{part}.py").write_text("")
    tracker = ImportTracker()
    run_in_horse(tracker, "learnt_large")
    assert tracker.take() == ["learnt_large"]


def test_a_submodule_of_a_package_that_was_there_is_named(package):
    importlib.import_module(package("learnt_package", submodule="part"))
    tracker = ImportTracker()
    run_in_horse(tracker, "learnt_package.part")
    assert tracker.take() == ["learnt_package.part"]


def test_what_was_not_imported_but_made_is_not_named(monkeypatch):
    tracker = ImportTracker()
    tracker.begin()
    monkeypatch.setitem(sys.modules, "learnt_made", types.ModuleType("learnt_made"))
    tracker.end()
    assert tracker.take() == []


def test_a_horse_that_was_killed_teaches_nothing(package):
    tracker = ImportTracker()
    name = package("learnt_one")
    pid = os.fork()
    if pid == 0:
        tracker.begin()
        importlib.import_module(name)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert tracker.take() == []


def test_a_worker_remembers_a_limited_number_of_modules(package):
    tracker = ImportTracker()
    names = [package(f"learnt_{number}") for number in range(MAX_MODULES + 5)]
    run_in_horse(tracker, *names)
    assert tracker.take() == names[: -MAX_MODULES - 1 : -1]
    run_in_horse(tracker, *names[:5])
    assert tracker.take() == []


def test_names_that_do_not_fit_are_cut_between_two(package, monkeypatch):
    tracker = ImportTracker()
    names = [package(f"learnt_{'x' * 180}_{number}") for number in range(100)]
    run_in_horse(tracker, *names)
    taken = tracker.take()
    assert taken == names[::-1][: len(taken)]
    assert 0 < len(taken) < len(names)
