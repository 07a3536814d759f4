"""Tables: the rows of the reference pages, collected from the code.

Rule of the room: nothing is written here that the code says; a value or a sentence that is missing
there is an error here. It needs Django with settings, and no Sphinx: the tests call it directly.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import itertools
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType

import django_rq_pool
import rq_options
from django_rq_pool import errors, hooks
from django_rq_pool.config import declared, options, problems
from django_rq_pool.config import overrides as config_overrides
from django_rq_pool.config.stop_policy import WORKER_SIGNALS, StopRules, TermPolicy
from django_rq_pool.management.commands.rqpool import Command
from django_rq_pool.planning import phases
from django_rq_pool.startup import known_threads
from django_rq_pool.system import sd_notify

PACKAGE = Path(django_rq_pool.__file__).resolve().parent

KEY_PLACES = (
    "ledger/*.py",
    "worker/*.py",
    "autoscaling/metrics.py",
    "config/redis_clients.py",
)
"""Where the constants of Redis keys stand, below the package."""

OURS = ":pool:"
"""What is in each key of the pool's own, and in none of RQ's."""


@dataclass(frozen=True)
class Table:
    """One table of the reference, its cells in reStructuredText.

    Attributes:
        heading: what stands above the columns.
        rows: at least one, each with as many cells as the heading.
        title: what the table is called, or nothing.
    """

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError(f"the table {self.title or self.heading} is empty")
        if any(len(row) != len(self.heading) for row in self.rows):
            raise ValueError(f"a row of the table {self.title or self.heading} has other columns")

    def as_rst(self) -> str:
        """The table as a ``list-table``."""
        lines = [
            f".. list-table:: {self.title}".rstrip(),
            "   :header-rows: 1",
            "   :align: left",
            "",
        ]
        for row in (self.heading, *self.rows):
            for number, cell in enumerate(row):
                first, *rest = cell.splitlines() or [""]
                lines.append(f"   {'*' if number == 0 else ' '} - {first}".rstrip())
                lines += [f"       {line}".rstrip() for line in rest]
        return "\n".join(lines)


# Reading the code


def docstrings(module: ModuleType, scope: str | None = None) -> dict[str, str]:
    """The names that a module, or a class in it, assigns, each with the docstring that follows.

    Args:
        module: the module.
        scope: the name of the class, or None for the module itself.

    Raises:
        LookupError: there is no such class.
    """
    assert module.__file__ is not None  # noqa: S101 - none of ours is built in
    tree = ast.parse(Path(module.__file__).read_text())
    body: list[ast.stmt] = tree.body
    if scope is not None:
        found = [n for n in body if isinstance(n, ast.ClassDef) and n.name == scope]
        if not found:
            raise LookupError(f"{module.__name__} has no class {scope}")
        body = found[0].body
    return {
        name: " ".join(after.value.value.split())
        for statement, after in itertools.pairwise(body)
        if isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
        for name in _assigned(statement)
    }


def _assigned(statement: ast.stmt) -> Iterator[str]:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    yield from (target.id for target in targets if isinstance(target, ast.Name))


def _literal(text: object) -> str:
    return f"``{text}``"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plain(text: str) -> str:
    """Text of a help or a message, in which options and variables become literals."""
    escaped = re.sub(r"([\\*`|])", r"\\\1", text)
    return re.sub(
        r"\$[A-Z_]+|(?<![\w-])--?[a-z][a-z-]*|\b[A-Z]+_[A-Z_]+\b|(?<![\w/])[\w.-]+/[\w./-]+|\w+\.yml",
        lambda match: _literal(match.group()),
        escaped,
    )


# The tables


def command_options() -> list[Table]:
    """Every option of the command, from its parser, a table for each of its groups."""
    parser = Command().create_parser("manage.py", "rqpool")
    tables = []
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help]
        if actions:
            title = (group.title or "").removesuffix(":")
            name = "options of every Django command" if title == "options" else title
            rows = tuple((_spelling(action), _plain(_help(action))) for action in actions)
            tables.append(Table(("Option", "Meaning"), rows, _capital(name)))
    # Django's own come last.
    return sorted(tables, key=lambda table: table.title.startswith("Options of every"))


def _spelling(action: argparse.Action) -> str:
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    if not action.option_strings:
        return _literal(value)
    if action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    takes_value = action.nargs != 0
    *others, last = action.option_strings
    return ", ".join([*map(_literal, others), _literal(f"{last} {value}" if takes_value else last)])


def _help(action: argparse.Action) -> str:
    return (action.help or "") % {**vars(action), "prog": "manage.py rqpool"}


def settings() -> list[Table]:
    """Every Django setting that the pool reads."""
    rows = tuple(
        (_literal(each.name), _default(each.default), each.meaning) for each in declared.SETTINGS
    )
    return [Table(("Setting", "Default", "Meaning"), rows)]


def _default(default: object) -> str:
    if default is None:
        return "none"
    return _literal([] if default == () else default)


def variables() -> list[Table]:
    """Every variable of the process's environment that the pool reads."""
    meanings = docstrings(sd_notify)
    systemd = [
        (_literal(value), "none", meanings[name])
        for name, value in vars(sd_notify).items()
        if name.endswith("_VARIABLE")
    ]
    ours = [
        (_literal(each.name), _default(each.default), each.meaning) for each in declared.VARIABLES
    ]
    return [Table(("Variable", "Default", "Meaning"), (*ours, *systemd))]


