"""Django's tasks run in a pool, with the job class that `django-tasks-rq` has for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest
from django_tasks_rq import Job
from rq.job import JobStatus

from documentation import example
from harness import DEADLINE, eventually, python_command

SETTINGS = """
INSTALLED_APPS = [*INSTALLED_APPS, "django_tasks", "django_tasks_rq"]
TASKS = {"default": {"BACKEND": "django_tasks_rq.RQBackend", "QUEUES": ["high", "low"]}}
"""
DOCUMENTED = f"""
apps, queues = INSTALLED_APPS, RQ_QUEUES
{example("settings-tasks")}
INSTALLED_APPS, RQ_QUEUES = [*apps, *INSTALLED_APPS[2:]], queues
"""
PREAMBLE = """
import datetime, json, os, django
django.setup()
import own_tasks
from django.utils import timezone
"""
OPTIONS = "job_class: django_tasks_rq.Job"


@pytest.fixture
def start(start_with):
    """Starts a pool that runs tasks."""

    def start(**options: object):
        given = "".join(f", {name}: {value}" for name, value in options.items())
        return start_with(SETTINGS, yaml=f"high: {{workers: 1, {OPTIONS}{given}}}")

    return start


@pytest.fixture
def run_python(pool_environment, tmp_path):
    """Runs code in a process of the site, and returns what it prints."""
    path = os.pathsep.join([str(tmp_path), pool_environment["PYTHONPATH"]])
    env = {**pool_environment, "DJANGO_SETTINGS_MODULE": "own_settings", "PYTHONPATH": path}

    def run(code: str) -> str:
        done = subprocess.run(
            python_command("-c", code), env=env, capture_output=True, text=True, timeout=DEADLINE
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def site(run_python, tmp_path):
    """Evaluates an expression in a process of the site, as a view would."""
    (tmp_path / "own_settings.py").write_text(f"from shop.settings import *\n{SETTINGS}")

    def evaluate(expression: str) -> Any:
        printed = run_python(f"{PREAMBLE}\nprint(json.dumps({expression}))")
        return json.loads(printed.splitlines()[-1])

    return evaluate


@pytest.fixture
def status(valkey):
    """RQ's status of a task."""
    return lambda task: Job.fetch(task, connection=valkey).get_status()


def signals_of(valkey, task: str) -> list[str]:
    found = [word.decode().split() for word in valkey.lrange("signals", 0, -1)]
    return [f"{what} {status}" for what, of, status in found if of == task]


def test_results_failures_and_signals_are_those_of_djangos_tasks(start, site, valkey, status):
    good, bad, named, coroutine = site(
        "[task.enqueue(*given).id for task, *given in ((own_tasks.add, 2, 3), (own_tasks.divide,), "
        "(own_tasks.introduce,), (own_tasks.later, 'yes'))]"
    )
    pool = start().expect_ready(1)
    tasks = (good, bad, named, coroutine)
    eventually(lambda: {status(task) for task in tasks} == {JobStatus.FINISHED, JobStatus.FAILED})
    results = site(f"[own_tasks.result_of(task) for task in {tasks}]")
    assert [(each["status"], each["value"]) for each in results] == [
        ("SUCCESSFUL", 5),
        ("FAILED", None),
        ("SUCCESSFUL", f"{named} 1"),
        ("SUCCESSFUL", "yes"),
    ]
    ((exception, traceback),) = results[1]["errors"]
    assert exception == "builtins.ZeroDivisionError"
    assert "1 / 0" in traceback
    assert all(worker.startswith("own_settings.") for (worker,) in (r["workers"] for r in results))
    assert signals_of(valkey, good) == ["started RUNNING", "finished SUCCESSFUL"]
    assert signals_of(valkey, bad) == ["started RUNNING", "finished FAILED"]
    assert pool.stop() == 0


def test_queues_are_the_priorities_of_tasks_for_which_the_backend_has_none(
    start_with, site, valkey
):
    site("[own_tasks.say.using(queue_name=queue).enqueue(queue).id for queue in ('low', 'high')]")
    pool = start_with(SETTINGS, yaml=f'"high,low": {{workers: 1, {OPTIONS}}}').expect_ready(1)
    eventually(lambda: valkey.llen("said") == 2)
    assert valkey.lrange("said", 0, -1) == [b"high", b"low"]
    assert pool.stop() == 0
    assert "does not support setting priority" in site("own_tasks.refusal_of_a_priority()")


