"""Keys: the names of what the ledger keeps in Redis, beside RQ's own.

Rule of the room: names only. Whoever adds one says who writes it and when it goes.
"""

from __future__ import annotations

from rq.defaults import RQ_KEY_PREFIX

IN_FLIGHT_KEY = RQ_KEY_PREFIX + ":pool:in-flight:%s:%s"
"""List of the jobs that a worker, by its name, has taken from a queue, by its key, and no work
horse has begun. It has no time to live, and goes when it is empty."""

BEGUN_KEY = RQ_KEY_PREFIX + ":pool:begun:%s"
"""Hash of the executions that a worker, by its name, has begun and that are not settled: each with
the key of the queue that its job came from. In the field ``settled`` stands the execution that was
settled last, and a token of who has settled it; in others, who has told the project that an
execution failed. It has no time to live, and goes when the worker leaves or has been recovered."""

MEMBERS_KEY = RQ_KEY_PREFIX + ":pool:members"
"""Hash of the workers of all pools, by the key of their registration with RQ: to each its pool and
the rules of its queue group. A worker that stands here and is not registered has been lost. Its
field goes when it leaves or has been recovered."""

LEFT_KEY = RQ_KEY_PREFIX + ":pool:left"
"""Hash of the workers that have left or been recovered, for another 60 seconds: a command of theirs
that was under way may still have moved a job. Fields as in the hash of the members, and since when,
in seconds of Redis's clock."""

SUSPECTS_KEY = RQ_KEY_PREFIX + ":pool:suspects"
"""Hash of the members that are not registered, and since when that has been known, in seconds of
Redis's clock. Its fields go when they are registered again or recovered."""

SWEPT_KEY = RQ_KEY_PREFIX + ":pool:swept:%s"
"""Exists while no worker of a pool, by its name, has to look for what lost workers have left. It
goes after half a minute."""

RECOVERY_LOCK_KEY = RQ_KEY_PREFIX + ":pool:recovery:%s"
"""Held by the process that recovers what a dead worker, by its name, has left. It goes with the
recovery, or after 300 seconds without a sign of life."""

MAINTAINED_KEY = RQ_KEY_PREFIX + ":pool:maintained:%s:%s"
"""Exists while the registries of a pool's queue group need no cleaning. It goes after RQ's
maintenance interval, ten minutes."""

REPLICATED_KEY = RQ_KEY_PREFIX + ":pool:replicated"
"""Written before a worker asks, with ``RQ_POOL_WAIT_REPLICAS``, whether the replicas have all that
was written. It goes after a minute."""

INTERRUPTED_FIELD = "pool_interrupted"
"""Field of a job's hash: how often the job was requeued because something cut it short."""

NOT_BEGUN_FIELD = "pool_not_begun"
"""Field of a job's hash: how often the job was put back because its work horse ended, or refused,
before it began."""

SETTLED_FIELD = "settled"
"""Field of the hash of begun executions; the keys of executions have a colon."""

TOLD_FIELD = "told "
"""Begins the fields of that hash which say who has told the project that an execution failed."""
