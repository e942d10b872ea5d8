"""Classes of the script that many items or results bring: they are packed once, apart, and known at the other end."""

import gc
from weakref import ref

import numpy as np
import pytest

from parallelkit import ProcessExecutor, Task, run_parallel
from parallelkit._executors._process._arrivals import Arrivals
from parallelkit._worker._by_name import dump_by_name
from parallelkit._worker._channel import CLASS, WORD
from parallelkit._worker._result_classes import TOLD, ResultClasses, find_class, reading
from parallelkit._worker._travel import Apart, pack, pack_by_value, unpack

SCRIPT = """
import gc, threading

from parallelkit._worker._result_classes import ResultClasses

class Part:  # notes in a file each time that it is packed
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        with open(self.path, "a") as file:
            file.write("x")
        return Part, (self.path,)

class Whole:
    part = ballast = None

def bring(item):
    return type(item.part).__name__, len(item.ballast)

def give(item):
    if item == "lock":
        Whole.part = threading.Lock()
    return Whole()

def known_in_results(_):
    return [len(one.known) for one in gc.get_objects() if type(one) is ResultClasses]

model = None

class Reader:
    def read(self):
        return model

def load_and_read(item):
    global model
    model = "loaded"
    return Reader().read(), item.read()
"""


@pytest.fixture
def executor(running):
    """Of one worker, which has run other tests."""
    return running


@pytest.fixture
def new():
    """An executor of one worker for a test that leaves blocks for the next items."""
    with ProcessExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize("options", [{}, {"priority": lambda item: 0}])
@pytest.mark.parametrize("name", ["bring", "give"])
def test_a_class_is_packed_once_for_many_objects_of_it(name, options, script, executor, tmp_path):
    """A class of the script is packed once for many items or results that are objects of it, not with each, also if priorities decide and they are packed one by one."""
    whole, log = script["Whole"], tmp_path / "log"
    whole.part, whole.ballast = script["Part"](str(log)), b""
    results = run_parallel(script[name], [whole() for _ in range(100)], executor=executor, **options)
    assert {("Part", 0) if name == "bring" else whole} == {
        value if name == "bring" else type(value) for value in results.values()
    }
    assert len(log.read_text()) < 50


@pytest.mark.parametrize("ballast", [bytes(100_000), np.zeros(100_000)], ids=["bytes", "array"])
def test_a_large_class_travels_with_each_object(ballast, script, new):
    """A class that refers to more than is kept can be sent and returned, too."""
    whole = script["Whole"]
    whole.part, whole.ballast = None, ballast
    assert [("NoneType", 100_000)] * 2 == run_parallel(script["bring"], [whole()] * 2, executor=new).values()
    given = run_parallel(script["give"], range(2), executor=new).values()
    assert [whole, whole] == list(map(type, given))


def test_a_class_that_a_task_has_given_what_cannot_be_pickled(script, executor):
    """A task that keeps a connection, say, in an attribute of its class can return objects of it: the caller has the class."""
    whole, give = script["Whole"], script["give"]
    assert [whole] * 2 == [type(it) for it in run_parallel(give, ["lock"] * 2, executor=executor).values()]
    assert whole.part is None


def test_more_classes_than_are_kept_travel(executor):
    """Objects of more classes than a worker keeps packed arrive, and come back as objects of the script's classes."""
    scope = {"__name__": "__main__"}
    exec("kinds = [type(f'Kind{n}', (), {'n': n, '__module__': '__main__'}) for n in range(100)]", scope)
    items = [kind() for kind in scope["kinds"]] * 2
    scope["kinds"].clear()
    results = run_parallel(lambda item: item, items, executor=executor).values()
    assert [type(item) for item in items] == [type(result) for result in results]


def test_a_class_in_results_slows_down_no_later_run(script, executor):
    """Objects in results are looked up among the script's classes only while runs go on whose results had some: it takes longer than to pickle a tuple."""
    run_parallel(script["give"], [0], executor=executor)
    for _ in range(2):  # the worker may begin the first before it has heard that the other run is over
        known = run_parallel(script["known_in_results"], [0], executor=executor).values()
    assert [[0]] == known