def group_options() -> list[Table]:
    """What a queue group may say, from the fields that are the options."""
    meanings = {**docstrings(options), **docstrings(options, "GroupOptions")}
    rows = [(_literal(options.WORKERS), "", "", meanings["WORKERS"])]
    for each in fields(options.GroupOptions):
        right = options.VALIDATORS[each.name](object()) or ""
        rows.append((_literal(each.name), right, _default(each.default), meanings[each.name]))
    rows.append((_literal(options.MAX_TOTAL), "", "", meanings["MAX_TOTAL"]))
    return [Table(("Option", "Value", "Default", "Meaning"), tuple(rows))]


def signals() -> list[Table]:
    """What each signal means to a manager in each phase, from its table, and to a worker."""
    phase_rows = tuple((phase.name.lower(), _capital(phase.value)) for phase in phases.Phase)
    usual = phases.responses(StopRules(), may_hold=True)
    manager_rows = tuple((_literal(name), where, effect) for name, where, effect in _grouped(usual))
    worker_rows = tuple(
        (_literal(phases.name_of(signum)), meaning) for signum, meaning in WORKER_SIGNALS.items()
    )
    return [
        Table(("Phase", "What the manager is doing"), phase_rows, "The phases"),
        Table(("Signal", "In the phases", "Effect"), manager_rows, "To a manager that is a daemon"),
        Table(
            ("With", "Signal", "In the phases", "Effect"),
            tuple(_differences(usual)),
            "What options change in that",
        ),
        Table(("Signal", "Effect"), worker_rows, "To a worker"),
    ]


def _response(phase: phases.Phase, response: phases.Response) -> str:
    parts = []
    if response.phase is not phase:
        parts.append(f"→ *{response.phase.name.lower()}*")
    if response.effect is not phases.Effect.NOTHING:
        parts.append(response.effect.value)
    return "; ".join(parts) or "nothing"


def _differences(usual: phases.Responses) -> Iterator[tuple[str, ...]]:
    """The answers that differ from the usual ones, by what makes them differ."""
    others = {
        "no ``--daemon``": phases.responses(StopRules(), may_hold=False),
        "``TERM_CHILD``": phases.responses(StopRules(term_child=1.0), may_hold=True),
        **{
            f"``--term-{policy.value}``": phases.responses(StopRules(policy), may_hold=True)
            for policy in TermPolicy
            if policy is not StopRules().term
        },
    }
    for condition, answers in others.items():
        changed = {key: answer for key, answer in answers.items() if answer != usual[key]}
        for name, where, effect in _grouped(changed):
            yield condition, _literal(name), where, effect


def _grouped(answers: phases.Responses) -> Iterator[tuple[str, str, str]]:
    """Signal, phases and effect, a row for all phases in which a signal has the same effect."""
    found: dict[tuple[signal.Signals, str], list[str]] = {}
    for (phase, signum), response in answers.items():
        found.setdefault((signum, _response(phase, response)), []).append(phase.name.lower())
    order = [*phases.MANAGER_SIGNALS]
    for (signum, effect), where in sorted(found.items(), key=lambda each: order.index(each[0][0])):
        yield phases.name_of(signum), ", ".join(where), effect


def system_checks() -> list[Table]:
    """Every problem that ``manage.py check`` may report."""
    meanings = docstrings(problems, "Kind")
    rows = tuple(
        (_literal(f"django_rq_pool.{kind.value}"), meanings[kind.name]) for kind in problems.Kind
    )
    return [Table(("Check", "What is wrong"), rows)]


