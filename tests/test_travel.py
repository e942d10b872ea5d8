import codecs
import copyreg
import csv
import decimal
import enum
import errno
import faulthandler
import importlib
import io
import linecache
import logging
import math
import multiprocessing as mp
import multiprocessing.connection
import multiprocessing.managers
import os
import pickle
import posix
import re
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import types
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, make_dataclass
from functools import cached_property, lru_cache, partial, partialmethod, singledispatch, singledispatchmethod
from pathlib import Path
from typing import Generic, NewType, ParamSpec, TypeVar, TypeVarTuple, get_type_hints

import cloudpickle
import numpy as np
import port_driver
import pytest
import remote_tasks as far
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from port_driver import drive, drive_rest, opened

import parallelkit
from parallelkit import Failure, ProcessExecutor, Task, TaskFailures, run_parallel
from parallelkit._died import WorkerDied
from parallelkit._errors import RemoteError, TaskTimeout
from parallelkit._executors._process._culprit import advice
from parallelkit._executors._process._handle import STANDSTILL
from parallelkit._executors._process._setup import _encoding
from parallelkit._executors._processes import ProcessEngine
from parallelkit._worker import _faults, _forms, _memmaps, _parts, _tracebacks, _travel
from parallelkit._worker._arrival import blame
from parallelkit._worker._logs import HEAVY
from parallelkit._worker._travel import describe

GUARD = threading.Lock()
PageId = NewType("PageId", int)
UserId = NewType("UserId", int)
Params = ParamSpec("Params")
Shape = TypeVarTuple("Shape")


@pytest.fixture(scope="module")
def engine():
    engine = ProcessEngine(1)
    drive(
        engine, far.nothing, [0]
    )  # its thread and process are there before the first test, and until the last
    yield engine
    engine.close()


# Values


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        2**63 - 1,
        -(2**63),
        2**63,
        -(2**200),
        0.5,
        math.inf,
        -0.0,
        "",
        "text",
        "ß" * 5000,
        b"bytes",
        (),
        [1, [2]],
        {"a": {1, 2}},
        3 + 4j,
        ValueError("a value"),
        range(3),
        os.path.join,
        enum.auto,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_value_comes_back_as_it_is(engine, value):
    """A value of any kind goes to the worker and comes back unchanged, with its type."""
    (back,) = drive(engine, far.give_back, [value]).values.values()
    assert (type(value), repr(value)) == (type(back), repr(back))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.tuples(st.text())
        )
    )
)
def test_any_mixture_comes_back(engine, items):
    """Values of any kinds may follow one another in a batch."""
    assert repr(dict(enumerate(items))) == repr(
        dict(sorted(drive(engine, far.give_back, items).values.items()))
    )


@pytest.mark.parametrize(
    "size",
    [10_000, 200_000, 262_144, 1_000_000, 1_100_000, pytest.param(5_000_000, marks=pytest.mark.all)],
)
def test_size_does_not_matter(size):
    """Values come back at all sizes, also around those at which the way through the channel changes, and without delay.

    There was a delay once: a wake-up received together with the previous descriptor was lost.
    """
    began = time.monotonic()
    items = [letter * (size + number) for number, letter in enumerate((b"a", "b", b"c", "d"))]
    own = ProcessEngine(1)
    try:
        assert dict(enumerate(items)) == drive(own, far.give_back, items).values
    finally:
        own.close()
    assert time.monotonic() - began < STANDSTILL


def test_many_medium_values_come_back(engine):
    """Values that together exceed the shared memory come back, as fast as the worker makes them."""
    seen = drive(engine, partial(far.repeat, "x" * 1000), range(300))
    assert {index: "x" * 1000 * index for index in range(300)} == seen.values


@pytest.mark.all
def test_value_of_several_gigabytes(monkeypatch):
    """A value that exceeds every 32-bit length on the way comes back; its memory is freed with its engine."""
    monkeypatch.setattr(port_driver, "PATIENCE", 240.0)
    faulthandler.dump_traceback_later(
        300.0, exit=True, file=sys.__stderr__
    )  # it takes as long as one that hangs
    size = (1 << 32) + 1000
    own = ProcessEngine(1)
    try:
        (back,) = drive(own, far.long_bytes, [size]).values.values()
        assert size == len(back)
    finally:
        own.close()


def test_float_nan_and_int_subclasses_keep_their_type(engine):
    """A NaN comes back as one, and a subclass of int keeps its type."""

    class Count(int):
        pass

    seen = drive(engine, far.give_back, [math.nan, Count(3), enum.IntEnum("Colour", ["RED"]).RED]).values
    assert math.isnan(seen[0])
    assert isinstance(seen[1], Count)
    assert "RED" == seen[2].name


def test_tasks_share_no_mutable_object(engine):
    """If several items refer to one object, each task has its own copy, even within a batch."""
    shared = [0]
    seen = drive(engine, append_one, [(shared, number) for number in range(300)])
    assert {index: [0, index] for index in range(300)} == seen.values
    assert [0] == shared


def append_one(item):
    values, number = item
    values.append(number)
    return values


def test_value_that_cannot_be_pickled_fails_its_task(engine):
    """The failure names task, type and cause, and is not retried; other tasks are not affected."""
    seen = drive(engine, partial(far.on, {2: (make_lock, None)}), range(5))

    assert [2] == list(seen.failures)
    ended = seen.failures[2]
    assert isinstance(ended.error, TypeError)
    assert ended.final
    for part in ("task 2", "_thread.lock", "cannot pickle", "executor='threads'"):
        assert part in str(ended.error)


def make_lock(_):
    return threading.Lock()


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError(), OSError(errno.ENOSPC, "No space")], ids=repr)
def test_value_whose_pickling_exits_or_finds_no_room_fails_its_task(engine, error):
    """What has no fault of the value's type is the error of the task, and a retry may help; its worker goes on."""
    seen = drive(engine, lambda item: Failing(error) if item == 1 else item, range(3))

    assert [(repr(error), False)] == [(repr(ended.error), ended.final) for ended in seen.failures.values()]
    assert {0: 0, 2: 2} == seen.values


class Failing:
    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


def test_coroutine_as_value_says_what_to_pass(capfd):
    """A plain function that returns a coroutine fails with advice, and without a warning."""

    async def later():
        pass

    failures = run_parallel(lambda item: later(), [0], executor="processes").failures
    advice = "have the task call asyncio.run, or pass the coroutine function itself (async def)"
    assert advice in str(failures[0].error)
    assert "" == capfd.readouterr().err


@pytest.mark.parametrize("wrap", [int, lambda number: (number,)], ids=["numbers", "tuples"])
def test_value_that_breaks_on_unpickling_fails_its_task(engine, wrap):
    """A value whose unpickling raises in the parent fails its task for good; those that came with it are kept."""
    bombs = {wrap(number): (far.Bomb, "out") for number in (20, 21, 50)}
    seen = drive(engine, partial(far.on, bombs), map(wrap, range(100)))

    assert [20, 21, 50] == sorted(seen.failures)
    assert {number: wrap(number) for number in range(100) if number not in seen.failures} == seen.values
    for index, ended in seen.failures.items():
        assert f"task {index} cannot be unpickled" in str(ended.error)
        assert isinstance(ended.error.__cause__, SystemExit)
        assert ended.final


# Items


def test_item_that_cannot_be_pickled_fails_its_task(engine):
    """A task whose item cannot be pickled never starts; the failure names task, type and what to do."""
    seen = drive(engine, far.give_back, [1, threading.Lock(), 3])

    assert {0: 1, 2: 3} == seen.values
    ended = seen.failures[1]
    assert (None, None, True) == (ended.started, ended.worker, ended.final)
    for part in ("task 1", "_thread.lock", "executor='threads'"):
        assert part in str(ended.error)


def test_item_whose_pickling_exits_fails_its_task(engine):
    """Even a SystemExit in an item's ``__reduce__`` does not end the caller."""
    (ended,) = drive(engine, far.give_back, [Unreducible()]).failures.values()
    assert "SystemExit" in str(ended.error)


class Unreducible:
    def __reduce__(self):
        raise SystemExit(3)


@pytest.mark.parametrize(("how", "error"), [("in", SystemExit), ("die", WorkerDied), ("hang", TaskTimeout)])
def test_item_that_breaks_on_unpickling_fails_its_task(how, error):
    """Unpickling an item is part of the attempt: an error, a crash or a hang in it is that task's."""
    own = ProcessEngine(1)
    try:
        with opened(own, far.nothing) as port:
            port.start([(0, 1, far.Bomb(""), None), (1, 1, far.Bomb(how), 0.1 if how == "hang" else None)])
            port.start([(2, 1, far.Bomb(""), None)])
            seen = drive_rest(port, 3)
    finally:
        own.close()

    assert [1] == list(seen.failures)
    assert isinstance(seen.failures[1].error, error)
    assert seen.failures[1].started is not None


@pytest.mark.parametrize(
    ("what", "tasks", "options"),
    [
        ("the item", (repr, [far.Unready(3, "no")]), {}),
        ("the function and its arguments", ([Task(repr, far.Unready(3, "no"))],), {}),
        ("the function and the arguments of the run", (print, [1]), {"args": (far.Unready(3, "no"),)}),
    ],
)
def test_an_error_of_unpickling_says_so(what, tasks, options, running):
    """A note tells that the error is one of unpickling, which its traceback does not, and of what."""
    error = run_parallel(*tasks, executor=running, **options).failures[0].error
    assert (TypeError, f"this was raised when a worker process unpickled {what}") == (
        type(error),
        error.__notes__[0],
    )


class Sentinel:
    def __reduce__(self):
        return "MISSING"


MISSING = Sentinel()


def test_what_does_not_survive_being_sent_by_value_belongs_in_a_module(monkeypatch):
    """Nor can a worker look up in the script what is pickled by its name. The error says what to do."""

    class Fragile:
        def __reduce__(self):
            return far.Unready, ("no",)

    class ByText:  # as toolz.curry
        def __reduce__(self):
            return eval, ("getattr(__import__('__main__'), 'nowhere')",)

    fragile = Fragile()
    monkeypatch.setattr(sys.modules["__main__"], "MISSING", MISSING, raising=False)
    monkeypatch.setattr(Sentinel, "__module__", "__main__")
    by_text, by_name, inside = (repr, [ByText()]), (repr, [MISSING]), (lambda _: MISSING, [0])
    for tasks in by_text, by_name, inside, (lambda _: fragile, [0]):
        error = run_parallel(*tasks, executor="processes", max_workers=1).failures[0].error
        told = "; if it is the script's, define it in a module, which workers import"
        assert [True] == [note.endswith(told) for note in error.__notes__ if "unpickled" in note]


def takes_one(given):
    raise OSError(5, given)


class Broken:
    """Cannot be unpickled."""

    def __reduce__(self):
        return takes_one, ("no",)


BROKEN_USERS = """
import json
def inner(): return json, broken
def used(): return inner(), inner
class Owner:
    here = broken
    def method(self): return broken
def of_class(): return json, Owner
def three(ahead, broken, behind):
    def used(): return ahead, broken, behind
    return used
def four(ahead, before, broken, behind):
    def used(): return ahead, before, broken, behind
    return used
three, four = three(1, broken, 2), four(1, str, broken, 2)
one = lambda: broken
default = lambda given=broken: given
"""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("used", "broken, which __main__.inner uses"),
        ("of_class", "Owner, which __main__.of_class uses"),
        ("three", "broken, which __main__.three.<locals>.used uses"),
        ("four", "broken, which __main__.four.<locals>.used uses"),
        ("one", "broken, which __main__.<lambda> uses"),
        ("default", None),
    ],
)
def test_the_variable_that_cannot_be_unpickled_is_named(name, told):
    """The innermost that is known."""
    scope = {"__name__": "__main__", "broken": Broken()}
    exec(BROKEN_USERS, scope)
    exec(f"def fn(item): return {name}", scope)
    usual = f"{name}, which __main__.fn uses" if told is None else told
    told = f"{usual}, is to blame: import it, or create it, inside the task"
    assert told == blame(_travel.pack(scope["fn"]), OSError)


def test_an_error_of_unpickling_names_the_variable(running):
    """Also where the function is too large to be kept in a worker, or comes with a call."""
    scope = {"__name__": "__main__", "broken": Broken(), "ahead": "a"}
    exec("def fn(item): return ahead, broken", scope)
    small = (
        run_parallel([Task(scope["fn"], 1)], executor=running),
        run_parallel(scope["fn"], [1], executor=running),
    )
    scope["ahead"] = "a" * 100_000
    for results in *small, run_parallel(scope["fn"], [1], executor=running):
        told, usual, _ = results.failures[0].error.__notes__
        assert "broken, which __main__.fn uses, is to blame: import it, or create it, inside the task" == told
        assert "unpickled the function" in usual


