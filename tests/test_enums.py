"""Enums that travel by value: as they stand in a script, or in a function as here."""

import dataclasses
import datetime as dt
import enum
from typing import NamedTuple

import pytest

from parallelkit import run_parallel


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
            made._value_, made.phrase = value, phrase
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
        (Status.GONE, lambda it: (it + 1, it.phrase, Status(410) is it)),
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


@pytest.mark.parametrize(("member", "ask"), enums(), ids=lambda it: type(it).__name__)
def test_members_have_in_tasks_what_they_have_here(running, member, ask):
    """What ``__new__`` and ``__init__`` made of a member, aliases and combined flags are there in tasks; members come home as they are."""
    for _ in range(2):
        value, back = run_parallel(lambda it: (ask(it), it), [member], executor=running)[0]
        assert (ask(member), True) == (value, back is member)
