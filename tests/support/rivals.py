"""A process that claims a pid file each time it is told to, and says what came of it."""

CLAIM = """
import os, sys
from django_rq_pool.system.pidfile import PidFile, PidFileError

pidfile = PidFile(sys.argv[1])
print("here", flush=True)
for line in sys.stdin:
    try:
        pidfile.claim()
    except PidFileError as error:
        print(error, flush=True)
    else:
        print("won", flush=True)
        sys.stdin.readline()
        pidfile.release()
        print("released", flush=True)
"""
