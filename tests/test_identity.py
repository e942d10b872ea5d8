"""The identity of a function in a journal: different functions are told apart even if they have one name, and the same one is never refused."""

import enum
import functools
import operator
import os
import re
import sqlite3
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from parallelkit import InputError, Task, iter_parallel, run_parallel
from parallelkit._journal._identity import difference, identity_of


@pytest.fixture
def path(in_memory):
    return in_memory / "run.journal"


HUGE = 10**5000  # of more digits than Python prints


class Unit(enum.Enum):
    KG = 1
    LB = 2


class Point(NamedTuple):
    x: int
    y: int


class Pair(tuple):
    """As ``time.struct_time``, its fields have no names that it tells."""

    __slots__ = ()


@dataclass(frozen=True)
class Model:
    rate: float
    sizes: tuple[int, ...] = (2,)
    cache: dict = field(default_factory=dict, compare=False)

    def go(self, item):
        return f"{item} {self.rate}"

    def __call__(self, item):
        return self.go(item)


class Named(Model):
    """Inherits its fields, which cannot be set in its objects either."""

    def go(self, item):
        return f"named {super().go(item)}"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


def convert(item, unit="g", *, digits=0):
    return f"{item} {unit} {digits}"


def scale(item):
    return f"scaled {item}"


def made(number):
    def go(item):
        return f"{item} {number!a}" if number != HUGE else item

    return go


def made_of_defaults(number, more=0):
    def go(item, by=number, *, more=more):
        return f"{item} {by} {more}"

    return go


def made_lambda(number):
    return lambda item: f"{item} {number}"


def together(first, second, item):
    return f"{first} {second} {item}"


def apply_to(fn, item):
    return fn(item)


def in_unit(unit):
    def decorate(fn):
        @functools.wraps(fn)
        def go(item):
            return fn(item, unit)

        return go

    return decorate


@in_unit("kg")
def weigh(item, unit):
    return f"{item} {unit}"


@functools.cache
def remember(item, unit="kg"):
    return f"{item} {unit}"


def decorated(fn):
    def wrapper(item):
        return fn(item)

    return wrapper


class Multiply:
    def __init__(self, by):
        self.by = by
        self.calls = 0

    def go(self, item):
        self.calls += 1
        return f"{item} {self.by}"

    __call__ = go

    @classmethod
    def of_class(cls, item):
        return f"{cls.__name__} {item}"


class MultiplyMore(Multiply):
    pass


def run(fn, path, **options):
    return run_parallel(fn, {"a": "a"}, checkpoint=path, executor="inline", **options)


