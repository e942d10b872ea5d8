"""Classes of a script in workers that stay for several runs: they have the script's current attributes, and keep what tasks have set."""

import abc
import multiprocessing as mp
import pickle
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import copy
from enum import Enum
from numbers import Number
from typing import Generic, TypedDict, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import pytest
from cloudpickle import cloudpickle
from joblib import Parallel, delayed, parallel_config

from parallelkit import ProcessExecutor, Task, run_parallel
from parallelkit._worker import _classes
from parallelkit._worker._editions import Editions
from parallelkit._worker._travel import pack, unpack
from parallelkit.joblib_backend import register

T = TypeVar("T")

SCRIPT = """
import abc, enum, threading
import numpy as np

class Settings:
    rate, more = 1, {"depth": 1}
    extra = None

class Colour(enum.Enum):
    RED = 1

FACTOR = 1

class Model(abc.ABC):
    kept = None

    def __init__(self):
        self.start = 1

    def run(self, item):
        return self.step(item)

    def step(self, item):
        return item * FACTOR * Settings.rate

    def keep(self, item):
        kept, cls = Model.kept, type(self)
        cls.kept = "kept"
        return kept

def read(item):
    return Settings.rate, Settings.more["depth"], Settings.extra

def read_too(item):
    return Settings.rate

class Doc:
    made, kept, table = 0, None, {}

    def __init__(self):
        Doc.made += 1

    def keep(self):
        kept, Doc.kept = Doc.kept, "kept"
        return kept

    def fetch(self):
        global fetched
        fetched = 5

    def use(self):
        return fetched * FACTOR

def fetch_and_use(doc):
    doc.fetch()
    return doc.use()

def fill():
    Doc.table["key"] = "filled"

def look_up(doc):
    return doc.table.get("key"), doc.made

remembered = None

def remember(doc):
    global remembered
    before, remembered = remembered, "remembered"
    return before

def remember_for(item):
    global remembered
    before, remembered = remembered, Model
    return before

def load():
    Settings.extra = Model.new = "loaded"

def both(item):
    return Settings.extra, Model.new, Settings.rate

kept, rates, seen = {"path": "a"}, {"low": 1}, np.zeros(1 << 16)

def connect():
    kept["connection"] = threading.Lock()
    seen[7] = rates["low"]

def use(item):
    return sorted(kept), rates["low"], seen[7]

class Heavy:
    pickled = 0

    def __reduce__(self):
        Heavy.pickled += 1
        return Heavy, ()

local = threading.local()

def join():
    local.member = threading.Lock()

def is_member(item):
    return hasattr(local, "member")

heavy = None

def load_heavy():
    global heavy
    heavy = Heavy()

def count_pickles(item):
    return type(heavy).__name__, Heavy.pickled
"""


def run(executor, fn, item):
    return run_parallel(fn, [item], executor=executor)[0]


def run_tasks(executor, fn, item):
    return run_parallel([Task(fn, item)], executor=executor)[0]


def submit(executor, fn, item):
    return executor.submit(fn, item).result()


WAYS = pytest.mark.parametrize("way", [run, pytest.param(run_tasks, marks=pytest.mark.all), submit])


@pytest.fixture
def executor(running):
    """Of one worker, which has run other tests."""
    return running


@pytest.fixture
def new():
    """An executor of one worker for a test whose task starts or keeps what lives as long as its worker."""
    with ProcessExecutor(1) as executor:
        yield executor


@WAYS
def test_what_a_script_sets_in_a_class_is_there_in_the_next_call(way, script, executor):
    """What a script sets in a class, as in a notebook's ``class CFG``, or sets back, is there in the next run on warm workers."""
    settings, read = script["Settings"], script["read"]
    assert (1, 1, None) == way(executor, read, 0)
    settings.rate = 2
    assert (2, 1, None) == way(executor, read, 0)
    settings.rate = 1
    settings.more["depth"] = 5
    settings.extra = "new"
    assert (1, 5, "new") == way(executor, read, 0)
    settings.more["depth"] = 1
    settings.extra = None
    assert (1, 1, None) == way(executor, read, 0)


