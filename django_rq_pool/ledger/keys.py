"""Keys: the names of what the ledger keeps in Redis, beside RQ's own.

Rule of the room: names only. Whoever adds one says who writes it and when it goes.
"""

from __future__ import annotations

from rq.defaults import RQ_KEY_PREFIX

IN_FLIGHT_KEY = RQ_KEY_PREFIX + ":pool:in-flight:%s"
"""List of the jobs that a worker, by its name, has taken from a queue and no work horse has begun.
It goes when it is empty."""

MEMBERS_KEY = RQ_KEY_PREFIX + ":pool:members:%s"
"""Hash of the workers of a pool, by its name: each worker's name and its queue group. A worker that
stands here and is not registered with RQ has been lost. It goes with the last worker."""

SUSPECTS_KEY = RQ_KEY_PREFIX + ":pool:suspects:%s"
"""Hash of the members of a pool that are not registered, and since when that has been known, in
seconds of Redis's clock. It goes when each is registered again or recovered."""

RECOVERY_LOCK_KEY = RQ_KEY_PREFIX + ":pool:recovery:%s"
"""Held by the process that recovers what a dead worker, by its name, has left. It goes with the
recovery, or after 300 seconds without a sign of life."""

MAINTAINED_KEY = RQ_KEY_PREFIX + ":pool:maintained:%s:%s"
"""Exists while the registries of a pool's queue group need no cleaning. It goes after RQ's
maintenance interval, ten minutes."""

INTERRUPTED_FIELD = "pool_interrupted"
"""Field of a job's hash: how often the job was requeued because something cut it short."""
