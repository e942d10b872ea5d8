"""Checks for numbers given by the user: what counts as a whole number, as a number, as seconds, as a length.

They need not be of Python's own types: numpy's integers are whole numbers, its floats and a ``Fraction``
are numbers. Each is returned as a plain int or float, so that no other code need handle such types.
A bool is not a number.
"""

from __future__ import annotations

from numbers import Real
from operator import index
from typing import Any

HINTS = {"max_workers": "; leave it out for as many as suit this machine"}  # -1 in other libraries


def check_count(name: str, value: Any, least: int = 1) -> int:
    """The value as an int. Raises TypeError if it is no whole number (2.0 is none), ValueError if below ``least``."""
    whole = as_whole(value)
    if whole is None:
        raise TypeError(f"{name} must be an int, got {value!r}")
    if whole < least:
        rule = "greater than 0" if least == 1 else f"at least {least}"  # as the standard pools say it
        raise ValueError(f"{name} must be {rule}, got {whole}{HINTS.get(name, '')}")
    return whole


def check_number(name: str, value: Any, least: float = float("-inf"), *, what: str = "a number") -> float:
    """The value as an int or float. Raises TypeError if it is no number, ValueError if it is NaN or below ``least``.

    Raises ValueError, too, for what is too large for a float.
    """
    whole = as_whole(value)
    number = value if whole is None else whole
    if isinstance(number, bool) or not isinstance(number, Real):  # no Decimal: it does not add to a float
        raise TypeError(f"{name} must be {what}, got {value!r}")
    if number != number:
        raise ValueError(f"{name} must be {what}, got {value!r}")
    if number < least:
        raise ValueError(f"{name} must be at least {least:g}, got {value!r}")
    try:
        approximate = float(number)
    except OverflowError:  # the message leaves it out: Python may refuse to print so many digits
        text = f"{name} must be {what} that a float can hold, below 1.8e308, got one above that"
        raise ValueError(text) from None
    return approximate if whole is None else whole


def check_seconds(name: str, value: Any, hint: str = "") -> float:
    """Seconds, greater than 0."""
    seconds = check_number(name, value, what="a number of seconds")
    if seconds <= 0:
        raise ValueError(f"{name} must be greater than 0, got {value!r}{hint}")
    return seconds


def check_timeout(name: str, value: Any) -> float | None:
    """A timeout in seconds; None, where another may apply, stays None."""
    return None if value is None else check_seconds(name, value, "; math.inf means no limit")


def as_whole(value: Any) -> int | None:
    """The value as an int, or None if it is no whole number.

    >>> as_whole(3), as_whole(3.0), as_whole(True)
    (3, None, None)
    """
    if type(value).__name__ in ("bool", "bool_"):  # numpy's, too: some versions take it for an index
        return None
    try:
        return index(value)
    except TypeError:
        return None


def length_of(things: object) -> int | None:
    """The length of an iterable; None if it has none, or more than Python counts.

    A ``__len__`` that raises TypeError stands for no length, as it does to ``list``.

    >>> length_of("ab"), length_of(iter("ab")), length_of(range(10**20))
    (2, None, None)
    """
    try:
        return len(things)  # type: ignore[arg-type]  # whatever it is
    except (TypeError, OverflowError):
        return None
