"""Spelling: which settings and variables look like the pool's, and are none.

Rule of the room: names only. A misspelt one is silently ignored by Django and by the system, so
that the pool runs as if it had not been set.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator

from django.conf import settings

from . import declared
from .problems import Kind, Problem

_PREFIX = "RQ_POOL"
_SIMILAR = 0.85
"""How similar to a known name (difflib's ratio) a name must be that does not begin like ours."""


def misspelt() -> Iterator[Problem]:
    """A warning for each setting of the project, and each environment variable, that is probably
    meant to be one of the pool's."""
    known = [each.name for each in declared.SETTINGS]
    variables = [each.name for each in declared.VARIABLES if each.name.startswith(_PREFIX)]
    for name in sorted(each for each in dir(settings) if each.isupper()):
        if name in variables:
            yield _warning(
                name,
                "it is an environment variable and has no effect as a setting.",
                "Set it in the environment of the process.",
            )
        elif name not in known and (name.startswith(_PREFIX) or _resembles(name, known)):
            yield _warning(name, "there is no such setting.", _nearest(name, known, "Settings"))
    for name in sorted(os.environ):
        # Others may have such variables: settings modules read theirs, Kubernetes adds some for
        # each service.
        if name not in (*known, *variables) and _resembles(name, variables):
            yield _warning(
                name,
                "there is no such environment variable.",
                _nearest(name, variables, "Variables"),
            )


def _resembles(name: str, known: Iterable[str]) -> bool:
    return name.startswith("RQ") and bool(difflib.get_close_matches(name, known, 1, _SIMILAR))


def _nearest(name: str, known: list[str], what: str) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {close[0]}?" if close else f"{what} are {', '.join(known)}."


def _warning(name: str, text: str, hint: str) -> Problem:
    return Problem(Kind.MISSPELT, f"{name}: {text}", hint)
