"""Problems: what can be wrong with a configuration.

Rule of the room: data only. A problem names the place, what is wrong there and what would be right.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..errors import StartError
from ..text import shortened


class Kind(str, Enum):
    """The kind of a problem. Its value is the number of the system check: E error, W warning."""

    SOURCE = "E001"
    """A source of counts, or a setting, has a value that cannot be used."""
    QUEUE_NAME = "E002"
    """The name of a queue group is not a list of queue names, or is given twice."""
    COUNT = "E003"
    """A count, a pair of bounds or ``max_total`` cannot be used."""
    OPTION_NAME = "E004"
    """A queue group has an option that does not exist."""
    OPTION_VALUE = "E005"
    """An option of a queue group has a value that cannot be used."""
    UNKNOWN_QUEUE = "E006"
    """A queue is not in ``RQ_QUEUES``."""
    SEVERAL_SERVERS = "E007"
    """The queues of one group are on several Redis connections."""
    IMPORT = "E008"
    """A class, function or module that the configuration names cannot be imported or used."""
    NO_COUNTS = "E009"
    """There is no queue group at all. ``--allow-empty`` makes it a warning."""
    NO_ENVIRONMENT = "E010"
    """The counts have environments, but not the one that ``--environment`` or ``RQ_POOL_ENV``
    names."""
    EMPTY_POOL = "W001"
    """No queue group has a worker."""
    UNKNOWN_ENVIRONMENT = "W002"
    """The counts have environments, but not the one that ``DJANGO_ENV`` names."""
    DYNO = "W003"
    """On a Heroku dyno without ``TERM_CHILD``, a restart interrupts running jobs."""
    OVERRIDE = "W004"
    """A worker or queue class overrides a method that the pool does not call."""
    MISSPELT = "W010"
    """A setting or an environment variable looks like one of the pool's, and is none."""
    SYNCHRONOUS = "W011"
    """A queue that is served has ``ASYNC: False``: its jobs never reach a worker."""
    MANY_WORKERS = "W012"
    """A queue group has more than 1,000 workers."""

    @property
    def is_error(self) -> bool:
        """Whether it is an error for the system check and for ``--check``."""
        return self.value.startswith("E")


_LONGEST = 1000
"""Characters of a text or a hint; names and values in it may be of any length."""
_MOST = 30
"""Problems that an error tells. Nobody would read more."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. What is too long to read loses its middle.

    Attributes:
        kind: what sort of problem it is.
        text: the place and what is wrong there, as a sentence.
        hint: what would be right, as a sentence.
    """

    kind: Kind
    text: str
    hint: str

    def __post_init__(self) -> None:
        for attribute in ("text", "hint"):
            object.__setattr__(self, attribute, shortened(getattr(self, attribute), _LONGEST))

    def __str__(self) -> str:
        return f"{self.text} {self.hint}"


class CountsError(StartError):
    """The counts cannot be used.

    Args:
        problems: every problem found, not only the first.

    Attributes:
        problems: the same, as a tuple.
    """

    def __init__(self, *problems: Problem) -> None:
        lines = [str(problem) for problem in problems[:_MOST]]
        if len(problems) > _MOST:
            lines.append(f"And {len(problems) - _MOST} problems more.")
        super().__init__("\n".join(lines))
        self.problems = problems


class Complaints:
    """Collects problems, so that a user sees all problems of a file at once.

    Attributes:
        problems: those found so far.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, kind: Kind, where: str, text: str, hint: str) -> None:
        """Adds a problem.

        Args:
            kind: what sort of problem it is.
            where: the place, such as ``rqpool.yml: 'high'``.
            text: what is wrong there; it continues the sentence after the place and a colon.
            hint: what would be right, as a sentence.
        """
        self.problems.append(Problem(kind, f"{where}: {text}", hint))