OTHERS = {
    "lambdas": (lambda x: "A" + x, lambda x: "B" + x, "code"),
    "lambdas by a name": (lambda x: x.upper(), lambda x: x.lower(), "code"),
    "lambdas by what is in them": (
        lambda x: [y + "1" for y in x],
        lambda x: [y + "2" for y in x],
        "code",
    ),
    "lambdas by a set": (lambda x: str(x in {"a", "b"}), lambda x: str(x in {"a", "c"}), "code"),
    "lambdas by arguments": (lambda *x: list(x), lambda **x: list(x), "code"),
    "defaults of lambdas": (*((lambda x, n=n: f"{x}{n}") for n in (1, True)), "captured variable n"),
    "variables of lambdas": (made_lambda(1), made_lambda(2), "captured variable number"),
    "partials by keyword": (
        functools.partial(convert, unit="kg"),
        functools.partial(convert, unit="lb"),
        "keyword 'unit'",
    ),
    "partial and function": (functools.partial(convert, unit="kg"), convert, "keyword 'unit'"),
    "function and partial": (convert, functools.partial(convert, digits=1), "keyword 'digits'"),
    "partials by position": (
        functools.partial(operator.add, "x"),
        functools.partial(operator.add, "y"),
        "argument 0",
    ),
    "partials by type": (
        functools.partial(convert, unit=None),
        functools.partial(convert, unit=[]),
        "keyword 'unit'",
    ),
    "partials by function": (
        functools.partial(convert, unit=convert),
        functools.partial(convert, unit=scale),
        "keyword 'unit'",
    ),
    "partials by method": (
        functools.partial(apply_to, str.upper),
        functools.partial(apply_to, str.lower),
        "argument 0",
    ),
    "partials by getter": (
        functools.partial(apply_to, operator.itemgetter(0)),
        functools.partial(apply_to, operator.itemgetter(-1)),
        "argument 0",
    ),
    "partials by cached function": (
        functools.partial(apply_to, functools.cache(convert)),
        functools.partial(apply_to, functools.cache(scale)),
        "argument 0",
    ),
    "partials of partials": (
        functools.partial(functools.cache(functools.partial(together, 1)), 2),
        functools.partial(functools.cache(functools.partial(together, 3)), 2),
        "argument 0",
    ),
    "closures by cached function": (
        decorated(functools.cache(convert)),
        decorated(functools.cache(scale)),
        "captured variable fn",
    ),
    "methods of functions": (
        functools.cache(convert).__call__,
        functools.cache(scale).__call__,
        "object",
    ),
    "partials by member": (
        functools.partial(convert, unit=Unit.KG),
        functools.partial(convert, unit=Unit.LB),
        "keyword 'unit'",
    ),
    "partials by flags": (
        functools.partial(convert, unit=Access.READ),
        functools.partial(convert, unit=Access.READ | Access.WRITE),
        "keyword 'unit'",
    ),
    "partials by path": (
        functools.partial(convert, unit=Path("a")),
        functools.partial(convert, unit=Path("b")),
        "keyword 'unit'",
    ),
    "closures by date": (made(date(2026, 1, 1)), made(date(2026, 1, 2)), "captured variable number"),
    "closures by span": (made(timedelta(1)), made(timedelta(2)), "captured variable number"),
    "closures by zone": (made(ZoneInfo("UTC")), made(ZoneInfo("Asia/Tokyo")), "captured variable number"),
    "closures by offset": (
        made(UTC),
        made(timezone(timedelta(hours=1))),
        "captured variable number",
    ),
    "closures by member": (made(Unit.KG), made(Unit.LB), "captured variable number"),
    "closures by pair": (made(Pair("ab")), made(Pair("ac")), "captured variable number"),
    "closures by named tuple": (made(Point(1, 2)), made(Point(1, 3)), "captured variable number"),
    "closures by type of tuple": (made(Point(1, 2)), made((1, 2)), "captured variable number"),
    "partials by numpy's number": (
        functools.partial(convert, digits=np.float64(0.5)),
        functools.partial(convert, digits=np.float64(0.7)),
        "keyword 'digits'",
    ),
    "closures by numpy's number": (made(np.int64(1)), made(np.int64(2)), "captured variable number"),
    "closures by numpy's text": (made(np.str_("a")), made(np.str_("b")), "captured variable number"),
    "closures by numpy's bool": (made(np.True_), made(np.False_), "captured variable number"),
    "closures by range": (made(range(2)), made(range(3)), "captured variable number"),
    "closures by decimal": (made(Decimal(1)), made(Decimal("1.0")), "captured variable number"),
    "partials of lambdas": (functools.partial(lambda x: x), functools.partial(lambda x: [x]), "code"),
    "closures": (made(2), made(3), "captured variable number"),
    "closures by tuple": (made((1, "a")), made((1, "b")), "captured variable number"),
    "closures by type": (made(1), made(1.0), "captured variable number"),
    "frozen dataclasses": (
        functools.partial(convert, unit=Model(0.5)),
        functools.partial(convert, unit=Model(0.1)),
        "keyword 'unit'",
    ),
    "methods of frozen dataclasses": (Model(0.5).go, Model(0.1).go, "object"),
    "frozen dataclasses that are called": (Model(0.5), Model(0.5, (3,)), "object"),
    "methods of frozen dataclasses of what may change": (Model(0.5, [2]).go, Model(0.1, [2]).go, "object"),
    "methods of a frozen dataclass's subclass": (Named(0.5).go, Named(0.1).go, "object"),
    "closures by tuple of functions": (made((convert, [])), made((scale, [])), "captured variable number"),
    "closures by function": (decorated(convert), decorated(scale), "captured variable fn"),
    "closures by closure": (decorated(made(1)), decorated(made(2)), "captured variable fn"),
    "decorated closures": (in_unit("kg")(convert), in_unit("lb")(convert), "captured variable unit"),
    "methods of closures": (
        MethodType(made_of_defaults(1), "x"),
        MethodType(made_of_defaults(2), "x"),
        "captured variable by",
    ),
    "defaults of closures": (made_of_defaults(1), made_of_defaults(2), "captured variable by"),
    "keyword defaults of closures": (
        made_of_defaults(1, 2),
        made_of_defaults(1, 3),
        "captured variable more",
    ),
    "wrapped closures": (functools.cache(made(1)), functools.cache(made(2)), "captured variable number"),
    "methods of a base": (Multiply(2).go, MultiplyMore(2).go, "object"),
    "methods of a class": (Multiply.of_class, MultiplyMore.of_class, "object"),
    "methods of a text": ("x".join, "y".join, "object"),
    "patterns": (re.compile("a").sub, re.compile("b").sub, "object"),
    "getters": (operator.itemgetter(0), operator.itemgetter(1), "argument 0"),
    "callers": (operator.methodcaller("a", b=1), operator.methodcaller("a", b=2), "keyword 'b'"),
}


