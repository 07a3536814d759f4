"""Text: helpers that put values into messages.

Rule of the room: values in, text out. It knows nothing about the pool.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Sequence

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3  # six items of six items of six would be megabytes
_LONGEST_VALUE = 200
_LONGEST_ERROR = 500
_MOST_NAMES = 30


def short(value: object) -> str:
    """The ``repr`` of a value, shortened.

    Args:
        value: any value, even one whose ``repr`` fails.
    """
    try:
        return shortened(_SHORT.repr(value), _LONGEST_VALUE)
    except Exception:  # repr() may be the project's code, and an integer can be too long to print
        return f"a value of type {type(value).__name__}"


def shortened(text: str, length: int) -> str:
    """A text without its middle, if it is too long. What is in one line stays so.

    Args:
        text: the text.
        length: how many characters of it stay, half of them from its end.
    """
    if len(text) <= length:
        return text
    gap = "\n  ...\n" if "\n" in text else " ... "
    return f"{text[: length // 2]}{gap}{text[-length // 2 :]}"


def in_a_line(error: BaseException) -> str:
    """The message of an exception in one line, or its class name if it has no message.

    Args:
        error: the exception.
    """
    return shortened(" ".join(str(error).split()), _LONGEST_ERROR) or type(error).__name__


_VARYING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+([.]\d+)?")


def unvaried(text: str) -> str:
    """A text with each number, address and hexadecimal id replaced by ``0``.

    Two messages with the same cause are equal then, even if they name different jobs or times.

    Args:
        text: the message.
    """
    return _VARYING.sub("0", text)


def listed(names: Iterable[object], *, quoted: bool = True) -> str:
    """Names in quotes, separated by commas. Of many, only the first are named.

    Args:
        names: the names; their ``repr`` is used.
        quoted: False: they are texts that are used as they are.
    """
    found = [repr(name) if quoted else str(name) for name in names]
    more = len(found) - _MOST_NAMES
    return ", ".join(found[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def nearest(word: object, known: Sequence[str], what: str) -> str:
    """A hint for an unknown word: the most similar known word, and the list of all.

    Args:
        word: the unknown word. If it is not a string, only the list is given.
        known: the known words.
        what: the plural name of the known words, which starts a sentence, such as ``Options``.

    Returns:
        Such as ``Did you mean 'max_jobs'? Options are workers, max_jobs.``
    """
    close = difflib.get_close_matches(word, known, n=1) if isinstance(word, str) else []
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return f"{guess}{what} are {listed(known, quoted=False)}."
