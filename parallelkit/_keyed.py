"""``Keyed``: a mapping by the keys of tasks, which shows them where it is misused."""

from __future__ import annotations

import operator
from collections.abc import KeysView, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from reprlib import Repr
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

NO_ARRAY = (
    "this is a mapping, and an array of it would contain its keys; pass its .values(), or dict(...) of it"
)

_first = Repr()
_first.maxlist = 20  # keys shown
_first.maxstring = _first.maxother = 60


def no_such_key(key: Any, keys: Sequence[Any] | None) -> KeyError:
    """The error for a key that no task has; ``keys`` is None if positions are the keys.

    >>> no_such_key(0, ["ann", "bob"])
    KeyError("0 (no task has this key; the first of 2 is 'ann'; values() is a list)")
    """
    from parallelkit._outcomes import shown

    if keys is None:
        return KeyError(f"{shown(key)} (keys are positions from 0; values() is a list; key= sets others)")
    known = f"the first of {len(keys)} is {shown(keys[0])}" if keys else "there are no tasks"
    return KeyError(f"{shown(key)} (no task has this key; {known}; values() is a list)")


def position_of(key: Any, end: int) -> int:
    """The position before ``end`` that is the key, or equals it, as 1.0 does 1; -1 if none does."""
    with suppress(TypeError):  # of what cannot be hashed, and so is no key
        whole = hasattr(key, "__index__")
        position = operator.index(key) if whole else hash(key)
        if 0 <= position < end and (whole or key == position):
            return position
    return -1


class Keyed(Mapping[K, V]):
    """A mapping whose ``keys()`` prints them, whose keys IPython completes, and that numpy does not take for an array of them."""

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

    def _ipython_key_completions_(self) -> list[K]:
        """What IPython offers for ``results["``, as it does for a dict."""
        return list(self)


class Keys(KeysView[K]):
    """A view whose repr shows the first keys; that of the standard one shows the mapping, which shows no key.

    >>> Keys({"a": 1, "b": 2})
    KeysView(['a', 'b'])
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"KeysView({_first.repr(list(islice(self, _first.maxlist + 1)))})"