@WAYS
def test_methods_find_the_globals_and_classes_that_the_script_has_by_now(way, script, executor):
    """Methods of items, and a method as the function, have the script's current globals and classes, even if replaced or deleted."""
    model = script["Model"]()

    def call(item):
        return item.run(10)

    def seen():
        return way(executor, call, model), way(executor, model.run, 10)

    assert (10, 10) == seen()
    script["FACTOR"] = 3
    assert (30, 30) == seen()
    script["Settings"].rate = 2
    assert (60, 60) == seen()
    script["Model"].step = lambda self, item: -item
    assert (-10, -10) == seen()
    script["Model"].again = True
    assert way(executor, lambda item: hasattr(item, "again"), model)
    del script["Model"].again
    assert not way(executor, lambda item: hasattr(item, "again"), model)


@WAYS
def test_what_tasks_keep_in_a_class_stays_while_the_script_leaves_it_alone(way, script, executor):
    """What a task keeps in a class, such as a connection, stays for later items and runs while the script leaves that class alone."""
    model = script["Model"]()
    seen = [way(executor, lambda item: item.keep(0), model) for _ in range(3)]
    assert [None, "kept", "kept"] == seen
    assert script["Model"].kept is None


def test_what_tasks_keep_where_objects_are_hashed_stays(executor):
    """Also what is set before all else where a class is new: attributes that a ``__hash__`` names, and those of an enum's members."""

    class Keyed:
        scale = 1

        def __hash__(self):
            return self.scale

    class Colour(Enum):
        RED = 1

    Colour.RED.scale = 1

    def scale(by):
        before = Keyed.scale, Colour.RED.scale
        Keyed.scale = Colour.RED.scale = by
        return before

    assert [(1, 1), (2, 2)] == [run(executor, scale, by) for by in (2, 3)]


def test_what_a_task_has_deleted_the_script_may_delete_too(executor):
    """It is gone in both then."""

    class Kept:
        extra = 1

    def drop(_):
        del Kept.extra

    run_parallel(drop, [0], executor=executor).raise_failures()
    del Kept.extra
    assert not run(executor, lambda _: hasattr(Kept, "extra"), 0)


def test_a_class_that_comes_without_an_edition_is_filled_once(monkeypatch):
    """So come those in the results of a pool of others; what is kept in them since stays."""

    class Kept:
        value = 1

    class Colour(Enum):
        RED = 1

        def text(self):
            return "red"

    blob = pack((Kept, Colour.RED))
    monkeypatch.setattr(
        cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_ID", WeakValueDictionary()
    )  # of another process
    made, red = unpack(blob)
    made.value = 2
    assert (1, "red", True) == (Kept.value, red.text(), red is not Colour.RED)
    assert (made, red) == unpack(blob)
    assert 2 == made.value


def test_what_an_initializer_sets_in_a_class_stays(script):
    """What an initializer sets in a class stays, whatever the script changes in the class later."""
    with ProcessExecutor(1, initializer=script["load"]) as executor:
        assert ("loaded", "loaded", 1) == run(executor, script["both"], 0)
        script["Settings"].rate = 2
        script["Model"].more = 1
        assert ("loaded", "loaded", 2) == run(executor, script["both"], 0)
        assert script["Settings"].extra is None
        script["Settings"].extra = "changed"
        assert ("loaded", "loaded", 2) == run(executor, script["both"], 0)
        del script["Settings"].extra
        assert ("loaded", "loaded", 2) == run(executor, script["both"], 0)


def test_what_an_initializer_puts_into_an_attribute_stays(script):
    """What an initializer puts into a table stays, although Python marks the class when it first pickles an object, or another attribute changes."""
    doc, look_up = script["Doc"], script["look_up"]
    with ProcessExecutor(1, initializer=script["fill"]) as executor:
        assert ("filled", 1) == run(executor, look_up, doc())
        assert ("filled", 2) == run(executor, look_up, doc())
    assert {} == doc.table


