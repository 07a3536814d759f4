"""Problems: what can be wrong with a configuration, in sentences.

Rule of the room: words only. A problem names the place, what is wrong, and what would be right.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(str, Enum):
    """What sort of problem it is; the value is the number of its system check."""

    SOURCE = "E001"
    QUEUE_NAME = "E002"
    COUNT = "E003"
    OPTION_NAME = "E004"
    OPTION_VALUE = "E005"
    UNKNOWN_QUEUE = "E006"
    SEVERAL_SERVERS = "E007"
    IMPORT = "E008"
    EMPTY_POOL = "W001"
    UNKNOWN_ENVIRONMENT = "W002"
    DYNO = "W003"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: a sentence that names the place, and what would be right."""

    kind: Kind
    text: str
    hint: str

    def __str__(self) -> str:
        return f"{self.text} {self.hint}"


class CountsError(Exception):
    """The counts cannot be used. ``problems`` holds every reason found, not only the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
