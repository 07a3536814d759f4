"""Messages: the format of all messages between two processes of a pool.

Rule of the room: a message is a JSON object on one line, and each field is checked when it is read.
Anything else raises `MessageError`. The reader then closes that connection and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LONGEST = 2**22
"""The most bytes of a message."""


class MessageError(ValueError):
    """A line is not a message, or a field is missing or has another type."""


class Message:
    """A message that was received.

    Each method with a ``name`` returns the field of that name. It raises `MessageError` if the
    field is missing or has another type.

    Args:
        fields: the JSON object.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def text(self, name: str) -> str:
        """Returns a string."""
        return str(self._of(name, str))

    def whole(self, name: str) -> int:
        """Returns a whole number, 0 or more."""
        number = self._of(name, int)
        if isinstance(number, bool) or number < 0:
            raise MessageError(f"{name!r} is not a whole number")
        return int(number)

    def seconds(self, name: str) -> float:
        """Returns a number of seconds, 0 or more."""
        number = self._of(name, (int, float))
        if isinstance(number, bool) or not 0 <= number < float("inf"):
            raise MessageError(f"{name!r} is not a number of seconds")
        return float(number)

    def flag(self, name: str) -> bool:
        """Returns True or False."""
        return bool(self._of(name, bool))

    def message(self, name: str) -> Message:
        """Returns a nested object."""
        return Message(self._of(name, dict))

    def messages(self, name: str) -> list[Message]:
        """Returns a list of objects."""
        return [Message(_require(each, dict, name)) for each in self._of(name, list)]

    def texts(self, name: str) -> list[str]:
        """Returns a list of strings."""
        return [str(_require(each, str, name)) for each in self._of(name, list)]

    def text_by_name(self, name: str) -> dict[str, str]:
        """Returns a nested object whose values are strings."""
        inside = self.message(name)
        return {key: inside.text(key) for key in inside.names()}

    def whole_by_name(self, name: str) -> dict[str, int]:
        """Returns a nested object whose values are whole numbers, 0 or more."""
        inside = self.message(name)
        return {key: inside.whole(key) for key in inside.names()}

    def message_by_name(self, name: str) -> dict[str, Message]:
        """Returns a nested object whose values are objects."""
        inside = self.message(name)
        return {key: inside.message(key) for key in inside.names()}

    def names(self) -> list[str]:
        """Returns the names of all fields."""
        return list(self._fields)

    def value(self, name: str) -> Any:
        """Returns a value of any type. The caller must check it."""
        return self._of(name, object)

    def _of(self, name: str, kind: type | tuple[type, ...]) -> Any:
        return _require(self._fields.get(name), kind, name)


def _require(value: Any, kind: type | tuple[type, ...], name: str) -> Any:
    if value is None or not isinstance(value, kind):
        raise MessageError(f"{name!r} is missing or has another type")
    return value


def encode(message: Mapping[str, object]) -> bytes:
    """Encodes a message as one line, newline included.

    Args:
        message: the fields; their values must be types that JSON has.
    """
    # surrogatepass allows paths that are not valid UTF-8.
    return json.dumps(message, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"


def decode(line: bytes) -> Message:
    """Decodes one line.

    Args:
        line: the line, without its newline.

    Raises:
        MessageError: it is not a JSON object, or is longer than `LONGEST` bytes.
    """
    if len(line) > LONGEST:
        raise MessageError("it is too long")
    try:
        fields = json.loads(line.decode(errors="surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise MessageError(f"it is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise MessageError("it is not a JSON object")
    return Message(fields)


class MessageReader:
    """Splits a stream of bytes into messages, whatever pieces it comes in."""

    def __init__(self) -> None:
        self._unread = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Adds the next bytes of the stream.

        Args:
            data: what was read.

        Returns:
            Every message that is complete now.

        Raises:
            MessageError: see `decode`. The rest of the stream cannot be trusted after that.
        """
        self._unread += data
        lines: list[bytes] = []
        if b"\n" in data:  # what came before has been searched
            *lines, rest = bytes(self._unread).split(b"\n")
            self._unread = bytearray(rest)
        if len(self._unread) > LONGEST:
            raise MessageError("it is too long")
        return [decode(line) for line in lines]
