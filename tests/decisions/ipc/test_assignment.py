"""Workers' names: readable, acceptable to Redis and to a dashboard, and never the same twice."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_rq_pool.ipc.assignment import worker_name


def test_a_name_says_pool_group_and_number():
    assert re.fullmatch(
        r"shop\.[A-Za-z0-9_.-]+\.high,default\.3-[0-9a-f]{8}",
        worker_name("shop", "high,default", 3),
    )


def test_two_names_for_the_same_place_differ():
    assert len({worker_name("shop", "high", 1) for _ in range(50)}) == 50


def test_a_star_stays_readable():
    assert ".high,*.1-" in worker_name("shop", "high,*", 1)


@pytest.mark.parametrize("char", [" ", "\t", "\n", "/", "\\", "?", "#", "%", "é", "\0", "\x7f"])
def test_what_redis_or_an_address_cannot_hold_becomes_an_underscore(char):
    name = worker_name(f"a{char}b", f"c{char}d", 1)
    assert name.startswith("a_b.")
    assert ".c_d.1-" in name


@given(pool=st.text(), group=st.text(), number=st.integers(1, 10**6))
def test_any_pool_and_group_give_a_name_of_plain_characters(pool, group, number):
    name = worker_name(pool, group, number)
    assert re.fullmatch(r"[A-Za-z0-9_\-,.:@+*]+", name)
    assert re.search(rf"\.{number}-[0-9a-f]{{8}}\Z", name)
