"""What a worker is sent once for a run: functions and classes of the script, which calls and items name by number."""

import gc
from dataclasses import MISSING
from weakref import ref

import pytest

from parallelkit import Task, run_parallel
from parallelkit._executors._process._arrivals import Arrivals
from parallelkit._executors._process._definitions import Definitions
from parallelkit._executors._process._lane import Lane
from parallelkit._executors._process._taught import Taught
from parallelkit._worker import _call_functions
from parallelkit._worker._call_functions import cached_class, define, forget
from parallelkit._worker._channel import (
    CLASS,
    DEFINITION,
    DEFINITIONS,
    FORGET,
    HEADER,
    JOB,
    WORD,
    GarbageError,
)
from parallelkit._worker._result_classes import SMALL, TOLD
from parallelkit._worker._travel import pack_by_value

SCRIPT = """
import os, sys

class Part:
    def __init__(self, number):
        self.number = number

def plus(part):
    if part.number % 7 == 3:
        os._exit(1)
    return Part(part.number + 1)

def keep(part):
    sys.kept = type(part)

def kept_one(_):
    return sys.kept(5)

class Running:
    def __setstate__(self, state):
        self.values = run()

    def __getstate__(self):
        return 1

def running_and_kept(_):
    return Running(), sys.kept(5)

def exclaimed(fn):
    return lambda holder: fn(holder) + "!"

class Base:
    def name(self):
        return "base"

class Holder(Base):
    def name(self):
        return "own"

    @exclaimed
    def loud(self):
        return "loud"

    def __private(self):
        return "private"

    def hold(self):
        return [self.name, super().name, self.loud, self.__private]

def opened(held):
    return [method() for method in held], held
"""


class Sent:
    """A wire that notes the kinds of frames."""

    def __init__(self):
        self.kinds = []

    def send(self, message):
        self.kinds.append(HEADER.unpack_from(message)[1])

    def send_payload(self, kind, *_):
        self.kinds.append(kind)


def test_a_worker_is_sent_each_definition_once():
    """A worker gets the function of a run and then, before the items that need them, what has been defined since the last batch."""
    taught, lane = Taught(sent := Sent()), Lane(7, b"job", False)
    assert taught.teach(lane)
    lane.definitions.reference(b"one")
    lane.definitions.reference(b"two")
    assert not taught.teach(lane)
    lane.definitions.reference(b"two")
    assert not taught.teach(lane)
    taught.forget(lane)
    taught.forget(lane)
    assert taught.teach(lane)
    assert [JOB, DEFINITION, DEFINITION, FORGET, JOB, DEFINITION, DEFINITION] == sent.kinds


def test_the_numbers_are_those_of_the_lane():
    """Equal bytes have one number, which no other run has; a run has not more than so many, and the rest of its items bring the bytes."""
    definitions = Definitions(2)
    blobs = [bytes([at]) for at in range(DEFINITIONS + 1)]
    numbers = [definitions.reference(blob) for blob in blobs * 2]
    assert [*range(2 * DEFINITIONS, 3 * DEFINITIONS), blobs[-1]] * 2 == numbers
    assert blobs[:-1] == definitions.blobs


def test_a_worker_drops_the_definitions_of_a_run_that_is_over(script, monkeypatch):
    """What the runs have defined does not pile up in workers that stay."""
    monkeypatch.setattr(_call_functions, "_defined", defined := {})
    blob = pack_by_value(script["Part"], None)[::-1]
    for number in (DEFINITIONS - 1, DEFINITIONS, 2 * DEFINITIONS - 1, 2 * DEFINITIONS):
        define(number, blob)
    assert script["Part"] is cached_class(DEFINITIONS)
    forget(1)
    assert [DEFINITIONS - 1, 2 * DEFINITIONS] == list(defined)