def test_what_fails_in_a_librarys_function_is_blamed_on_what_uses_that():
    """As with pydantic's ``validate_call``, whose function is not the program's to change."""
    library = {"__name__": "json.gone", "broken": Broken()}
    exec("def wrap():\n def wrapper(): return broken\n return wrapper\nwrapped = wrap()", library)
    scope = {"__name__": "__main__", "wrapped": library["wrapped"]}
    exec("def fn(item): return wrapped()", scope)
    blob = _travel.pack(scope["fn"])
    assert blame(blob, OSError).startswith("wrapped, which __main__.fn uses, is")
    assert "" == blame(blob, TypeError), "it was raised for another reason"
    assert "" == blame(_travel.pack(len), OSError), "it does not fail again"
    assert "" == blame(_travel.pack([Broken()]), OSError), "there is no function"


def test_a_class_that_does_not_survive_being_sent_by_value_belongs_in_a_module():
    """The error says so, whether the class comes with items, in the function, or in both, as a ``msgspec.Struct`` of the script may."""

    class Plain:
        made = far.Unready("no", "no")

    for task, item in (lambda item: item, Plain()), (lambda item: Plain, 0), (lambda item: Plain, Plain()):
        error = run_parallel(task, [item], executor="processes", max_workers=1).failures[0].error
        told = "define it in a module, which workers import"
        assert [True] == [note.endswith(told) for note in error.__notes__ if "unpickled" in note]


class Forwarding:
    """Asks itself for ``inner``, without end, while that is not set yet, as pickle does not call ``__init__``."""

    def __init__(self):
        self.inner = {}

    def __getattr__(self, name):
        return self.inner[name]


def test_a_getattr_that_asks_itself_is_blamed():
    """A RecursionError of unpickling comes from a ``__getattr__``, and would from one in a module, too; the note says what to do there."""
    for options in {"items": [Forwarding()]}, {"items": [0], "args": (Forwarding(),)}:
        (failure,) = run_parallel(
            lambda *_: 0, executor="processes", max_workers=1, **options
        ).failures.values()
        assert isinstance(failure.error, RecursionError)
        assert (
            failure.error.__notes__[0]
            .partition("; ")[2]
            .startswith("a __getattr__ must raise AttributeError for")
        )


# Functions


def test_function_that_cannot_be_pickled_is_refused(engine):
    """``open`` raises a TypeError that names the argument, the object and what to do."""
    lock = threading.Lock()

    def locked():
        return lock

    def endless(item):
        return late, endless(item), [locked() for _ in item]

    for job, name in (
        ({"fn": partial(far.add, lock)}, "fn"),
        ({"fn": lambda item: lock}, r"lock, which test_travel\.\S+\.<lambda> uses,"),
        ({"fn": endless}, r"lock, which test_travel\.\S+\.locked uses,"),
        ({"fn": lambda item: [GUARD for _ in item]}, r"GUARD, which test_travel\.\S+\.<lambda> uses,"),
        ({"fn": far.add, "args": (1, lock)}, r"args\[1\]"),
        ({"fn": far.add, "kwargs": {"factor": lock}}, r"kwargs\['factor'\]"),
    ):
        fn = job.pop("fn")
        with (
            pytest.raises(TypeError, match=f"^{name} cannot be sent.*executor='threads'"),
            opened(engine, fn, **job),
        ):
            pass
    late = None  # the cell was empty so far


def test_a_call_that_cannot_be_pickled_is_blamed_part_by_part():
    """If a Task or a submitted call cannot be pickled, the error names the part that cannot, as for a run's function and arguments."""
    lock = threading.Lock()

    def locked():
        return lock

    class Holder:
        def __init__(self):
            self.lock = lock

        def give(self):
            return 1

    tasks = {
        r"lock, which test_travel\.\S+\.locked uses, is an object of type _thread.lock": Task(locked),
        r"lock, which test_travel\.\S+\.Holder\.__init__ uses \(its class .*\), is an object of type _thread.lock": Task(
            Holder().give
        ),
        r"args\[1\] is an object of type _thread.lock": Task(pow, 1, lock),
        r"kwargs\['mod'\] is an object of type _thread.lock": Task(pow, 1, 2, kwargs={"mod": lock}),
        r"args\[0\] is an object of type \S+Exits": Task(abs, Exits()),
    }
    with ProcessExecutor(1) as executor:
        futures = [executor.submit(task.fn, *task.args, **task.kwargs) for task in tasks.values()]
        errors = [future.exception() for future in futures]
        errors += [failure.error for failure in run_parallel(tasks, executor=executor).failures.values()]
    for part, error in zip([*tasks, *tasks], errors, strict=True):
        assert re.search(
            f"cannot be sent to a worker process: {part}\\S*, which cannot be pickled", str(error)
        )


class Service:
    """An object with an attribute that cannot be pickled."""

    def __init__(self):
        self.lock = threading.Lock()

    def price_of(self, item):
        return item


def test_a_method_that_cannot_be_pickled_is_told_what_it_takes_along():
    """The error for a bound method says that its object is sent with it, and which attribute of that cannot be."""
    advice = "a method takes its whole object along: pass a plain function and the data that it needs, or use"
    why = "(attribute lock: TypeError: cannot pickle '_thread.lock' object)"
    with pytest.raises(TypeError, match=f"{re.escape(why)}; {advice}"):
        run_parallel(Service().price_of, [1], executor="processes")
    results = run_parallel([Task(Service().price_of, 1), Task(abs, Service())], executor="processes")
    assert f"{why}; {advice}" in str(results.failures[0].error)
    assert f"{why}; create it inside the task" in str(results.failures[1].error)


def test_a_command_of_ipython_in_a_task_is_told_to_be_one_of_subprocess():
    """What IPython makes of ``!ls`` in a cell calls a method of the shell, of which the user has never heard."""

    class Shell(Service):
        def get_ipython(self):
            return self

    get_ipython = Shell().get_ipython

    def files(item):
        return get_ipython().getoutput("ls {item}")

    told = "what a command with ! or % calls, and workers have no IPython: call subprocess.run in place of the command, or use"
    with pytest.raises(TypeError, match=f"get_ipython, which .*files uses, .*{told} executor='threads'"):
        run_parallel(files, ["."], executor="processes")


def test_what_a_module_has_is_to_be_imported_inside_the_task(monkeypatch):
    """As a script that has imported it from there is told, with the module; the public one, if there are two."""
    service = Service()
    for name in ("shop._impl", "shop", "shop.again"):
        module = types.ModuleType(name)
        module.service = service
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys.modules["__main__"], "service", service, raising=False)
    told = r"import it inside the task \(from shop import service\), so that each worker has its own, or use"
    with pytest.raises(TypeError, match=told):
        run_parallel(lambda item: service, [1], executor="processes")
    monkeypatch.delitem(sys.modules, "shop")
    monkeypatch.delitem(sys.modules, "shop.again")
    with pytest.raises(TypeError, match=r"\(from shop._impl import service\)"):
        run_parallel(lambda item: service, [1], executor="processes")


def test_a_function_under_a_limit_of_the_package_ratelimit_is_told_to_use_limits():
    """In processes, a decorator of ``ratelimit`` would count in each worker for itself, and cannot be pickled: ``limits`` does it."""
    ratelimit = pytest.importorskip("ratelimit", reason="the package ratelimit is an extra")
    get = ratelimit.limits(calls=5, period=1)(lambda item: item)
    with pytest.raises(
        TypeError, match=r"take the decorator off and pass limits=RateLimit\(calls, per=period\)"
    ):
        run_parallel(get, [1], executor="processes")


@pytest.mark.parametrize(
    ("whole", "place"), [((1, Service()), "1"), ([Service()], "0"), ({"db": Service()}, "'db'")]
)
def test_an_element_that_cannot_be_pickled_is_named(whole, place):
    """Of a tuple, list or dict that cannot be pickled, the error names the element that is to blame, and its type."""
    why = f"(element {place}, an object of type {__name__}.Service: TypeError: cannot pickle"
    with pytest.raises(TypeError, match=re.escape(why)):
        run_parallel(max, [1], args=(whole,), executor="processes")
    assert why in str(run_parallel(len, [whole], executor="processes").failures[0].error)


def test_the_element_to_blame_is_not_sought_for_long(monkeypatch):
    """Where elements take long to pickle, the error is told without the one to blame: the search would outlast the task's timeout."""
    error = _parts.flaw_of(Service())
    assert _parts.why_unfit([Service()], error).startswith("element 0")
    monkeypatch.setattr(_parts, "SECONDS", -1)
    assert _parts.why_unfit([Service()], error).startswith("TypeError")


class Secretive(dict):
    """Ends the program of whoever asks what is in it."""

    def items(self):
        raise SystemExit(3)


def test_a_thing_that_does_not_tell_its_parts_is_told_of_without_them():
    """Whatever asking for them raises, the run goes on."""
    results = run_parallel(len, [Secretive(db=Service()), "two"], executor="processes", key=len)
    assert {3: 3} == results.successes
    assert "element" not in str(results.failures[1].error)


class Signalled:
    """An object during whose pickling a signal comes."""

    def __reduce__(self):
        signal.raise_signal(signal.SIGUSR1)