@WAYS
def test_what_an_initializer_puts_into_a_global_stays(way, script):
    """What an initializer puts into a global, such as a connection into a dict, is there in all tasks; other globals are the script's by now."""
    with ProcessExecutor(1, initializer=script["connect"]) as executor:
        assert (["connection", "path"], 1, 1) == way(executor, script["use"], 0)
        script["rates"]["low"] = 2
        assert (["connection", "path"], 2, 1) == way(executor, script["use"], 0)
    assert ({"path": "a"}, 0) == (script["kept"], script["seen"][7])


@WAYS
def test_what_an_initializer_keeps_for_its_thread_stays(way, script):
    """What an initializer puts into a ``threading.local()``, such as a connection, is there in tasks, as in a pool of threads."""
    with ProcessExecutor(1, initializer=script["join"]) as executor:
        assert way(executor, script["is_member"], 0)


def test_what_an_initializer_assigns_is_not_pickled(script):
    """That a global is another object by now is seen without its content: a model would take long, and its memory twice."""
    with ProcessExecutor(1, initializer=script["load_heavy"]) as executor:
        assert ("Heavy", 0) == run(executor, script["count_pickles"], 0)


@WAYS
def test_a_class_that_counts_its_objects_loses_nothing_by_it(way, script, new):
    """A class attribute that changes, such as a count of objects, resets neither what tasks keep in the class nor other functions' globals."""
    doc = script["Doc"]
    assert [None, "kept", "kept"] == [way(new, lambda item: item.keep(), doc()) for _ in range(3)]
    if way is not run:  # that sends the function anew for each run
        seen = [way(new, script["remember"], doc()) for _ in range(3)]
        assert [None, "remembered", "remembered"] == seen


def test_an_object_that_is_copied_changes_no_class(script, executor):
    """A mark that Python sets in a class at the first copy of an object does not count as a change."""
    remember = script["remember_for"]
    assert submit(executor, remember, 0) is None
    copy(script["Model"]())
    assert script["Model"] is submit(executor, remember, 0)


def test_methods_have_their_globals_in_common_also_when_one_has_changed(script, executor):
    """Methods share their globals in a worker, even after one of them has changed."""
    doc, call = script["Doc"](), script["fetch_and_use"]
    assert 5 == run(executor, call, doc)
    script["FACTOR"] = 3
    assert 15 == run(executor, call, doc)


def test_what_was_packed_earlier_changes_nothing_back(script, executor):
    """If two runs overlap, the one that was pickled earlier does not set a class back to its state."""
    settings = script["Settings"]

    def pack_at(rate):
        settings.rate = rate
        return pack(settings, editions=Editions())

    def seen(blobs):
        return [unpack(blob).rate for blob in blobs]

    first, second, third = pack_at(1), pack_at(2), pack_at(1)
    assert [1, 1, 1, 1] == run(executor, seen, [first, third, second, first])
    fourth, fifth = pack_at(4), pack_at(4)
    assert fourth == fifth
    assert [4, 4] == run(executor, seen, [fourth, third])


def test_what_a_script_changes_in_a_large_array_of_a_class_is_there_in_the_next_call(executor):
    """Large arrays are not in the pickle of their class, and still count for what has changed in it."""

    class Model:
        weights = np.zeros(1 << 17)

    def first(_):
        return Model.weights[0]

    assert 0 == run(executor, first, 0)
    Model.weights[0] = 1
    assert 1 == run(executor, first, 0)


def test_an_array_that_is_a_file_is_not_read_for_its_class(script, tmp_path):
    """To find its class, a memory-mapped array is not read: it may be larger than the memory."""
    array = np.memmap(tmp_path / "file", "f8", "w+", shape=(1_000,))
    script["FACTOR"] = array

    def packed():
        return pack(script["Model"], editions=Editions(by_file=True))

    before = packed()
    array[0] = 1
    assert before == packed()
    del script["FACTOR"]  # and so the file is closed


def test_many_classes_that_name_each_other_travel(executor):
    """Many classes that refer to each other can be sent, in linear time and without deep recursion."""
    names = [f"Step{number}" for number in range(80)]
    scope = {"__name__": "__main__"}
    for name, following in zip(names, [*names[1:], names[0]], strict=True):
        exec(f"class {name}:\n    def next(self): return {following}()\n", scope)
    last = scope[names[-1]]

    def follow(step):
        return type(step.next()).__name__, getattr(step, "kind", None)

    assert ("Step0", None) == run(executor, follow, last())
    last.kind = "last"
    assert ("Step0", "last") == run(executor, follow, last())


