"""Problems: what can be wrong with a configuration, in sentences.

Rule of the room: words only. A problem names the place, what is wrong, and what would be right.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Sequence
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


class StartError(Exception):
    """A pool cannot be started; the text says why, and what would help. Nothing was started."""


class CountsError(StartError):
    """The counts cannot be used. ``problems`` holds every reason found, not only the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Complaints:
    """The problems found so far, so that a user mends a whole file in one go."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, kind: Kind, where: str, text: str, hint: str) -> None:
        self.problems.append(Problem(kind, f"{where}: {text}", hint))


# The words of sentences


def short(value: object) -> str:
    """A value as code writes it, cut where it is long."""
    try:
        return reprlib.repr(value)
    except Exception:  # repr() is the value's own code; and an integer can be too long to print
        return f"a value of type {type(value).__name__}"


def shortened(text: str, length: int) -> str:
    """A text without its middle if it is longer than so many characters."""
    if len(text) <= length:
        return text
    return f"{text[: length // 2]}\n  ...\n{text[-length // 2 :]}"


def in_a_line(error: Exception) -> str:
    """What an error says, without line ends; its class if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


_VARYING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+([.]\d+)?")


def unvaried(text: str) -> str:
    """What a text has in common with others of the same cause: all but numbers, addresses, and the
    ends of workers' names."""
    return _VARYING.sub("0", text)


def listed(names: Iterable[object]) -> str:
    """Names in quotes with commas between them."""
    return ", ".join(map(repr, names))


def nearest(word: object, known: Sequence[str], what: str) -> str:
    """What may have been meant by a word that is not known, and what is known."""
    close = difflib.get_close_matches(word, known, n=1) if isinstance(word, str) else []
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return f"{guess}{what} are {', '.join(known)}."