def test_a_signal_while_the_element_to_blame_is_sought_changes_nothing():
    """If a task's alarm goes off while its value is searched, the error of the value is told without the element."""

    def ring(number, frame):
        raise TimeoutError("alarm")

    before = signal.signal(signal.SIGUSR1, ring)
    try:
        blob = _faults.capture_unsendable([Signalled()], TypeError("no way"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    told = "task 0 returned a list, which cannot be pickled (TypeError: no way); return plain data"
    assert told in str(_faults.restore(blob, lambda: "task 0")[0])


@pytest.mark.parametrize(
    "of", [lambda file: file, lambda file: file.buffer, csv.writer, lambda file: csv.DictWriter(file, "a")]
)
def test_a_file_to_write_to_is_not_to_be_opened_in_each_task(of, tmp_path):
    """For a file open for writing the advice is to return what is to be written: tasks that open it would overwrite it."""
    advice = "; return what is to be written, and write it where the outcomes are read, or use"
    with (tmp_path / "out.csv").open("w") as file, pytest.raises(TypeError, match=advice):
        run_parallel(max, [1], args=(of(file),), executor="processes")


def test_an_annotation_that_cannot_be_pickled_is_named_as_programs_know_it():
    """Since Python 3.14 the class has it under another name, once somebody has asked for it."""

    class Parent:
        guard: threading.Lock()

    with pytest.raises(
        TypeError, match=r"^__annotations__, which test_travel\.\S+Parent has, .*'_thread.lock'"
    ):
        run_parallel(lambda item: Parent, [1], executor="processes")


def test_a_class_that_cannot_be_pickled_is_named_with_what_in_it_cannot():
    """A class sent by value includes all its attributes: the error names the one that cannot be pickled, not its methods, instances or subclasses."""

    class Parent:
        def __init__(self):
            self.whole = self

        def hand_over(self, item):
            return super().__class__, Parent, item

        guard = threading.Lock()

    class Child(Parent):
        pass

    cure = "have it at the top level of a module, which workers import, or use executor='threads'"
    why = r"Parent cannot be pickled \(TypeError: cannot pickle '_thread.lock' object\)"
    for thing in (Child().hand_over, Child, lambda item: Child):
        with pytest.raises(
            TypeError, match=rf"^guard, which test_travel\.\S+Parent has, .*: \S+{why}; {cure}"
        ):
            run_parallel(thing, [1], executor="processes")
    (failure,) = run_parallel(far.give_back, [Child()], executor="processes").failures.values()
    told = r"the item of task 0 cannot be sent to a worker process: guard, which \S+Parent has, cannot be pickled .*; "
    assert re.match(told + cure, str(failure.error))
    (failure,) = run_parallel([Child().hand_over], executor="processes").failures.values()
    assert re.match(told.replace("the item of ", "") + cure, str(failure.error))


def test_a_class_that_is_to_blame_as_a_whole_is_named_all_the_same():
    """The error names the class if none of its attributes fails alone, because one of its metaclass does."""

    class Meta(type):
        guard = threading.Lock()

    class Sealed(metaclass=Meta):
        pass

    told = r"^test_travel\.\S+Sealed cannot be sent .*'_thread.lock' object.*; have it at the top level of a module"
    with pytest.raises(TypeError, match=told):
        run_parallel(len, [1], args=(Sealed(),), executor="processes")


def test_a_function_is_not_told_of_what_the_standard_library_has_made_of_it():
    """The error does not name internals that the standard library has added, such as ``dispatch`` or a cache, which no user can create in a task."""

    @singledispatch
    def kind(item):
        return "other"

    kind.register(int, threading.Lock().acquire)

    told = r"^kind, which \S+<lambda> uses, .*: test_travel\.\S+\.kind cannot be pickled .*; have it at the top level of a module"
    with pytest.raises(TypeError, match=told):
        run_parallel(lambda item: (item, kind(item)), [1], executor="processes")


@pytest.mark.all
def test_a_class_with_a_cached_property_travels():
    """A class with a cached_property, which had a lock before Python 3.12, can be sent; cached values go with the object both ways."""

    class Circle:
        calls = 0

        def __init__(self, radius):
            self.radius = radius

        @cached_property
        def area(self):
            """Of a square, nearly."""
            Circle.calls += 1
            return 3 * self.radius**2

    def measure(circle):
        return circle.area, circle.area, Circle.calls, Circle.area.__doc__, circle

    circles = [Circle(1), Circle(2)]
    assert 3 == circles[0].area
    results = run_parallel(measure, circles, executor="processes", max_workers=1).values()
    assert [(3, 3, 1), (12, 12, 2)] == [result[:3] for result in results]
    assert {Circle.area.__doc__} == {result[3] for result in results}
    assert [3, 12] == [vars(result[4])["area"] for result in results]
    assert 1 == Circle.calls


def test_a_class_with_a_partialmethod_travels(engine):
    """With the arguments that it gives, also to a method that leads back to the class."""

    class Box:
        def sized(self, size, unit="m"):
            return type(self) is Box, size, unit

        small = partialmethod(sized, 1)
        named = partialmethod(sized, unit="km")

    seen = drive(engine, lambda _: (Box().small(), Box().named(2)), [0])
    assert {0: ((True, 1, "m"), (True, 2, "km"))} == seen.values


def test_a_cache_of_a_local_function_has_its_name_and_size_there():
    """A cache by ``lru_cache`` that is sent by value has the function's name, and as many places as the program has given it."""

    @lru_cache(maxsize=2, typed=True)
    def look_up(key):
        return key

    there = _travel.unpack(_travel.pack(look_up))
    assert ("look_up", {"maxsize": 2, "typed": True}) == (there.__name__, there.cache_parameters())


def test_generic_functions_travel():
    """A function under ``singledispatch`` can be sent, also as a method, before and after the caller has used it."""

    class Square:
        side = 3

        @singledispatchmethod
        def scaled(self, by):
            return self.side * by

        @scaled.register
        def _(self, by: str):
            return by * self.side

    @singledispatch
    def area(shape):
        return sum(map(area, shape))

    @area.register
    def _(shape: Square):
        return shape.side**2

    def both(shape):
        return area(shape), Square().scaled(2), Square().scaled("a")

    for _ in range(2):
        results = run_parallel(both, [Square(), [Square(), [Square()]]], executor="processes", max_workers=1)
        assert [(9, 6, "aaa"), (18, 6, "aaa")] == results.values()
        assert (9, "aaa") == (area(Square()), Square().scaled("a"))


def test_what_a_program_registers_with_copyreg_counts(monkeypatch):
    """The way to pickle a type that was last registered is used; the table of these is a plain dict, since others make pickling three times as slow."""

    class Registered:
        pass

    for told in ("first", "later"):
        monkeypatch.setitem(copyreg.dispatch_table, Registered, lambda _, told=told: (str, (told,)))
        assert told == _travel.unpack(_travel.pack_by_value(Registered(), None))
    assert dict is type(_travel.by_value_pickler().dispatch_table)
    assert dict is type(_memmaps.by_file(_travel.by_value_pickler()).dispatch_table)


def test_an_array_that_is_a_file_is_sent_as_its_name_by_plain_pickle(monkeypatch, tmp_path):
    """Such an array, and what comes with it, needs no cloudpickle, which takes twice as long."""
    monkeypatch.setattr(_travel, "by_value_pickler", None)
    array = np.memmap(tmp_path / "numbers", float, "w+", shape=(3,))
    there, other = _travel.unpack(_travel.pack([array, np.ones(3)], by_file=True))
    there[:] = other
    assert [1, 1, 1] == array.tolist()


def test_the_environment_is_the_workers_own():
    """With ``from os import environ``, too, a task sets and reads the environment of its process, not a copy of the caller's."""
    from os import environ, environb

    def set_and_get(_):
        environ["FIRST"] = "1"
        environb[b"SECOND"] = b"2"
        return os.environ.get("FIRST"), os.environ.get("SECOND")

    assert [("1", "2")] == run_parallel(set_and_get, [0], executor="processes", max_workers=1).values()


def test_a_threading_local_is_empty_in_a_worker():
    """As in a new thread: a function that keeps a connection there makes one in each worker, whatever the caller has."""
    local = threading.local()

    def connect():
        local.connection = threading.Lock()

    def connection(_):
        if not hasattr(local, "connection"):
            connect()
        return id(local.connection)

    connect()
    with ProcessExecutor(1) as executor:
        assert 1 == len(set(run_parallel(connection, range(3), executor=executor).values()))
    assert ["connection"] == [*vars(local)], "the caller keeps its own"


def test_what_sys_tells_of_python_travels():
    """Their classes have no name, so by value they were made anew in a worker, empty: each task failed that used one."""
    known = [
        getattr(sys, name)
        for name in ("version_info", "flags", "float_info", "hash_info", "int_info", "thread_info")
    ]
    known += [sys.implementation]

    def newer(item):
        return known == item, sys.version_info >= known[0], item, sys.flags

    (outcome,) = run_parallel(newer, [known], executor="processes").values()
    assert (True, True, known, sys.flags) == outcome
    assert all(one is other for one, other in zip(known[:-1], outcome[2], strict=False)), "by name"
    assert type(sys.flags) is type(outcome[3])


def test_a_struct_travels():
    """A function of the script may have its format in a global, and be given another."""
    head = struct.Struct("<IH")

    def read(item):
        return head.unpack(item.pack(1, 2))

    assert [(1, 2)] == run_parallel(read, [struct.Struct("<IH")], executor="processes").values()


def test_a_dataclass_travels_with_its_fields_as_they_are():
    """A field without a default has none in a task either, so a subclass that is made there requires it, too."""

    @dataclass
    class Config:
        depth: int

    def derive(_):
        more = make_dataclass("More", [("width", int, 1)], bases=(Config,))
        return more(2).depth, more()

    for _ in range(2):
        failure = run_parallel(derive, [0], executor="processes", max_workers=1).failures[0]
        assert "missing 1 required positional argument: 'depth'" in str(failure.error)
        cloudpickle.loads(cloudpickle.dumps(Config))  # which sets copies in the fields, as loky and dask do


def test_names_of_types_travel(monkeypatch):
    """What a script annotates with ``NewType``, ``ParamSpec`` or ``TypeVarTuple`` can be sent, and comes back as the same."""
    for name in (UserId, Params, Shape):
        monkeypatch.setattr(name, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "UserId", UserId, raising=False)  # where no worker has it

    class Call(Generic[Params]):
        owner: UserId

    def work(number: UserId, *more: *Shape) -> Callable[Params, Call]:
        return UserId(number), UserId, Params, Shape, Params.args, Call

    expected = [(number, UserId, Params, Shape, Params.args, Call) for number in (1, 2)]
    assert expected == run_parallel(work, [1, 2], executor="processes", max_workers=1).values()
    by_name = _travel.pack_by_value(PageId, None)
    assert b"_type_names" not in by_name
    assert _travel.unpack(by_name) is PageId
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        assert b"_type_names" in _travel.pack_by_value(PageId, None)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


since_312 = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="variables infer no variance before Python 3.12"
)
since_313 = pytest.mark.skipif(
    sys.version_info < (3, 13), reason="variables have no default before Python 3.13"
)


@pytest.mark.parametrize(
    ("kind", "kinds", "options"),
    [
        (TypeVar, (), {}),
        (TypeVar, (int, str), {}),
        (TypeVar, (), {"covariant": True, "bound": int}),  # one with constraints has no bound
        (TypeVar, (), {"contravariant": True, "bound": "Later"}),
        (ParamSpec, (), {"covariant": True, "bound": int}),
        (ParamSpec, (), {"contravariant": True}),
        (TypeVarTuple, (), {}),
        pytest.param(TypeVar, (), {"infer_variance": True}, marks=since_312),
        pytest.param(TypeVar, (int, str), {"infer_variance": True}, marks=since_312),
        pytest.param(ParamSpec, (), {"infer_variance": True}, marks=since_312),
        pytest.param(TypeVar, (), {"default": int}, marks=since_313),
        pytest.param(TypeVar, (), {"infer_variance": True, "bound": int}, marks=since_312),
        pytest.param(TypeVar, (), {"infer_variance": True, "bound": int, "default": bool}, marks=since_313),
        pytest.param(TypeVar, (int, str), {"infer_variance": True, "default": str}, marks=since_313),
        pytest.param(TypeVar, (), {"infer_variance": True, "default": None}, marks=since_313),
        pytest.param(TypeVar, (int, str), {"default": int}, marks=since_313),
        pytest.param(ParamSpec, (), {"default": [int]}, marks=since_313),
        pytest.param(TypeVarTuple, (), {"default": int}, marks=since_313),
    ],
)
def test_type_variables_travel(kind, kinds, options):
    """One of a script has all that it was made with at the other end, where it may be made anew."""
    _same_elsewhere(kind("made", *kinds, **options))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no such option")
@pytest.mark.parametrize("name", ["recall", "kept", "owner", "_", "not a name", "class"])
def test_type_variables_may_have_any_name(name):
    """The syntax for them, by which they are made at the other end, allows fewer."""
    _same_elsewhere(TypeVar(name, bound=int, infer_variance=True))


def _same_elsewhere(made):
    made.__module__ = "__main__"
    assert _travel.unpack(_travel.pack_by_value(made, None)) is made
    tracked = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS
    blob = _travel.pack_by_value(made, None)
    known = tracked.pop(made)
    del cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID[known]  # as where it is made anew
    copy = _travel.unpack(blob)
    assert copy is not made
    options = "constraints", "bound", "covariant", "contravariant", "infer_variance", "default"
    for place in ("__name__", "__module__", *(f"__{option}__" for option in options)):
        assert getattr(made, place, place) == getattr(copy, place, place)


ALIASES = """
type Json = dict[str, Json] | list[Json] | str
type Nested[T] = T | list[Nested[T]]
type Even = list[Odd]
type Odd = list[Even] | None
def work(one: Json, two: Nested, three: Even): pass
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no such syntax")
def test_types_that_contain_themselves_travel():
    """An alias by a ``type`` statement may refer to itself, with parameters or without."""
    scope = {"__name__": "__main__"}
    exec(ALIASES, scope)
    json, nested, even = _travel.unpack(_travel.pack(scope["work"])).__annotations__.values()
    assert ("Json", "__main__", ()) == (json.__name__, json.__module__, json.__type_params__)
    assert dict[str, json] | list[json] | str == json.__value__
    (parameter,) = nested.__type_params__
    assert parameter | list[nested[parameter]] == nested.__value__
    assert list[even] | None == even.__value__.__args__[0].__value__


PARAMETERS = """
class Node[T: Node]: pass
class Pair[T: (Left, Right)]: pass
class Left: pass
class Right: pass
def work[T: Nowhere](item: T): return Node, Pair
def either[T: (Nowhere, int)](item: T): pass
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no such syntax")
def test_type_parameters_may_name_their_class_and_what_is_not_there():
    """Also what is defined later, or for type checkers only; to ask for that raises a NameError, as in the script."""
    scope = {"__name__": "__main__"}
    exec(PARAMETERS, scope)
    trackers = cloudpickle.cloudpickle
    blobs = [_travel.pack(scope[name]) for name in ("work", "either")]
    trackers._DYNAMIC_CLASS_TRACKER_BY_CLASS.clear()
    trackers._DYNAMIC_CLASS_TRACKER_BY_ID.clear()  # as in another process
    work, either = map(_travel.unpack, blobs)
    node, pair = work(1)
    assert node is not scope["Node"]
    assert node.__type_params__[0].__bound__ is node
    assert ["Left", "Right"] == [kind.__name__ for kind in pair.__type_params__[0].__constraints__]
    with pytest.raises(NameError, match="Nowhere"):
        _ = work.__annotations__["item"].__bound__
    with pytest.raises(NameError, match="Nowhere"):
        _ = either.__annotations__["item"].__constraints__


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no such syntax")
def test_a_function_keeps_its_type_parameters():
    """By these, annotations are evaluated that are text."""
    scope = {"__name__": "__main__"}
    exec("def work[T](item: 'list[T]'): pass", scope)
    work = _travel.unpack(_travel.pack(scope["work"]))
    (parameter,) = work.__type_params__
    assert "T" == parameter.__name__
    if sys.version_info >= (3, 13):
        assert {"item": list[parameter]} == get_type_hints(work)


@pytest.mark.parametrize("kind", [typing_extensions.ParamSpec, typing_extensions.TypeVarTuple])
def test_names_of_types_made_by_typing_extensions_travel(monkeypatch, kind):
    """So can what ``typing_extensions`` makes, which has attributes that the class of this Python does not know."""
    made = kind("Made")
    monkeypatch.setattr(made, "__module__", "__main__")
    assert [made] == run_parallel(lambda _: made, [1], executor="processes", max_workers=1).values()


def test_cloudpickle_may_be_imported_again(monkeypatch):
    """A test that mocks modules by ``patch.dict(sys.modules)`` removes what was imported under it; classes can be sent afterwards."""
    scope = {"__name__": "__main__"}
    exec("class Sent:\n size = 7", scope)
    _travel.pack_by_value(scope["Sent"], None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cloudpickle"]:
        monkeypatch.delitem(sys.modules, name)
    assert 7 == _travel.unpack(_travel.pack_by_value(scope["Sent"], None)).size


def test_an_initializer_that_cannot_be_pickled_is_blamed_part_by_part():
    """If an initializer cannot be pickled, the error names the part that cannot, and what to do."""
    lock = threading.Lock()
    with pytest.raises(
        TypeError, match=r"^lock, which \S+<lambda> uses, cannot be sent .* create it inside the initializer"
    ):
        ProcessExecutor(1, initializer=lambda: lock)
    with pytest.raises(
        TypeError, match=r"^initargs\[1\] cannot be sent .* from multiprocessing.Manager\(\), or"
    ):
        ProcessExecutor(1, initializer=print, initargs=(1, mp.Lock()))


class Exits:
    """Raises SystemExit when it is pickled."""

    def __reduce__(self):
        raise SystemExit(1)


class Unbound:
    """A proxy whose object is not there, such as Flask's ``request``: each attribute raises."""

    def __getattr__(self, name):
        raise RuntimeError("working outside of request context")

    __dict__ = property(lambda self: self.path)

    def __reduce__(self):
        return self.path


def test_an_item_whose_every_attribute_raises_costs_its_own_task():
    """The message is made without the help of the object."""
    results = run_parallel(id, [1, Unbound()], executor="processes", max_workers=1)
    assert [1] == list(results.failures)
    assert "Unbound cannot be pickled (RuntimeError: working outside of" in str(results.failures[1].error)


def test_with_then_an_item_is_blamed_and_not_what_calls_the_function():
    """With ``then``, where each item is a call of its own, the error still names the item, also with ``star``."""
    lock = threading.Lock()
    options = {"executor": "processes", "then": lambda outcome: ()}
    for results in (
        run_parallel(abs, [lock], **options),
        run_parallel(pow, [(lock, 1)], star=True, **options),
        run_parallel(lambda item: lock, [1], **options),
    ):
        assert re.search(r"process: (args\[0\]|lock, which \S+ uses,) is", str(results.failures[0].error))


def test_whoever_passes_a_future_is_told_to_pass_its_result():
    """As an argument or item: dask, for one, would take it."""
    with ProcessExecutor(1) as executor:
        future = executor.submit(abs, -1)
        later = executor.submit(abs, future)
        errors = [later.exception(), run_parallel(abs, [future], executor=executor).failures[0].error]
    assert ["; pass its result() in place of it, or"] * 2 == [
        re.search(r"; pass.*, or", str(error))[0] for error in errors
    ]


@pytest.mark.parametrize("make", [mp.SimpleQueue, mp.Lock])
def test_what_multiprocessing_shares_by_inheritance_only_has_a_stand_in(make):
    """The error advises to take a manager's, or, where it is in a logger of loguru, say, to make that inside the task."""
    shared = make()
    said = r"; take locks and queues from multiprocessing.Manager\(\), or \w[\w ]* inside the task, or use"
    with pytest.raises(TypeError, match=said):
        run_parallel(abs, [1], args=(shared,), executor="processes")
    for results in (
        run_parallel(abs, [shared], executor="processes"),
        run_parallel([Task(abs, [shared])], executor="processes"),
    ):
        assert re.search(said, str(results.failures[0].error))


def test_memory_that_workers_would_fill_is_not_to_be_made_in_each():
    """Not even in the initializer: it would be another one in each worker."""
    array = type("c_int_Array_3", (), {"__module__": "multiprocessing.sharedctypes"})()
    said = (
        "; return the values, or pass a multiprocessing.shared_memory.SharedMemory, or use executor='threads'"
    )
    assert advice(array, TypeError(), "create it inside the initializer").endswith(said)


def test_what_a_manager_makes_can_be_used_in_a_worker():
    """Its proxies connect by the key of the process: a worker has that of its parent, where managers are in use."""
    (key,) = run_parallel(lambda _: bytes(mp.current_process().authkey), [0], executor="processes").values()
    assert mp.current_process().authkey == key


@pytest.fixture
def end():
    """One end of a pipe."""
    ends = mp.Pipe()
    yield ends[0]
    for each in ends:
        each.close()


STAYS = (
    "TypeError: a multiprocessing Connection is a descriptor of this process); "
    "pass a queue that multiprocessing.Manager() makes, or use executor='threads'"
)


@dataclass
class Wire:
    end: object


@pytest.mark.parametrize(
    ("wrap", "part"),
    [
        (lambda end: end, ""),
        (lambda end: [{"end": end}], "element 0, an object of type builtins.dict: "),
        (Wire, "attribute end: "),
    ],
    ids=["bare", "list", "own"],
)
@pytest.mark.parametrize("place", ["args[0]", "kwargs['base']"])
def test_an_end_of_a_pipe_is_refused_at_the_call(end, place, wrap, part):
    """A pipe end as an argument is refused: it would arrive as a mere number, and the worker would use whatever file has that number there."""
    thing = wrap(end)
    options = {"args": (thing,)} if place == "args[0]" else {"kwargs": {"base": thing}}
    with pytest.raises(TypeError) as caught:
        run_parallel(int, ["1"], executor="processes", **options)
    why = f"{place} cannot be sent to worker processes: {describe(thing)} cannot be pickled ({part}{STAYS}"
    assert why == str(caught.value)


def test_an_end_of_a_pipe_is_refused_also_where_a_function_or_an_initializer_takes_it_along(end):
    """A pipe end that a function or an initializer refers to is refused at the call, too."""
    with pytest.raises(TypeError, match=r"^end, which .+ uses, cannot be sent"):
        run_parallel(lambda item: end, [1], executor="processes")
    with pytest.raises(TypeError, match=r"^initargs\[0\] cannot be sent .* descriptor"):
        ProcessExecutor(1, initializer=far.nothing, initargs=([end],))


def test_an_item_with_an_end_of_a_pipe_costs_itself(end):
    """A pipe end as or in an item, or in the arguments of a task, fails only that task."""
    items = [end, 1, [Wire(end)], (end, bytearray(2**20)), "b"]
    results = run_parallel(far.give_back, items, executor="processes", max_workers=1)
    assert {1: 1, 4: "b"} == results.successes
    for index, failure in results.failures.items():
        told, why = str(failure.error).split(" cannot be pickled (")
        assert (
            f"the item of task {index} cannot be sent to a worker process: {describe(items[index])}" == told
        )
        assert why.endswith(STAYS)
    tasks = {
        "args[0]": Task(far.give_back, [end]),
        "kwargs['value']": Task(far.give_back, kwargs={"value": Wire(end)}),
        "good": Task(far.give_back, 1),
    }
    results = run_parallel(tasks, executor="processes", max_workers=1)
    assert {"good": 1} == results.successes
    for name, failure in results.failures.items():
        assert f"{name} is an object of type" in str(failure.error)
        assert str(failure.error).endswith(STAYS)


def make_end(as_error):
    """Return a new pipe end, or raise an error that contains one."""
    kept = mp.Pipe()
    if as_error:
        error = ValueError("broken")
        error.end = kept[0]
        raise error
    return [kept[0]]


def test_an_end_of_a_pipe_does_not_come_back(engine):
    """A pipe end as a value fails its task; an error arrives without its pipe end, and says so."""
    seen = drive(engine, make_end, [False, True, False])
    value, error, again = (seen.failures[index].error for index in range(3))
    part = r"element 0, an object of type multiprocessing\.connection\.Connection"
    told = rf"returned a list, which cannot be pickled \({part}: TypeError: a multiprocessing Connection is"
    assert re.search(told, str(value))
    assert re.search(told, str(again))
    assert (ValueError, "broken") == (type(error), str(error))
    assert not hasattr(error, "end")
    assert "cannot be pickled: attribute 'end'" in error.__notes__[0]


def test_what_only_names_the_module_of_pipes_travels(engine):
    """A text that names the module of pipes, and its classes and functions, can be sent."""
    things = ["multiprocessing.connection", (mp.connection.Listener,), [mp.connection.wait]]
    assert dict(enumerate(things)) == drive(engine, far.give_back, things).values


def test_who_has_taught_pickle_to_send_pipes_is_left_alone(end, monkeypatch):
    """If the program has registered a way to pickle pipe ends with ``copyreg``, that is used."""
    monkeypatch.setitem(copyreg.dispatch_table, type(end), lambda end: (mp.connection.wait, ([], 0)))
    assert [[[]]] == run_parallel(far.give_back, [[end]], executor="processes").values()


def test_a_text_that_names_the_script_is_no_reference_into_it(monkeypatch):
    """A text that contains ``__main__`` is plain data: it is not pickled with cloudpickle, which is not even imported."""
    monkeypatch.setattr(_travel, "pack_by_value", lambda *_: b"by value")
    texts = ["json/__main__.py", 'if __name__ == "__main__":', b"x__main__.", {"__mp_main__.py": 1}]
    assert _travel.pack(texts) == pickle.dumps(texts, 5)


def test_a_word_that_is_the_name_of_the_script_is_no_reference_into_it(monkeypatch):
    """The text ``__main__`` is plain data even beside references to other modules."""
    monkeypatch.setattr(_travel, "pack_by_value", lambda *_: b"by value")
    for words in (
        {"__main__": 7},
        Counter(["__main__", "main"]),
        ["__mp_main__", decimal.Decimal(1)],
    ):
        assert _travel.pack(words) == pickle.dumps(words, 5)


@pytest.mark.parametrize("word", ["main", "h", "hh", "major", "jam", "s\u00d3", "\u0153"])
def test_a_count_that_looks_like_the_look_for_a_name_is_no_reference_into_the_script(monkeypatch, word):
    """The byte 147 is the opcode that looks up a name, but in numbers and texts it is only data."""
    monkeypatch.setattr(_travel, "pack_by_value", lambda *_: b"by value")
    for count in (147, 147 << 8, 147 << 8 | 1, 147 << 16, 1 << 20 | 147):
        words = Counter({"__main__": 7, word: count, "other": count})
        assert b"\x93" in pickle.dumps(count, 5)
        assert _travel.pack(words) == pickle.dumps(words, 5)


def planted(monkeypatch, name):
    """A function of the script, which can be found there."""
    script = sys.modules.get(name) or types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, script)
    monkeypatch.setattr(script, "spot", lambda: None, raising=False)
    monkeypatch.setattr(script.spot, "__module__", name)
    monkeypatch.setattr(script.spot, "__qualname__", "spot")
    monkeypatch.setattr(_travel, "pack_by_value", lambda *_: b"by value")
    return script.spot


@pytest.mark.parametrize("ahead", [0, 255, 256, *range(65_500, 65_560, 3), 1 << 20])
@pytest.mark.parametrize("name", ["__main__", "__mp_main__"])
def test_a_reference_into_the_script_is_seen_wherever_it_stands(monkeypatch, ahead, name):
    """A reference into the script is detected anywhere in the pickle, even where a new frame begins."""
    spot = planted(monkeypatch, name)
    assert _travel.pack(["x" * ahead, spot, Counter()]) == b"by value"


@pytest.mark.parametrize("texts", [["__main__"], ["spot"], ["__main__", "spot"], ["\x8c\x04spot\x94"]])
@pytest.mark.parametrize("others", range(0, 300, 7))
def test_a_reference_into_the_script_is_seen_whatever_was_named_before(monkeypatch, texts, others):
    """A reference into the script is detected even if the pickle refers to its names by memo numbers."""
    spot = planted(monkeypatch, "__main__")
    texts = [{"__main__": spot.__module__, "spot": spot.__qualname__}.get(text, text) for text in texts]
    thing = [*map(str, range(others)), Counter(), *texts, others, 0x18C, spot]
    assert _travel.pack(thing) == b"by value"


@pytest.mark.parametrize("others", range(140, 150))
def test_a_number_that_looks_like_the_end_of_a_name_hides_no_reference_into_the_script(monkeypatch, others):
    """A reference into the script is detected even if a memo number has the same byte as the memoize opcode."""
    spot = planted(monkeypatch, "__main__")
    like_math = int.from_bytes(b"\x8c\x04mat", "little")  # and ``h``, by which the module's name is looked up
    assert _travel.pack([*map(str, range(others)), spot.__module__, (like_math, spot)]) == b"by value"


def test_what_has_a_name_and_no_module_is_described():
    """An object with a name but no module, such as a generator, can be described in an error."""
    assert "test_what_has_a_name_and_no_module_is_described.<locals>.<genexpr>" == describe(_ for _ in ())
    assert "builtins.len" == describe(len)


def test_function_whose_module_is_missing_fails_every_task(engine):
    """If the worker cannot import the function's module, every task says alike what is missing, and the worker goes on."""
    missing = type(sys)("missing_there")
    exec("def function(item): return item", missing.__dict__)
    sys.modules["missing_there"] = missing
    try:
        seen = drive(engine, missing.function, range(5))
    finally:
        del sys.modules["missing_there"]
    assert 5 == len(seen.failures)
    assert isinstance(seen.failures[0].error, ModuleNotFoundError)
    assert 1 == len({ended.traceback for ended in seen.failures.values()})


def test_closures_and_lambdas_travel(engine):
    """Closures and lambdas are sent with what they refer to, including functions that they call."""
    offset = 10

    def helper(number):
        return number + offset

    assert {0: 22, 1: 24} == drive(engine, lambda item: helper(item) * 2, [1, 2]).values


@pytest.mark.all
def test_function_may_be_large():
    """The arguments of a run, and an initializer's, may be large: every worker gets them."""
    own = ProcessEngine(2, initializer=far.keep, initargs=(b"y" * 3_000_000,))
    try:
        seen = drive(own, far.measure_all, range(10), args=(b"x" * 300_000_000,))
    finally:
        own.close()
    assert {(3_000_000, 300_000_000)} == set(seen.values.values())


def test_function_is_loaded_once_a_worker(engine):
    """A function is loaded once per worker, not for each task or batch."""

    class Counted:
        loads = 0

        def __setstate__(self, state):
            type(self).loads += 1

        def __getstate__(self):
            return {"any": 1}

        def __call__(self, item):
            return type(self).loads

    assert {1} == set(drive(engine, Counted(), range(500)).values.values())


# Errors


class Odd(Exception):
    """An error whose constructor cannot be called with its ``args``."""

    def __init__(self, code, *, reason):
        super().__init__(f"{reason} ({code})")
        self.code = code
        self.reason = reason


class Wrapped(Exception):
    """An error whose constructor changes its arguments."""

    def __init__(self, message, code=0):
        super().__init__(f"[{code}] {message}")
        self.code = code


class Holder(Exception):
    """An error with an attribute that cannot be pickled."""

    def __init__(self, name):
        super().__init__(name)
        self.name = name
        self.lock = threading.Lock()


class Hostile(Exception):
    """An error all of whose methods fail."""

    def __repr__(self):
        raise SystemExit(1)

    __str__ = __repr__

    def __reduce__(self):
        raise SystemExit(2)

    def __del__(self):
        if far.is_worker():
            raise RuntimeError("in __del__")


class Both(ValueError, OSError):
    """An error with two builtin bases, of which the second decides how it is made."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Strict(Exception):
    """An error whose ``__new__`` requires more than its ``args``."""

    def __new__(cls, code, *, reason):
        made = super().__new__(cls, code)
        made.reason = reason
        return made

    def __init__(self, code, *, reason):
        super().__init__(code)


def homebound():
    """An error whose class cannot be sent at all."""

    class Homebound(Exception):
        lock = threading.Lock()

    return Homebound("told")


class Homeless(Exception):
    """An error that can be unpickled only where it was raised."""

    def __reduce__(self):
        return Homeless, self.args, {"any": 1}

    def __setstate__(self, state):
        if not far.is_worker():
            raise RuntimeError("far from where it was raised")


def failing(error):
    if isinstance(error, type):
        error = error()
    raise error


def error_of(engine, make):
    (ended,) = drive(engine, lambda item: failing(make()), [0]).failures.values()
    return ended


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError("plain", 1),
        lambda: KeyError("key"),
        lambda: OSError(2, "No such file", "name"),
        lambda: FileNotFoundError(2, "No such file", "from", None, "to"),
        lambda: UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        lambda: ImportError("no", name="module", path="path"),
        lambda: StopIteration(3),
        lambda: Odd(5, reason="because"),
        lambda: Wrapped("text", 7),
        lambda: Both(5),
        lambda: Strict(5, reason="because"),
        lambda: subprocess.CalledProcessError(3, ["cmd"], b"out"),
        lambda: pickle.PicklingError("own"),
        AssertionError,
    ],
)
def test_error_comes_back_whole(engine, make):
    """An error comes back with its type, arguments, attributes and text."""
    error, original = error_of(engine, make).error, make()

    assert (type(original), original.args, str(original)) == (type(error), error.args, str(error))
    assert vars(original) == {name: value for name, value in vars(error).items() if name != "__notes__"}


def raise_chain():
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise ValueError("second") from first
    except ValueError as second:
        second.add_note("a note")
        raise TypeError("third")  # noqa: B904  # its context is looked at


def test_chain_notes_and_tracebacks_come_back(engine):
    """An error comes back with its cause, context and notes, and each error of the chain with its frames."""
    ended = drive(engine, lambda item: raise_chain(), [0]).failures[0]
    third = ended.error
    second = third.__context__
    first = second.__cause__

    assert ("third", "second", "'first'") == (str(third), str(second), str(first))
    assert ["a note"] == second.__notes__
    assert not third.__suppress_context__
    frames = third.__traceback__
    names = []
    while frames is not None:
        names.append(frames.tb_frame.f_code.co_name)
        frames = frames.tb_next
    assert ["<lambda>", "raise_chain"] == names
    for part in ("raise_chain", Path(__file__).name, "KeyError: 'first'", "a note", "TypeError: third"):
        assert part in ended.traceback


def test_groups_come_back(engine):
    """An exception group comes back with its members, and these with all that belongs to them."""

    def make():
        inner = ValueError("inner")
        inner.add_note("noted")
        return ExceptionGroup("outer", [inner, ExceptionGroup("nested", [Odd(1, reason="odd")])])

    error = error_of(engine, make).error
    assert ("outer", ["noted"]) == (error.message, error.exceptions[0].__notes__)
    assert 1 == error.exceptions[1].exceptions[0].code


def test_group_that_holds_what_cannot_be_pickled_comes_back(engine):
    """A group loses only such attributes, as a TaskFailures its results if a value of them cannot be pickled."""

    def work(item):
        return threading.Lock() if item else failing(Odd(1, reason="odd"))

    (ended,) = drive(engine, lambda item: run_parallel(work, range(2)).values(), [0]).failures.values()
    error = ended.error
    assert (TaskFailures, None, 1) == (type(error), error.results, error.exceptions[0].code)
    assert "attribute 'results'" in error.__notes__[-1]


def test_error_keeps_its_type_where_an_attribute_cannot_travel(engine):
    """An error with an attribute that cannot be pickled loses only that attribute, and a note says so."""
    error = error_of(engine, lambda: Holder("who")).error

    assert isinstance(error, Holder)
    assert ("who", False) == (error.name, hasattr(error, "lock"))
    assert "lock" in error.__notes__[-1]


def test_error_keeps_its_slots_and_fields(engine):
    """An error keeps what is in the slots of its class, as those of numpy and attrs, and the fields of its builtin class."""

    class Slotted(ValueError):
        __slots__ = ("__code", "empty")

        def set(self, code):
            self.__code = code
            return self

        def code(self):
            return self.__code

    class Missing(ImportError):
        def __init__(self, name):
            super().__init__(f"no {name}", name=name, path="/a")

    class Elsewhere(Missing):
        path = property(lambda self: "/b")

    error = error_of(engine, lambda: Slotted("told").set(3)).error
    assert ("told", 3, False) == (str(error), error.code(), hasattr(error, "empty"))
    error = error_of(engine, lambda: np.exceptions.AxisError(4, 1)).error
    assert (str(np.exceptions.AxisError(4, 1)), 4) == (str(error), error.axis)
    error = error_of(engine, lambda: Missing("wheel")).error
    assert ("no wheel", "wheel", "/a") == (str(error), error.name, error.path)
    error = error_of(engine, lambda: Elsewhere("wheel")).error
    assert ("no wheel", "/b", "/a") == (str(error), error.path, super(Elsewhere, error).path)

    class Undecodable(UnicodeDecodeError):
        def __init__(self, data):
            super().__init__("utf-8", data, 0, 1, "bad")

    def changed(error):
        error.args = ("changed",)
        return error

    error = error_of(engine, lambda: Undecodable(b"x")).error
    assert ("bad", b"x") == (error.reason, error.object)
    error = error_of(engine, lambda: changed(Undecodable(b"x"))).error
    assert (Undecodable, ("changed",)) == (type(error), error.args)


class Forgetful(Exception):
    """An error that would come without what it tells of, by its own account, as those of urllib3 do."""

    def __init__(self, pool, told):
        super().__init__(f"{pool}: {told}")
        self.told = told

    def __reduce__(self):
        return Forgetful, (None, None)


def test_error_keeps_its_text(engine):
    """An error whose own ``__reduce__`` loses its text keeps that, and its attributes; also where it is another's argument."""
    error = error_of(engine, lambda: Forgetful("host", "refused")).error
    assert ("host: refused", "refused", False) == (str(error), error.told, "__notes__" in vars(error))
    error = error_of(engine, lambda: OSError(Forgetful("host", "refused"))).error
    assert "host: refused" == str(error)


class Retried(Exception):
    """An error whose text needs what cannot be pickled, as tenacity's RetryError has a future."""

    def __init__(self, last):
        super().__init__(last, 5)
        self.last, self.code = last, 7

    def __str__(self):
        return f"Retried[{self.last}]"


class Locked(Exception):
    """An error that is made anew with a lock of its own."""

    def __init__(self, code):
        super().__init__(f"code {code}")
        self.code, self.lock = code, threading.Lock()

    def __reduce_ex__(self, protocol):
        return Locked, (self.code,)


class LockedToo(Locked):
    """The same by ``__reduce__``."""

    __reduce_ex__ = object.__reduce_ex__

    def __reduce__(self):
        return LockedToo, (self.code,)


class Posing(Exception):
    """An error that says it is another."""

    def __reduce__(self):
        return ValueError, self.args


@pytest.mark.parametrize("kind", [Locked, LockedToo])
def test_error_that_says_how_it_is_made_is_made_so(engine, kind):
    """An error with a ``__reduce__`` or ``__reduce_ex__`` of its own arrives as that has it, as by plain pickle, and with its notes."""

    def make():
        error = kind(5)
        error.add_note("noted")
        return error

    error = error_of(engine, make).error
    assert (5, False) == (error.code, error.lock.locked())
    assert ["noted"] == error.__notes__[:1]
    assert Posing is type(error_of(engine, lambda: Posing("told")).error), "it has another type"


def test_error_keeps_its_text_without_what_cannot_be_pickled(engine):
    """If the text of an error needs an attribute that cannot be pickled, a text stands in for that."""
    error = error_of(engine, lambda: Retried(threading.Lock())).error
    assert (Retried, "Retried[<unlocked _thread.lock") == (type(error), str(error)[:30])
    assert (5, 7) == (error.args[1], error.code)
    assert error.__notes__[0].endswith(" attribute 'last', arguments")


class Marked(Exception):
    """An error that may have a place, which cannot be pickled and marks the text, as patsy's origins do."""

    def __init__(self, message, place=None):
        super().__init__(message)
        self.message, self.place = message, place

    def __str__(self):
        return self.message if self.place is None else f"{self.message}\n{self.place.shown()}"


class Origin:
    """A place that refuses to be pickled."""

    def __reduce__(self):
        raise NotImplementedError

    def shown(self):
        return "    ^^^"


def test_error_whose_text_asks_for_what_cannot_be_pickled_has_a_text(engine):
    """Without the attribute, or with a text in its place, the error could not be shown."""
    error = error_of(engine, lambda: Marked("no such name", Origin())).error
    assert (Marked, "no such name", None) == (type(error), str(error), error.place)
    assert "attribute 'place'" in error.__notes__[0]


class Headers(Mapping):
    """A view that refuses to be pickled, and whose copies do not, as a CIMultiDictProxy."""

    def __init__(self, shown):
        self.shown = shown
        self.copy = shown.copy

    def __getitem__(self, name):
        return self.shown[name]

    def __iter__(self):
        return iter(self.shown)

    def __len__(self):
        return len(self.shown)

    def __reduce__(self):
        raise TypeError


class State:
    """What a call has come to, behind a lock, as that of a grpc call."""

    def __init__(self, code):
        self.changed, self.code = threading.Condition(), code
        self.headers = Headers({"a": 1})
        self.frames = (frame for frame in ())


class Called(Exception):
    """An error whose text and methods need a part of what cannot be pickled, as those of grpc and aiohttp do."""

    def __init__(self, state):
        super().__init__(state)
        self.state = state

    def code(self):
        with self.state.changed:
            return self.state.code

    def __str__(self):
        return f"ended with {self.code()}"


def test_error_whose_text_needs_parts_of_what_cannot_be_pickled_keeps_these(engine):
    """Such an error has its text, and what can be pickled of its attributes, here and after the Failure has been pickled."""
    error = error_of(engine, lambda: Called(State(14))).error
    again = pickle.loads(pickle.dumps(Failure(0, 0, error, 1, 0.0, 0.0, 0.0, "process 1"))).error
    for each in (error, again):
        state = each.args[0]
        assert (Called, "ended with 14", True) == (type(each), str(each), state is each.state)
        assert {"a": 1} == state.headers
        assert state.frames.startswith("<generator")
        assert ["attribute 'state', arguments"] == [
            note.split(": ")[1] for note in each.__notes__ if note.startswith("partly left behind")
        ]


def test_error_keeps_the_future_that_it_tells_of(engine):
    """The future that tenacity's RetryError has arrives with its outcome, though its locks cannot be pickled."""

    def make():
        future = Future()
        future.set_exception(ValueError("refused"))
        return Retried(future)

    error = error_of(engine, make).error
    assert "state=finished raised ValueError" in str(error)
    assert "refused" == str(error.last.exception())


class Registered(Exception):
    """An error whose text is not in it."""

    texts = weakref.WeakKeyDictionary()  # noqa: RUF012  # shared on purpose

    def __init__(self, text):
        self.texts[self] = text

    def __str__(self):
        return self.texts[self]


def test_error_whose_text_cannot_be_had_elsewhere_brings_it_along(engine):
    """Else an error would arrive whose str() raises; it is of its class for ``except`` and retries, also when it is pickled once more."""
    failure = error_of(engine, lambda: Registered("told"))
    again = pickle.loads(pickle.dumps(failure.error))
    assert isinstance(failure.error, Registered)
    for error in (failure.error, again, pickle.loads(pickle.dumps(failure)).error):
        assert (type(failure.error), "told") == (type(error), str(error))
    (line,) = traceback.format_exception_only(again)
    assert "test_travel.Registered: told\n" == line


class Closed(Registered):
    """Refuses subclasses."""

    def __init_subclass__(cls):
        raise TypeError("no subclasses")


def test_error_whose_text_cannot_be_had_in_any_subclass_has_a_stand_in(engine):
    """There is no other way to keep its text."""
    error = error_of(engine, lambda: Closed("told")).error
    assert (RemoteError, "test_travel.Closed: told") == (type(error), str(error))


def test_error_keeps_its_attributes_past_an_inherited_setstate(engine):
    """A base made by attrs with slots has a ``__setstate__`` that knows of its fields alone, as that of a reference which jsonschema cannot resolve."""

    class Fields:
        def __setstate__(self, state):
            pass

    class Lost(Fields, Exception):
        def __init__(self, cause):
            self.cause = cause

        def __str__(self):
            return f"lost: {self.cause}"

    assert "lost: there" == str(error_of(engine, lambda: Lost("there")).error)


def test_error_of_syntax_keeps_its_place(engine):
    """A subclass may set file and line itself, as that of lxml does, which has a log that cannot be pickled."""

    def make():
        error = SyntaxError("mismatch")
        error.filename, error.lineno, error.log = "a.xml", 3, threading.Lock()
        return error

    assert "mismatch (a.xml, line 3)" == str(error_of(engine, make).error)


def test_a_note_that_something_was_left_behind_comes_after_the_errors_own(engine):
    """It did not come at all where the error had a note."""

    def make():
        error = Holder("who")
        error.add_note("mine")
        return error

    notes = error_of(engine, make).error.__notes__
    assert ("mine", True) == (notes[0], notes[1].startswith("left behind"))


class Counted:
    """Counts how often it is pickled; its text is that of the one object."""

    count = 0

    def __reduce__(self):
        Counted.count += 1
        return Counted, ()


def test_error_without_an_account_of_its_own_is_tried_once():
    """The text of an error with an object in it may differ at the other end: no other way would give the same."""
    error = KeyError(Counted())
    make, args, _ = _forms.form_of(error)
    assert (KeyError, error.args, 1) == (make, args, Counted.count)


def test_error_of_the_system_keeps_its_file_without_an_attribute_that_cannot_be_pickled(engine):
    """An OSError that loses an attribute keeps its errno and file names, which are not in its ``args``; one that cannot be pickled is left."""

    def lost(path):
        error = FileNotFoundError(2, "gone", path, None, "/b")
        error.lock = threading.Lock()
        return error

    error = error_of(engine, lambda: lost("/a")).error
    assert ("[Errno 2] gone: '/a' -> '/b'", False) == (str(error), hasattr(error, "lock"))
    error = error_of(engine, lambda: lost(part for part in ())).error
    assert (2, None, "/b") == (error.errno, error.filename, error.filename2)
    assert "attribute 'lock', attribute 'filename'" in error.__notes__[0]


def test_error_from_code_without_lines_comes_back(engine):
    """An error from generated code, whose frames may have no line, keeps its type."""

    def fail(item):
        raise LookupError(item)

    fail.__code__ = fail.__code__.replace(co_linetable=b"")
    ended = drive(engine, fail, [0]).failures[0]
    assert (LookupError, 0) == (type(ended.error), ended.error.args[0])


def test_error_that_cannot_travel_has_a_stand_in(engine):
    """An error that cannot be pickled is replaced by a RemoteError with its type's name and the traceback as text."""
    ended = error_of(engine, lambda: Homeless("told"))

    assert isinstance(ended.error, RemoteError)
    assert str(ended.error).startswith("test_travel.Homeless: told")
    assert "failing" in ended.traceback


def test_error_that_fails_whatever_it_is_asked_comes_back(engine):
    """An error whose every method fails comes back, with its traceback as text, and affects nothing else."""
    ended = error_of(engine, Hostile)

    assert isinstance(ended.error, Hostile)
    assert "failing" in ended.traceback
    assert not drive(engine, far.nothing, range(10)).failures


def test_member_that_cannot_travel_leaves_the_others(engine):
    """In a chain of errors, only the one that cannot be pickled is replaced."""

    def make():
        error = ValueError("whole")
        error.__cause__ = homebound()
        error.__cause__.__cause__ = KeyError("first")
        return error

    error = error_of(engine, make).error
    assert (ValueError, "whole") == (type(error), str(error))
    assert (RemoteError, "test_travel.homebound.<locals>.Homebound: told") == (
        type(error.__cause__),
        str(error.__cause__),
    )
    assert "KeyError('first')" == repr(error.__cause__.__cause__)


def test_error_with_a_very_long_chain_comes_back(engine):
    """The error is of its own class, even if its chain is too long to be pickled; its traceback as text tells the chain."""

    def fail(links):
        error = KeyError("first")
        for number in range(links):
            error, cause = ValueError(number), error
            error.__cause__ = cause
        raise error

    ended = drive(engine, fail, [2000]).failures[0]
    assert (ValueError, (1999,)) == (type(ended.error), ended.error.args)
    assert "KeyError: 'first'" in ended.traceback


def test_a_context_that_is_suppressed_stays_so(engine):
    """After ``raise … from None`` the parent's traceback, too, does not show what was being handled."""

    def make():
        error = ValueError("outer")
        error.__context__, error.__suppress_context__ = KeyError("inner"), True
        return error

    assert error_of(engine, make).error.__suppress_context__


@pytest.mark.parametrize("first", [0, 1, 70])
@pytest.mark.parametrize("line", [0, 1, 3, 33, 34, 70, 5000, 200_000])
def test_a_frame_knows_its_line_and_where_its_function_begins(first, line):
    """A frame that is built anew has the line that failed, and the first line of its function, from which IPython counts."""
    built = _tracebacks.build_traceback([("cell.py", "check", line, "__main__", first)])
    code = built.tb_frame.f_code
    assert (line, line, first) == (built.tb_lineno, built.tb_frame.f_lineno, code.co_firstlineno)
    assert {(line, line, None, None)} == set(code.co_positions())
    assert [("cell.py", "check", line, "__main__", first)] == _tracebacks.frames_of(built)


def test_the_first_line_of_a_function_is_sent():
    """The frames of a traceback have the first lines of their functions, before those that failed."""

    def check(number):
        if number > 1:
            raise ValueError

    with pytest.raises(ValueError) as caught:
        check(2)
    _, (_, name, line, _, first) = _tracebacks.frames_of(caught.value.__traceback__)
    assert ("check", check.__code__.co_firstlineno, first + 2) == (name, first, line)


def test_a_very_long_traceback_has_both_ends():
    """Of a deep recursion, the frames where it begins and where it fails are sent."""

    def fall(depth):
        return fall(depth - 1) if depth else fail_below()

    def fail_below():
        raise ValueError

    with pytest.raises(ValueError) as caught:
        fall(300)
    frames = [name for _, name, *_ in _tracebacks.frames_of(caught.value.__traceback__)]
    assert 100 == len(frames)
    assert ("test_a_very_long_traceback_has_both_ends", "fail_below") == (frames[0], frames[-1])


def test_chain_that_bites_its_tail_comes_back(engine):
    """A cycle of causes comes back, and does not hang."""

    def make():
        first, second = ValueError("first"), ValueError("second")
        first.__context__, second.__context__ = second, first
        return first

    error = error_of(engine, make).error
    assert ("first", "second") == (str(error), str(error.__context__))
    assert error is error.__context__.__context__


@pytest.mark.parametrize("make", [lambda: SystemExit(3), lambda: KeyboardInterrupt("k"), GeneratorExit])
def test_exit_of_a_task_is_an_error_of_it(engine, make):
    """A BaseException comes back as it is; the scheduler wraps it, as it does for threads."""
    error = error_of(engine, make).error
    assert (type(make()), make().args) == (type(error), error.args)


def test_error_whose_class_exits_as_it_is_pickled_is_told_all_the_same(engine):
    """However the pickling of an error exits, its text at least arrives, and its worker goes on."""

    def make(way):
        class Leaving(Exception):
            def __reduce__(self):
                raise way

        return Leaving("told")

    for way in (SystemExit, KeyboardInterrupt, GeneratorExit):
        assert "told" in str(error_of(engine, lambda way=way: make(way)).error)


def test_sys_exit_and_exit_are_errors_of_the_task(engine):
    """``sys.exit`` and ``exit``, which the ``site`` module usually provides, are errors of the task."""
    seen = drive(engine, lambda name: sys.exit(name) if name == "sys" else exit(name), ["sys", "builtin"])
    assert [("sys",), ("builtin",)] == [seen.failures[index].error.args for index in range(2)]


def test_bottomless_recursion_is_an_error_of_the_task(engine):
    """Infinite recursion is a RecursionError of the task, with a traceback of readable length."""

    def fall(depth):
        return fall(depth + 1)

    ended = drive(engine, fall, [0]).failures[0]
    assert isinstance(ended.error, RecursionError)
    assert len(ended.traceback) < 10_000


def test_value_nested_too_deeply_is_an_error_of_the_task(engine):
    """A value that is nested too deeply to be pickled fails its task; the worker lives."""

    def nest(depth):
        value = []
        for _ in range(depth):
            value = [value]
        return value

    seen = drive(engine, nest, [100_000, 3])
    assert [0] == list(seen.failures)
    assert {1: [[[[]]]]} == seen.values


def test_memory_error_is_an_error_of_the_task(engine):
    """A MemoryError fails its task, and the next task runs in the same worker."""
    seen = drive(engine, lambda size: len(bytearray(size)), [1 << 60, 5])
    assert isinstance(seen.failures[0].error, MemoryError)
    assert {1: 5} == seen.values


def test_memory_error_lets_go_of_what_filled_the_memory():
    """Before the error is pickled, which takes memory, the variables of the frames that it came through are released."""
    large = []

    def fill():
        filling = np.zeros(10)
        large.append(weakref.ref(filling))
        raise MemoryError

    try:
        fill()
    except MemoryError as error:
        _faults.capture(error)
        assert large[0]() is None


# The user's main module


def run_script(folder, source, *flags):
    """Run a script without a main guard that drives an engine on its own functions and classes."""
    script = folder / "script.py"
    head = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parent.parent)!r}]\n"
    script.write_text(head + textwrap.dedent(source))
    done = subprocess.run(
        [sys.executable, *flags, script], capture_output=True, text=True, timeout=60, cwd=folder, check=False
    )
    assert "" == done.stderr
    return done.stdout.split()


