"""The documentation says what the code says, and its examples work."""

from __future__ import annotations

import io
import re
import shlex
import sys
import types
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from rq import Queue

import django_rq_pool
from django_rq_pool import hooks, log
from django_rq_pool.config import settings
from django_rq_pool.config.options import OPTION_NAMES
from django_rq_pool.config.overrides import QUEUE_METHODS, WORKER_METHODS, override_problems
from django_rq_pool.config.problems import Kind
from django_rq_pool.errors import ExitStatus
from django_rq_pool.management.commands import rqpool
from django_rq_pool.management.commands.rqpool import Command
from django_rq_pool.planning.phases import MANAGER_SIGNALS, name_of
from django_rq_pool.system.cgroups import Resources
from documentation import DOCS, EXAMPLES, PAGES, README, ROOT, example

sys.path[:0] = [str(DOCS / "_ext"), str(ROOT / "benchmarks")]

import measured  # noqa: E402
import tables  # noqa: E402

SOURCES = sorted(Path(django_rq_pool.__file__).parent.rglob("*.py"))
SOURCE = "\n".join(path.read_text() for path in SOURCES)
REFERENCE = sorted((DOCS / "reference").glob("*.rst"))
"""Pages whose data are collected from the code."""


def text_of(directive: str) -> str:
    return "\n".join(table.as_rst() for table in tables.TABLES[directive]())


def parser():
    return Command().create_parser("manage.py", "rqpool")


# The reference is complete


@pytest.mark.parametrize(
    ("directive", "expected"),
    [
        ("rqpool-options", [s for a in parser()._actions for s in a.option_strings if a.help]),
        ("rqpool-group-options", [*OPTION_NAMES, "max_total"]),
        ("rqpool-checks", [f"django_rq_pool.{kind.value}" for kind in Kind]),
        ("rqpool-overrides", [*WORKER_METHODS, *QUEUE_METHODS]),
        ("rqpool-hooks", [n for n, h in vars(hooks).items() if isinstance(h, hooks.Hooks)]),
        ("rqpool-exit-statuses", [str(int(status)) for status in ExitStatus]),
        ("rqpool-signals", [f"``{name_of(signum)}``" for signum in MANAGER_SIGNALS]),
    ],
)
def test_a_reference_page_has_everything_that_the_code_has(directive, expected):
    text = text_of(directive)
    assert [name for name in expected if str(name) not in text] == []


@pytest.mark.parametrize(
    ("directives", "names", "pattern"),
    [
        (["rqpool-settings", "rqpool-variables"], "settings", r'"(RQ_POOL(?:_[A-Z]+)*)"'),
        (["rqpool-keys"], "keys", r":pool:[a-z-]+"),
    ],
)
def test_what_the_code_names_itself_is_in_the_reference(directives, names, pattern):
    text = "\n".join(map(text_of, directives))
    found = sorted(set(re.findall(pattern, SOURCE)))
    assert found, f"the code has no {names}"
    assert [name for name in found if name not in text] == []


def test_variables_are_read_through_their_declarations_only():
    assert re.findall(r"""environ(?:ment)?(?:\.get\(|\.pop\(|\[)['"]\w+""", SOURCE) == []


def test_each_directive_is_used_by_one_page():
    used = [
        word
        for page in REFERENCE
        for word in re.findall(r"^\.\. (rqpool-\S+)::", page.read_text(), re.M)
    ]
    assert sorted(used) == sorted(tables.TABLES)


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: page.stem)
def test_a_reference_page_has_no_data_of_its_own(page):
    text = page.read_text()
    assert re.search(r"^\.\. (rqpool-\S+|auto\w+)::", text, re.MULTILINE)
    assert not re.search(r"^\.\. (list-table|csv-table|table|option|confval)::", text, re.MULTILINE)
    assert not re.search(r"^=+ +=+", text, re.MULTILINE)
    assert not re.search(r"^\+-+\+", text, re.MULTILINE)


def test_a_table_without_rows_is_an_error():
    with pytest.raises(ValueError, match="is empty"):
        tables.Table(("Key", "What it holds"), ())


def test_keys_that_nobody_declares_are_an_error(monkeypatch):
    monkeypatch.setattr(tables, "KEY_PLACES", ("text.py",))
    with pytest.raises(ValueError, match="is empty"):
        tables.redis_keys()