def test_classes_that_are_told_are_kept():
    """Results of dozens of classes, such as the kinds of events in a log, pack each class once; of more, those met last are known."""
    exec(
        "kinds = [type(f'Kind{n}', (), {'__module__': '__main__'}) for n in range(TOLD + 2)]",
        scope := {"TOLD": TOLD},
    )
    packed = pack(scope.pop("kinds"))
    gc.collect()
    kinds = unpack(packed)
    told = {}
    classes = ResultClasses(told.__setitem__)
    for kind in kinds[:TOLD] * 2:
        pack_by_value(kind(), None, editions=classes)
    assert (TOLD, TOLD) == (len(told), len(classes.known))
    for kind in kinds[TOLD:]:
        pack_by_value(kind(), None, editions=classes)
    assert set(kinds[2:]) == set(classes._kept)
    assert set(map(id, kinds[2:])) == set(classes.known), "other objects may have the ids of the rest"


def test_a_result_whose_class_is_gone_has_one_made_anew(script, monkeypatch):
    """A result whose class the caller has dropped meanwhile has a class like it."""
    packed = pack(script["Whole"])
    script.clear()
    gc.collect()
    made = unpack(packed)
    told = []
    classes = ResultClasses(lambda _, packed: told.append(packed))
    sent = [pack_by_value(made(), None, editions=classes) for _ in range(2)]
    assert (sent[0], 1) == (sent[1], len(told))
    assert type(unpack(sent[0])) is made
    gone = ref(made)
    del made, classes
    gc.collect()
    assert gone() is None
    monkeypatch.setattr(reading, "told", told)
    first, second = map(unpack, sent)
    assert ("Whole", None) == (type(first).__name__, first.part)
    assert type(first) is type(second)


def test_a_class_that_a_signal_kept_from_being_used_is_taken_for_no_other(monkeypatch):
    """A task's alarm may raise just after a class was sent; the next class has the number, and is the one that is made anew."""
    exec("kinds = [type(name, (), {'__module__': '__main__'}) for name in ('Struck', 'Next')]", scope := {})
    packed = pack(scope.pop("kinds"))
    gc.collect()
    made, arrivals, alarms = unpack(packed), Arrivals(None, memoryview(b"")), [RuntimeError("an alarm")]

    def tell(number, packed):
        arrivals.accept(CLASS, WORD.pack(number) + packed, 0, 1)
        if alarms:
            raise alarms.pop()

    classes = ResultClasses(tell)
    with pytest.raises(RuntimeError, match="an alarm"):
        pack_by_value(made[0](), None, editions=classes)
    sent = pack_by_value(made[1](), None, editions=classes)
    del made, classes
    gc.collect()
    monkeypatch.setattr(reading, "told", arrivals.classes)
    assert type(unpack(sent)).__name__ == "Next"


def test_a_function_shares_its_globals_with_the_classes_that_it_names(script, executor):
    """What a function assigns to a global of the script is seen by the methods of a class that it names, also if it comes with its call."""
    task = Task(script["load_and_read"], script["Reader"]())
    assert ("loaded", "loaded") == run_parallel([task], executor=executor)[0]


def test_a_class_that_the_caller_has_no_more_is_made_of_what_the_worker_has_packed():
    """If a task has put into it what cannot be pickled, there is none."""

    class Local:
        size = 7

    made = find_class("of no class", pack_by_value(Local, None)[::-1])
    assert (made.__name__, made.size) == ("Local", 7)
    with pytest.raises(LookupError, match="no longer in the caller"):
        find_class("of no class", b"")


def test_plain_pickles_name_a_known_class_by_what_stands_for_it():
    """Large arrays beside it stay apart."""

    class Local:
        pass

    apart = Apart()
    blob = dump_by_name((Local, np.zeros(1 << 17)), apart, {id(Local): (str, ("stand-in",))})
    assert 1 == len(apart.buffers)
    assert "stand-in" == unpack(blob, apart.buffers)[0]