def test_functions_that_use_one_class_take_turns(script, executor):
    """Functions that use one class in turn all have its current state."""
    rates = []
    for rate in (1, 2, 1):
        script["Settings"].rate = rate
        rates += [submit(executor, script[name], 0) for name in ("read", "read_too", "read")]
    assert [
        (1, 1, None),
        1,
        (1, 1, None),
        (2, 1, None),
        2,
        (2, 1, None),
        (1, 1, None),
        1,
        (1, 1, None),
    ] == rates


def test_a_class_of_the_caller_is_left_as_it_is(script, executor):
    """Objects from a worker that has changed their class come back as objects of the caller's unchanged class."""

    def spoil(item):
        type(item).kept = "spoilt"
        return item

    back = run(executor, spoil, script["Model"]())
    assert type(back) is script["Model"]
    assert script["Model"].kept is None


def test_members_of_an_enum_are_the_same_after_it_has_changed(script, executor):
    """Members of an enum stay the same objects in a worker after the enum has got an attribute."""
    colour = script["Colour"]

    def is_red(item):
        return item is colour.RED and getattr(colour, "hint", None)

    assert None is run(executor, is_red, colour.RED)
    colour.hint = "warm"
    assert "warm" == run(executor, is_red, colour.RED)


@WAYS
def test_a_task_can_pickle_objects_of_the_script_itself(way, script, executor):
    """What a task writes with ``pickle.dump`` names the class as the program does, so both can read it; of a class that is made anew, the new one counts."""

    def write(item):
        data = pickle.dumps(item)
        return data, type(pickle.loads(data)) is type(item)

    for _ in range(2):
        data, same = way(executor, write, script["Doc"]())
        assert (True, True) == (b"__main__" in data, same)
        exec("class Doc: pass", script)

    with pytest.raises(AttributeError, match="module '__main__' has no attribute 'Unknown'"):
        way(executor, lambda item: sys.modules["__main__"].Unknown, 0)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_task_does_not_pickle_objects_of_the_script_for_processes_that_it_spawns(method, script, new):
    """These do not have the class, and a pool of them would wait forever: so the task gets an error, also before they are there."""

    def pickle_beside(item):
        child = mp.get_context(method).Process(target=time.sleep, args=(60,))
        child.start()
        try:
            pickle.dumps(item)
        finally:
            child.kill()
            child.join()

    def start_with(item):
        mp.get_context(method).Process(target=repr, args=(item,)).start()

    for fn in (pickle_beside, start_with):
        with pytest.raises(
            pickle.PicklingError, match=r"lookup Doc on __main__ failed|not found as __main__\.Doc"
        ):
            run(new, fn, script["Doc"]())
    assert run(new, pickle.dumps, script["Doc"]()), "no such process is left"


OWN_OBJECTS = """
import abc, dataclasses, enum, typing

@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    x: int

Point.ORIGIN = Point(0)  # is unpickled by the class's own __setstate__

class Colour:
    def __init__(self, name): self.name = name
    def __eq__(self, other): return self.name == other.name
    def paint(self): return PAINTS[self]
    def __hash__(self): return hash(self.name)

Colour.ALL, PAINTS = {Colour("red")}, {Colour("red"): "cinnabar"}

class Pair(typing.NamedTuple):
    one: int
    two: int = 2

Pair.FIRST = Pair(1)

class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

class Dot(Shape):
    def area(self): return DOT is Dot.FIRST

DOT = Dot.FIRST = Dot()

class Keyed:
    def __hash__(self): return self.key()
    def __eq__(self, other): return self.key() == other.key()

class Numbered(Keyed):
    zeta, alpha = 1, 7
    def key(self): return self.alpha + sum(self.alpha for _ in "a")

Numbered.ALL = {Numbered()}

class Size(enum.Enum):
    S, M, L, XL, XXL = range(5)
    def rank(self): return self.value
    def __hash__(self): return hash(self.rank())
    def price(self): return PRICES[self]

PRICES = {size: 3 for size in Size}

@dataclasses.dataclass(frozen=True)
class Body:
    mass: float

class Planet(Body, enum.Enum):
    EARTH = 6.0
    def __str__(self): return "o" * MOONS[self]

MOONS = {Planet.EARTH: 1}

def own(item):
    return {size.price() for size in Size}, str(Planet.EARTH), Point.ORIGIN == Point(0), Colour("red") in Colour.ALL, Colour("red").paint(), Pair.FIRST.two, DOT.area()

def inherited(item):
    return Numbered() in Numbered.ALL, [name for name in vars(Numbered) if name[0] != "_"]
"""