def test_a_new_worker_is_sent_what_the_one_before_it_had(script):
    """Where items kill their workers, those that take their places know the classes, too."""
    results = run_parallel(
        script["plus"], map(script["Part"], range(30)), executor="processes", max_workers=2
    )
    assert [3, 10, 17, 24] == list(results.failures)
    values = results.to_dict(default=None)
    assert [n + 1 for n in range(30) if n % 7 != 3] == [value.number for value in values.values() if value]
    assert {script["Part"]} == {type(value) for value in values.values() if value}


def test_a_run_of_more_functions_than_are_defined(executor):
    """Tasks whose functions are all different, far more than have numbers, call their own."""
    exec("def adder(n): return lambda x: x + n", scope := {"__name__": "__main__"})
    tasks = [Task(scope["adder"](n), 1000) for n in range(3 * DEFINITIONS)]
    assert list(range(1000, 1000 + len(tasks))) == run_parallel(tasks, executor=executor).values()


def test_a_method_is_the_same_in_all_items_and_results(executor, script):
    """What is bound to an object of the script is not what the object has under that name at the other end: it may be a base's, decorated or private."""
    names = ["own", "base", "loud!", "private"] * 2  # each the second time after the class has come
    items = [[method] for _ in range(2) for method in script["Holder"]().hold()]
    values = run_parallel(script["opened"], items, executor=executor).values()
    assert [([name], [name]) for name in names] == [
        (told, [method() for method in back]) for told, back in values
    ]


def test_the_mark_of_a_missing_default_stays_the_same_object(executor, script):
    """Items of the script's class may have ``dataclasses.MISSING``, which is compared by identity."""
    items = [script["Part"](MISSING) for _ in range(3)]
    exec(
        "def given(part): return part.number is not MISSING, part",
        scope := {"MISSING": MISSING, "__name__": "__main__"},
    )
    for given, part in run_parallel(scope["given"], items, executor=executor).values():
        assert not given
        assert part.number is MISSING


@pytest.fixture
def bereft(executor, script):
    """The script, without a class that the worker still has."""
    run_parallel(script["keep"], [script["Part"](1)], executor=executor)
    gone = ref(script.pop("Part"))
    gc.collect()
    assert gone() is None
    return script


@pytest.mark.parametrize("count", [1, 3])
def test_the_caller_gets_an_object_of_a_class_that_it_has_no_more(executor, bereft, count):
    """A worker that stays may return objects of a class that the script has deleted: these have a class like that one."""
    values = run_parallel(bereft["kept_one"], range(count), executor=executor).values()
    assert [("Part", 5)] * count == [(type(value).__name__, value.number) for value in values]
    assert 1 == len({type(value) for value in values})


def test_a_result_whose_own_code_has_results_unpickled(executor, bereft):
    """A result that runs tasks of its own when it is unpickled does not mix up the classes of the two runs."""
    bereft["run"] = lambda: run_parallel(
        type("Other", (), {}), [()], star=True, executor="processes"
    ).values()
    ((running, kept),) = run_parallel(bereft["running_and_kept"], [0], executor=executor).values()
    assert ["Other", "Part"] == [type(value).__name__ for value in (*running.values, kept)]


def test_a_worker_that_tells_of_too_many_or_too_large_classes_writes_garbage():
    """What a worker may send beside its results is bounded."""
    arrivals = Arrivals(None, memoryview(b""))
    with pytest.raises(GarbageError, match="class 0 of results, of 65537 bytes"):
        arrivals.accept(CLASS, WORD.pack(0) + bytes(SMALL + 1), 0, 1)
    with pytest.raises(GarbageError, match="class 1 of results"):
        arrivals.accept(CLASS, WORD.pack(1) + b"x", 0, 1)
    for number in range(TOLD):
        arrivals.accept(CLASS, WORD.pack(number) + b"x", 0, 1)
    with pytest.raises(GarbageError, match="class 64 of results"):
        arrivals.accept(CLASS, WORD.pack(TOLD) + b"x", 0, 1)