def test_functions_travel_where_warnings_on_bytes_are_errors(tmp_path):
    """With -bb or -W error, sending a function raises nothing, here or in a worker."""
    source = """
        from parallelkit._executors._processes import ProcessEngine
        from port_driver import drive

        def double(item):
            return item * 2

        engine = ProcessEngine(1)
        print(*drive(engine, double, [21, "x"]).values.values())
        engine.close()
    """
    assert ["42", "xx"] == run_script(tmp_path, source, "-bb", "-Werror")


MAIN = """
from dataclasses import dataclass, make_dataclass
from enum import Enum
from parallelkit._executors._processes import ProcessEngine
from port_driver import drive

class Colour(Enum):
    RED = 1

@dataclass
class Point:
    x: int
    made = 0
    def norm(self):
        return abs(self.x) + OFFSET

class Mine(Exception):
    pass

OFFSET = 1
Point.made = 5
norm = Point.norm

def work(number):
    if number == 3:
        raise Mine("three")
    Point.made += 1
    return Point(-number), Colour.RED

engine = ProcessEngine(1)
seen = drive(engine, work, range(5))
again = drive(engine, lambda point: (point.norm(), isinstance(point, Point)), [Point(-7), Point(8)])
engine.close()
point, colour = seen.values[2]
OFFSET = 100
print(isinstance(point, Point), type(point) is Point, colour is Colour.RED, point.norm(), Point.made)
print(Point.norm is norm, isinstance(seen.failures[3].error, Mine), again.values[0], "script.py" in seen.failures[3].traceback)
try:
    raise seen.failures[3].error
except Mine as error:
    print(error.args[0])
"""


