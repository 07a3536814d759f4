"""Tasks of Django's, which only the tests use, and what hears of them."""

from __future__ import annotations

import os

import django_tasks
from django.dispatch import receiver
from django_tasks.signals import task_finished, task_started

from pool_jobs import hold, note

try:
    from django.tasks import task  # Django 6
except ImportError:
    from django_tasks import task


@task(queue_name="high")
def add(first: int, second: int) -> int:
    return first + second


@task(queue_name="high")
def say(word: str) -> None:
    note("said", word)


@task(queue_name="high", takes_context=True)
def introduce(context) -> str:
    return f"{context.task_result.id} {context.attempt}"


@task(queue_name="high")
async def later(word: str) -> str:
    return word


@task(queue_name="high")
def divide() -> float:
    return 1 / 0


@task(queue_name="high")
def wait(gate: str) -> str:
    return hold(gate)


@receiver(task_started)
def note_start(sender, task_result, **kwargs) -> None:
    note("signals", f"started {task_result.id} {task_result.status.name}")


@receiver(task_finished)
def note_end(sender, task_result, **kwargs) -> None:
    note("signals", f"finished {task_result.id} {task_result.status.name}")


def result_of(task_id: str) -> dict[str, object]:
    """What the backend says of a task."""
    result = django_tasks.default_task_backend.get_result(task_id)
    return {
        "status": result.status.name,
        "value": result._return_value,
        "errors": [[each.exception_class_path, each.traceback] for each in result.errors],
        "workers": result.worker_ids,
        "pid": os.getpid(),
    }


def refusal_of_a_priority() -> str:
    """What the backend says of a task that has a priority."""
    try:
        say.using(priority=1)
    except Exception as error:
        return str(error)
    return ""
