"""Messages: the one framing of what two processes say to each other.

Rule of the room: a message is a JSON object on a line of its own, and each field is checked when it
is read. What is no message raises `MessageError`; whoever reads then gives up that connection and
nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LONGEST = 2**20
"""Bytes of a message at most; a longer one is none."""


class MessageError(ValueError):
    """What came is no message, or has not the field that was asked for."""


class Message:
    """A message that came in.

    Each method returns one field.

    Args:
        fields: the JSON object.

    Raises:
        MessageError: by each method, when the field is missing or of another type.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def text(self, name: str) -> str:
        """A string."""
        return str(self._of(name, str))

    def whole(self, name: str) -> int:
        """A whole number, 0 or more."""
        number = self._of(name, int)
        if isinstance(number, bool) or number < 0:
            raise MessageError(f"{name!r} is not a whole number")
        return int(number)

    def seconds(self, name: str) -> float:
        """A number of seconds, 0 or more."""
        number = self._of(name, (int, float))
        if isinstance(number, bool) or not 0 <= number < float("inf"):
            raise MessageError(f"{name!r} is not a number of seconds")
        return float(number)

    def flag(self, name: str) -> bool:
        """True or False."""
        return bool(self._of(name, bool))

    def message(self, name: str) -> Message:
        """An object inside this one."""
        return Message(self._of(name, dict))

    def messages(self, name: str) -> list[Message]:
        """A list of objects."""
        return [Message(_require(each, dict, name)) for each in self._of(name, list)]

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        return [str(_require(each, str, name)) for each in self._of(name, list)]

    def text_by_name(self, name: str) -> dict[str, str]:
        """An object whose values are strings."""
        inside = self.message(name)
        return {key: inside.text(key) for key in inside.names()}

    def whole_by_name(self, name: str) -> dict[str, int]:
        """An object whose values are whole numbers, 0 or more."""
        inside = self.message(name)
        return {key: inside.whole(key) for key in inside.names()}

    def message_by_name(self, name: str) -> dict[str, Message]:
        """An object whose values are objects."""
        inside = self.message(name)
        return {key: inside.message(key) for key in inside.names()}

    def names(self) -> list[str]:
        """The names of all fields."""
        return list(self._fields)

    def value(self, name: str) -> Any:
        """A field of any type, for a reader that checks it."""
        return self._of(name, object)

    def _of(self, name: str, kind: type | tuple[type, ...]) -> Any:
        return _require(self._fields.get(name), kind, name)


def _require(value: Any, kind: type | tuple[type, ...], name: str) -> Any:
    if value is None or not isinstance(value, kind):
        raise MessageError(f"{name!r} is missing or of another type")
    return value


def encode(message: Mapping[str, object]) -> bytes:
    """A message as it goes over a connection: one line, with its end."""
    # Text of any kind passes, paths that are no UTF-8 included.
    return json.dumps(message, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"


def decode(line: bytes) -> Message:
    """The message of one line.

    Raises:
        MessageError: it is no JSON object, or longer than `LONGEST`.
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
    """Puts the messages of a stream together, whatever pieces they come in."""

    def __init__(self) -> None:
        self._unread = b""

    def feed(self, data: bytes) -> list[Message]:
        """Takes what came next.

        Returns:
            Every message that is whole now.

        Raises:
            MessageError: see `decode`; nothing of the stream can be trusted after that.
        """
        *lines, self._unread = (self._unread + data).split(b"\n")
        if len(self._unread) > LONGEST:
            raise MessageError("it is too long")
        return [decode(line) for line in lines]
