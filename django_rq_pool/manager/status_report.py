"""Status report: the report on a pool that INFO asks for, as lines of text for people.

Rule of the room: what is known comes in as arguments, lines come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..planning.backoff import Backoff
from ..planning.plan import Wanted
from ..planning.roster import Roster, WorkerRecord


@dataclass(frozen=True)
class Activity:
    """What a worker does now.

    Attributes:
        job_id: the job that it runs, or an empty string.
        paused: whether it takes no job until CONT.
        memory: bytes of memory that are its share (PSS), without its work horse; None where the
            system does not tell.
    """

    job_id: str
    paused: bool
    memory: int | None


def status_report(
    title: str,
    wanted: Iterable[Wanted],
    roster: Roster,
    backoffs: Mapping[str, Backoff],
    activities: Mapping[int, Activity],
    reasons: Mapping[str, str],
    delayed_by: Mapping[str, str],
    incidents_of: Callable[[str], Iterable[str]],
    now: float,
) -> list[str]:
    """Describes a pool.

    Args:
        title: the first line.
        wanted: for each queue group. A group that is not wanted and has workers is shown too.
        roster: the live processes.
        backoffs: by group name.
        activities: of the workers, by pid.
        reasons: why the count of a group is what it is, by name, where that changes by itself.
        delayed_by: after what the next fork of a group waits, by name.
        incidents_of: what is wrong with a group, by name, a line for each.
        now: the manager's monotonic clock, seconds.
    """
    wanted = list(wanted)
    counts = {want.group: want.workers for want in wanted}
    generations = {want.group: want.generation for want in wanted}
    members: dict[str, list[WorkerRecord]] = {name: [] for name in counts}
    for record in roster.workers():
        members.setdefault(record.group, []).append(record)
    lines = [title]
    for name, records in members.items():
        ready = sum(record.ready_at is not None and record.stop is None for record in records)
        stopping = sum(record.stop is not None for record in records)
        line = f"  {name}: {counts.get(name, 0)} wanted, {ready} ready, {stopping} stopping"
        older = roster.older(name, generations.get(name, 0))
        if older:
            line += f", {older} from before the reload"
        delay = backoffs.get(name, Backoff()).not_before - now
        if delay > 0:
            line += f", next fork in {delay:.1f} s after {delayed_by[name]}"
        if name in reasons:
            line += f" ({reasons[name]})"
        lines.append(line)
        lines += (f"    {incident}" for incident in incidents_of(name))
        lines += (_line(record, activities[record.pid], now) for record in records)
    for orphan in roster.orphans.values():
        lines.append(f"  horse {orphan.pid} of {orphan.group} outlives its worker: {orphan.job_id}")
    for recovery in roster.recoveries.values():
        lines.append(f"  recovery process {recovery.pid} for {recovery.name}")
    for dead in roster.unrecovered.values():
        lines.append(
            f"  worker {dead.name} is dead and not recovered, {dead.failures} tries have failed, "
            f"next in {max(0.0, dead.not_before - now):.1f} s"
        )
    return lines


def _line(record: WorkerRecord, activity: Activity, now: float) -> str:
    states = []
    if record.stop is not None:
        states.append("stopping")
    elif record.ready_at is None:
        states.append(_booting(record))
    if activity.paused:
        states.append("paused")
    if activity.job_id:
        states.append(f"busy with job {activity.job_id}")
    memory = "" if activity.memory is None else f", {activity.memory / 2**20:.1f} MB"
    state = ", ".join(states) or "idle"
    return f"    {record.pid} {record.name}: {state}, {age(now - record.forked_at)} old{memory}"


def _booting(record: WorkerRecord) -> str:
    if record.awaits_redis:
        return "starting, waits for Redis"
    return "starting, not ready in time" if record.overdue else "starting"


def age(seconds: float) -> str:
    """A length of time, given in seconds, in its two largest units."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute} min"
    if minutes:
        return f"{minutes} min {second} s"
    return f"{second} s"