def overrides() -> list[Table]:
    """Every method of RQ's classes in whose place the pool does something else."""
    heading = ("Method", "Is an override called?", "What the pool does", "What to do instead")
    return [
        Table(
            heading,
            tuple(
                (
                    _literal(name),
                    _capital(each.called.value),
                    f"It {_plain(each.pool)}.",
                    _plain(each.instead),
                )
                for name, each in methods.items()
            ),
            title,
        )
        for title, methods in (
            ("Of a worker class", config_overrides.WORKER_METHODS),
            ("Of a queue class", config_overrides.QUEUE_METHODS),
        )
    ]


def redis_keys() -> list[Table]:
    """Every key that the pool itself has in Redis, from the constants that end in ``_KEY``.

    Raises:
        LookupError: a constant has no docstring.
    """
    rows = []
    for path in itertools.chain.from_iterable(map(PACKAGE.glob, KEY_PLACES)):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        module = importlib.import_module(name)
        meanings = docstrings(module)
        for constant in _constants(path):
            value = getattr(module, constant)
            if OURS not in value:
                continue  # one of RQ's own
            if constant not in meanings:
                raise LookupError(f"{name}: no docstring below {constant}")
            rows.append((_literal(value.replace("%s", "…")), meanings[constant]))
    return [Table(("Key", "What it holds"), tuple(sorted(rows)))]


def _constants(path: Path) -> list[str]:
    """The constants of keys that a module assigns."""
    body = ast.parse(path.read_text()).body
    return [name for each in body for name in _assigned(each) if name.endswith("_KEY")]


def all_hooks() -> list[Table]:
    """Every moment at which a project's code may run."""
    meanings = docstrings(hooks)
    rows = tuple(
        (
            _literal(name),
            meanings[name],
            _consequence(each),
        )
        for name, each in vars(hooks).items()
        if isinstance(each, hooks.Hooks)
    )
    return [Table(("Hook", "When it is called", "If it raises"), rows)]


def _consequence(each: hooks.Hooks) -> str:
    if each is hooks.before_start:
        return "It runs again after a wait; no worker is forked before it has returned."
    return "The worker fails to boot." if each._must_succeed else "It is logged; the pool goes on."


def all_known_threads() -> list[Table]:
    """Every thread of a library of which it is known what it means to workers."""
    rows = [
        (row.library, _thread(row), row.kind.value, _capital(row.sentence))
        for kind in known_threads.Kind
        for row in known_threads.KNOWN_THREADS
        if row.kind is kind
    ]
    kinds = docstrings(known_threads, "Kind")
    meanings = tuple((_capital(kind.value), kinds[kind.name]) for kind in known_threads.Kind)
    return [
        Table(("Kind", "What it means"), meanings),
        Table(("Library", "Thread", "Kind", "What it means, and what to do"), tuple(rows)),
    ]


def _thread(row: known_threads.KnownThread) -> str:
    """The pattern of its name, or of its module if any name will do."""
    if row.name != known_threads.ANY:
        return _literal(row.name)
    return f"any that runs {_literal(row.module)}"


def exit_statuses() -> list[Table]:
    """Every status with which the command may end."""
    meanings = docstrings(errors, "ExitStatus")
    rows = tuple(
        (
            f"{int(status)} + N" if status is errors.ExitStatus.SIGNAL else str(int(status)),
            meanings[status.name],
        )
        for status in errors.ExitStatus
    )
    return [Table(("Status", "Meaning"), rows)]


def options_of_rq() -> list[Table]:
    """Every option of RQ's workers, and what to write with rqpool instead."""
    heading = ("Option", "Of", "With rqpool")
    return [Table(heading, rq_options.rows(rq_options.installed()))]


TABLES: dict[str, Callable[[], Iterable[Table]]] = {
    "rqpool-options": command_options,
    "rqpool-settings": settings,
    "rqpool-variables": variables,
    "rqpool-group-options": group_options,
    "rqpool-rq-options": options_of_rq,
    "rqpool-signals": signals,
    "rqpool-checks": system_checks,
    "rqpool-overrides": overrides,
    "rqpool-keys": redis_keys,
    "rqpool-hooks": all_hooks,
    "rqpool-threads": all_known_threads,
    "rqpool-exit-statuses": exit_statuses,
}
"""The directives of the reference, each with what collects its tables."""
