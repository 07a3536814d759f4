"""RESP: where a request or a reply of Redis's protocol ends, in version 2 and 3.

Rule of the room: bytes only. Nothing is decoded that nobody asks about.
"""

from __future__ import annotations

END = b"\r\n"


class Incomplete(Exception):
    """The rest has not arrived yet."""


def take_request(buffer: bytes | bytearray, start: int = 0) -> tuple[tuple[bytes, ...], int]:
    """The first request in a buffer: an array of bulk strings, or one line of words.

    Args:
        buffer: what a client has sent.
        start: where the request begins.

    Returns:
        Its words, and where the next request begins.

    Raises:
        Incomplete: it has not arrived as a whole.
    """
    line, position = _line(buffer, start)
    if not line.startswith(b"*"):
        return tuple(line.split()), position
    words = []
    for _ in range(int(line[1:])):
        header, position = _line(buffer, position)
        end = position + int(header[1:])
        if len(buffer) < end + len(END):
            raise Incomplete
        words.append(bytes(buffer[position:end]))
        position = end + len(END)
    return tuple(words), position


def end_of_reply(buffer: bytes | bytearray, start: int = 0) -> int:
    """Where the first reply in a buffer ends, with all that is nested in it.

    Args:
        buffer: what a server has sent.
        start: where the reply begins.

    Returns:
        Where the next reply begins.

    Raises:
        Incomplete: it has not arrived as a whole.
    """
    position, missing = start, 1
    while missing:
        line, position = _line(buffer, position)
        kind, missing = line[:1], missing - 1
        if kind in b"$!=" and int(line[1:]) >= 0:  # bulk text, error, verbatim text; -1 is nothing
            position += int(line[1:]) + len(END)
            if len(buffer) < position:
                raise Incomplete
        elif kind in b"*~>":
            missing += max(int(line[1:]), 0)
        elif kind == b"%":
            missing += 2 * int(line[1:])
        elif kind == b"|":  # attributes stand before the value that they belong to
            missing += 2 * int(line[1:]) + 1
    return position


def request(*words: bytes) -> bytes:
    """The bytes of a request."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


def _line(buffer: bytes | bytearray, start: int) -> tuple[bytes, int]:
    end = buffer.find(END, start)
    if end < 0:
        raise Incomplete
    return bytes(buffer[start:end]), end + len(END)