@pytest.mark.parametrize(("first", "second", "difference"), OTHERS.values(), ids=OTHERS)
def test_what_a_name_does_not_tell_apart_is_told_apart(path, first, second, difference):
    """Another function of the same name is refused, with what it is identified by, and what to do."""
    run(first, path)
    with pytest.raises(ValueError, match=r"a journal of the same function, got .+/run\.journal") as caught:
        run(second, path)
    assert f" as well, but this run differs in {difference}; " in str(caught.value)
    assert str(caught.value).endswith("use another file")
    run(first, path)


def test_the_message_on_a_lambda_says_to_give_it_a_name(path):
    """The whole message about a lambda, which advises to give it a name."""
    run(lambda x: "A" + x, path)
    name = f"{__name__}:test_the_message_on_a_lambda_says_to_give_it_a_name.<locals>.<lambda>"
    with pytest.raises(ValueError, match="checkpoint") as caught:
        run(lambda x: "B" + x, path)
    assert (
        f"checkpoint must be a journal of the same function, got {path}: it is of {name} as well, but this run "
        "differs in code; a lambda is known by its code: give the function a name, and use another file"
    ) == str(caught.value)


# Never refused falsely

SOURCE = "made = lambda x, n=2: [y for y in x if y not in {'a', 'b', 1.5, b'c', (1, None)}] or n"


def lambda_of(source, name):
    there = {"__name__": "there"}
    exec(compile(source, name, "exec"), there)
    return there["made"]


def test_a_lambda_is_the_same_wherever_it_stands():
    """A lambda has the same identity in another line or file."""
    here, there = lambda_of(SOURCE, "one.py"), lambda_of("\n" * 300 + SOURCE, "elsewhere/two.py")
    assert here.__code__.co_firstlineno != there.__code__.co_firstlineno
    assert identity_of(here) == identity_of(there)