def test_a_task_that_shall_run_later_does_where_the_group_has_a_scheduler(start, site, valkey):
    pool = start(with_scheduler="true").expect_ready(1)
    task, much_later = site(
        "[own_tasks.say.using(run_after=timezone.now() + datetime.timedelta(seconds=seconds))"
        ".enqueue('late').id for seconds in (1, 3600)]"
    )
    eventually(lambda: valkey.llen("said"))
    eventually(lambda: Job.fetch(task, connection=valkey).is_finished)
    assert Job.fetch(much_later, connection=valkey).get_status() == JobStatus.SCHEDULED
    assert pool.stop() == 0


def test_a_task_of_the_documentation_runs_with_its_settings_and_counts(
    start_with, valkey, run_python
):
    module = example("tasks-use").replace("...", "note('shipped', str(number))")
    try:
        import django.tasks  # noqa: F401
    except ImportError:
        module = module.replace("django.tasks", "django_tasks")
    pool = start_with(
        DOCUMENTED,
        yaml=example("counts-tasks").replace("workers: 4", "workers: 1"),
        modules={"tasks_use": f"from pool_jobs import note\n{module}"},
    ).expect_ready(3)
    run_python("import django; django.setup(); import tasks_use; tasks_use.ship.enqueue(7)")
    eventually(lambda: valkey.lrange("shipped", 0, -1) == [b"7"])
    assert pool.stop() == 0


def test_a_graceful_stop_lets_a_task_finish(start, site, valkey, status):
    pool = start().expect_ready(1)
    task = site("own_tasks.wait.enqueue('gate').id")
    eventually(lambda: valkey.llen("gate:running"))
    assert site(f"own_tasks.result_of({task!r})['status']") == "RUNNING"
    pool.send(signal.SIGQUIT)
    valkey.rpush("gate:open", 1)
    assert pool.wait() == 0
    assert site(f"own_tasks.result_of({task!r})['value']") == "gate"


def test_a_task_whose_worker_dies_has_failed_and_the_site_hears_of_it(start, site, valkey, status):
    pool = start().expect_ready(1)
    task = site("own_tasks.wait.enqueue('gate').id")
    horse = int(valkey.blpop(["gate:running"], DEADLINE)[1])
    os.kill(pool.worker_pids()[0], signal.SIGKILL)
    os.kill(horse, signal.SIGKILL)
    eventually(lambda: status(task) == JobStatus.FAILED)
    eventually(lambda: signals_of(valkey, task) == ["started RUNNING", "finished FAILED"])
    result = site(f"own_tasks.result_of({task!r})")
    assert result["status"] == "FAILED"
    ((exception, traceback),) = result["errors"]
    assert exception == "rq.exceptions.AbandonedJobError"
    assert "was ended by SIGKILL" in traceback
    assert pool.stop() == 0


def test_a_task_that_an_immediate_stop_fails_ends_without_a_signal(start, site, valkey):
    pool = start().expect_ready(1)
    task = site("own_tasks.wait.enqueue('gate').id")
    eventually(lambda: valkey.llen("gate:running"))
    assert pool.stop(signal.SIGTERM) == 0
    assert site(f"own_tasks.result_of({task!r})['status']") == "FAILED"
    assert signals_of(valkey, task) == ["started RUNNING"]


def test_a_task_that_is_cut_short_can_be_requeued(start, site, valkey, status):
    pool = start(interrupted="requeue").expect_ready(1)
    task = site("own_tasks.wait.enqueue('gate').id")
    eventually(lambda: valkey.llen("gate:running"))
    pool.send(signal.SIGUSR1)
    eventually(lambda: valkey.llen("gate:running") == 2)
    valkey.rpush("gate:open", 1)
    eventually(lambda: status(task) == JobStatus.FINISHED)
    assert pool.stop() == 0


def test_a_plain_job_on_a_queue_of_tasks_fails_with_a_reason(start, enqueue):
    pool = start().expect_ready(1)
    job = enqueue("high", "nothing")
    eventually(lambda: job.is_failed)
    assert "does not point to a Task" in job.latest_result().exc_string
    assert pool.stop() == 0


def test_a_task_in_a_group_without_the_job_class_fails_with_a_reason(start_with, site, valkey):
    pool = start_with(SETTINGS, "high=1").expect_ready(1)
    task = site("own_tasks.add.enqueue(1, 2).id")
    job = Job.fetch(task, connection=valkey)
    eventually(lambda: job.is_failed)
    assert "'Task' object is not callable" in job.latest_result().exc_string
    assert pool.stop() == 0