def test_a_class_may_lead_to_objects_of_itself(executor):
    """They are made as the class says. Constants were refused, or made a set or dict in which no object was found again. Attributes keep their order."""
    scope = {"__name__": "__main__"}
    exec(OWN_OBJECTS, scope)
    assert ({3}, "o", True, True, "cinnabar", 2, True) == run(executor, scope["own"], 0)
    assert (True, ["zeta", "alpha", "key", "ALL"]) == run(executor, scope["inherited"], 0)


IN_THE_WAY = """
import dataclasses, typing

class Single:
    def __new__(cls):
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only
    _only = None

Single().value = 7

class Fixed:
    __slots__ = ("x",)
    def __init__(self, x): object.__setattr__(self, "x", x)
    def __setattr__(self, name, value): raise AttributeError(name)

Fixed.ZERO = Fixed(0)

class Proxy:
    def __init__(self, target): self.target = target
    def __getattr__(self, name): return getattr(self.target, name)

Proxy.DEFAULT = Proxy("text")

class Coded(Exception):
    def __init__(self, *, code): self.code = code

Coded.LAST = Coded(code=5)

class Squares(dict):
    def __setitem__(self, key, value): super().__setitem__(key, value * value)

Squares.SOME = Squares()
Squares.SOME[2] = 2

@dataclasses.dataclass(frozen=True, slots=True)
class Land:
    code: str
    all: typing.ClassVar = {}
    def __post_init__(self): self.all[self.code] = self

Land("no")

def read(item):
    fields = sorted(Land.__dataclass_fields__)
    return Single().value, Fixed.ZERO.x, Proxy.DEFAULT.upper(), Coded.LAST.code, Squares.SOME[2], Land.all["no"].code, fields
"""


def test_methods_are_not_in_the_way_of_objects_that_their_own_class_holds(executor):
    """Nothing is called to unpickle these that pickle does not need: for one, the ``__new__`` of a singleton wants what is to come."""
    scope = {"__name__": "__main__"}
    exec(IN_THE_WAY, scope)
    assert (7, 0, "TEXT", 5, 4, "no", ["all", "code"]) == run(executor, scope["read"], 0)


def test_a_registry_may_have_objects_that_restore_themselves_by_a_method(executor):
    """Such a class is not refused, even if the registry stands before the method."""

    class Named:
        registry = None

        def open(self):
            self.is_open = True

        def __getstate__(self):
            return {"name": self.name}

        def __setstate__(self, state):
            vars(self).update(state)
            self.open()

    Named.registry = [Named()]
    Named.registry[0].name = "a"
    assert "a" == run(executor, lambda _: Named.registry[0].name, 0)


def test_objects_may_be_hashed_by_another_method(executor):
    """Such objects in a set that stands before the methods do not refuse the class, and are found again."""

    class Keyed:
        known = None

        @property
        def number(self):
            return len(Keyed.__name__)

        def key(self):
            return self.number

        def __hash__(self):
            return hash(self.key())

        def __eq__(self, other):
            return self.key() == other.key()

    Keyed.known = {Keyed()}
    assert run(executor, lambda _: Keyed() in Keyed.known, 0)


