"""The Django app of this package.

Rule of the room: it only registers the system checks. Other code is imported when it is used, so
that the app costs other commands next to nothing.
"""

from __future__ import annotations

from django.apps import AppConfig


class DjangoRqPoolConfig(AppConfig):
    """The app ``django_rq_pool``: the command ``rqpool`` and its system checks."""

    name = "django_rq_pool"
    verbose_name = "RQ worker pool"

    def ready(self) -> None:
        """Registers the system checks."""
        from . import checks  # noqa: F401  # the import registers them
