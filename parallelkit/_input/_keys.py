"""Checks that keys can be sorted, or recorded for a later run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from parallelkit._marks import UNSET
from parallelkit._raised import describe_error, is_of_signal, repr_of

LASTING = frozenset({str, int, float, bool, bytes, type(None)})


def key_text(key: Any) -> str:
    """A lasting key as text that tells its type: 1, 1.0 and True, which are one key of a dict, give three texts.

    >>> key_text(1), key_text(True), key_text(("a", 1.0))
    ('1', 'True', "('a', 1.0)")
    """
    return ascii(key)


def check_lasting(key: Any, position: int) -> None:
    """Raise TypeError or ValueError unless the key has the same text in a later run (``checkpoint``).

    >>> check_lasting(1.5, 0)
    >>> check_lasting(None, 0)
    """
    if key is UNSET:
        raise ValueError(
            "checkpoint must have a key for every task (key=, a mapping, or Task(…, key=…)), "
            f"got none at position {position}"
        )
    try:
        lasts, text = is_lasting(key), repr(key)
    except Exception as error:  # an int of more digits than Python prints, or a broken __repr__
        if is_of_signal(error):
            raise
        lasts, text = False, f"<a key whose repr raised {type(error).__name__}>"
    if not lasts:
        kind = type(key)
        raise TypeError(
            "key must be a str, int, float (not nan), bool, bytes, None or a tuple of these for a checkpoint, "
            f"got {text} of type {kind.__module__}.{kind.__qualname__} at position {position}; "
            "make a str of it, or a number of Python's own (numpy's have .item())"
        )


def is_lasting(key: Any) -> bool:
    """Whether a key is of exactly these types, and no NaN; a subclass may print as anything."""
    if type(key) is tuple:
        return all(map(is_lasting, key))
    return type(key) in LASTING and key == key


def check_keys(keys: Sequence[Any]) -> None:
    """Raise TypeError, naming both positions, unless the keys can be sorted (``order="key"``)."""
    try:
        sorted(keys)
    except Exception:
        sorted(map(Placed, keys, count()))
        raise  # the second sort succeeded: these keys do not always compare alike


class Placed:
    """A key with its position, which is in the error if the key cannot be compared."""

    __slots__ = ("key", "position")

    def __init__(self, key: Any, position: int) -> None:
        self.key = key
        self.position = position

    def __lt__(self, other: Placed) -> bool:
        try:
            return bool(self.key < other.key)  # here, since of pandas.NA or a symbol this is what raises
        except Exception as error:
            if is_of_signal(error):
                raise
            raised = "" if isinstance(error, TypeError) else f", which raised {describe_error(error)}"
            raise TypeError(
                f"key must return values that can be compared, for order='key', got {repr_of(self.key)} and "
                f"{repr_of(other.key)} at positions {self.position} and {other.position}{raised}"
            ) from None
