"""Stopping: from the signal that asks for a graceful stop until no process is left.

``stop`` is that of an idle pool that has been through whatever was measured before it.
``stop_after_kill`` is that of one of whose workers one had been killed, and replaced, before. One
that does not end within the limit counts as None, which the table shows as *never*.
"""

from __future__ import annotations

from figures import Effort, Measure, Numbers, Step
from life import Life


def measure(life: Life, effort: Effort) -> Numbers:
    return {"stop": life.stop(effort.stop_limit)}


def measure_after_kill(life: Life, effort: Effort) -> Numbers:
    if not life.contender.replaces:
        return {}
    return {"stop_after_kill": life.stop(effort.stop_limit)}


STEP = Step("stopping", (Measure("stop", "stop, idle", "s"),), measure)
AFTER_KILL = Step(
    "stopping",
    (Measure("stop_after_kill", "stop, after a worker was killed", "s"),),
    measure_after_kill,
)