def test_classes_of_main_are_the_callers_own(tmp_path):
    """In a script without a main guard, ``isinstance`` and ``except`` hold for classes of ``__main__`` that come back."""
    out = run_script(tmp_path, MAIN)
    assert ["True", "True", "True", "102", "5", "True", "True", "(8,", "True)", "True", "three"] == out


def test_main_of_the_caller_is_not_imported(tmp_path):
    """A script runs once, however many workers there are."""
    source = """
    from parallelkit._executors._processes import ProcessEngine
    from port_driver import drive
    print("once")
    engine = ProcessEngine(2)
    print(sorted(drive(engine, lambda item: __import__("sys").modules["__main__"].__dict__.get("engine"), [1, 2]).values))
    engine.close()
    """
    assert ["once", "[0,", "1]"] == run_script(tmp_path, source)


# Surroundings


def test_a_module_of_the_program_may_ask_for_all_of_the_package(tmp_path):
    """A module of the program that is imported in a worker can import the whole package."""
    (tmp_path / "far_one.py").write_text(
        "import parallelkit\nfrom parallelkit import *\n"
        "def look(_): return Task.__name__ + parallelkit.__version__\n"
    )
    source = """
    import far_one, parallelkit
    print(*parallelkit.run_parallel(far_one.look, [1], executor="processes").values())
    """
    assert [f"Task{parallelkit.__version__}"] == run_script(tmp_path, source)


