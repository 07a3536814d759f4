"""What messages call a server: its address, without a password and without a client's inside."""

from __future__ import annotations

import pytest
import redis

from django_rq_pool.config import redis_clients
from django_rq_pool.config.groups import QueueGroup
from django_rq_pool.config.redis_errors import Trouble, told
from harness import free_port

HIGH = QueueGroup("high", ("high",), 1)


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"URL": "redis://u:secret@here:7000/3"}, "here:7000/3"),
        ({"HOST": "here", "PORT": 7000, "PASSWORD": "secret"}, "here:7000/0"),
        ({"UNIX_SOCKET_PATH": "/run/redis", "DB": 2}, "/run/redis/2"),
        (
            {
                "SENTINELS": [("a", 1), ("b", 2)],
                "MASTER_NAME": "shop",
                "PASSWORD": "secret",
                "DB": 4,
            },
            "master 'shop' of the Sentinels a:1/0, b:2/0, database 4",
        ),
    ],
)
def test_a_client_shows_its_address(monkeypatch, options, address):
    monkeypatch.setattr("django_rq.settings.QUEUES", {"high": options})
    assert repr(redis_clients.client(HIGH)) == address


def test_sentinels_that_are_away_are_told_by_their_addresses(monkeypatch):
    port = free_port()
    options = {"SENTINELS": [("127.0.0.1", port)], "MASTER_NAME": "shop", "DB": 0}
    monkeypatch.setattr("django_rq.settings.QUEUES", {"high": options})
    with pytest.raises(redis.exceptions.ConnectionError) as caught:
        redis_clients.client(HIGH).ping()
    sentence = told(caught.value)
    assert sentence.startswith(f"{Trouble.UNREACHABLE.value}, ")
    assert f"No master found for 'shop' : 127.0.0.1:{port}/0 - " in sentence
    assert "<" not in sentence
