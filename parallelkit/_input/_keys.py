"""Keys: checks that they can be sorted, or recorded for a later run; and mappings that show theirs."""

from __future__ import annotations

from collections.abc import KeysView, Mapping, Sequence
from itertools import count, islice
from reprlib import Repr
from typing import Any, TypeVar

from parallelkit._marks import UNSET
from parallelkit._outcomes import shown
from parallelkit._raised import describe_error, is_of_signal

K = TypeVar("K")
V = TypeVar("V")

NO_ARRAY = (
    "this is a mapping, and an array of it would contain its keys; pass its .values(), or dict(...) of it"
)

LASTING = frozenset({str, int, float, bool, bytes, type(None)})

_first = Repr()
_first.maxlist = 20  # keys shown
_first.maxstring = _first.maxother = 60


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
            return self.key < other.key  # type: ignore[no-any-return]  # sorted() takes anything for a truth value
        except Exception as error:
            if is_of_signal(error):
                raise
            raised = "" if isinstance(error, TypeError) else f", which raised {describe_error(error)}"
            raise TypeError(
                f"key must return values that can be compared, for order='key', got {self.key!r} and "
                f"{other.key!r} at positions {self.position} and {other.position}{raised}"
            ) from None


def no_such_key(key: Any, keys: Sequence[Any] | None) -> KeyError:
    """The error for a key that no task has; ``keys`` is None if positions are the keys.

    >>> no_such_key(0, ["ann", "bob"])
    KeyError("0 (no task has this key; the first of 2 is 'ann'; values() is a list)")
    """
    if keys is None:
        return KeyError(f"{shown(key)} (keys are positions from 0; values() is a list; key= sets others)")
    known = f"the first of {len(keys)} is {shown(keys[0])}" if keys else "there are no tasks"
    return KeyError(f"{shown(key)} (no task has this key; {known}; values() is a list)")


class Keyed(Mapping[K, V]):
    """A mapping whose ``keys()`` prints them, and that numpy does not take for an array of its keys."""

    __slots__ = ()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """For numpy: with ``dtype=object``, an array of this one object; otherwise TypeError, since numbers are meant."""
        if getattr(dtype, "char", None) != "O":
            raise TypeError(NO_ARRAY)
        from numpy import empty

        held = empty((), dtype)
        held[()] = self
        return held

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """For numpy: only ``==`` and ``!=`` with an array work, and no element equals a mapping; else TypeError."""
        if ufunc.__name__ not in ("equal", "not_equal"):
            raise TypeError(NO_ARRAY)
        from numpy import asarray

        held = (asarray(each, object) if isinstance(each, Keyed) else each for each in inputs)
        return getattr(ufunc, method)(*held, **options)

    def keys(self) -> KeysView[K]:
        """The keys, in order, as a view like that of a dict."""
        return Keys(self)


class Keys(KeysView[K]):
    """A view whose repr shows the first keys; that of the standard one shows the mapping, which shows no key.

    >>> Keys({"a": 1, "b": 2})
    KeysView(['a', 'b'])
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"KeysView({_first.repr(list(islice(self, _first.maxlist + 1)))})"