INDIRECT = """
import functools

def key_of(thing): return key_of(None) if thing is None else thing.key()

def once(method):
    @functools.wraps(method)
    def wrapper(self): return method(self)
    return wrapper

class Keyed:
    ONE = None
    @once
    def __hash__(self): return hash(key_of(self))
    def __eq__(self, other): return type(self) is type(other)
    def key(self, again=True): return self.key(False) if again else 5

Keyed.ONE = {Keyed()}

class Named(Keyed):
    ALL = None
    def __init__(self, name): self.name = name
    def key(self): return self.name
    def __hash__(self): return super().__hash__()

Named.ALL = {Named("a")}

class Coin:
    LEAST = None
    def __init__(self, value): self.value = value
    @classmethod
    def parse(cls, text): return cls(cls.value_of(text))
    @staticmethod
    @functools.cache
    def value_of(text): return int(text, Coin.base())
    @staticmethod
    def base(): return 10
    def __reduce__(self): return type(self).parse, (str(self.value),)

Coin.LEAST = Coin(1)

class Cent(Coin):
    LEAST = None
    def __init__(self, value): self.value = self.checked(value)
    def checked(self, value): return -value if value < 0 else value

Cent.LEAST = Cent(1)

class Angle:
    RIGHT = None
    def __init__(self, turns): self.turns = turns
    @property
    def turns(self): return self._turns
    @turns.setter
    def turns(self, turns): self._turns = self.within(turns)
    def within(self, turns): return turns % 1
    def __getstate__(self): return self._turns
    def __setstate__(self, turns): self.turns = turns

Angle.RIGHT = Angle(1.25)

class Text:
    ALL = None
    def __init__(self, *words): self.words = words
    def __iter__(self): return iter(self.words)
    def __getitem__(self, place): return self.words[place]
    def __repr__(self): return "-".join(self) + LABELS.get(self, "")
    def __hash__(self): return hash((tuple(self), self[0]))
    def __eq__(self, other): return [*self] == [*other]

LABELS = {Text("a"): "!"}
Text.ALL = {Text("b")}

def read(item):
    return Named("a") in Named.ALL, Keyed() in Keyed.ONE, Coin.LEAST.value, Cent.LEAST.value, Angle.RIGHT.turns, Text("b") in Text.ALL, repr(Text("a"))
"""


def test_objects_may_be_made_and_hashed_indirectly(executor):
    """By a function of the script, by ``super``, under a decorator, by another class method that ``__reduce__`` gives, by a setter, or without a name.

    The objects stand before the methods: what is set again later keeps its place.
    """
    scope = {"__name__": "__main__"}
    exec(INDIRECT, scope)
    assert (True, True, 1, 1, 0.25, True, "a!") == run(executor, scope["read"], 0)


READERS = {
    "__str__": (str, "text"),
    "__repr__": (repr, "text"),
    "__format__": (format, "text"),
    "__bool__": (bool, False),
    "__int__": (int, 3),
    "__float__": (float, 0.5),
    "__len__": (len, 3),
    "__getitem__": (lambda thing: thing[0], 3),
    "__iter__": (lambda thing: next(iter(thing)), 3),
}


def hashed_by(name):
    """A class that holds an object whose hash is made of what this method of its returns."""
    read, value = READERS[name]

    class Read:
        known = None

        def __hash__(self):
            return hash(read(self))

        def __eq__(self, other):
            return read(self) == read(other)

    setattr(Read, name, lambda self, *_: iter([value]) if name == "__iter__" else value)
    Read.known = {Read()}
    return Read


def test_objects_may_be_hashed_by_what_has_no_name_where_it_is_called(executor):
    """``hash(str(self))`` calls ``__str__``, and so on."""
    classes = [hashed_by(name) for name in READERS]
    found = run(executor, lambda _: [cls() in cls.known for cls in classes], 0)
    assert dict.fromkeys(READERS, True) == dict(zip(READERS, found, strict=True))


ARGUMENTS = {
    "__getnewargs__": lambda self: (1,),
    "__getnewargs_ex__": lambda self: ((), {"start": 1}),
    "__reduce__": lambda self: (type(self), (1,)),
    "__reduce_ex__": lambda self, _: (type(self), (1,)),
}


