"""Jobs of the site on which third parties are tried."""

import os
import signal
import time


def add(a: int, b: int) -> int:
    return a + b


def fail(text: str) -> None:
    raise ValueError(text)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hold(seconds: float) -> None:
    """Runs until its process is ended, or the time is up."""
    time.sleep(seconds)


def trace() -> None:
    """Does a traced piece of work."""
    import redis
    from opentelemetry import trace as tracing

    with tracing.get_tracer("site").start_as_current_span("site-work"):
        redis.Redis.from_url(os.environ["REDIS_URL"]).get("nothing")


def speak(word: str) -> None:
    """Writes one structured line, bound to what it was given."""
    import structlog

    structlog.contextvars.bind_contextvars(**{word: True})
    structlog.get_logger("site").info("spoken", word=word)


def count() -> None:
    """Counts itself, as a job of a site with Prometheus does."""
    from prometheus_client import REGISTRY, Counter

    name = "site_jobs"
    found = REGISTRY._names_to_collectors.get(name)
    (found or Counter(name, "Jobs that were run.")).inc()
