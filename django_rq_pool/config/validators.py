"""Validators: which values an option of a queue group or a setting may have.

Rule of the room: a value goes in, what it must be comes out. Nothing is imported or read.
"""

from __future__ import annotations

from collections.abc import Callable

from .identity import unusable_name

Validator = Callable[[object], "str | None"]
"""Takes a value. Returns None if it can be used, else what it must be: ``a dotted path``."""


def is_whole_number(value: object) -> bool:
    """Whether a value is an integer, True and False excluded.

    Args:
        value: any value.
    """
    return isinstance(value, int) and not isinstance(value, bool)


def positive(value: object) -> str | None:
    """The `Validator` of a whole number above 0.

    Args:
        value: any value.
    """
    fine = is_whole_number(value) and value > 0  # type: ignore[operator]
    return None if fine else "a whole number, 1 or more"


def seconds(value: object) -> str | None:
    """The `Validator` of a number of seconds above 0.

    Args:
        value: any value.
    """
    number = isinstance(value, float) or is_whole_number(value)
    fine = number and 0 < value < float("inf")  # type: ignore[operator]
    return None if fine else "a number of seconds above 0"


def yes_or_no(value: object) -> str | None:
    """The `Validator` of True and False.

    Args:
        value: any value.
    """
    return None if isinstance(value, bool) else "true or false"


def names(value: object) -> str | None:
    """The `Validator` of a list of dotted names.

    Args:
        value: any value.
    """
    fine = isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value)
    return None if fine else "a list of dotted names of modules"


def whole(value: object) -> str | None:
    """The `Validator` of a whole number that is not negative.

    Args:
        value: any value.
    """
    fine = is_whole_number(value) and value >= 0  # type: ignore[operator]
    return None if fine else "a whole number, 0 or more"


def pool_name(value: object) -> str | None:
    """The `Validator` of a pool's name, or None for a pool that has none of its own.

    Args:
        value: any value.
    """
    return None if value is None else unusable_name(value)
