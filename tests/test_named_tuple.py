"""Our ``NamedTuple``: classes made with it behave as those of ``typing``."""

from __future__ import annotations

import pickle
import typing

import pytest

from parallelkit import _named_tuple


class Ours(_named_tuple.NamedTuple):
    """A place."""

    row: int
    column: NotDefinedAnywhere | None = None  # noqa: F821  # ours does not look at it

    def moved(self) -> Ours:
        return self._replace(row=self.row + 1)

    @property
    def sum(self) -> int:
        return super().__len__()


class Theirs(typing.NamedTuple):
    """A place."""

    row: int
    column: int | None = None


def test_it_is_a_tuple_with_named_fields_defaults_and_methods():
    """Such a class has what ``typing`` gives it: fields by name, defaults, pickling, no attributes beside; and its own methods."""
    place = Ours(1, column=2)
    assert (place, place.row, place.column, place.moved(), place.sum) == ((1, 2), 1, 2, Ours(2, 2), 2)
    assert (Ours(1), Ours._fields, Ours._field_defaults) == (
        (1, None),
        Theirs._fields,
        Theirs._field_defaults,
    )
    assert (repr(place), place._asdict(), Ours.__doc__) == (
        "Ours(row=1, column=2)",
        {"row": 1, "column": 2},
        "A place.",
    )
    assert (Ours.__module__, Ours.__qualname__, Ours.__match_args__) == (
        __name__,
        "Ours",
        Theirs.__match_args__,
    )
    copy = pickle.loads(pickle.dumps(place))
    assert (type(copy), copy) == (Ours, place)
    for kind in (Ours, Theirs):
        with pytest.raises(AttributeError):
            kind(1).other = 2
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'row'"):
            kind()
