"""Job modules: what is imported before the first fork, and what becomes of an import that fails.

Rule of the room: a module of the project's own that fails ends the start: each of its jobs would
fail. One that was installed fails its own jobs only, as it would with ``rqworker``. Each failure is
one sentence, which names the module and says what can be done.
"""

from __future__ import annotations

import importlib
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

from django.apps import AppConfig, apps
from django.conf import settings
from django.utils.module_loading import module_has_submodule

from ..config.declared import PRELOAD, PRELOAD_EXCLUDE
from ..system.signals import Stopped
from ..text import in_a_line, nearest

JOB_MODULES = ("tasks", "jobs")
"""Names of the modules of an installed app that hold jobs, by convention of Django users."""

HOOKS_MODULE = "rqpool"
"""The name of the module of an installed app that registers hooks."""

_INSTALLED = ("site-packages", "dist-packages")
"""Names of the folders into which packages are installed."""


@dataclass(frozen=True)
class JobModule:
    """A module to import.

    Attributes:
        name: its dotted name.
        app: the app that it belongs to; None if the project has listed it.
    """

    name: str
    app: AppConfig | None = None

    @property
    def exists(self) -> bool:
        """Whether the app has such a module. What the project has listed must exist."""
        if self.app is None:
            return True
        return bool(module_has_submodule(self.app.module, self.name.rpartition(".")[2]))


@dataclass(frozen=True)
class ImportFailure:
    """A module that cannot be imported.

    Attributes:
        module: its dotted name.
        text: which module failed and why, as a sentence.
        advice: what can be done, as a sentence.
        traceback: the traceback.
        fatal: whether the pool must not start without it.
    """

    module: str
    text: str
    advice: str
    traceback: str
    fatal: bool

    def __str__(self) -> str:
        return f"{self.text} {self.advice}"


def modules_of_apps(names: Sequence[str], exclude: Sequence[str]) -> Iterator[JobModule]:
    """The modules of these names in each installed app, whether they exist or not.

    Args:
        names: such as `JOB_MODULES`.
        exclude: the setting ``RQ_POOL_PRELOAD_EXCLUDE``.
    """
    for app in apps.get_app_configs():
        left_out = names == JOB_MODULES and not {app.name, app.label}.isdisjoint(exclude)
        for name in () if left_out else names:
            module = f"{app.name}.{name}"
            if module not in exclude:
                yield JobModule(module, app)


def all_modules(modules: Iterable[str], exclude: Sequence[str]) -> Iterator[JobModule]:
    """Everything that is imported before the first fork, in that order.

    Args:
        modules: dotted names, from the setting ``RQ_POOL_PRELOAD``.
        exclude: the setting ``RQ_POOL_PRELOAD_EXCLUDE``.
    """
    yield from modules_of_apps(JOB_MODULES, exclude)
    yield from (JobModule(name) for name in modules)
    yield from modules_of_apps((HOOKS_MODULE,), exclude)


def unknown_exclusions(exclude: Iterable[str]) -> list[str]:
    """A sentence for each name in ``RQ_POOL_PRELOAD_EXCLUDE`` that leaves nothing out.

    Args:
        exclude: the setting.
    """
    known: dict[str, None] = {}
    for app in apps.get_app_configs():
        modules = (f"{app.name}.{name}" for name in (*JOB_MODULES, HOOKS_MODULE))
        known.update(dict.fromkeys((app.name, app.label, *modules)))
    names = [app.name for app in apps.get_app_configs()]
    return [
        f"{PRELOAD_EXCLUDE.name}: {name!r} is no installed app, and no module of one that would be "
        f"imported. {nearest(name, names, 'Apps')}"
        for name in exclude
        if name not in known
    ]


def attempt(module: JobModule) -> ImportFailure | None:
    """Imports a module.

    Args:
        module: the module. If its app has no such module, nothing happens.

    Returns:
        Why it cannot be imported, or None. A module that calls ``sys.exit`` has failed too.

    Raises:
        KeyboardInterrupt, Stopped: the pool was told to stop meanwhile.
    """
    try:
        importlib.import_module(module.name)
    except (KeyboardInterrupt, Stopped):
        raise
    except BaseException as error:  # a module may raise anything
        if not module.exists:
            return None
        return _failure(module, _cause(error), traceback.format_exc().rstrip())
    return None


def ended(module: JobModule, how: str) -> ImportFailure:
    """The failure of a module whose import has ended the process.

    Args:
        module: the module.
        how: how the process ended.
    """
    return _failure(module, f"it ends the process: {how}", "")


def _failure(module: JobModule, cause: str, trace: str) -> ImportFailure:
    text = f"{module.name!r} cannot be imported: {cause}."
    if module.app is None:
        advice = f"Mend it, or take it out of {PRELOAD.name}."
        return ImportFailure(module.name, f"{PRELOAD.name}: {text}", advice, trace, fatal=True)
    is_hooks = module.name.endswith(f".{HOOKS_MODULE}")
    is_own = is_hooks or is_of_project(module.app)
    left_out = module.name if is_hooks else module.app.name
    advice = f"Mend it, or leave it out: {PRELOAD_EXCLUDE.name} = [{left_out!r}]."
    return ImportFailure(module.name, text, advice, trace, fatal=is_own)


def _cause(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({'' if error.code is None else repr(error.code)}){_at(error)}"
    kind, message = type(error).__name__, in_a_line(error).rstrip(".")
    if isinstance(error, SyntaxError):  # it says itself where
        return f"{kind}: {message}"
    return (kind if message == kind else f"{kind}: {message}") + _at(error)


def _at(error: BaseException) -> str:
    """Where an exception was raised: the innermost line of a file."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if not frame.filename.startswith("<")]
    return f" ({places[-1].filename} line {places[-1].lineno})" if places[1:] else ""


def is_of_project(app: AppConfig) -> bool:
    """Whether an app is the project's own, and not one that was installed beside it.

    A project may be installed itself, and has its settings then in the same distribution as its
    apps. A virtual environment may stand in the project's folder.

    Args:
        app: the app.
    """
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    path = Path(app.path)
    if not (installed.intersection(map(str, path.parents)) or set(_INSTALLED) & set(path.parts)):
        return True
    top, project = (
        name.partition(".")[0] for name in (app.name, str(getattr(settings, "SETTINGS_MODULE", "")))
    )
    if top == project:
        return True
    distributions = packages_distributions()
    return not set(distributions.get(top, ())).isdisjoint(distributions.get(project, ()))