def test_a_lambda_is_the_same_in_every_process():
    """A lambda has the same identity under every hash seed, although sets among its constants have another order."""
    code = "import sys; from parallelkit._journal._identity import identity_of; exec(sys.argv[1]); print(identity_of(made))"
    known = {
        subprocess.run(
            [sys.executable, "-c", code, SOURCE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in "123"
    }
    assert 1 == len(known)


def test_a_lambda_is_the_same_after_python_has_specialized_it():
    """A lambda has the same identity after Python has specialized its bytecode, or while it is traced."""
    function = lambda_of("made = lambda x: sum([x + 1 for _ in range(3)]) + x.real", "one.py")
    before = identity_of(function)
    for number in range(10_000):
        function(number)
    assert before == identity_of(function)
    seen, tracer = [], sys.gettrace()
    sys.settrace(lambda frame, event, argument: seen.append(identity_of(function)) if not seen else None)
    try:
        function(1)
    finally:
        sys.settrace(tracer)
    assert [before] == seen


def test_a_lambda_of_another_python_is_refused_with_the_versions():
    """A lambda of another Python version, which has other bytecode, is refused with both versions."""
    now = identity_of(lambda x: x)
    before = now.replace(f"code = {sys.implementation.cache_tag} ", "code = cpython-39 0")
    why = difference(before, now, "this run")
    assert f"its code, compiled by cpython-39 and now by {sys.implementation.cache_tag}: give" in why


def counting():
    count = 0

    def go(item):
        nonlocal count
        count += 1
        return f"{item} {count}"

    return go


def counting_inside():
    count = 0

    def go(item):
        def add():
            nonlocal count
            count += 1

        add()
        return f"{item} {count}"

    return go


def with_things(things):
    lock, seen = threading.Lock(), list(things)

    def go(item):
        with lock:
            seen.append(item)
        return go.__name__  # it knows itself

    return go


def of_nothing():
    def go(item):
        return item or later

    for later in ():  # noqa: B007  it captures a variable that has no value
        pass
    return go


def twice(make):
    """Made anew for the second run, as in another process."""
    return make(), make()


def once(thing):
    """The same object in both runs."""
    return thing, thing


SAME = {
    "lambdas": twice(lambda: lambda x: x + "1"),
    "lambda": once(lambda x: x + "1"),
    "partial": twice(lambda: functools.partial(convert, unit="kg", digits=1)),
    "partial in another order": (
        functools.partial(convert, unit="kg", digits=1),
        functools.partial(convert, digits=1, unit="kg"),
    ),
    "partial of nothing": (functools.partial(convert), convert),
    "partial of an object": twice(lambda: functools.partial(convert, unit=SimpleNamespace(a=object()))),
    "closure": twice(lambda: made(2)),
    "closure of members and paths": twice(lambda: made((Unit.KG, Access(0), Path("a"), date(2026, 1, 1)))),
    "closure of an instant": (made(datetime(2026, 1, 1)), made(datetime(2026, 1, 2))),
    "closure of objects": (with_things([1]), with_things([2])),
    "closure of objects of other types": (made([1]), made({1})),
    "closure of what is not there": twice(of_nothing),
    "closure of a frozenset": twice(lambda: made(frozenset("abc"))),
    "decorated": twice(lambda: decorated(made("x"))),
    "counter": once(counting()),
    "counter inside": once(counting_inside()),
    "method": (Multiply(2).go, Multiply(3).go),
    "object": (Multiply(2), Multiply(3)),
    "object that counts": once(Multiply(2)),
    "method of an object that counts": once(Multiply(2).go),
    "builtin method": ({"a": 1}.get, {"a": 2}.get),
    "closure of numpy's instant": (made(np.datetime64(1, "s")), made(np.datetime64(2, "s"))),
    "closure of numpy's numbers": twice(lambda: made((np.float32(0.1), np.longdouble(0.1), np.bytes_(b"a")))),
    "not a number": twice(lambda: made(float("nan"))),
    "a number of many digits": twice(lambda: made(HUGE)),
    "frozen dataclass": twice(lambda: functools.partial(convert, unit=Model(0.5))),
    "frozen dataclass that remembers": (Model(0.5, cache=1), Model(0.5, cache=2)),
    "frozen dataclass of what may change": (made(Model([1])), made(Model([2]))),
    "objects of classes named as plain ones": twice(
        lambda: made((type("date", (), {})(), type("number", (), {})()))
    ),
    "half a character": twice(lambda: made("\ud800")),
}


@pytest.mark.parametrize(("first", "second"), SAME.values(), ids=SAME)
def test_the_same_is_never_refused(path, first, second):
    """The same function is never refused, even if objects, counters or attributes have changed between the runs."""
    value = run(first, path)["a"]
    results = run(second, path)
    assert (value, 0) == (results["a"], results.outcomes["a"].attempts)


def test_a_function_within_a_function_may_be_mended(path):
    """An inner function may be changed and may capture other names, but a captured plain value may not change."""

    def make(unit):
        def go(item):
            raise LookupError(unit)

        return go

    def make_mended(unit, digits):
        def go(item):
            return item, unit, digits

        go.__qualname__ = make(1).__qualname__
        return go

    assert ["a"] == list(run(make("kg"), path).failures)
    assert ("a", "kg", 2) == run(make_mended("kg", 2), path)["a"]
    with pytest.raises(ValueError, match="differs in captured variable unit; use"):
        run(make_mended("lb", 2), path)


def test_a_named_function_is_its_name_alone(path):
    """A named function is identified by its name alone: its code, defaults, and what it wraps may change."""
    assert f"{__name__}:convert" == identity_of(convert) == identity_of(functools.partial(convert))
    assert f"{__name__}:weigh" == identity_of(weigh) == identity_of(functools.partial(weigh))
    assert f"{__name__}:remember" == identity_of(remember) == identity_of(remember.__wrapped__)
    assert difference(identity_of(convert), identity_of(in_unit("kg")(convert)), "this run") is None
    assert "builtins:len" == identity_of(len)
    assert f"{__name__}:Multiply.go" == identity_of(Multiply.go) == identity_of(Multiply(2).go)
    assert f"{__name__}:Multiply" == identity_of(Multiply) == identity_of(Multiply(2))
    assert "" == identity_of(None)


class Ufunc:
    """Like NumPy's ufuncs before they had a qualified name."""

    def __init__(self, name):
        self.__name__ = name

    def __call__(self, item):
        return item


def test_numpy_s_functions_are_told_apart_wherever_they_are():
    """NumPy's functions, which are objects of one class, are told apart, and so are their methods."""
    for first, second in (
        (Ufunc("sin"), Ufunc("cos")),
        (np.sin, np.cos),
        (np.add.reduce, np.multiply.reduce),
        (functools.partial(apply_to, np.sin), functools.partial(apply_to, np.cos)),
        (decorated(np.sin), decorated(np.cos)),
    ):
        assert identity_of(first) != identity_of(second)


def both(first, second):
    def go(item):
        return first(item), second(item)

    return go


def test_functions_that_are_made_of_each_other_are_looked_into_once():
    """Each function is examined once, although nested partials refer to the first one 2 ** 60 times."""

    def make(number):
        fn = made(number)
        for _ in range(60):
            fn = both(fn, fn)
        return fn

    assert identity_of(make(1)) == identity_of(make(1)) != identity_of(make(2))


class Remote:
    """A method of a server: every attribute of it is another method."""

    def __init__(self, name):
        self.name = name

    def __getattr__(self, name):
        return Remote(f"{self.name}.{name}")

    def __call__(self, item):
        if self.name != "add":
            raise OSError(f"no method {self.name}")
        return f"added {item}"


@pytest.mark.parametrize("form", ["function", "tasks", "then"])
def test_a_remote_method_is_asked_for_nothing_but_its_call(path, form):
    """A remote method, as of ``xmlrpc`` or Pyro, is only called: none of its attributes is real."""
    if form == "tasks":
        results = run_parallel({"a": Task(Remote("add"), "a")}, checkpoint=path)
        assert "Task(" in repr(Task(Remote("add"), "a"))
    else:
        then = (lambda outcome: ()) if form == "then" else None
        results = run(Remote("add"), path, then=then)
    assert "added a" == results["a"]


# What the run passes with every item


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        ({"args": ("kg",)}, {"args": ("lb",)}, r"args\[0\]"),
        ({"args": ("kg",)}, {}, r"args\[0\]"),
        ({}, {"args": ("kg",)}, r"args\[0\]"),
        (
            {"kwargs": {"unit": "kg", "digits": 1}},
            {"kwargs": {"unit": "kg", "digits": 2}},
            "keyword 'digits'",
        ),
        (
            {"kwargs": {"unit": 1}},
            {"kwargs": {"unit": True, "digits": 1}},
            "keyword 'digits', keyword 'unit'",
        ),
        ({"args": (None,)}, {"args": ([],)}, r"args\[0\]"),
    ],
)
def test_other_arguments_of_the_run_are_refused(path, before, now, difference):
    """Other ``args`` or ``kwargs`` are refused, with their position or name; the same ones, in any order, are not."""
    run(convert, path, **before)
    with pytest.raises(
        ValueError, match=f"it is of {__name__}:convert as well, .* in {difference}; use another"
    ):
        run(convert, path, **now)
    with pytest.raises(ValueError, match="as well"):
        iter_parallel(convert, {"a": "a"}, checkpoint=path, **now)
    assert 0 == run(convert, path, **before).outcomes["a"].attempts


