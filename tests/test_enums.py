"""Enums that travel by value: as they stand in a script, or in a function as here."""

import dataclasses
import datetime as dt
import enum
from typing import NamedTuple

import pytest

from parallelkit import run_parallel

MARKS = {"__slotnames__", "__annotate_func__", "__annotations_cache__"}
"""Attributes that pickling an object or a look at its annotations leaves in its class."""


def enums():
    """A member of each sort of enum that nobody can import, with what a task asks of it."""

    class Planet(enum.Enum):
        EARTH = 5.976e24, 6.37814e6

        def __init__(self, mass, radius):
            self.mass, self.radius = mass, radius

        def weight(self):
            return self.mass / self.radius

    class Status(int, enum.Enum):
        GONE = 410, "gone"

        def __new__(cls, value, phrase):
            made = int.__new__(cls, value)
            made._value_, made.phrase, made._label_ = value, phrase, phrase.upper()
            return made

    class Described(enum.Enum):
        def __init__(self, number, text="none"):
            self.text = text

    class Choice(Described):
        YES = 1, "yes"
        NO = 2

    class Day(dt.date, enum.Enum):
        FIRST = 2020, 1, 1

    class Point(NamedTuple):
        x: int
        y: int = 0

    class Corner(Point, enum.Enum):
        ORIGIN = 0, 0

    @dataclasses.dataclass(slots=True)
    class Creature:
        size: str
        legs: int = 4

    class Animal(Creature, enum.Enum):
        BEETLE = "small", 6

    class Route(list, enum.Enum):
        HOME = [1, 2]  # noqa: RUF012  # it is the value of a member

    class Level(enum.IntEnum):
        LOW = 1
        LEAST = 1

    class Access(enum.IntFlag):
        READ = 4
        WRITE = 2
        ALL = 6

    class Rest(enum.Flag, boundary=enum.KEEP):
        ODD = 6

    class Stage(enum.Enum):
        FIRST = enum.auto()
        LAST = enum.auto()

    Stage.FIRST.then = Stage.LAST

    return [
        (Planet.EARTH, lambda it: (it.mass, it.weight(), Planet(it.value) is it)),
        (Status.GONE, lambda it: (it + 1, it.phrase, it._label_, Status(410) is it)),
        (Choice.NO, lambda it: (it.text, Choice.YES.text)),
        (Day.FIRST, lambda it: (it.year, it.value)),
        (Corner.ORIGIN, lambda it: (it.x, it.y, len(it))),
        (Animal.BEETLE, lambda it: (it.size, it.legs)),
        (Route.HOME, lambda it: it[:]),
        (Level.LOW, lambda it: (Level["LEAST"] is it, list(Level.__members__))),
        (Access.ALL, lambda it: (Access["ALL"] is it, repr(it), ~Access.READ, Access(6) is it)),
        (Rest.ODD, lambda it: (Rest["ODD"] is it, Rest(8))),
        (Stage.FIRST, lambda it: (it.then, [*Stage])),
    ]


def unusual_enums():
    """The same of those with a metaclass, slots, a boundary, a base without members, or a text's own ``str()``."""

    class Unit(str, enum.Enum):  # noqa: UP042  # a StrEnum is its value as text, too
        METRE = "m"

    class Part:
        __slots__ = ("made", "worn")

    class Tyre(Part, enum.Enum):
        NEW = 1

        def __init__(self, _):
            self.made = 2026
            vars(self)["price"] = 5

        @property
        def price(self):
            return vars(self)["price"] + 1

    class Countable(enum.EnumMeta):
        def __new__(cls, name, bases, attributes, *, unit):
            made = super().__new__(cls, name, bases, attributes)
            made.unit = unit
            return made

        def __setattr__(cls, name, value):
            assert "unit" not in vars(cls), "constant"
            super().__setattr__(name, value)

        def count(cls):
            return len(cls)

    class Simple(enum.Enum, metaclass=Countable, unit="m"):
        ONE = 1

    class Masked(enum.Flag, boundary=enum.CONFORM):
        LOW = 1

    class Named(enum.Enum):
        def label(self):
            return self.name.lower()

    class Size(Named):
        SMALL = 1

    def labels(base):
        return [it.label() for it in base("More", ["BIG"])]

    return [
        (Masked.LOW, lambda it: Masked(3) is it),
        (Unit.METRE, lambda it: (it == "m", it[:], str(it))),
        (Tyre.NEW, lambda it: (it.made, it.price, hasattr(it, "worn"))),
        (Simple.ONE, lambda it: (Simple(1) is it, Simple.count(), Simple.unit)),
        (Size.SMALL, lambda it: (it.label(), labels(Named))),
    ]


@pytest.mark.parametrize(("member", "ask"), [*enums(), *unusual_enums()], ids=lambda it: type(it).__name__)
def test_members_have_in_tasks_what_they_have_here(running, member, ask):
    """What ``__new__`` and ``__init__`` made of a member, aliases and combined flags are there in tasks; members come home as they are."""
    for _ in range(2):
        names, value, back = run_parallel(
            lambda it: ({*dir(type(it))} - MARKS, ask(it), it), [member], executor=running
        )[0]
        assert ({*dir(type(member))} - MARKS, ask(member), True) == (names, value, back is member)
