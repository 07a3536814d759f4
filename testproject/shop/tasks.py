"""The shop's jobs: what the demonstration runs."""

import time

from rq import get_current_job

from shop.models import Order


def ship(number: int) -> int:
    """Writes a row through the ORM."""
    Order.objects.create(number=number, shipped=True)
    return number


def render(seconds: float) -> float:
    """Takes its time."""
    time.sleep(seconds)
    return seconds


def charge() -> str:
    """Fails the first time, as a payment service does; RQ retries it."""
    job = get_current_job()
    assert job is not None
    if not job.meta.get("tried"):
        job.meta["tried"] = True
        job.save_meta()
        raise ConnectionError("the payment service hung up (this failure is part of the show)")
    return "charged"
