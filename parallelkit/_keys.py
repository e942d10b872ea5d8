"""What a key must be like, to be sorted or to last beyond its run; and keys to look at."""

from __future__ import annotations

from collections.abc import KeysView, Mapping, Sequence
from itertools import count, islice
from reprlib import Repr
from typing import Any, TypeVar

from parallelkit._marks import UNSET

K = TypeVar("K")
V = TypeVar("V")

NO_ARRAY = "this is a mapping, of which an array would have the keys; pass its .values(), or dict() of it"

LASTING = frozenset({str, int, float, bool, bytes, type(None)})

_first = Repr()
_first.maxlist = 20  # keys shown
_first.maxstring = _first.maxother = 60


def key_text(key: Any) -> str:
    """A lasting key as text that tells the type: as keys of a dict 1, 1.0 and True would be one.

    >>> key_text(1), key_text(True), key_text(("a", 1.0))
    ('1', 'True', "('a', 1.0)")
    """
    return ascii(key)


def check_lasting(key: Any, position: int) -> None:
    """Raise TypeError or ValueError unless the key means the same in a later run (``checkpoint``).

    >>> check_lasting(1.5, 0)
    >>> check_lasting(None, 0)
    """
    if key is UNSET:
        raise ValueError(
            "checkpoint must have a key for every task (key=, a mapping, or Task(…, key=…)), "
            f"got none at position {position}"
        )
    try:
        lasts, shown = is_lasting(key), repr(key)
    except (
        Exception
    ) as error:  # an int of more digits than Python prints, an object with a repr that is broken
        lasts, shown = False, f"<a key whose repr raised {type(error).__name__}>"
    if not lasts:
        kind = type(key)
        raise TypeError(
            "key must be a str, int, float (not nan), bool, bytes, None or a tuple of these for a checkpoint, "
            f"got {shown} of type {kind.__module__}.{kind.__qualname__} at position {position}; "
            "make a str or a number of it"
        )


def is_lasting(key: Any) -> bool:
    """Whether it is of these very types; those that derive from them may print as anything."""
    if type(key) is tuple:
        return all(map(is_lasting, key))
    return type(key) in LASTING and key == key


def check_keys(keys: Sequence[Any]) -> None:
    """Raise TypeError, naming both positions, unless the keys can be sorted (``order="key"``)."""
    try:
        sorted(keys)
    except TypeError as error:
        sorted(map(Placed, keys, count()))
        raise error  # these keys compare differently from one time to the next


class Placed:
    """A key that says where it stands when it cannot be compared."""

    __slots__ = ("key", "position")

    def __init__(self, key: Any, position: int) -> None:
        self.key = key
        self.position = position

    def __lt__(self, other: Placed) -> bool:
        try:
            return self.key < other.key  # type: ignore[no-any-return]  # whatever it is, sorting takes its truth
        except TypeError:
            raise TypeError(
                f"key must give values that can be compared, for order='key', got {self.key!r} and "
                f"{other.key!r} at positions {self.position} and {other.position}"
            ) from None


class Keyed(Mapping[K, V]):
    """A mapping whose ``keys()`` shows them, and that is not taken for an array of them."""

    __slots__ = ()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """For numpy: of objects (``dtype=object``) it is one; where no dtype is said, numbers are meant, and refused."""
        if getattr(dtype, "char", None) != "O":
            raise TypeError(NO_ARRAY)
        from numpy import empty

        held = empty((), dtype)
        held[()] = self
        return held

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """For numpy: it may be compared with an array, none of whose elements it equals, and is no operand of anything else."""
        if ufunc.__name__ not in ("equal", "not_equal"):
            raise TypeError(NO_ARRAY)
        from numpy import asarray

        held = (asarray(each, object) if isinstance(each, Keyed) else each for each in inputs)
        return getattr(ufunc, method)(*held, **options)

    def keys(self) -> KeysView[K]:
        """The keys, in order: a view, as that of a dict."""
        return Keys(self)


class Keys(KeysView[K]):
    """A view that shows the first keys; the standard one shows the mapping, which shows none.

    >>> Keys({"a": 1, "b": 2})
    KeysView(['a', 'b'])
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"KeysView({_first.repr(list(islice(self, _first.maxlist + 1)))})"