@pytest.mark.parametrize("name", ["WORKERS", "MAX_TOTAL"])
def test_what_has_no_sentence_in_the_code_is_an_error(monkeypatch, name):
    real = tables.docstrings
    monkeypatch.setattr(
        tables, "docstrings", lambda *of: {n: text for n, text in real(*of).items() if n != name}
    )
    with pytest.raises(KeyError, match=name):
        tables.group_options()


# The README


def test_the_readme_has_8000_bytes_at_most():
    assert README.stat().st_size <= 8000


def test_a_link_of_the_readme_finds_its_file():
    links = re.findall(r"`[^`<]*<([^>`]+)>`__?", README.read_text())
    files = [link for link in links if "://" not in link]
    assert len(files) > 10
    assert [link for link in files if not (ROOT / link).exists()] == []


def test_the_figures_of_the_readme_are_those_of_the_kept_run():
    _, rows = README.read_text().split("\n    16 workers ", 1)
    lines = rows.partition("\n\n")[0].splitlines()[1:]
    (table,) = (
        table
        for table in measured.suite_results(
            ROOT / "benchmarks" / "results" / "default" / "results.json"
        )
        if table.heading[0] == "16 workers"
    )
    kept = {
        row[0]: [cell.partition(" (")[0].lstrip("\\") for cell in row[1:]] for row in table.rows
    }
    assert len(lines) >= 5
    for line in lines:
        title, *figures = re.split(r"  +", line.strip())
        assert figures == kept[title]


# The examples


def test_every_python_example_is_named_in_a_test():
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    named = [each for each in EXAMPLES if each.language == "python"]
    assert len(named) >= 10
    assert [str(e) for e in named if not any(f'"{e.name}"' in text for text in texts)] == []


def test_every_example_is_of_a_kind_that_is_tested():
    kinds = {each.language for each in EXAMPLES}
    assert kinds == {"console", "python", "yaml", "yaml+jinja"}


COUNTS = [each for each in EXAMPLES if each.language.startswith("yaml")]


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("environment", [None, "production"])
def test_counts_of_the_documentation_can_be_used(folder, counts, environment):
    (folder / "rqpool.yml").write_text(counts.text)
    if environment is not None and f"\n{environment}:" not in counts.text:
        environment = None
    configuration = settings.configure(environment=environment)
    assert configuration.counts.groups
    assert configuration.warnings == ()


COMMANDS = sorted(
    {
        (str(page.relative_to(ROOT)), line)
        for page in PAGES
        for line in re.findall(
            r"^ +(?:\$ )?(\./manage\.py rqpool .*)", page.read_text(), re.MULTILINE
        )
        if "[" not in line  # the synopsis
    }
)


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_of_the_documentation_has_options_that_exist(page, line):
    words = shlex.split(line, comments=True)[2:]
    parser().parse_args(["1" if word == "SECONDS" else word for word in words])


@pytest.mark.parametrize("name", ["settings-quickstart", "settings-readme"])
def test_the_settings_of_the_first_steps_give_a_pool(name):
    given: dict[str, object] = {}
    exec(example(name), given)  # noqa: S102 - what a reader would put into his settings
    assert {"django_rq", "django_rq_pool"} <= set(given["INSTALLED_APPS"])
    ours = {n: value for n, value in given.items() if n.startswith("RQ_")}
    with override_settings(**ours):
        counts = settings.configure(
            counts=given.get("RQ_POOL", {"high,default": 4, "low": 1})
        ).counts
    assert [(group.name, group.workers) for group in counts.groups] == [
        ("high,default", 4),
        ("low", 1),
    ]


def test_modules_to_preload_are_a_list_of_names():
    given: dict[str, object] = {}
    exec(example("settings-preload"), given)  # noqa: S102
    with override_settings(RQ_POOL_PRELOAD=given["RQ_POOL_PRELOAD"]):
        assert settings.configure(counts={"high": 1}).preload == ("pandas", "shop.reports")


def test_definitions_become_immortal_when_the_settings_say_so():
    assert not settings.configure(counts={"high": 1}).immortal
    given: dict[str, object] = {}
    exec(example("settings-immortal"), given)  # noqa: S102
    with override_settings(RQ_POOL_IMMORTAL=given["RQ_POOL_IMMORTAL"]):
        assert settings.configure(counts={"high": 1}).immortal


def test_modules_to_leave_out_are_a_list_of_names():
    given: dict[str, object] = {}
    exec(example("settings-preload-exclude"), given)  # noqa: S102
    with override_settings(RQ_POOL_PRELOAD_EXCLUDE=given["RQ_POOL_PRELOAD_EXCLUDE"]):
        exclude = settings.configure(counts={"high": 1}).preload_exclude
    assert exclude == ("reports", "shop.tasks")


