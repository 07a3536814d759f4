"""Text: the small words of messages.

Rule of the room: values in, text out; nothing of the pool.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Sequence


def short(value: object) -> str:
    """A value as code writes it, cut where it is long."""
    try:
        return reprlib.repr(value)
    except Exception:  # repr() is the value's own code; and an integer can be too long to print
        return f"a value of type {type(value).__name__}"


def shortened(text: str, length: int) -> str:
    """A text without its middle if it has more than ``length`` characters."""
    if len(text) <= length:
        return text
    return f"{text[: length // 2]}\n  ...\n{text[-length // 2 :]}"


def in_a_line(error: Exception) -> str:
    """The text of an exception in one line; its class name if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


_VARYING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+([.]\d+)?")


def unvaried(text: str) -> str:
    """A text with every number, address and hexadecimal name replaced by ``0``, so that two
    messages of the same cause compare equal."""
    return _VARYING.sub("0", text)


def listed(names: Iterable[object]) -> str:
    """Names in quotes with commas between them."""
    return ", ".join(map(repr, names))


def nearest(word: object, known: Sequence[str], what: str) -> str:
    """A hint for an unknown word: the closest known one, and the list of all.

    Args:
        word: the unknown word; only text has a closest one.
        known: the words that are known.
        what: what these are called, as the subject of a sentence.
    """
    close = difflib.get_close_matches(word, known, n=1) if isinstance(word, str) else []
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return f"{guess}{what} are {', '.join(known)}."
