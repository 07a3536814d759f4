"""The test project's settings, for what asks Django."""

from __future__ import annotations

from typing import TYPE_CHECKING

import django
import pytest

if TYPE_CHECKING:
    import redis
    from rq import Queue

django.setup()


@pytest.fixture
def queue(valkey: redis.Redis) -> Queue:
    from rq import Queue

    return Queue("high", connection=valkey)