def test_what_keeps_the_package_from_being_loaded_is_told(tmp_path):
    """If a module of the program shadows one of Python's, so that ours cannot be imported, the ImportError names it."""
    (tmp_path / "logging.py").write_text("")
    source = """
    try:
        from parallelkit import ProcessExecutor
    except ImportError as error:
        print(str(error).replace(" ", "_"), type(error.__cause__).__name__)
    """
    text, cause = run_script(tmp_path, source)
    assert text.startswith("parallelkit._executors._futures_cannot_be_loaded:_")
    assert "'logging'" in text
    assert cause == "AttributeError"


def test_surroundings_are_the_parents(engine, tmp_path, monkeypatch):
    """Directory, environment, ``sys.path``, arguments and prefix are the parent's at the start of the worker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARALLELKIT_TEST", "set")
    monkeypatch.syspath_prepend("/somewhere")
    own = ProcessEngine(1)
    try:
        ((directory, variable, path, argv, prefix),) = drive(own, far.look_around, [0]).values.values()
    finally:
        own.close()
    assert (str(tmp_path), "set", sys.path, sys.argv, sys.prefix) == (directory, variable, path, argv, prefix)


def fail_elsewhere():
    os.chdir("/")
    raise ValueError("elsewhere")


CHANGES = [
    lambda: os.chdir("/"),
    lambda: posix.chdir("/"),  # as which a script's ``from os import chdir`` arrives
    lambda: os.fchdir(os.open("/", os.O_RDONLY)),
    lambda: os.environ.update(PARALLELKIT_TEST="changed"),
    lambda: os.environ.pop("PATH"),
    lambda: sys.path.insert(0, "/elsewhere"),
    fail_elsewhere,
]


def test_what_a_task_changes_is_put_back(engine):
    """The next task finds directory, environment and ``sys.path`` as they were, whichever of them a task has changed."""

    def look():
        return *far.look_around(None), dict(os.environ)

    acts = [act for change in CHANGES for act in (look, change)]
    seen = drive(engine, lambda act: act(), [*acts, look])
    first, *later = [value for index, value in seen.values.items() if index % 2 == 0]
    assert [first] * len(CHANGES) == later


@pytest.mark.parametrize("options", [{}, {"initializer": far.go_elsewhere}])
def test_what_loading_the_function_or_the_initializer_changes_stays(options):
    """All tasks of a worker, not only its first, find what the function's import or the initializer has changed."""
    own = ProcessEngine(1, **options)
    try:
        seen = drive(own, far.look_around if options else far.Elsewhere(), range(3))
    finally:
        own.close()
    assert ["/"] * 3 == [directory for directory, *_ in seen.values.values()]


