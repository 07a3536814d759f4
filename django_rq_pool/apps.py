from __future__ import annotations

from django.apps import AppConfig


class DjangoRqPoolConfig(AppConfig):
    name = "django_rq_pool"
    verbose_name = "RQ worker pool"

    def ready(self) -> None:
        from . import checks  # noqa: F401  # registers them
