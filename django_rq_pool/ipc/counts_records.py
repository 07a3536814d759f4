"""Counts records: what the manager and the autoscaling process tell each other, and their JSON.

Rule of the room: data, checked when it comes in. How it is carried is the business of
`counts_channel`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import FunctionType
from typing import Any

from ..config.groups import Counts, QueueGroup
from ..config.options import Bounds, GroupOptions
from ..config.problems import CountsError, Kind, Problem
from ..system.messages import LONGEST, Message, MessageError, encode
from ..text import shortened


@dataclass(frozen=True)
class LoadResult:
    """The outcome of loading the counts.

    Attributes:
        counts: the counts; None when they cannot be used.
        error: why they cannot, with a traceback where there is one.
        failures: how many times in a row loading had failed before this success.
        goes_on: whether the process will load again by itself, or measures.
    """

    counts: Counts | None
    error: str = ""
    failures: int = 0
    goes_on: bool = False


@dataclass(frozen=True)
class ScaleResult:
    """The outcome of measuring: what became of each group that has bounds and could be measured.

    Attributes:
        workers: its count, by its name.
        reasons: why, in words.
    """

    workers: Mapping[str, int]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class GroupStats:
    """What this pool's workers of a group are doing and have done.

    Attributes:
        count: how many the pool gives the group, without those that were asked to leave.
        busy: how many run a job, with those that leave after it.
        ended: jobs that ended since the pool was started, whatever became of them.
        run_seconds: how long these had run, all together, in seconds.
    """

    count: int = 0
    busy: int = 0
    ended: int = 0
    run_seconds: float = 0.0


@dataclass(frozen=True)
class WorkerStats:
    """What the manager says about its workers when it is asked.

    Attributes:
        groups: what the workers of each group with bounds have done, by its name.
        live: live workers of each group, those that are leaving included.
    """

    groups: Mapping[str, GroupStats]
    live: Mapping[str, int]


@dataclass(frozen=True)
class StatsRequest:
    """The question for `WorkerStats`."""


_LONGEST_ERROR = 100_000
"""Characters of an error at most: one that is longer loses its middle."""
_ROOM = 10 * _LONGEST_ERROR
"""Bytes of a message that counts leave to what comes with them."""

Record = LoadResult | ScaleResult | WorkerStats | StatsRequest


def require_sendable(counts: Counts, source: str) -> None:
    """Lets counts pass that can go through a `CountsChannel`.

    Args:
        counts: as they were loaded.
        source: where they came from, for the message.

    Raises:
        CountsError: an option holds a class or function that its dotted path does not lead to, or
            the counts are larger than a message may be.
    """
    try:
        if len(encode(_encoded_counts(counts))) > LONGEST - _ROOM:
            raise ValueError("they are too large")
    except Exception as error:
        raise CountsError(_not_sendable(source, error)) from None


def _not_sendable(source: str, error: Exception) -> Problem:
    return Problem(
        Kind.SOURCE,
        f"{source}: the counts cannot be sent to the manager: {type(error).__name__}: {error}.",
        "Give classes by their dotted paths.",
    )


# To JSON


def encoded(record: Record) -> dict[str, object]:
    """A record as a JSON object; counts must have passed `require_sendable`."""
    if isinstance(record, LoadResult):
        counts = None if record.counts is None else _encoded_counts(record.counts)
        error = shortened(record.error, _LONGEST_ERROR)
        return {"kind": "load", **vars(record), "counts": counts, "error": error}
    if isinstance(record, ScaleResult):
        return {"kind": "scale", "workers": dict(record.workers), "reasons": dict(record.reasons)}
    if isinstance(record, WorkerStats):
        groups = {name: asdict(stats) for name, stats in record.groups.items()}
        return {"kind": "stats", "groups": groups, "live": dict(record.live)}
    return {"kind": "ask"}


def _encoded_counts(counts: Counts) -> dict[str, object]:
    return {
        "groups": [
            {
                "name": group.name,
                "queues": list(group.queues),
                "workers": group.workers,
                "options": {
                    name: _encoded_option(value) for name, value in group.options.given().items()
                },
                "bounds": None if group.bounds is None else asdict(group.bounds),
            }
            for group in counts.groups
        ],
        "warnings": [asdict(problem) for problem in counts.warnings],
        "max_total": counts.max_total,
    }


def _encoded_option(value: Any) -> object:
    """An option's value; a class or function goes by its module and its name in there."""
    if not isinstance(value, (type, FunctionType)):
        return value
    if _object_at(value.__module__, value.__qualname__) is not value:
        raise TypeError(f"{value!r} is not what its dotted path leads to")
    return {"module": value.__module__, "name": value.__qualname__}


# From JSON


def decoded(message: Message) -> Record:
    """The record of a message.

    Raises:
        MessageError: it is none.
    """
    kind = message.text("kind")
    if kind == "load":
        return _decoded_load(message)
    if kind == "scale":
        return ScaleResult(message.whole_by_name("workers"), message.text_by_name("reasons"))
    if kind == "stats":
        groups = {
            name: GroupStats(
                stats.whole("count"),
                stats.whole("busy"),
                stats.whole("ended"),
                stats.seconds("run_seconds"),
            )
            for name, stats in message.message_by_name("groups").items()
        }
        return WorkerStats(groups, message.whole_by_name("live"))
    if kind == "ask":
        return StatsRequest()
    raise MessageError(f"{kind!r} is no kind of record")


def _decoded_load(message: Message) -> LoadResult:
    counts, error = None, message.text("error")
    if "counts" in message:
        try:
            counts = _decoded_counts(message.message("counts"))
        except MessageError:
            raise
        except Exception as reason:  # a class may be there for the process that loads only
            error = str(_not_sendable("the counts", reason))
            return LoadResult(None, error, goes_on=True)
    return LoadResult(counts, error, message.whole("failures"), message.flag("goes_on"))


def _decoded_counts(message: Message) -> Counts:
    return Counts(
        tuple(_decoded_group(group) for group in message.messages("groups")),
        tuple(
            Problem(Kind(each.text("kind")), each.text("text"), each.text("hint"))
            for each in message.messages("warnings")
        ),
        message.whole("max_total") if "max_total" in message else None,
    )


def _decoded_group(message: Message) -> QueueGroup:
    options = message.message("options")
    bounds = message.message("bounds") if "bounds" in message else None
    return QueueGroup(
        message.text("name"),
        tuple(message.texts("queues")),
        message.whole("workers"),
        GroupOptions(**{name: _decoded_option(options.value(name)) for name in options.names()}),
        None if bounds is None else Bounds(bounds.whole("min"), bounds.whole("max")),
    )


def _decoded_option(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    reference = Message(value)
    return _object_at(reference.text("module"), reference.text("name"))


def _object_at(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
