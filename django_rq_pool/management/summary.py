"""Summary: what ``--check`` prints.

Rule of the room: a configuration goes in, text comes out.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..config.settings import Configuration
from ..worker.trial import ServerTrial


def table(configuration: Configuration) -> str:
    """The queue groups as lines of text.

    Args:
        configuration: the checked configuration.

    Returns:
        A heading, a table with one row for each group, and the total number of workers.
    """
    heading = f"pool {configuration.name}, counts from: {configuration.source.name}"
    if configuration.environment:
        heading += f", environment: {configuration.environment}"
    rows = [("GROUP", "WORKERS", "QUEUES", "OPTIONS")]
    for group in configuration.counts.groups:
        given = (f"{name}={value}" for name, value in group.options.given().items())
        workers = str(group.bounds or group.workers)
        rows.append((group.name, workers, " ".join(group.queues), " ".join(given) or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]
    least = sum(group.workers for group in configuration.counts.groups)
    most = sum(
        group.bounds.max if group.bounds else group.workers for group in configuration.counts.groups
    )
    limit = configuration.counts.max_total
    if limit is not None:
        most = min(most, limit)
    total = f"{least}" if least == most else f"{least} to {most}"
    total += " worker" if least == most == 1 else " workers"
    if limit is not None:
        total += f", at most {limit}"
    return "\n".join([heading, *(line.rstrip() for line in lines), total])


def server_lines(trial: ServerTrial) -> Iterator[str]:
    """What a server has said about a worker's work, as lines of text.

    Args:
        trial: what it has said.

    Returns:
        One line for the server, and one for each warning.
    """
    name = f"redis {trial.address}"
    known = f"{trial.version}, " if trial.version else ""
    if trial.errors:
        yield f"{name}: {known}workers cannot work there"
    else:
        yield f"{name}: {known}workers of {'; '.join(trial.groups)} can work there"
    for warning in trial.warnings:
        yield f"{name}: warning: {warning}."
