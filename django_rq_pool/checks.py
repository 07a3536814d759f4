"""System checks: what ``rqpool`` would refuse, told by ``manage.py check``.

Rule of the room: the same problems and the same sentences as the command's, with ids and hints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Warning, register

from .config.problems import CountsError, Problem


@register("rq")
def check_counts(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Parses the counts that ``rqpool`` would use if it were started without options.

    A loader of the project's own is not called: it may ask a database that ``manage.py migrate``,
    which runs the checks first, has yet to make.
    """
    # Not imported with the app: RQ and django-rq cost every command a tenth of a second.
    from .config import loaders, settings

    try:
        configuration = settings.configure(call_loader=False)
    except CountsError as error:
        return [message(problem) for problem in error.problems]
    if configuration.source is loaders.NOTHING:
        return []  # the counts may be given on the command line only
    return [message(problem) for problem in configuration.warnings]


def message(problem: Problem) -> CheckMessage:
    """A problem as Django shows it."""
    level = Warning if problem.kind.value.startswith("W") else Error
    return level(problem.text, hint=problem.hint, id=f"django_rq_pool.{problem.kind.value}")
