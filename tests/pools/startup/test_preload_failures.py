"""Modules that cannot be imported before the first fork: what stops a start, and what warns."""

from __future__ import annotations

import os
import secrets

import pytest

from harness import eventually

BROKEN = "import no_such_module"
BAKERY = "INSTALLED_APPS = [*INSTALLED_APPS, 'bakery']"
REASONS = {
    "an import": (BROKEN, "ModuleNotFoundError: No module named 'no_such_module'"),
    "sys.exit": ("import sys\nsys.exit(0)", "it calls sys.exit(0)"),
}


@pytest.fixture
def start_bakery(start_with, tmp_path):
    """Starts a pool whose project has an app with these modules."""

    def start(modules: dict[str, str], *arguments: str, settings: str = "", **options):
        (tmp_path / "bakery").mkdir()
        sources = {f"bakery/{name}": source for name, source in modules.items()}
        return start_with(
            f"{BAKERY}\n{settings}",
            *arguments,
            modules={"bakery/__init__": "", **sources},
            **options,
        )

    return start


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("daemon", [False, True])
def test_the_last_line_names_the_module_and_says_that_nothing_was_started(
    start_bakery, reason, daemon
):
    source, cause = REASONS[reason]
    arguments = ["--daemon"] if daemon else []
    pool = start_bakery({"tasks": source}, "high=1", *arguments)
    assert pool.wait() == 1
    assert "Traceback" in pool.text()
    last = pool.text().splitlines()[-1]
    assert last.startswith(f"CommandError: 'bakery.tasks' cannot be imported: {cause} (")
    assert last.endswith(
        "Nothing was started. Mend it, or leave it out: RQ_POOL_PRELOAD_EXCLUDE = ['bakery']."
    )
    assert "forked" not in pool.text()


def test_a_swap_says_that_the_older_pool_is_untouched(start_pool, start_bakery):
    name = f"swap-{secrets.token_hex(4)}"
    old = start_pool("high=1", "--name", name).expect_ready(1)
    before = old.worker_pids()
    new = start_bakery({"jobs": BROKEN}, "high=1", "--name", name, "--daemon", "--hot-swap")
    assert new.wait() == 1
    last = new.text().splitlines()[-1]
    assert "'bakery.jobs' cannot be imported" in last
    assert "Nothing was started, and the older pool is untouched." in last
    assert old.worker_pids() == before
    assert old.stop() == 0


def test_an_app_can_be_left_out(start_bakery, enqueue):
    settings = "RQ_POOL_PRELOAD_EXCLUDE = ['bakery']"
    pool = start_bakery({"tasks": BROKEN}, "high=1", settings=settings).expect_ready(1)
    assert "cannot be imported" not in pool.text()
    assert pool.stop() == 0


def test_a_module_that_was_installed_warns_in_one_line_and_the_pool_works(
    start_with, pool_environment, enqueue, tmp_path
):
    installed = tmp_path / "site-packages"
    (installed / "vendor").mkdir(parents=True)
    (installed / "vendor" / "__init__.py").touch()
    (installed / "vendor" / "jobs.py").write_text(BROKEN)
    path = os.pathsep.join([str(tmp_path), str(installed), pool_environment["PYTHONPATH"]])
    pool = start_with(
        "INSTALLED_APPS = [*INSTALLED_APPS, 'vendor']", "high=1", env={"PYTHONPATH": path}
    ).expect_ready(1)
    pool.expect(r"WARNING preload: 'vendor\.jobs' cannot be imported: ModuleNotFoundError: .*\.$")
    assert "Traceback" not in pool.text()
    job = enqueue("high", "note", "trace")
    eventually(lambda: job.is_finished)
    assert pool.stop() == 0


def test_the_check_imports_for_real_and_tells_every_failure(start_bakery):
    pool = start_bakery(
        {"tasks": BROKEN, "jobs": "import sys\nsys.exit()", "rqpool": "1 / 0", "views": "1 / 0"},
        "--check",
        "--preload",
        "high=1",
    )
    assert pool.wait() == 1
    for cause in ("No module named 'no_such_module'", "it calls sys.exit()", "ZeroDivisionError"):
        assert pool.found(rf"^'bakery\.\w+' cannot be imported: .*{cause}")
    assert pool.text().count("Traceback") == 3
    assert pool.text().splitlines()[-1] == (
        "CommandError: --preload: a start would fail, because of "
        "'bakery.tasks', 'bakery.jobs', 'bakery.rqpool'."
    )


@pytest.mark.parametrize(
    ("ending", "how"),
    [("os._exit(0)", "exit code 0"), ("os.kill(os.getpid(), 9)", "SIGKILL")],
)
def test_the_check_names_a_module_that_ends_the_process(start_bakery, ending, how):
    pool = start_bakery({"tasks": f"import os\n{ending}"}, "--check", "--preload", "high=1")
    assert pool.wait() == 1
    assert pool.found(rf"^'bakery\.tasks' cannot be imported: it ends the process: {how}\.")


def test_the_check_says_that_all_is_well(start_bakery):
    pool = start_bakery({"tasks": "print('imported')"}, "--check", "--preload", "high=1")
    assert pool.wait() == 0
    assert pool.found("^imported$")
    assert pool.text().splitlines()[-1] == "all modules can be imported"


def test_preload_without_check_is_refused_in_words(start_bakery):
    pool = start_bakery({}, "--preload", "high=1")
    assert pool.wait() == 1
    assert "--preload: a start imports the modules anyway. Add --check." in pool.text()
