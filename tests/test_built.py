"""Classes that code in C builds from their definition, of ctypes and msgspec, sent by value, as are those of a script."""

import ctypes
import dataclasses
import enum
import sys
import typing
from abc import ABCMeta, abstractmethod
from ctypes import BigEndianStructure, Structure, c_char, c_double, c_int, c_int16, c_ubyte

import pytest

from parallelkit import run_parallel


@pytest.fixture
def executor(running):
    """Of one worker, which has run other tests."""
    return running


def run(executor, fn, item=0):
    return run_parallel(fn, [item], executor=executor)[0]


def test_a_structure_travels_with_its_fields_and_methods(executor):
    """Its objects are what they were, there and as they come back; so is one within another, also of the other byte order."""

    class Point(Structure):
        _fields_ = [("x", c_int), ("y", c_double), ("flag", c_ubyte, 3)]

        def sum(self):
            return self.x + self.y

    class Header(BigEndianStructure):
        _fields_ = [("length", c_int16), ("sizes", c_int16 * 2)]
        _pack_, _layout_ = 1, "ms"

    class Record(Point):
        _fields_ = [("points", Point * 2), ("name", c_char * 4)]  # noqa: RUF012  # as ctypes has it

        def sum(self):
            return super().sum() + sum(point.sum() for point in self.points)

    def work(record):
        sizes = ctypes.sizeof(Header), ctypes.sizeof(Record)
        return record, record.sum(), Point(1, 2.5), Header(1, (2, 3)), sizes, isinstance(record, Point)

    given = Record(1, 2.0, 3, (Point(4, 5.0), Point(6, 7.0)), b"abc")
    record, total, point, header, sizes, is_point = run(executor, work, given)
    assert (Record, Point, Header) == (type(record), type(point), type(header))
    assert (bytes(given), 25.0, 3.5) == (bytes(record), total, point.sum())
    assert (b"\0\1\0\2\0\3", (6, ctypes.sizeof(Record)), True) == (bytes(header), sizes, is_point)


def test_a_structure_may_point_to_itself_and_lead_to_its_objects(executor):
    """By a field. Such an object, which has an address, cannot be sent, and the error names where it is."""

    class Node(Structure):
        pass

    Node._fields_ = [("next", ctypes.POINTER(Node)), ("value", c_int)]

    def work(_):
        second = Node(ctypes.pointer(Node(None, 1)), 2)
        return second.next.contents.value, type(second.next) is ctypes.POINTER(Node)

    assert (1, True) == run(executor, work)
    Node.zero = Node(None, 0)
    with pytest.raises(
        TypeError, match=r"^zero, which .*Node has, .*objects containing pointers cannot be pickled"
    ):
        run(executor, work)


def test_the_metaclass_of_a_structure_may_be_the_scripts(executor):
    """Without its own code at the other end, but with that of ``ctypes``, which makes a structure usable."""

    class Kind(type(Structure)):
        def __init__(cls, name, bases, attributes):
            super().__init__(name, bases, attributes)
            cls.made_by.append(name)

    class Point(Structure, metaclass=Kind):
        made_by: typing.ClassVar = []
        _fields_ = [("x", c_int)]

    assert (3, ["Point"], "Kind") == run(
        executor, lambda x: (Point(x).x, Point.made_by, type(Point).__name__), 3
    )


class Checked(type(Structure)):
    """A metaclass that workers import."""

    def __init__(cls, *args):
        super().__init__(*args)
        cls.is_checked = True


def test_between_the_metaclass_of_a_structure_and_ctypes_may_be_a_librarys(executor):
    """The code of ``ctypes`` runs all the same, and what the library's has set comes with the class."""

    class Kind(Checked):
        pass

    class Point(Structure, metaclass=Kind):
        _fields_ = [("x", c_int)]

    assert (3, True, "Kind") == run(
        executor, lambda x: (Point(x).x, Point.is_checked, type(Point).__name__), 3
    )


@pytest.mark.skipif(sys.version_info < (3, 13), reason="before, ctypes made no class by such a metaclass")
def test_a_structure_may_be_abstract(executor):
    """The metaclass then has bases in C that set attributes in two ways, and only that of ``ctypes`` will do."""

    class Kind(ABCMeta, type(Structure)):
        def __init__(cls, *args):
            super().__init__(*args)

        def __setattr__(cls, name, value):
            super().__setattr__(name, value)

    class Shape(Structure, metaclass=Kind):
        @abstractmethod
        def area(self): ...

    class Square(Shape):
        _fields_ = [("side", c_int)]  # noqa: RUF012  # as ctypes has it

        def area(self):
            return self.side**2

    assert (9, True) == run(executor, lambda side: (Square(side).area(), isinstance(Square(1), Shape)), 3)


