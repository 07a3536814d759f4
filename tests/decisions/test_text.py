"""Values and errors in messages: as long as somebody reads them, and no longer."""

from __future__ import annotations

import pytest

from django_rq_pool.config.problems import CountsError, Kind, Problem
from django_rq_pool.text import in_a_line, listed, nearest, short, shortened

BOMB: object = ["x"] * 9
for _ in range(9):
    BOMB = [BOMB] * 9


class Unspeakable:
    def __repr__(self) -> str:
        raise ValueError


@pytest.mark.parametrize("value", [1, "high", ["a", "b"], {"workers": 1}, None, 2.5])
def test_a_short_value_is_shown_as_it_is(value):
    assert short(value) == repr(value)


@pytest.mark.parametrize("value", [BOMB, {"a": {"b": BOMB}}, [16**9999], "x" * 9**6, Unspeakable()])
def test_a_value_takes_no_more_than_two_lines_whatever_it_is(value):
    assert len(short(value)) < 250


def test_a_text_in_one_line_stays_in_one_line():
    assert shortened("word " * 99, 20) == "word word  ... word word "
    assert "\n" in shortened("line\n" * 99, 20)


def test_of_many_names_the_first_are_listed():
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed(range(33)).endswith(", 28, 29 and 3 more")
    assert len(nearest("x", [str(number) for number in range(9999)], "Numbers")) < 250


def test_an_error_in_a_line_ends():
    assert in_a_line(ValueError("two\nlines")) == "two lines"
    assert in_a_line(ValueError()) == "ValueError"
    assert len(in_a_line(ValueError("x" * 9**6))) < 600


def test_a_problem_and_an_error_of_many_end():
    problem = Problem(Kind.SOURCE, "text " * 9**5, "hint " * 9**5)
    assert len(str(problem)) < 2100
    assert problem.text.startswith("text ")
    lines = str(CountsError(*[Problem(Kind.SOURCE, "a.", "b.")] * 50)).splitlines()
    assert lines == ["a. b."] * 30 + ["And 20 problems more."]
