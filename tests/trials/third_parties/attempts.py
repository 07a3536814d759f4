"""Trials: what is done with each third party, and what has to be seen.

Rule of the room: a real pool, a real server, and the third party as its own documentation has it. A
trial returns what it has seen in words, or raises an AssertionError.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import redis
from rq import Queue
from rq.job import Job

from harness import Pool, environment, eventually, python_command
from listener import Listener

HERE = Path(__file__).resolve().parent


@dataclass
class Site:
    """One trial's site: a folder, an empty server, and a listener.

    Attributes:
        folder: where the pool works.
        client: a client of the server.
        listener: stands for the third party's server.
        url: the address of the server.
        exporter_python: of the environment in which rq-exporter is.
    """

    folder: Path
    client: redis.Redis
    listener: Listener
    url: str
    exporter_python: Path

    def env(self, settings: str, **more: str) -> dict[str, str]:
        env = environment(self.url, DJANGO_SETTINGS_MODULE=settings, **more)
        env["PYTHONPATH"] = os.pathsep.join([str(HERE), env["PYTHONPATH"]])
        return {**env, "TRIAL_FOLDER": str(self.folder), "TRIAL_LISTENER": self.listener.url}

    def start(self, settings: str, *, workers: int = 2, **env: str) -> Pool:
        """Starts a pool and waits until its workers are ready."""
        command = python_command("-m", "django", "rqpool")
        log = self.folder / "pool.log"
        self.pool = Pool(command, cwd=self.folder, env=self.env(settings, **env), log=log)
        self.pool.expect(r"worker \d+ of \S+ ready\b", workers)  # whatever the site's log format
        return self.pool

    def ask(self, settings: str, code: str, **env: str) -> str:
        """What a process of the site prints, as its web process would be."""
        code = f"import django; django.setup()\n{code}"
        ended = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.folder,
            env=self.env(settings, **env),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def enqueue(self, function: str, *arguments: object) -> Job:
        queue = Queue("default", connection=self.client)
        return queue.enqueue(f"site_jobs.{function}", *arguments)

    def run(self, function: str, *arguments: object, status: str = "finished") -> Job:
        """Enqueues a job and waits until it has the status."""
        job = self.enqueue(function, *arguments)
        eventually(lambda: job.get_status(refresh=True) == status)
        return job


def admin(site: Site) -> str:
    site.start("site_settings")
    held = site.enqueue("hold", 600)
    eventually(lambda: held.get_status(refresh=True) == "started")
    shown = site.ask(
        "site_settings",
        "from django.core.management import call_command\n"
        "call_command('migrate', verbosity=0)\n"
        "from django.contrib.auth.models import User\n"
        "from django.test import Client\n"
        "user = User.objects.create_superuser('root')\n"
        "client = Client(); client.force_login(user)\n"
        "import json\n"
        "stats = client.get('/django-rq/stats.json').json()['queues'][0]\n"
        "paths = ('', 'workers/0/', 'queues/0/started/')\n"
        "pages = {path: client.get('/django-rq/' + path) for path in paths}\n"
        "workers = pages['workers/0/'].content.decode()\n"
        f"started = {held.id!r} in pages['queues/0/started/'].content.decode()\n"
        "print(json.dumps([stats['workers'], stats['started_jobs'], workers.count('default,low'),"
        " started, [p.status_code for p in pages.values()]]))",
    )
    workers, started, listed, is_shown, codes = json.loads(shown)
    assert set(codes) == {200}, codes
    assert (workers, started, is_shown) == (2, 1, True), shown
    assert listed >= 2, shown
    return "the statistics and pages show both workers, their queues, and the started job"


def sentry(site: Site) -> str:
    site.start("settings_sentry")
    site.run("add", 1, 2)
    failed = site.run("fail", "seen by sentry", status="failed")
    killed = site.run("die", status="failed")
    eventually(lambda: site.listener.count('"type":"transaction"') >= 2)
    eventually(lambda: site.listener.count('"level":"error"') >= 1)
    errors = [body for _, body in site.listener.bodies if b'"exception"' in body]
    assert len(errors) == 1, errors
    assert b"seen by sentry" in errors[0], errors[0]
    assert failed.id.encode() in errors[0], errors[0]
    told = site.listener.count(killed.id)
    site.pool.stop(signal.SIGTERM)
    return (
        "a transaction for each job that ended, one event for the job that failed, with its "
        f"id; {'an event' if told else 'nothing'} about a job whose horse was killed"
    )


def ddtrace(site: Site) -> str:
    site.start(
        "settings_ddtrace",
        DD_TRACE_AGENT_URL=site.listener.url,
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
    )
    site.run("add", 1, 2)
    site.run("fail", "seen by ddtrace", status="failed")
    eventually(lambda: site.listener.count("rq.worker.perform_job") >= 2)
    assert site.listener.count("rq.job.perform") >= 2
    site.pool.stop(signal.SIGTERM)
    return "spans ``rq.worker.perform_job`` and ``rq.job.perform`` for each job that ended"


def opentelemetry(site: Site) -> str:
    site.start("settings_opentelemetry")
    site.run("trace")
    site.run("fail", "seen by opentelemetry", status="failed")
    eventually(lambda: site.listener.count("job site_jobs.") >= 2)
    eventually(lambda: site.listener.count("site-work") == 1)
    assert site.listener.count("GET") >= 1
    assert not site.pool.found("thread"), site.pool.text()
    site.pool.stop(signal.SIGTERM)
    return "the class's span around each job, the job's own in it, and redis commands below"


def rq_dashboard(site: Site) -> str:
    site.start("site_settings")
    held = site.enqueue("hold", 600)
    eventually(lambda: held.get_status(refresh=True) == "started")
    failed = site.run("fail", "shown", status="failed")
    import rq_dashboard as dashboard
    from flask import Flask

    app = Flask("dashboard")
    app.config.from_object(dashboard.default_settings)
    app.config["RQ_DASHBOARD_REDIS_URL"] = site.url
    dashboard.web.setup_rq_connection(app)
    app.register_blueprint(dashboard.blueprint)
    web = app.test_client()
    workers = web.get("/0/data/workers.json").get_json()["workers"]
    assert sorted(worker["state"] for worker in workers) == ["busy", "idle"], workers
    assert all(worker["queues"] == ["default", "low"] for worker in workers), workers
    queues = web.get("/0/data/queues.json").get_json()["queues"]
    (shown,) = (queue for queue in queues if queue["name"] == "default")
    assert shown["started_job_registry_count"] == shown["failed_job_registry_count"] == 1, shown
    requeued = web.post(f"/job/{failed.id}/requeue").get_json()
    assert requeued["status"] == "OK", requeued
    eventually(lambda: Job.fetch(failed.id, site.client).get_status() == "failed")
    return "workers with state and queues, counts of the registries; it can requeue a failed job"


def rq_exporter(site: Site) -> str:
    site.start("site_settings")
    site.run("add", 1, 2)
    site.run("fail", "counted", status="failed")
    code = (
        "import redis, sys; from prometheus_client import CollectorRegistry, generate_latest\n"
        "from rq_exporter.collector import RQCollector\n"
        "registry = CollectorRegistry()\n"
        "registry.register(RQCollector(redis.Redis.from_url(sys.argv[1])))\n"
        "print(generate_latest(registry).decode())"
    )
    command = [str(site.exporter_python), "-c", code, site.url]

    def shows() -> bool:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        lines = ended.stdout.splitlines()
        idle = [line for line in lines if line.startswith("rq_workers{") and '"idle"' in line]
        return len(idle) == 2 and 'rq_jobs{queue="default",status="failed"} 1.0' in lines

    eventually(shows)
    return "both workers with state and queues, and the number of jobs by status"


def rq_scheduler(site: Site) -> str:
    site.start("site_settings")
    from rq_scheduler import Scheduler

    scheduler = Scheduler("default", connection=site.client)
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    once = scheduler.enqueue_at(now - timedelta(seconds=1), "site_jobs.add", 1, 2)
    often = scheduler.schedule(now, "site_jobs.add", [3, 4], interval=3600, repeat=2)
    command = [sys.executable, "-c", "from rq_scheduler.scripts.rqscheduler import main; main()"]
    subprocess.run(
        [*command, "--url", site.url, "--burst"],
        env=site.env("site_settings"),
        check=True,
        capture_output=True,
    )
    eventually(lambda: once.get_status(refresh=True) == "finished")
    eventually(lambda: often.get_status(refresh=True) == "finished")
    assert often in scheduler, "the repeated job is not scheduled again"
    return "what ``rqscheduler`` enqueues, once and repeatedly, runs in the pool"


def django_tasks(site: Site) -> str:
    site.start("settings_django_tasks", workers=1)
    seen = site.ask(
        "settings_django_tasks",
        "import time, json, site_tasks\n"
        "results = [site_tasks.add.enqueue(1, 2), site_tasks.fail.enqueue()]\n"
        "end = time.monotonic() + 60\n"
        "while not all(r.is_finished for r in results) and time.monotonic() < end:\n"
        "    time.sleep(0.05); [r.refresh() for r in results]\n"
        "ends = [[str(r.status), len(r.errors)] for r in results]\n"
        "print(json.dumps([*ends, results[0].return_value]))",
    )
    assert json.loads(seen) == [["SUCCESSFUL", 0], ["FAILED", 1], 3], seen
    return "the result of a task, and the error of one that failed"


def structlog(site: Site) -> str:
    site.start("settings_structlog")
    site.run("speak", "first")
    site.run("speak", "second")
    spoken = [json.loads(found[0]) for found in site.pool.found(r'^\{.*"spoken".*\}$')]
    assert [each["word"] for each in spoken] == ["first", "second"], site.pool.text()
    assert "first" not in spoken[1], "a job has what the one before had bound"
    site.pool.stop(signal.SIGTERM)
    return (
        "each line of a job as JSON in the pool's output; nothing that a job binds is in the next"
    )


def prometheus(site: Site) -> str:
    metrics = site.folder / "metrics"
    metrics.mkdir()
    site.start("settings_prometheus", PROMETHEUS_MULTIPROC_DIR=str(metrics))
    for _ in range(5):
        site.run("count")
    ask = (
        "from prometheus_client import CollectorRegistry, generate_latest\n"
        "from prometheus_client.multiprocess import MultiProcessCollector\n"
        "registry = CollectorRegistry(); MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())"
    )
    text = site.ask("settings_prometheus", ask, PROMETHEUS_MULTIPROC_DIR=str(metrics))
    assert "site_jobs_total 5.0" in text, text
    files = len(list(metrics.glob("counter_*.db")))
    site.pool.stop(signal.SIGTERM)
    return f"5 jobs counted; {files} files of counters, one for each work horse, stay behind"


@dataclass(frozen=True)
class Trial:
    """A third party, and how it is tried.

    Attributes:
        packages: what is tried, as the package index names it.
        tried: what is done, in reStructuredText like the rest.
        write: what a site has to write, and where, that it would not write for ``rqworker``.
        check: does it; returns what was seen.
    """

    packages: tuple[str, ...]
    tried: str
    write: str
    check: Callable[[Site], str]


NOTHING = "Nothing."

TRIALS = (
    Trial(("django-rq",), "Its statistics and admin pages, beside a running pool.", NOTHING, admin),
    Trial(
        ("sentry-sdk",),
        "``RqIntegration`` and ``DjangoIntegration``, started in the settings.",
        "Nothing for jobs in work horses. For ``rq.SimpleWorker``, start it in an "
        "``after_prefork`` hook: then it sends what it still has when the worker leaves.",
        sentry,
    ),
    Trial(
        ("ddtrace",), "``ddtrace.patch(rq=True, redis=True)`` in the settings.", NOTHING, ddtrace
    ),
    Trial(
        (
            "opentelemetry-sdk",
            "opentelemetry-instrumentation-redis",
            "opentelemetry-exporter-otlp-proto-http",
        ),
        "A ``BatchSpanProcessor``, the instrumentation of redis-py, and a span around each job.",
        "A hook and a worker class, see below.",
        opentelemetry,
    ),
    Trial(
        ("rq-dashboard",),
        "Its lists of workers and queues, and the requeueing of a job.",
        "Nothing. It needs the package ``six``, and does not say so.",
        rq_dashboard,
    ),
    Trial(
        ("rq-exporter",),
        "Its collector, beside a running pool.",
        "Nothing. It wants an RQ below 3, so it needs a virtual environment or a container of its "
        "own.",
        rq_exporter,
    ),
    Trial(
        ("rq-scheduler",),
        "``rqscheduler``, with a job for once and a repeated one.",
        "Nothing. RQ's own scheduler is :doc:`another thing <scheduler>`.",
        rq_scheduler,
    ),
    Trial(
        ("django-tasks-rq",),
        "A task that succeeds and one that fails.",
        "``job_class: django_tasks_rq.Job`` for its queue group. ``RQ_QUEUES`` needs a queue "
        "``default`` too: it looks up all results there.",
        django_tasks,
    ),
    Trial(
        ("structlog",),
        "JSON by way of Django's ``LOGGING``, and variables that are bound in a job.",
        NOTHING,
        structlog,
    ),
    Trial(
        ("prometheus-client", "django-prometheus"),
        "A counter in jobs, with ``PROMETHEUS_MULTIPROC_DIR``.",
        "Count elsewhere: with *rq-exporter*, or in a hook. Each work horse leaves a file, as with "
        "``rqworker``.",
        prometheus,
    ),
)
