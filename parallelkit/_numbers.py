"""The one rule for numbers that a user gives: what counts as whole, as a number, as seconds.

They need not be Python's own: numpy's integers are whole numbers, its floats and a ``Fraction`` are
numbers. Each is given back as a plain int or float, so that nothing further in need know of others.
A bool is neither.
"""

from __future__ import annotations

from numbers import Real
from operator import index
from typing import Any


def check_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number as an int; TypeError for anything else (2.0 is none), ValueError for one below ``least``."""
    whole = as_whole(value)
    if whole is None:
        raise TypeError(f"{name} must be an int, got {value!r}")
    if whole < least:
        rule = "greater than 0" if least == 1 else f"at least {least}"  # as the standard pools say it
        raise ValueError(f"{name} must be {rule}, got {whole}")
    return whole


def check_number(name: str, value: Any, least: float = float("-inf"), *, exact: bool = False) -> float:
    """A number not below ``least`` as an int or float; not NaN, nor beyond all floats, but an int for ``exact``."""
    whole = as_whole(value)
    number = value if whole is None else whole
    if isinstance(number, bool) or not isinstance(number, Real):  # no Decimal: it does not add to a float
        raise TypeError(f"{name} must be a number, got {value!r}")
    if number != number:
        raise ValueError(f"{name} must be a number, got {value!r}")
    if number < least:
        raise ValueError(f"{name} must be at least {least:g}, got {value!r}")
    try:
        approximate = float(number)
    except OverflowError:
        if not exact or whole is None:  # its digits may be too many to be shown
            text = f"{name} must be a number that a float can hold, below 1.8e308, got one above that"
            raise ValueError(text) from None
        return whole
    return approximate if whole is None else whole


def check_seconds(name: str, value: Any, hint: str = "") -> float:
    """A span of time above 0."""
    seconds = check_number(name, value)
    if seconds <= 0:
        raise ValueError(f"{name} must be greater than 0, got {value!r}{hint}")
    return seconds


def check_timeout(name: str, value: Any) -> float | None:
    """A timeout in seconds, or None for no limit."""
    return None if value is None else check_seconds(name, value, "; None is no limit")


def as_whole(value: Any) -> int | None:
    """The int that a value stands for; None where it is no whole number.

    >>> as_whole(3), as_whole(3.0), as_whole(True)
    (3, None, None)
    """
    if isinstance(value, bool):
        return None
    try:
        return index(value)
    except TypeError:
        return None