def made_with(name):
    """A class that holds an object, and says by this method with which argument its objects are made."""

    class Made:
        first = None

        def __new__(cls, start):
            made = super().__new__(cls)
            made.start = start
            return made

        def __init__(self, start):
            self.more = start + 1

    setattr(Made, name, ARGUMENTS[name])
    Made.first = Made(1)
    return Made


def test_objects_may_be_made_with_arguments(executor):
    """Their class says so, by any of the four methods that pickle knows, behind the first of the objects."""
    classes = [made_with(name) for name in ARGUMENTS]
    found = run(executor, lambda _: [(cls.first.start, cls.first.more) for cls in classes], 0)
    assert dict.fromkeys(ARGUMENTS, (1, 2)) == dict(zip(ARGUMENTS, found, strict=True))


def test_a_class_may_keep_its_objects_by_weak_references(executor):
    """Those that the function brings anyway are in the table there."""

    class Session:
        def __init__(self, name):
            self.opened[name] = self

    Session.opened = WeakValueDictionary()
    kept = Session("kept")
    assert run(executor, lambda _: Session.opened["kept"] is kept, 0)


def test_hooks_of_the_script_run_once(executor):
    """An ``__init_subclass__`` or a metaclass that takes arguments, or looks at attributes, has run here; in a worker it runs for new classes only."""

    class Meta(abc.ABCMeta):
        def __new__(mcs, name, bases, attributes, *, tag, **options):
            more = {"tag": tag, "size": len(attributes["parts"])}
            return super().__new__(mcs, name, bases, attributes | more, **options)

        def __init__(cls, *args, tag, **options):
            super().__init__(*args)

    class Plugin(Generic[T]):
        def __init_subclass__(cls, *, title, **options):
            super().__init_subclass__(**options)
            cls.title, cls.does = title, cls.run.__name__

    class Export(Plugin[int], title="export", metaclass=Meta, tag=1):
        parts = ("a", "b")

        def run(self):
            pass

    def told(cls):
        return cls.title, cls.does, cls.tag, cls.size

    def derive(_):
        class Later(Export, title="later", tag=2):
            parts = ("c",)

        return told(Export), told(Later)

    assert derive(0) == run(executor, derive, 0)


def test_a_metaclass_of_the_script_may_refuse_to_set_attributes(executor):
    """The recipe for constants: here it has accepted them, so in a worker it is not asked. There it refuses new ones as it does here."""

    class Constant(type):
        def __setattr__(cls, name, value):
            raise TypeError("constant")

    class Limits(metaclass=Constant):
        LONGEST = 7

        def __hash__(self):
            return 1

    def use(_):
        with pytest.raises(TypeError, match="constant"):
            Limits.LONGEST = 8
        return Limits.LONGEST

    assert 7 == run(executor, use, 0)


def test_a_metaclass_of_the_script_may_refuse_to_delete_attributes(executor):
    """As a class is made, some of its attributes, and those of its bases, are set early, deleted, and set again in order."""

    class Lasting(type):
        def __delattr__(cls, name):
            raise TypeError("lasting")

    class Base(metaclass=Lasting):
        def __init_subclass__(cls, *, size):
            cls.size = size

    class Box(Base, size=3):
        def __hash__(self):
            return 1

    assert (3, 1) == run(executor, lambda _: (Box.size, hash(Box())), 0)


class Noting(type):
    """A metaclass that workers import."""

    noted = set()  # noqa: RUF012  # of the metaclass: of each process

    def __init__(cls, *args):
        super().__init__(*args)
        Noting.noted.add(cls.__name__)

    def __setattr__(cls, name, value):
        super().__setattr__(name, value)
        Noting.noted.add(name)


def test_a_metaclass_that_workers_have_is_told_of_each_class(executor):
    """Such as that of an object-relational mapper, which has its own records of classes and their attributes."""

    class Table(metaclass=Noting):
        def name(self):
            return "table"

    assert {"Table", "name"} <= run(executor, lambda _: type(Table).noted, 0)


def test_what_a_class_says_again_counts_against_its_other_bases(executor):
    """An attribute that a class sets to what its base has already is its own, as for a subclass with several bases."""

    class Base:
        verbose = False

    class Loud(Base):
        verbose = True

    class Quiet(Base):
        verbose = False

    class Both(Quiet, Loud):
        pass

    assert not run(executor, lambda item: Both.verbose, 0)


