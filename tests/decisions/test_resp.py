"""Where requests and replies of Redis's protocol end, however they arrive."""

from __future__ import annotations

import pytest

from resp import Incomplete, end_of_reply, request, take_request

REPLIES = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":1\r\n",
    b"_\r\n",
    b",1.5\r\n",
    b"#t\r\n",
    b"(12345678901234567890\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"$4\r\n\r\n+a\r\n",
    b"!5\r\nERR x\r\n",
    b"=5\r\ntxt:a\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*2\r\n*1\r\n:1\r\n$1\r\na\r\n",
    b"~1\r\n:1\r\n",
    b">2\r\n+message\r\n+a\r\n",
    b"%2\r\n+a\r\n*1\r\n:1\r\n+b\r\n:2\r\n",
    b"|1\r\n+ttl\r\n:1\r\n*1\r\n:1\r\n",
]


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_ends_where_it_ends_and_not_before(reply):
    assert end_of_reply(reply + b"+next\r\n") == len(reply)
    assert end_of_reply(b"+last\r\n" + reply, 7) == 7 + len(reply)
    for length in range(len(reply)):
        with pytest.raises(Incomplete):
            end_of_reply(reply[:length])


@pytest.mark.parametrize("words", [(b"PING",), (b"SET", b"key", b"\r\n$1\r\n"), (b"SET", b"", b"")])
def test_a_request_is_read_as_it_was_written(words):
    raw = request(*words)
    assert take_request(raw + b"*1\r\n") == (words, len(raw))
    for length in range(len(raw)):
        with pytest.raises(Incomplete):
            take_request(raw[:length])


def test_a_request_may_be_a_line_of_words():
    assert take_request(b"GET  key\r\nPING\r\n") == ((b"GET", b"key"), 10)