@pytest.mark.parametrize("deed", ["trace", "profile", "trace and fail", "profile and fail", "break"])
def test_trace_and_profile_functions_of_a_task_end_with_it(engine, deed):
    """Trace and profile functions that a task sets are removed for the next task and its threads, in the same worker."""
    seen = drive(engine, trace_or_look, ["look", deed, "look"])
    assert ("fail" in deed) == (1 in seen.failures)
    assert seen.values[0] == seen.values[2]


def trace_or_look(deed):
    if deed == "look":
        hooks = sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.getprofile()
        return os.getpid(), hooks
    if "trace" in deed:
        sys.settrace(count_events)
        threading.settrace(count_events)
    elif "profile" in deed:
        sys.setprofile(count_events)
        threading.setprofile(count_events)
    else:
        sys.settrace(break_down)
    if "fail" in deed:
        raise ValueError(deed)
    return None


def count_events(frame, event, argument):
    return None


def break_down(frame, event, argument):
    raise RuntimeError("whoever is called now")


@pytest.mark.parametrize("how", ["fails", "prints"])
def test_a_task_is_no_reason_to_set_the_trace_function_anew(engine, how):
    """A debugger, whose trace function it is, warns of ``sys.settrace`` wherever that is called."""
    seen = drive(engine, do_or_count, [how, "counts"])
    assert (how == "fails") == (0 in seen.failures)
    assert 0 == seen.values[1]


def do_or_count(how):
    if how == "counts":
        sys.settrace, *calls = sys.calls_of_settrace
        return len(calls)
    settrace = sys.settrace
    sys.calls_of_settrace = [settrace]
    sys.settrace = lambda trace: sys.calls_of_settrace.append(trace) or settrace(trace)
    sys.stdout.write(" ")
    if how == "fails":
        raise ValueError
    return None


def test_threads_of_numerical_libraries_are_shared_out(monkeypatch):
    """Each worker's numerical libraries may use its share of the CPUs, unless the user has set another number."""
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    own = ProcessEngine(1000)
    try:
        numbered = "MKL_NUM_THREADS OMP_NUM_THREADS NUMBA_NUM_THREADS RAYON_NUM_THREADS"
        others = "POLARS_MAX_THREADS OPENCV_FOR_THREADS_NUM BLOSC_NTHREADS LOKY_MAX_CPU_COUNT"
        seen = drive(own, far.get_variable, f"{numbered} {others}".split())
    finally:
        own.close()
    assert ["7", *["1"] * 7] == [seen.values[index] for index in range(8)]


def test_a_worker_shares_out_what_it_has_for_numerical_libraries(monkeypatch):
    """Where a task has worker processes of its own, these share what its worker may use; what the user has set is kept."""
    monkeypatch.setenv("MKL_NUM_THREADS", "1000")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS"]

    def run_on_many(names):
        with ProcessExecutor(1000) as executor:
            return run_parallel(far.get_variable, names, executor=executor).values()

    results = run_parallel(run_on_many, [names], executor="processes", max_workers=1)
    assert [["1", "1000"]] == results.values()