def test_typed_dicts_of_each_kind_travel(executor):
    """A TypedDict that extends another, or was made by a call, can be named where a task's function is annotated, and used."""

    class Point(TypedDict):
        x: int

    class Named(Point, total=False):
        name: str

    class Box(TypedDict, Generic[T]):
        content: T

    Pair = TypedDict("Pair", {"a": int})  # noqa: UP013  # this form is what is tested

    def make(x: int) -> tuple[Named, Pair]:
        return Named(x=x, name="origin"), Pair(a=x)

    results = run_parallel(make, [0], executor=executor)
    assert ({"x": 0, "name": "origin"}, {"a": 0}) == results[0]
    keys = run_parallel(lambda _: (Named.__required_keys__, Pair.__required_keys__), [0], executor=executor)
    assert ({"x"}, {"a"}) == keys[0]
    assert run(executor, lambda _: Box[int].__origin__.__mro__[1] is Generic, 0)


def test_classes_have_their_full_names_there(executor):
    """A class within a class or a function has the same ``repr`` in a worker."""

    class Inner:
        pass

    name = "test_classes_have_their_full_names_there.<locals>.Inner"
    assert name == run(executor, lambda item: Inner.__qualname__, 0)


def test_who_was_registered_with_an_abstract_class_is_one_of_it(script, executor):
    """A class registered with an abstract class counts as a subclass in workers, even if it was registered later."""
    model, other = script["Model"], script["Settings"]

    def is_one(item):
        return issubclass(other, model)

    assert not run(executor, is_one, 0)
    model.register(other)
    model.extra = 1
    assert run(executor, is_one, 0)


@pytest.mark.all
def test_under_joblib_and_in_a_pool_of_others(script):
    """The same holds under joblib and in foreign pools, whose workers stay as well."""
    register()
    read, settings = script["read_too"], script["Settings"]
    # One that is forked would have the classes of the script themselves.
    spawned = ProcessPoolExecutor(1, mp_context=mp.get_context("spawn"))
    with parallel_config(backend="parallelkit", n_jobs=2), spawned as pool:
        for rate in (1, 2, 1):
            settings.rate = rate
            assert {rate} == set(Parallel(batch_size=1)(delayed(read)(item) for item in range(4)))
            assert rate == run(pool, read, 0)
            assert rate == run(pool, lambda item: item.rate, settings)


def test_one_parallel_of_joblib_for_several_calls(script):
    """With one Parallel of joblib, a change between two calls is there in the second."""
    register()
    read, settings = script["read_too"], script["Settings"]
    with parallel_config(backend="parallelkit", n_jobs=2), Parallel() as parallel:
        for rate in (1, 2, 1):
            settings.rate = rate
            assert {rate} == set(parallel(delayed(read)(item) for item in range(4)))


def test_threads_that_receive_the_first_classes_together_share_what_is_known_of_them(monkeypatch):
    """Threads of a worker that receive their first classes at the same time share one register of classes."""
    made = _classes._made()
    together = threading.Barrier(2)

    class Slow(WeakKeyDictionary):
        def __init__(self):
            super().__init__()
            together.wait(10)

    monkeypatch.setattr(_classes, "_once", {})
    monkeypatch.setattr("weakref.WeakKeyDictionary", Slow)
    one, other = run_parallel(lambda _: _classes._made(), range(2), max_workers=2).values()
    assert one is other is not made


def test_a_class_that_is_registered_with_an_abstract_one_of_python_is_so_in_workers(running):
    """As in ``Sequence.register(Row)``: only the abstract class knows it. One that is not stays without."""

    class Row:
        pass

    class Share:
        pass

    Sequence.register(Row)
    Number.register(Share)

    def kinds(item):
        return [isinstance(row, kind) for row in (item, Row(), Share()) for kind in (Sequence, Number)]

    for item, expected in (Row(), [True, False]), (Share(), [False, True]):
        found = run_parallel(kinds, [item], executor=running)[0]
        assert [*expected, True, False, False, True] == found