def test_arguments_that_are_no_plain_values_may_change(path):
    """Arguments that are not plain values, such as a list or an object, may change: that is the way to pass, say, a token."""
    run(convert, path, args=(["kg"],), kwargs={"digits": SimpleNamespace(a=1)})
    results = run(convert, path, args=(["lb"],), kwargs={"digits": SimpleNamespace(a=2)})
    assert 0 == results.outcomes["a"].attempts


def test_it_is_the_same_whether_the_run_or_a_partial_passes_a_keyword(path):
    """A keyword of a partial is the same as one of the run."""
    run(functools.partial(convert, unit="kg"), path)
    assert 0 == run(convert, path, kwargs={"unit": "kg"}).outcomes["a"].attempts


def test_no_value_is_to_be_read_in_the_journal(path):
    """The journal has only a digest of argument values, such as a password."""
    run_parallel(scale_quietly, {"a": "a"}, checkpoint=path, executor="inline", args=("open sesame",))
    content = path.read_bytes()
    assert b"scale_quietly\nargs[0] = " in content
    assert b"sesame" not in content


def scale_quietly(item, password):
    return len(item + password)


# Tasks that have a function each


def test_tasks_are_told_apart_by_more_than_their_names(path):
    """Tasks are told apart by captured values, code and arguments, not only by name: a different one is refused at once, or in lazy input when it is read."""
    run_parallel(
        {"a": Task(made(1), "x"), "b": lambda: 1, "c": functools.partial(convert, "x")}, checkpoint=path
    )
    with pytest.raises(
        ValueError, match=r"key 'a': it is of .* but this task differs in captured variable number"
    ):
        run_parallel({"a": Task(made(2), "x")}, checkpoint=path)
    with pytest.raises(ValueError, match=r"key 'b': .* differs in code; a lambda is known by its code"):
        run_parallel({"b": lambda: 2}, checkpoint=path)
    with pytest.raises(InputError, match=r"key 'c': .* differs in argument 0"):
        run_parallel(iter([Task(functools.partial(convert, "y"), key="c")]), checkpoint=path)
    results = run_parallel({"a": Task(made(1), "x"), "c": functools.partial(convert, "x")}, checkpoint=path)
    assert [0, 0] == [outcome.attempts for outcome in results.outcomes.values()]


