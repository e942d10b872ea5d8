"""Classes with ``__slots__`` that travel by value: as they stand in a script, or in a function as here."""

import abc
import dataclasses
from typing import Generic, NamedTuple, TypeVar

import pytest

from parallelkit import run_parallel

T = TypeVar("T")


def slotted():
    """By name, classes of all sorts that nobody can import; each is called with one value, its ``x``."""

    class Plain:
        __slots__ = ("x",)

        def __init__(self, x):
            self.x = x

        def __eq__(self, other):
            return type(self) is type(other) and self.x == other.x

        __hash__ = None

    class Single(Plain):
        __slots__ = "more"  # noqa: PLC0205  # which Python allows

    class Described(Plain):
        __slots__ = {"more": "what there is besides"}

    class Empty(Plain):
        __slots__ = ()

    class Open(Plain):
        """With a ``__dict__``, as it has no slots itself."""

    class Private(Plain):
        __slots__ = ("__hidden", "_own")

        def __init__(self, x):
            super().__init__(x)
            self._own, self.__hidden = x, x

        def __eq__(self, other):
            return super().__eq__(other) and self.__hidden == other.__hidden

        __hash__ = None

    class Referred(Plain):
        __slots__ = ("__dict__", "__weakref__")

    class General(Plain, Generic[T]):
        __slots__ = ()

    class Abstract(Plain, abc.ABC):
        __slots__ = ("more",)

    class Number(int):
        __slots__ = ()

        @property
        def x(self):
            return int(self)

    class Row(NamedTuple):
        x: int

    class Longer(Row):
        __slots__ = ()

    @dataclasses.dataclass(slots=True)
    class Data:
        x: int = 0

    @dataclasses.dataclass(slots=True, frozen=True, weakref_slot=True)
    class Frozen:
        x: int = 0

    return {name: thing for name, thing in locals().items() if isinstance(thing, type)}


CLASSES = slotted()


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_slotted_objects_travel_both_ways(running, cls):
    """As items, as values, as what the function makes; they are of the caller's own class when they come home."""
    deeds = {
        "back": lambda item: item,
        "new": lambda item: cls(item.x),
        "its class": lambda item: type(item)(item.x),
        "known": lambda item: item if isinstance(item, cls) else None,
    }
    for name, deed in deeds.items():
        (value,) = run_parallel(deed, [cls(3)], executor=running).values()
        assert type(value) is cls, name
        assert value == cls(3), name


@pytest.mark.parametrize("name", ["Plain", "Data", "Private", "Row", "Longer"])
def test_they_have_no_other_attributes_there(running, name):
    """To set any is the same error as it is here, which finds a mistaken name."""

    def mistake(item):
        item.other = 1

    with pytest.raises(AttributeError) as here:
        mistake(CLASSES[name](3))
    error = run_parallel(mistake, [CLASSES[name](3)], executor=running).failures[0].error
    assert (AttributeError, str(here.value)) == (type(error), str(error))