@pytest.fixture
def own_hooks():
    """The hooks as they are, put back after the test."""
    before = list(hooks.after_prefork)
    yield before
    hooks.after_prefork.replace(before)


def test_the_hooks_of_the_example_connect_each_worker(monkeypatch, own_hooks):
    begun: list[tuple[str, str]] = []
    sentry = types.ModuleType("sentry_sdk")
    sentry.init = lambda dsn, server_name: begun.append((dsn, server_name))
    stock = types.ModuleType("shop.stock")
    monkeypatch.setitem(sys.modules, "sentry_sdk", sentry)
    monkeypatch.setitem(sys.modules, "shop.stock", stock)
    monkeypatch.setattr(sys.modules["shop"], "stock", stock, raising=False)
    exec(example("hooks-rqpool"), {})  # noqa: S102
    added = list(hooks.after_prefork)[len(own_hooks) :]
    with override_settings(SENTRY_DSN="https://sentry", STOCK_REDIS="redis://nowhere"):
        for hook in added:
            hook(types.SimpleNamespace(name="shop.web1.high.1"))
    assert begun == [("https://sentry", "shop.web1.high.1")]
    stock.client.close()


def test_the_worker_class_of_the_example_overrides_nothing_in_vain(monkeypatch):
    activated: list[str] = []
    tenants = types.ModuleType("shop.tenants")
    tenants.activate = activated.append
    monkeypatch.setitem(sys.modules, "shop.tenants", tenants)
    given: dict[str, object] = {"__name__": "shop.workers"}
    exec(example("worker-class"), given)  # noqa: S102
    assert list(override_problems(given["TenantWorker"], Queue)) == []
    assert not activated


def test_the_start_hooks_of_the_example_wait_and_enqueue_once(monkeypatch):
    before = list(hooks.before_start)
    called, enqueued = [], []
    queue = types.SimpleNamespace(job_ids=enqueued)
    queue.enqueue = lambda name, job_id: enqueued.append(job_id)
    monkeypatch.setattr("django_rq.get_queue", lambda name: queue)
    monkeypatch.setattr(
        "django.core.management.call_command", lambda *name, **given: called.append((*name, given))
    )
    try:
        exec(example("hooks-before-start"), {})  # noqa: S102
        for number in (*range(len(before), len(hooks.before_start)), len(hooks.before_start) - 1):
            hooks.before_start.call(number)
    finally:
        hooks.before_start.replace(before)
    assert called == [("migrate", {"check_unapplied": True})]
    assert enqueued == ["clean-up"]


def test_a_project_may_leave_connecting_to_its_jobs(own_hooks):
    exec(example("hooks-no-reopen"), {})  # noqa: S102
    assert hooks.reopen_connections not in list(hooks.after_prefork)


def test_lines_of_the_log_have_the_form_that_the_pool_gives_them():
    form = re.escape(log.FORMAT)
    for field, pattern in {
        "asctime": r"[-\d]+ [:\d]+",
        "process": r"\d+",
        "levelname": "[A-Z]+",
    }.items():
        form = re.sub(rf"%\\\({field}\\\)[sd]", lambda match, p=pattern: p, form)
    form = form.replace(r"%\(message\)s", ".+")
    lines = [
        line.strip()
        for page in PAGES
        for line in page.read_text().splitlines()
        if re.match(r" +\d{4}-\d\d-\d\d \d\d:", line)
    ]
    assert len(lines) > 5
    assert [line for line in lines if not re.fullmatch(form, line)] == []


def shown(output: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in output.rstrip("\n").splitlines())


def test_the_table_of_counts_is_what_the_command_prints(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(rqpool, "usable_resources", lambda: Resources(2, 4 * 2**30))
    output = io.StringIO()
    call_command("rqpool", "--check", "--config", "testproject/rqpool.yml", stdout=output)
    assert shown(output.getvalue()) in (DOCS / "guides" / "counts.rst").read_text()


def test_the_mistakes_in_counts_are_reported_as_shown():
    with pytest.raises(CommandError) as caught:
        call_command("rqpool", "--check", "hgh=1", "high=-1")
    assert shown(f"CommandError: {caught.value}") in (DOCS / "guides" / "counts.rst").read_text()


def test_the_tests_that_are_said_to_show_that_no_job_is_lost_exist():
    page = (DOCS / "explanation" / "no-job-is-lost.rst").read_text()
    named = set(re.findall(r"``(test_\w+)``", page))
    existing = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 20
    assert named - existing == set()
