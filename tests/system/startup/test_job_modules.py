"""What is imported before the first fork, what is left out, and what becomes of a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from django_rq_pool.startup.job_modules import JobModule, attempt
from django_rq_pool.system.signals import Stopped

Project = Callable[..., subprocess.CompletedProcess[str]]

PROGRAM = """
import sys
import django
from django.conf import settings

settings.configure(SETTINGS_MODULE="shop.settings", INSTALLED_APPS={apps!r})
django.setup()

from django_rq_pool import hooks
from django_rq_pool.startup.job_modules import all_modules, attempt, unknown_exclusions

exclude = {exclude!r}
for sentence in unknown_exclusions(exclude):
    print(sentence)
for module in all_modules({listed!r}, exclude):
    failure = attempt(module)
    if failure is not None:
        print("fatal" if failure.fatal else "warns", failure)
    elif module.name in sys.modules:
        print(module.name)
print(hooks.siginfo)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Imports what a project would, which has the given files; returns what it prints."""

    def run(files: dict[str, str], *apps: str, exclude=(), listed=()) -> list[str]:
        for name, source in files.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "__init__.py").touch()
            path.write_text(source)
        program = PROGRAM.format(apps=apps, exclude=exclude, listed=listed)
        installed = tmp_path / "venv" / "lib" / "site-packages"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["", str(installed)])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.replace(str(tmp_path), "").splitlines()

    return run


HOOK = "from django_rq_pool.hooks import siginfo\n\n@siginfo\ndef tell(roster): ...\n"
BROKEN = "import no_such_module"


def test_job_modules_come_first_then_the_listed_ones_then_each_hook_once(project):
    files = {"bakery/tasks": "", "bakery/rqpool": HOOK, "brewery/jobs": "", "brewery/rqpool": HOOK}
    files["heavy"] = ""
    assert project(files, "bakery", "brewery", listed=["heavy"]) == [
        "bakery.tasks",
        "brewery.jobs",
        "heavy",
        "bakery.rqpool",
        "brewery.rqpool",
        "siginfo(bakery.rqpool.tell, brewery.rqpool.tell)",
    ]


def test_an_app_without_such_modules_is_no_failure(project):
    assert project({"bakery/views": BROKEN}, "bakery") == ["siginfo()"]


def test_a_module_of_the_projects_own_is_fatal_and_the_sentence_says_what_can_be_done(project):
    line, _ = project({"bakery/tasks": f"\n{BROKEN}"}, "bakery")
    assert line == (
        "fatal 'bakery.tasks' cannot be imported: ModuleNotFoundError: "
        "No module named 'no_such_module' (/bakery/tasks.py line 2). "
        "Mend it, or leave it out: RQ_POOL_PRELOAD_EXCLUDE = ['bakery']."
    )


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import sys\nsys.exit(3)", "it calls sys.exit(3) (/bakery/tasks.py line 2)."),
        ("import sys\nsys.exit()", "it calls sys.exit() (/bakery/tasks.py line 2)."),
        ("def (", "SyntaxError: invalid syntax (tasks.py, line 1)."),
        ("raise KeyError", "KeyError (/bakery/tasks.py line 1)."),
        ("raise ValueError('too\\nlong.')", "ValueError: too long (/bakery/tasks.py line 1)."),
        ("class Odd(BaseException): ...\nraise Odd('x')", "Odd: x (/bakery/tasks.py line 2)."),
    ],
)
def test_whatever_a_module_raises_is_a_failure_told_in_one_line(project, source, cause):
    line, _ = project({"bakery/tasks": source}, "bakery")
    assert line.startswith(f"fatal 'bakery.tasks' cannot be imported: {cause}")


INSTALLED = "venv/lib/site-packages"


def test_a_module_that_was_installed_is_a_warning_even_in_a_venv_in_the_projects_folder(project):
    line, _ = project({f"{INSTALLED}/vendor/jobs": BROKEN}, "vendor")
    assert line.startswith("warns 'vendor.jobs' cannot be imported: ModuleNotFoundError: ")
    assert line.endswith("leave it out: RQ_POOL_PRELOAD_EXCLUDE = ['vendor'].")


def test_a_project_that_was_installed_itself_is_the_projects_own(project):
    files = {f"{INSTALLED}/shop/orders/tasks": BROKEN, f"{INSTALLED}/shop/settings": ""}
    line, _ = project(files, "shop.orders")
    assert line.startswith("fatal 'shop.orders.tasks' cannot be imported")


def test_packages_of_the_distribution_that_has_the_settings_are_the_projects_own(project, tmp_path):
    record = tmp_path / INSTALLED / "site-1.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: site\nVersion: 1.0\n")
    (record / "top_level.txt").write_text("shop\nbakery\n")
    files = {f"{INSTALLED}/bakery/tasks": BROKEN, f"{INSTALLED}/shop/settings": ""}
    line, _ = project(files, "bakery")
    assert line.startswith("fatal 'bakery.tasks' cannot be imported")


@pytest.mark.parametrize("place", ["", f"{INSTALLED}/"])
def test_a_listed_module_and_a_module_of_hooks_are_fatal_wherever_they_are(project, place):
    files = {f"{place}bakery/rqpool": BROKEN, f"{place}heavy": BROKEN}
    listed, hooks, _ = project(files, "bakery", listed=["heavy"])
    assert listed.startswith("fatal RQ_POOL_PRELOAD: 'heavy' cannot be imported: ")
    assert listed.endswith("Mend it, or take it out of RQ_POOL_PRELOAD.")
    assert hooks.startswith("fatal 'bakery.rqpool' cannot be imported: ")
    assert hooks.endswith("RQ_POOL_PRELOAD_EXCLUDE = ['bakery.rqpool'].")


@pytest.mark.parametrize(
    ("exclude", "imported"),
    [
        (["bakery"], ["bakery.rqpool"]),
        (["bakery.tasks"], ["bakery.jobs", "bakery.rqpool"]),
        (["bakery.rqpool"], ["bakery.tasks", "bakery.jobs"]),
        (["bakery", "bakery.rqpool"], []),
    ],
)
def test_an_app_or_a_module_can_be_left_out(project, exclude, imported):
    files = {"bakery/tasks": "", "bakery/jobs": "", "bakery/rqpool": ""}
    assert project(files, "bakery", exclude=exclude) == [*imported, "siginfo()"]


def test_a_name_that_leaves_nothing_out_is_told_with_the_nearest(project):
    line, *_ = project({"bakery/tasks": ""}, "bakery", exclude=["bakry"])
    assert line.startswith("RQ_POOL_PRELOAD_EXCLUDE: 'bakry' is no installed app, and no module")
    assert "Did you mean 'bakery'?" in line


@pytest.mark.parametrize("reason", [KeyboardInterrupt(), Stopped(128 + signal.SIGTERM)])
def test_a_pool_that_is_told_to_stop_meanwhile_stops(monkeypatch, reason):
    def interrupted(name: str) -> None:
        raise reason

    monkeypatch.setattr("importlib.import_module", interrupted)
    with pytest.raises(type(reason)):
        attempt(JobModule("heavy"))