def test_objects_of_a_structure_may_be_keys_in_its_class(executor):
    """As those of any class."""

    class Code(Structure):
        _fields_ = [("value", c_int)]

        def __hash__(self):
            return self.value

        def __eq__(self, other):
            return self.value == other.value

        def name(self):
            return Code.names[self]

    Code.names = {Code(1): "one"}
    assert "one" == run(executor, Code.name, Code(1))


def test_what_a_script_changes_in_a_structure_is_there_in_the_next_call(executor):
    """As in any class; its fields stay."""

    class Sample(Structure):
        _fields_ = [("value", c_int)]
        scale = 1

        def scaled(self):
            return self.value * self.scale

    assert 3 == run(executor, Sample.scaled, Sample(3))
    Sample.scale = 2
    assert 6 == run(executor, Sample.scaled, Sample(3))


def test_other_types_of_ctypes_travel(executor):
    """Types of arrays, functions and unions, and classes made of simple ones."""

    class Number(ctypes.Union):
        _fields_ = [("i", c_int), ("b", c_ubyte * 4)]

    class Meters(c_int):
        def doubled(self):
            return 2 * self.value

    class Three(c_int * 3):
        pass

    pair, callback = c_double * 2, ctypes.CFUNCTYPE(c_int, c_int)

    def work(meters):
        given = Number(i=1).b[0 if sys.byteorder == "little" else 3], callback(lambda x: x + 1)(2)
        return given, meters.doubled(), pair(1, 2), Three(4)

    given, doubled, two, three = run(executor, work, Meters(4))
    assert ((1, 3), 8, [1, 2], [4, 0, 0]) == (given, doubled, list(two), list(three))
    assert (pair, Three) == (type(two), type(three))


def test_a_struct_of_msgspec_travels(executor, monkeypatch):
    """With its fields, defaults, options and methods, those of its bases and what it says of its own encoding."""
    msgspec = pytest.importorskip("msgspec", reason="needs msgspec (pip install msgspec)")

    class Base(msgspec.Struct, tag=True, rename="camel", kw_only=True):
        first_name: str = "none"

    class Box(Base, frozen=True, order=True):
        __module__ = "__main__"  # where its name is looked for
        size: int
        more: list[int] = []  # noqa: RUF012  # msgspec makes a new one for each object
        inner: list["Box"] = msgspec.field(default_factory=lambda: [Box(0, inner=[])], name="boxes")

        def __post_init__(self):
            if self.size < 0:
                raise ValueError("it must not be negative")

        def doubled(self):
            return 2 * self.size

        @staticmethod
        def refuses():
            try:
                return Box(-1)
            except ValueError as error:
                return str(error)

    class Lid(Box):
        def doubled(self):
            return super().doubled() + 1

    monkeypatch.setattr(sys.modules["__main__"], "Box", Box, raising=False)

    def work(box):
        text = msgspec.json.encode(box)
        return box, box.doubled(), text, msgspec.json.decode(text, type=Lid), Box(1) < Box(2), Box.refuses()

    given = Lid(3, [4], first_name="x")
    box, doubled, text, read, ordered, refused = run(executor, work, given)
    assert (given, Lid, 7, given, True, "it must not be negative") == (
        box,
        type(box),
        doubled,
        read,
        ordered,
        refused,
    )
    assert msgspec.json.encode(given) == text
    assert b'"type":"Lid"' in text
    assert b'"boxes":' in text
    assert b'"firstName":"x"' in text


def test_a_class_that_msgspec_has_made_objects_of_travels(executor):
    """Msgspec keeps on it, in an object that refuses to be pickled, what it has found out about it."""
    msgspec = pytest.importorskip("msgspec", reason="needs msgspec (pip install msgspec)")

    @dataclasses.dataclass
    class Point:
        x: int = 0

    class Pair(typing.NamedTuple):
        x: int

    class Options(typing.TypedDict):
        x: int

    class Color(enum.Enum):
        RED = "red"

    def made():
        given = [({"x": 1}, Point), ([1], Pair), ({"x": 1}, Options), ("red", Color)]
        return [msgspec.convert(value, kind) for value, kind in given]

    here = made()
    assert "__msgspec_cache__" in vars(Point)
    assert here == run(executor, lambda _: made())
