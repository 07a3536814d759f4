"""System checks: ``manage.py check`` reports what ``rqpool`` would refuse.

Rule of the room: the same problems and messages as the command, with an id and a hint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Warning, register

from .config.problems import CountsError, Kind, Problem


@register("rq")
def check_counts(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Checks the counts that ``rqpool`` would use if it were started without options.

    A loader of the project is not called. It may query a database that does not exist yet, because
    ``manage.py migrate`` runs the checks before it creates the tables.

    Args:
        app_configs: not used; the counts belong to no app.
        kwargs: not used; Django may pass more.

    Returns:
        An error or a warning for each problem.
    """
    # Imported here and not with the app: RQ and django-rq would cost every command 0.1 s.
    from .config import loaders, settings

    try:
        # Without a source, the counts are given on the command line.
        nothing = settings.find_source() is loaders.NOTHING
    except CountsError:  # it is told below, with the others
        nothing = False
    try:
        configuration = settings.configure(call_loader=False, allow_empty=nothing)
    except CountsError as error:
        return [message(problem) for problem in error.problems]
    return [
        message(problem)
        for problem in (*configuration.warnings, *settings.problems_elsewhere(configuration))
        if not (nothing and problem.kind is Kind.EMPTY_POOL)
    ]


def message(problem: Problem) -> CheckMessage:
    """Converts a problem to Django's kind of message.

    Args:
        problem: the problem.
    """
    level = Error if problem.kind.is_error else Warning
    return level(problem.text, hint=problem.hint, id=f"django_rq_pool.{problem.kind.value}")