def test_warning_filters_are_taken_over():
    """A filter that turns a warning into an error does so in tasks, too, also if the warning's class comes with the function's module."""
    own = ProcessEngine(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", FutureWarning)
            warnings.simplefilter("error", far.BewareWarning)
            warnings.simplefilter("ignore", far.BeCarefulWarning)
            seen = drive(own, far.warn, [FutureWarning, UserWarning, far.BewareWarning, far.BeCarefulWarning])
    finally:
        own.close()
    assert {0: FutureWarning, 2: far.BewareWarning} == {
        index: type(ended.error) for index, ended in seen.failures.items()
    }


FILTERS_OF_ITS_OWN = """
import warnings

class OwnWarning(UserWarning):
    pass

warnings.simplefilter("always", UserWarning)
warnings.simplefilter("always", OwnWarning)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    warnings.warn("not while it is imported", UserWarning)

def warn(kind):
    warnings.warn("mind", kind)
"""


def test_a_module_that_is_imported_does_not_override_the_programs_warning_filters(tmp_path, monkeypatch):
    """Many add filters then, such as scikit-learn and statsmodels: what the program ignores came back from each worker."""
    (tmp_path / "filters_of_its_own.py").write_text(FILTERS_OF_ITS_OWN)
    monkeypatch.syspath_prepend(tmp_path)
    with warnings.catch_warnings():
        module = importlib.import_module("filters_of_its_own")
        warnings.simplefilter("error", UserWarning)
        kinds = [UserWarning, module.OwnWarning]
        results = run_parallel(module.warn, kinds, executor="processes", max_workers=1)
    del sys.modules["filters_of_its_own"]
    assert kinds == [type(failure.error) for failure in results.failures.values()]


@pytest.mark.all
@pytest.mark.skipif(sys.version_info < (3, 14), reason="filters are the program's there")
def test_warning_filters_of_a_context_are_taken_over(tmp_path):
    """Where filters belong to a context (free-threaded builds have it so), tasks get those of the code that began the run."""
    (tmp_path / "filters_of_its_own.py").write_text(FILTERS_OF_ITS_OWN)
    source = """
    import warnings
    from parallelkit import ProcessExecutor, iter_parallel, run_parallel
    from filters_of_its_own import warn
    kinds, reused = [UserWarning], ProcessExecutor(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collected = run_parallel(warn, kinds, executor="processes").failures.values()
        streamed = iter_parallel(warn, kinds, executor="processes")
        found = [*collected, *streamed, *run_parallel(warn, kinds, executor=reused).failures.values()]
        with ProcessExecutor(1) as executor:
            print(*(repr(each.error) for each in found), repr(executor.submit(warn, *kinds).exception()))
    reused.shutdown()
    """
    found = run_script(tmp_path, source, "-X", "context_aware_warnings=1")
    assert ["UserWarning('mind')"] * 4 == found


def test_flags_are_taken_over(tmp_path):
    """Workers have the -O and -X flags of this interpreter."""
    source = """
    from parallelkit._executors._processes import ProcessEngine
    from port_driver import drive
    engine = ProcessEngine(1)
    print(drive(engine, lambda item: (sys.flags.optimize, sys.flags.utf8_mode), [0]).values[0])
    engine.close()
    """
    assert ["(1,", "1)"] == run_script(tmp_path, source, "-O", "-X", "utf8")


@pytest.fixture
def any_digits():
    """A program without a limit on the digits of integers as text."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(before)


@pytest.mark.parametrize("width", [1, 6])
@pytest.mark.all
def test_workers_write_numbers_as_long_as_the_program_may(any_digits, width):
    """Workers have the program's current limit on digits; a zygote that was started with another limit is not used."""
    assert [6021] == run_parallel(lambda power: len(str(2**power)), [20_000], executor="processes").values()
    with ProcessExecutor(width) as executor:
        tasks = [20_000] * width
        longs = run_parallel(lambda power: len(str(2**power)), tasks, executor=executor).values()
        sys.set_int_max_str_digits(5_000)
        died = run_parallel(lambda item: os._exit(1), range(width), executor=executor)
        results = run_parallel(lambda power: len(str(2**power)), tasks, executor=executor)
    assert [6021] * width == longs
    assert len(died.failures) == width == len(results.failures)
    assert all("Exceeds the limit (5000" in str(failure.error) for failure in results.failures.values())


# Logs


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def kept():
    handler = Kept()
    logger = logging.getLogger("far")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.records
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_log_records_come_back(kept):
    """Log records of tasks arrive before the run is over, with index and attempt, even from tasks that die."""
    own = ProcessEngine(2)
    try:
        drive(own, far.log_and, range(4))
    finally:
        own.close()
    messages = sorted((record.task_index, record.task_attempt, record.getMessage()) for record in kept)

    assert [
        (0, 1, "item 0"),
        (1, 1, "failed"),
        (1, 1, "item 1"),
        (2, 1, "item 2"),
        (3, 1, "item 3"),
    ] == messages
    assert {f"process {record.process}" for record in kept} == {record.processName for record in kept}
    assert os.getpid() not in {record.process for record in kept}
    (failed,) = [record for record in kept if record.exc_text]
    assert "ValueError: logged" in failed.exc_text
    kind, error, frames = failed.exc_info
    assert (ValueError, "logged") == (kind, str(error))
    assert "log_and" == frames.tb_frame.f_code.co_name
    assert {(index,) for index in range(4)} == {
        tuple(record.own) for record in kept if hasattr(record, "own")
    }


def test_a_log_record_that_cannot_be_sent_as_it_is_fails_no_task(kept, capfd):
    """Texts stand for what cannot be pickled; a record whose message cannot be formatted is told on stderr, as elsewhere."""
    assert "done" == run_parallel(far.log_awkwardly, [0], executor="processes")[0]
    (made,) = kept
    assert ("locked", "an object of type _thread.lock") == (made.msg, made.own)
    assert (None, float, int) == (made.exc_text, type(made.created), type(made.levelno))
    assert "--- Logging error ---" in capfd.readouterr().err


def test_what_a_log_record_says_of_itself_stays(kept, running):
    """A process may have a name of its own, and a filter may have made a text of the traceback."""

    def log(_):
        record = logging.LogRecord("far", logging.INFO, "", 0, "", None, (ValueError, ValueError(), None))
        record.processName, record.exc_text = "own", "without secrets"
        logging.getLogger("far").handle(record)

    run_parallel(log, [0], executor=running).raise_failures()
    assert [("own", "without secrets")] == [(made.processName, made.exc_text) for made in kept]


def test_a_log_record_is_what_it_would_be_in_the_program(kept, running):
    """Formatters of structlog and of JSON want the dict that was logged, Sentry the text before its arguments are put in."""

    class Unfit:
        def __reduce__(self):
            return int, ("no number",)

    def log(_):
        logger = logging.getLogger("far")
        logger.warning({"items": [1]})
        logger.warning("%s of %d", "one", 2, extra={"own": [1], "lock": threading.Lock(), "unfit": Unfit()})
        logger.warning("%s", Path("a"))
        logger.warning("%(a)s", {"a": 1})
        logger.warning({"lock": threading.Lock()})

    run_parallel(log, [0], executor=running).raise_failures()
    told, templated, *formatted, awkward = kept
    assert {"items": [1]} == told.msg
    assert ("%s of %d", ("one", 2), "one of 2") == (templated.msg, templated.args, templated.getMessage())
    assert ([1], "an object of type _thread.lock") == (templated.own, templated.lock)
    assert templated.unfit.startswith("an object of type ")
    assert ["a", "1"] == [made.msg for made in formatted]
    assert awkward.msg.startswith("{'lock': <unlocked _thread.lock object")


def test_what_was_raised_is_part_of_a_log_record(kept, running):
    """Handlers that do not format records, such as those of loguru, rich and Sentry, show the error by its traceback. A large one is not copied."""

    def fail():
        raise KeyError("a")

    def log(_):
        try:
            fail()
        except KeyError:
            logging.getLogger("far").exception("failed")
        try:
            raise ImportError("b", path=" " * HEAVY)
        except ImportError:
            logging.getLogger("far").exception("failed with much")
        logging.getLogger("far").exception("nothing was raised")  # noqa: LOG004  # as this says

    run_parallel(log, [0], executor=running).raise_failures()
    failed, heavy, none = kept
    kind, error, frames = failed.exc_info
    assert (KeyError, ("a",)) == (kind, error.args)
    assert ["log", "fail"] == [each.tb_frame.f_code.co_name for each in (frames, frames.tb_next)]
    assert failed.exc_text.endswith("KeyError: 'a'")
    assert (RemoteError, "builtins.ImportError: b") == (heavy.exc_info[0], str(heavy.exc_info[1]))
    assert heavy.exc_text.endswith("\nImportError: b")
    assert (None, None, None) == none.exc_info


@pytest.fixture
def nothing_below_error():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_what_the_program_has_disabled_is_not_logged_by_tasks(kept, nothing_below_error):
    """``logging.disable`` counts in workers, too."""
    run_parallel(far.log_at, [(logging.WARNING, logging.ERROR)], executor="processes").raise_failures()
    assert ["ERROR"] == [made.levelname for made in kept]


def log_at_own_level(levels):
    logging.addLevelName(27, "OF THE TASK")
    far.log_at(levels)


@pytest.mark.all
def test_levels_have_the_names_that_the_program_has_given_them(kept, monkeypatch):
    """Log levels have the names that the program has given them, or otherwise those that the task has."""
    for names in ("_levelToName", "_nameToLevel"):
        monkeypatch.setattr(logging, names, dict(getattr(logging, names)))
    logging.addLevelName(26, "NOTICE")
    logging.addLevelName(logging.ERROR, "Error")
    run_parallel(log_at_own_level, [(26, 27, logging.ERROR)], executor="processes").raise_failures()
    run_parallel(far.log_at, [(28, logging.WARNING)], executor="processes").raise_failures()
    assert ["NOTICE", "OF THE TASK", "Error", "Level 28", "WARNING"] == [record.levelname for record in kept]


class Level(enum.IntEnum):
    NOTICE = 25


class Text(str):
    __slots__ = ()


class Place:
    def __fspath__(self):
        return "/place"


def arguments(_):
    return sys.argv


@pytest.mark.all
def test_settings_of_classes_that_no_new_worker_can_import_reach_it_as_plain_values(kept, monkeypatch):
    """Log levels, path entries and arguments of classes that a worker cannot import reach it as plain ints and strings."""
    logging.getLogger("far").setLevel(Level.NOTICE)
    monkeypatch.setattr(sys, "path", [Place(), *map(Text, sys.path)])
    monkeypatch.setattr(sys, "argv", [Text("program"), Place(), 5])
    run_parallel(far.log_at, [(24, 26)], executor="processes", max_workers=1).raise_failures()
    assert [26] == [record.levelno for record in kept]
    assert [["program", "/place", 5]] == run_parallel(arguments, [0], executor="processes").values()


def test_logging_is_not_imported_for_nothing(tmp_path):
    """A worker does not import logging, or anything else that neither its parent nor its tasks use."""
    source = """
    import remote_tasks as far
    from parallelkit._executors._processes import ProcessEngine
    from port_driver import drive
    engine = ProcessEngine(1)
    (loaded,) = drive(engine, far.loaded_modules, [0]).values.values()
    engine.close()
    print(*loaded, sep="\\n")
    """
    loaded = run_script(tmp_path, source)
    assert "remote_tasks" in loaded
    assert not {"logging", "typing", "re", "threading", "cloudpickle", "parallelkit._run"} & set(loaded)


SCRIPT = """
import gc

TABLE = "of the script"

def tables(number):
    return sum(each.get("TABLE") == TABLE for each in gc.get_objects() if type(each) is dict)
"""


@pytest.mark.parametrize("initializer", [None, print])
def test_a_worker_keeps_no_function_that_came_with_a_task(initializer):
    """A worker drops the function of a task with its globals, which may be large: only the running task's are there."""
    script = {"__name__": "__main__"}
    exec(SCRIPT, script)
    with ProcessExecutor(1, initializer=initializer) as executor:
        found = run_parallel([Task(script["tables"], number) for number in range(20)], executor=executor)
    assert [1] * 20 == found.values()


def test_a_worker_that_stays_keeps_no_arguments_of_earlier_runs(engine):
    """Arguments of runs, which may be large, are dropped with the run by workers that serve several."""
    for _ in range(4):
        assert {0: 0, 1: 0} == drive(engine, far.count_arguments, range(2), kwargs={"of": {"one"}}).values


def test_a_worker_that_stays_opens_nothing_with_each_run(executor):
    """The number of descriptors of a worker does not grow with the number of runs."""
    counts = [run_parallel(far.count_files, [0], executor=executor)[0] for _ in range(4)]
    assert [counts[0]] * 4 == counts


CELL = """
def check(number):
    raise LookupError(number) if number else ValueError(number)

def whole(number):
    try:
        check(number)
    except LookupError as error:
        raise ExceptionGroup("all", [error]) from None
"""


def test_a_traceback_has_lines_that_only_the_parent_knows(monkeypatch):
    """Tracebacks show source lines of a notebook's cells, which no worker can read; frames of a group are indented."""
    monkeypatch.setitem(
        linecache.cache, "<cell 1>", (len(CELL), None, CELL.splitlines(keepends=True), "<cell 1>")
    )
    cell = {"__name__": "__main__"}
    exec(compile(CELL, "<cell 1>", "exec"), cell)
    failures = run_parallel(cell["whole"], [0, 1], executor="processes").failures
    plain, group = (failures[key].traceback for key in (0, 1))
    line = "raise LookupError(number) if number else ValueError(number)"
    assert f", in check\n    {line}\nValueError: 0\n" in plain
    assert ', in whole\n  |     raise ExceptionGroup("all", [error]) from None\n  | ' in group
    assert f", in check\n    |     {line}\n    | LookupError: 1\n" in group
    assert plain == pickle.loads(pickle.dumps(failures[0])).traceback


def test_standard_output_is_the_parents(tmp_path):
    """What tasks and an initializer print appears on the parent's output, in whole lines, or at the end of the task where it ends in none."""
    source = """
    import os
    from functools import partial
    from parallelkit import run_parallel, ProcessExecutor
    run_parallel(lambda item: print("line", item), range(20), executor="processes", max_workers=2)
    with ProcessExecutor(1, initializer=partial(print, end=" "), initargs=("start",)) as executor:
        run_parallel(lambda item: print(item, end=" "), range(20, 29), executor=executor)
    run_parallel(lambda item: (print(item), os._exit(1)), [29], executor="processes")
    """
    out = run_script(tmp_path, source)
    assert sorted(["start"] + ["line"] * 20 + [str(number) for number in range(30)]) == sorted(out)


def test_text_is_encoded_as_in_the_program(monkeypatch):
    """What tasks print is encoded as what the program prints to the same place, unless by a codec that only it has."""

    def own(name):
        return codecs.lookup("utf-16") if name == "own" else None

    def encodings(_):
        return sys.stdout.encoding, sys.stdout.errors, sys.stderr.encoding

    codecs.register(own)
    try:
        with (
            open(1, "w", encoding="latin-1", errors="namereplace", closefd=False) as out,
            open(2, "w", encoding="own", closefd=False) as err,
        ):
            monkeypatch.setattr(sys, "stdout", out)
            monkeypatch.setattr(sys, "stderr", err)
            (there,) = run_parallel(encodings, [0], executor="processes").values()
    finally:
        codecs.unregister(own)
    assert ("latin-1", "namereplace") == there[:2]
    assert "own" != there[2]


def test_where_the_program_prints_elsewhere_workers_have_the_usual_encoding(monkeypatch, tmp_path):
    """An encoding of a file or a text in memory, to which no worker prints, is not that of a worker."""
    closed = open(os.devnull, "w", encoding="utf-16")  # noqa: SIM115  # it is closed on the next line
    closed.close()
    with open(tmp_path / "log", "w", encoding="utf-16") as log:
        for stream in (log, closed, io.TextIOWrapper(io.BytesIO(), encoding="utf-16"), io.StringIO(), None):
            assert (None, None) == _encoding(1, stream)


def test_what_is_printed_into_a_file_is_in_it(tmp_path):
    """An initializer may have what its worker prints go into a file, which nobody flushes."""

    def open_log():
        sys.stdout = open(tmp_path / str(os.getpid()), "w")  # noqa: SIM115  # it stays open

    with ProcessExecutor(1, initializer=open_log) as executor:
        run_parallel(lambda item: sys.stdout.write(f"{item}\n"), range(3), executor=executor)
    (log,) = tmp_path.iterdir()
    assert "0\n1\n2\n" == log.read_text()


def warn_of(items):
    for item in items:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"mind {item}", UserWarning, stacklevel=1)


@pytest.mark.all
@pytest.mark.parametrize("module", [True, False])
def test_warnings_are_logged_where_the_program_has_them_logged(kept, module):
    """With ``logging.captureWarnings``, warnings of tasks are logged, even while a task has replaced the filters."""
    logging.captureWarnings(True)
    logger = logging.getLogger("py.warnings")
    logger.addHandler(handler := Kept())
    warn = warn_of
    if not module:  # which imports logging
        warn = types.FunctionType(warn_of.__code__, {"__name__": "__main__", "warnings": warnings})
    try:
        run_parallel(warn, [("one", "two")], executor="processes").raise_failures()
    finally:
        logger.removeHandler(handler)
        logging.captureWarnings(False)
    first, second = (record.getMessage() for record in handler.records)
    assert "test_travel.py" in first
    assert "UserWarning: mind one" in first
    assert "UserWarning: mind two" in second


@pytest.mark.all
def test_warnings_are_not_logged_elsewhere(kept, capfd):
    """Without ``logging.captureWarnings``, warnings of tasks go to stderr."""
    run_parallel(warn_of, [("one",)], executor="processes").raise_failures()
    assert "UserWarning: mind one" in capfd.readouterr().err


def test_error_sets_its_state_itself(engine):
    """A lock that cannot be sent, say, is made anew by the ``__setstate__`` of the error's class."""

    class Locked(Exception):
        def __init__(self, text):
            self.text, self.lock = text, threading.Lock()

        def __setstate__(self, state):
            self.text, self.lock = state["text"].upper(), "new"

    error = error_of(engine, lambda: Locked("told")).error
    assert ("TOLD", "new") == (error.text, error.lock)


def test_error_with_items_in_its_reduce_keeps_them(engine):
    """Of a ``__reduce__`` with more than a state, only a pickler could make use."""

    class Items(Exception):
        def __init__(self, text):
            super().__init__(text)
            self.items = {}

        def __setitem__(self, key, value):
            self.items[key] = value

        def __reduce__(self):
            return Items, self.args, None, None, iter(self.items.items())

    def make():
        error = Items("told")
        error["key"] = 1
        return error

    assert {"key": 1} == error_of(engine, make).error.items


def test_os_error_with_the_arguments_of_a_subclass(engine):
    """They were given to it later; made with them, it would be a FileNotFoundError."""

    def make():
        error = OSError("told")
        error.args = (2, "changed")
        return error

    error = error_of(engine, make).error
    assert (OSError, (2, "changed")) == (type(error), error.args)