@pytest.mark.parametrize("options", [{}, {"kwargs": {"digits": 3}}], ids=["bare", "with arguments"])
def test_children_of_the_run_s_own_function_are_the_journal_s(path, options):
    """Children that call the run's own function, or an equal one, are recorded as its calls, whatever arguments the run passes."""
    go = functools.partial(convert, unit="kg")

    def grow(outcome):
        if outcome.parent is None:
            yield Task(go, "b", key="b")
            yield Task(functools.partial(convert, unit="kg"), "c", key="c")
            yield Task(functools.partial(convert, unit="lb"), "d", key="d")

    run_parallel(go, {"a": "a"}, checkpoint=path, then=grow, **options)
    assert [True, True, True, False] == [function is None for function in functions_in(path)]
    results = run_parallel(go, {"a": "a"}, checkpoint=path, then=grow, **options)
    assert [0, 0, 0, 0] == [outcome.attempts for outcome in results.outcomes.values()]


def test_a_run_s_own_function_stays_what_it_was_at_the_call(path):
    """The identity of a run's function is taken at the call, whatever happens to its captured values during the run."""
    number = 1

    def go(item):
        return f"{item} {number}"

    def grow(outcome):
        nonlocal number
        number += 1
        return [Task(go, "b", key="b")] if outcome.parent is None else ()

    run_parallel(go, {"a": "a"}, checkpoint=path, then=grow, executor="inline")
    assert [None, None] == functions_in(path)


def functions_in(path):
    """For each record, the function that it names, or None for the run's own."""
    connection = sqlite3.connect(path)
    try:
        return [function for (function,) in connection.execute("SELECT function FROM outcomes ORDER BY key")]
    finally:
        connection.close()


class Unbound:
    """A callable as a proxy without an object: reading an attribute that its class lacks raises no AttributeError."""

    def __call__(self, item):
        return item

    def __getattr__(self, name):
        raise RuntimeError(f"no context: {name}")


def test_a_task_whose_name_cannot_be_read_is_known_by_its_class(path):
    """The error of reading it came out of the run, as the task was admitted, in place of all results."""
    tasks = [Task(Unbound(), 1, key="a"), Task(abs, -2, key="b")]
    assert [1, 2] == run_parallel(iter(tasks), checkpoint=path).values()
    assert 2 == run_parallel(iter(tasks), checkpoint=path).summary.recalled
    assert "test_identity:Unbound" == identity_of(Unbound())
