"""Queue groups: parses and validates the counts.

Rule of the room: a mapping goes in, queue groups or problems come out. It imports no class, reads
no file or setting and opens no connection; the content of ``RQ_QUEUES`` is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..text import listed, short
from .entries import Entry, EntryReader
from .options import MAX_TOTAL, WORKERS, Bounds, GroupOptions
from .problems import Complaints, CountsError, Kind, Problem
from .sections import EVERY_QUEUE, Section, SectionReader


@dataclass(frozen=True)
class QueueGroup:
    """Queues that the same workers serve.

    Attributes:
        name: as the counts write it, without spaces, such as ``high,default`` or ``*``. It
            identifies the group.
        queues: the queue names in priority order, with ``*`` expanded.
        workers: the count, that is how many workers the group shall have. A group with bounds
            starts with it.
        options: the options of the group.
        bounds: the range of the count of a scaled group, or None if the count is fixed.
    """

    name: str
    queues: tuple[str, ...]
    workers: int
    options: GroupOptions = GroupOptions()
    bounds: Bounds | None = None


@dataclass(frozen=True)
class Counts:
    """The parsed counts.

    Attributes:
        groups: the queue groups.
        warnings: problems that do not prevent a start.
        max_total: the most workers that all groups may have together, or None for no limit.
        elsewhere: the queue groups of environments that were not asked for, where they are other
            ones. Only whoever checks the counts looks at them.
    """

    groups: tuple[QueueGroup, ...]
    warnings: tuple[Problem, ...] = ()
    max_total: int | None = None
    elsewhere: tuple[QueueGroup, ...] = field(default=(), compare=False)

    @property
    def bounded(self) -> tuple[QueueGroup, ...]:
        """The groups with bounds, which are scaled."""
        return tuple(group for group in self.groups if group.bounds is not None)

    @property
    def queues(self) -> set[str]:
        """The names of the queues of all groups."""
        return {queue for group in self.groups for queue in group.queues}


def parse_counts(
    mapping: object,
    *,
    source: str,
    environment: str | None,
    queues: Mapping[str, object],
    required: bool = False,
) -> Counts:
    """Converts a mapping of counts to queue groups.

    Args:
        mapping: what a loader returned, which may have any type.
        source: the file or setting that it came from, for the messages.
        environment: the name of the environment that overrides the root, or None.
        queues: every queue of ``RQ_QUEUES`` in its order. Two queues have equal values if they use
            the same Redis connection.
        required: whether counts that have environments, but not this one, cannot be used.

    Returns:
        The queue groups in the order of the counts, and the warnings. Among them are the problems
        of environments that were not asked for: they do not prevent a start, because the settings
        of another host may have the queues that such an environment names.

    Raises:
        CountsError: with every problem found.
    """
    if not isinstance(mapping, Mapping):
        raise CountsError(
            Problem(
                Kind.SOURCE,
                f"{source}: {short(mapping)} is not a mapping.",
                "Write one line for each queue group: its queues, a colon, its count.",
            )
        )
    complaints = Complaints()
    root, environments = SectionReader(source, queues, complaints).read(mapping)
    chosen = root
    warnings: list[Problem] = []
    if environment is not None and environment in environments:
        chosen = environments[environment].over(root)
    elif environment is not None and environments:
        unknown = _unknown_environment(source, environment, environments, required=required)
        (complaints.problems if required else warnings).append(unknown)
    groups = _Resolver(queues, complaints).groups(chosen)
    others_complaints, elsewhere = Complaints(), list[QueueGroup]()
    for name, section in environments.items():
        if name != environment:
            found = _Resolver(queues, others_complaints).groups(section.over(root))
            elsewhere += (each for each in found if each not in (*groups, *elsewhere))
    known = set(complaints.problems)
    others = [each for each in dict.fromkeys(others_complaints.problems) if each not in known]
    if complaints.problems:
        raise CountsError(*complaints.problems, *others)
    warnings += others
    if not groups:
        warnings.append(_no_groups(source, environments))
    elif not any(group.workers or group.bounds for group in groups):
        warnings.append(
            Problem(
                Kind.EMPTY_POOL,
                f"{source}: no queue group has a worker, so the pool is empty.",
                "Give at least one queue group a count above 0.",
            )
        )
    warnings += _many(groups, chosen)
    return Counts(groups, tuple(warnings), chosen.max_total, tuple(elsewhere))


def _unknown_environment(
    source: str, environment: str, known: Iterable[str], *, required: bool
) -> Problem:
    return Problem(
        Kind.NO_ENVIRONMENT if required else Kind.UNKNOWN_ENVIRONMENT,
        f"{source}: there is no environment {environment!r}.",
        f"It has {listed(known)}."
        if required
        else f"It has {listed(known)}. Only the counts outside of them are used.",
    )


def _no_groups(source: str, environments: Iterable[str]) -> Problem:
    known = listed(environments)
    return Problem(
        Kind.NO_COUNTS,
        f"{source}: there is no queue group{' outside of environments' if known else ''}.",
        f"Ask for an environment (--environment). It has {known}."
        if known
        else "Give counts, such as `rqpool high=1`, or --allow-empty if they come later.",
    )


MANY = 1000
"""Workers of a group above which somebody has probably mistyped its count."""


def _many(groups: Iterable[QueueGroup], section: Section) -> Iterator[Problem]:
    for group in groups:
        workers = group.bounds.max if group.bounds else group.workers
        if workers > MANY:
            yield Problem(
                Kind.MANY_WORKERS,
                f"{section.places[group.name]}: {short(workers)} workers are a lot of processes.",
                f"Each may need 10 MB or more. A pool seldom has more than {MANY}.",
            )


class _Resolver:
    """Makes queue groups of a section's entries.

    Args:
        queues: see `parse_counts`.
        complaints: gets a problem for each entry that cannot be one.
    """

    def __init__(self, queues: Mapping[str, object], complaints: Complaints) -> None:
        self.queues = queues
        self.complain = complaints.add
        self.reader = EntryReader(complaints)

    def groups(self, section: Section) -> tuple[QueueGroup, ...]:
        found = [
            self.group(name, entry, section.places[name]) for name, entry in section.entries.items()
        ]
        groups = tuple(group for group in found if group is not None)
        self.check_total(section, groups)
        return groups

    def group(self, name: str, entry: Entry, where: str) -> QueueGroup | None:
        if entry.workers is None:
            self.complain(
                Kind.COUNT,
                where,
                f"it has no {WORKERS!r}, and no count outside of the environment.",
                f"Add {WORKERS!r} with the number of workers.",
            )
            return None
        if not self.reader.target_has_bounds(entry, where):
            return None
        queues = self.known_queues(entry.names, where)
        if queues is None:
            return None
        bounds = entry.workers if isinstance(entry.workers, Bounds) else None
        return QueueGroup(
            name,
            queues,
            entry.workers if isinstance(entry.workers, int) else entry.workers.min,
            GroupOptions(**entry.options),
            bounds,
        )

    def known_queues(self, names: tuple[str, ...], where: str) -> tuple[str, ...] | None:
        """Expands ``*``. Returns None if a queue is unknown or uses another Redis connection."""
        unknown = [queue for queue in names if queue != EVERY_QUEUE and queue not in self.queues]
        if unknown:
            self.complain(
                Kind.UNKNOWN_QUEUE,
                where,
                f"RQ_QUEUES has no queue {listed(unknown)}.",
                f"It has {listed(self.queues)}." if self.queues else "It is empty.",
            )
            return None
        queues = self.expand(names)
        if not queues:
            self.complain(
                Kind.UNKNOWN_QUEUE,
                where,
                "RQ_QUEUES has no queue.",
                "Define the queues there, as django-rq's documentation says.",
            )
            return None
        elsewhere = [q for q in queues if self.queues[q] != self.queues[queues[0]]]
        if elsewhere:
            self.complain(
                Kind.SEVERAL_SERVERS,
                where,
                f"{listed(elsewhere)} uses another Redis connection than {queues[0]!r}.",
                "Make a queue group for each Redis connection.",
            )
            return None
        return queues

    def expand(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Replaces ``*`` with every queue that the group does not name itself."""
        others = [queue for queue in self.queues if queue not in names]
        expanded: list[str] = []
        for name in names:
            expanded += others if name == EVERY_QUEUE else [name]
        return tuple(expanded)

    def check_total(self, section: Section, groups: Iterable[QueueGroup]) -> None:
        """Checks that ``max_total`` leaves room for the fixed counts and the minima."""
        most = section.max_total
        least = sum(group.workers for group in groups)
        if most is not None and most < least:
            self.complain(
                Kind.COUNT,
                section.limited_at,
                f"{short(most)} is less than the {short(least)} workers of all counts and minima.",
                f"Raise {MAX_TOTAL!r}, or lower counts or minima.",
            )
