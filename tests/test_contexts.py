"""What an attempt finds in its context variables: the caller's values, a decimal context of its own, and what the initializer has set."""

import asyncio
import decimal
import gc
import logging
import socket
import sys
import threading
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import Context, ContextVar, copy_context

import pytest
import remote_tasks as far

from parallelkit import ProcessExecutor, Retry, ThreadExecutor, iter_parallel, run_parallel
from parallelkit._executors._process import _sharing
from parallelkit._executors._process._sharing import pack_initializer
from parallelkit._worker._initial import apply_settings

VARIABLE = ContextVar("variable", default="unset")


@pytest.fixture
def precision():
    """The caller's decimal precision; its context object itself is there for attempts to find."""
    with decimal.localcontext(prec=7) as context:
        yield context


def mapped(fn, items, width):
    """Run it as calls of an executor."""
    with ThreadExecutor(width) as executor:
        return list(executor.map(fn, items))


def run(fn, items, width):
    """Run it as tasks of a run."""
    return run_parallel(fn, items, max_workers=width).values()


def streamed(fn, items, **options):
    """The values of a stream, whose attempts are handed over by another thread than the caller's."""
    return [outcome.value for outcome in iter_parallel(fn, items, **options)]


def collected(fn, items, **options):
    """The values of a run."""
    return run_parallel(fn, items, **options).values()


@pytest.mark.parametrize("values_of", [collected, streamed])
@pytest.mark.parametrize("executor", ["threads", "inline", "a pool of threads"])
def test_what_an_attempt_sets_is_its_own(executor, values_of, precision):
    """What an attempt sets in a context variable neither the next attempt nor the caller sees, in any thread."""
    VARIABLE.set("the caller's")

    def look(item):
        seen = VARIABLE.get(), decimal.getcontext().prec
        VARIABLE.set("changed")
        decimal.getcontext().prec = 3
        return seen

    with ThreadPoolExecutor(1) as pool:
        options = {"executor": pool if executor == "a pool of threads" else executor}
        options |= {"max_workers": 1} if executor == "threads" else {}
        assert [("the caller's", 7)] * 2 == values_of(look, range(2), **options)
    assert ("the caller's", 7) == (VARIABLE.get(), precision.prec)


@pytest.mark.parametrize("executor", ["threads", "processes", "inline"])
def test_the_callers_own_code_has_its_variables_in_a_stream_as_well(executor):
    """The caller's context variables are there in ``then``, ``on_event``, ``retries`` and log handlers, in a stream and with processes, too."""
    VARIABLE.set("the caller's")
    seen = []

    def note(thing):
        seen.append(VARIABLE.get())

    class Handler(logging.Handler):
        emit = staticmethod(note)

    handler = Handler()
    logging.getLogger("of-tasks").addHandler(handler)
    try:
        options = {"retries": Retry(1, on=note), "then": note, "on_event": note, "executor": executor}
        for _ in iter_parallel(complain, [1], **options):
            pass
    finally:
        logging.getLogger("of-tasks").removeHandler(handler)
    assert {"the caller's"} == set(seen)


def complain(item):
    """Log, and fail."""
    logging.getLogger("of-tasks").warning("no")
    raise ValueError


@pytest.mark.parametrize("through", [run, mapped])
def test_each_attempt_counts_with_a_precision_of_its_own(through, precision):
    """The decimal precision that an attempt sets applies neither to concurrent attempts nor to the caller."""
    both = threading.Barrier(2)

    def third(digits):
        decimal.getcontext().prec = digits
        both.wait(30)
        return str(decimal.Decimal(1) / 3)

    assert ["0." + "3" * digits for digits in (3, 5)] == through(third, [3, 5], 2)
    assert 7 == precision.prec == decimal.getcontext().prec


@pytest.mark.parametrize("through", [run, mapped])
def test_an_attempt_counts_with_the_callers_precision_where_it_sets_none(through, precision):
    """An attempt has the caller's decimal precision and traps, whatever the previous attempt has left."""
    precision.traps[decimal.Inexact] = True

    def look(number):
        context = decimal.getcontext()
        seen = context.prec, context.traps[decimal.Inexact]
        context.prec, context.traps[decimal.Inexact] = number, False
        return seen

    assert [(7, True)] * 4 == through(look, range(1, 5), 1)


def submitted(fn, change):
    """The value of a call before which its caller makes a change."""
    with ThreadExecutor(1) as executor:
        go = threading.Event()
        executor.submit(go.wait, 30)
        future = executor.submit(fn, 0)
        change()
        go.set()
        return future.result(30)


def second_of_a_stream(fn, change):
    """The value of a task before which the reader of its stream makes a change."""
    with closing(iter_parallel(fn, range(2), max_workers=1, buffersize=1)) as stream:
        next(stream)
        change()
        return next(stream).value


@pytest.mark.parametrize("way", [submitted, second_of_a_stream])
def test_an_attempt_has_the_precision_that_its_caller_had_then(way, precision):
    """When it called, not when the attempt begins: what the caller changes meanwhile came into some attempts, by chance."""
    assert 7 == way(lambda _: decimal.getcontext().prec, lambda: setattr(precision, "prec", 50))


@pytest.mark.parametrize("through", [run, mapped])
def test_so_is_the_precision_of_gmpy2(through, monkeypatch):
    """The same holds for gmpy2, whose context is in a variable, too."""

    class Rounding:
        def __init__(self, precision):
            self.precision = precision

        def copy(self):
            return Rounding(self.precision)

    monkeypatch.setitem(sys.modules, "gmpy2", types.SimpleNamespace(context=Rounding))
    VARIABLE.set(Rounding(53))

    def look(precision):
        seen = VARIABLE.get().precision
        VARIABLE.get().precision = precision
        return seen

    assert [53, 53, 53] == through(look, [1, 2, 3], 1)
    assert 53 == VARIABLE.get().precision


@pytest.mark.parametrize("through", [run, mapped])
def test_a_module_of_the_program_may_have_the_name(through, monkeypatch):
    """A program may have a module of its own named ``decimal``, without contexts."""
    monkeypatch.setitem(sys.modules, "decimal", types.ModuleType("decimal"))
    VARIABLE.set("the caller's")
    assert ["the caller's"] == through(lambda _: VARIABLE.get(), [1], 1)


def test_what_the_callers_variables_refer_to_is_freed_with_them(precision):
    """A run leaves no reference cycle that keeps it, also where each attempt has a decimal context of its own."""

    def look():
        value = threading.Event()
        VARIABLE.set(value)
        assert [7] == run_parallel(lambda _: decimal.getcontext().prec, [1], executor="inline").values()
        return weakref.ref(value)

    gc.collect()
    gc.disable()
    try:
        left = copy_context().run(look)
        assert left() is None
    finally:
        gc.enable()


def test_a_coroutine_counts_with_a_precision_of_its_own(precision):
    """A coroutine keeps its decimal precision across its awaits."""

    async def third(digits):
        decimal.getcontext().prec = digits
        await asyncio.sleep(0)
        return str(decimal.Decimal(1) / 3)

    assert ["0.333", "0.33333"] == run_parallel(third, [3, 5]).values()
    assert 7 == precision.prec


def call(executor, fn):
    """Run it as a call of an executor."""
    return executor.submit(fn, 0).result()


def run_on(executor, fn):
    """Run it as a run on an executor."""
    return run_parallel(fn, [0], executor=executor)[0]


@pytest.mark.parametrize("through", [run_on, call])
def test_an_attempt_finds_what_the_initializer_of_its_thread_has_set(through, precision):
    """An attempt has the context variables that its thread's initializer has set, may change them for itself, and has the caller's other ones."""
    other = ContextVar("other")
    other.set("the caller's")
    VARIABLE.set("the caller's")

    def initialize(value):
        VARIABLE.set(value)
        decimal.getcontext().prec = 50

    def look(item):
        context = decimal.getcontext()
        seen = VARIABLE.get(), context.prec, other.get()
        context.prec = 3
        VARIABLE.set("changed")
        return seen

    with ThreadExecutor(1, initializer=initialize, initargs=(None,)) as executor:
        assert [(None, 50, "the caller's")] * 3 == [through(executor, look) for _ in range(3)]
    assert ("the caller's", 7) == (VARIABLE.get(), precision.prec)


@pytest.mark.parametrize("through", [run_on, call])
def test_what_an_initializer_does_not_set_is_the_callers(through):
    """Variables that an initializer only reads are the caller's."""
    VARIABLE.set("of the first caller")
    with ThreadExecutor(1, initializer=VARIABLE.get) as executor:
        assert "of the first caller" == through(executor, lambda _: VARIABLE.get())
        VARIABLE.set("of the second")
        assert "of the second" == through(executor, lambda _: VARIABLE.get())


@pytest.mark.parametrize("through", [run_on, call])
def test_an_attempt_finds_what_its_initializer_has_set_also_where_its_caller_has_set_nothing(through):
    """An attempt has what its initializer has set, even if the caller has set no variable and used no decimals."""

    def caller():
        with ThreadExecutor(1, initializer=VARIABLE.set, initargs=("the thread's",)) as executor:
            return through(executor, lambda _: VARIABLE.get())

    assert "the thread's" == Context().run(caller)


@pytest.mark.parametrize("through", [run_on, call])
def test_a_run_inline_has_its_callers_variables_not_those_of_the_threads_initializer(through):
    """Where a task has changed what the initializer has set, a run that it makes in its own thread sees the change."""

    def initialize():
        VARIABLE.set("the thread's")
        decimal.getcontext().prec = 50

    def look(item):
        return VARIABLE.get(), decimal.getcontext().prec

    def change_and_run(item):
        VARIABLE.set("the task's")
        decimal.getcontext().prec = 9
        return run_parallel(look, [0], executor="inline")[0]

    with ThreadExecutor(1, initializer=initialize) as executor:
        assert ("the task's", 9) == through(executor, change_and_run)


def in_a_run():
    return run_parallel(far.third_of, [1, 2], executor="processes").values()


def in_a_stream():
    return [
        outcome.value for outcome in iter_parallel(far.third_of, [1, 2], executor="processes", order="input")
    ]


def on_an_executor():
    with ProcessExecutor(1, initializer=far.trap_nothing, initargs=(decimal.Inexact,)) as executor:
        return list(executor.map(far.third_of, [1, 2]))


@pytest.mark.parametrize("way", [in_a_run, pytest.param(in_a_stream, marks=pytest.mark.all), on_an_executor])
def test_worker_processes_count_as_whoever_opened_them(way, precision):
    """Worker processes have the decimal context of whoever opened them, so that sums do not silently lose digits; their initializer runs as well."""
    precision.traps[decimal.Inexact] = way is on_an_executor
    assert ["0.3333333", "0.6666667"] == way()


def test_a_worker_that_counts_as_python_does_need_not_be_told(monkeypatch):
    """A default decimal context, whatever flags are set, is not sent to workers, which then need not import decimal."""
    monkeypatch.setattr(_sharing, "RECURSION", sys.getrecursionlimit())
    with decimal.localcontext(decimal.Context()):
        decimal.Decimal(1) / 3
        assert pack_initializer(None, ()) is None
        decimal.getcontext().rounding = decimal.ROUND_UP
        assert pack_initializer(None, ()) is not None
        monkeypatch.setitem(sys.modules, "decimal", types.ModuleType("decimal"))
        assert pack_initializer(None, ()) is None


@pytest.fixture
def deep():
    """The program has raised its recursion limit."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(3 * before)
    yield 2 * before
    sys.setrecursionlimit(before)


def depth(limit):
    return 1 + depth(limit - 1) if limit else 0


@pytest.mark.all
def test_worker_processes_go_as_deep_as_the_program(deep):
    """Worker processes have the program's recursion limit."""
    assert [deep] == run_parallel(depth, [deep], executor="processes").values()
    with ProcessExecutor(1, initializer=depth, initargs=(deep,)) as executor:
        assert deep == executor.submit(depth, deep).result()


def test_sockets_in_worker_processes_wait_no_longer_than_the_program_does():
    """Worker processes have the program's default socket timeout, so that a silent server holds no worker forever."""
    socket.setdefaulttimeout(5)
    try:
        seen = run_parallel(lambda item: socket.getdefaulttimeout(), [1], executor="processes").values()
    finally:
        socket.setdefaulttimeout(None)
    assert [5] == seen


def test_an_initializer_finds_what_it_relies_on():
    """The initializer, if any, runs with its arguments after all this is set."""
    limit, told = sys.getrecursionlimit(), []

    def initialize(*args):
        told.append((*args, decimal.getcontext().prec, sys.getrecursionlimit(), socket.getdefaulttimeout()))

    def begin():
        apply_settings(limit + 1, 7, decimal.Context(prec=9), initialize, 1, 2)
        apply_settings(limit, None, None, None)
        return decimal.getcontext().prec

    assert (9, [(1, 2, 9, limit + 1, 7)]) == (Context().run(begin), told)
    assert (limit, None) == (sys.getrecursionlimit(), socket.getdefaulttimeout())


def test_a_function_that_uses_a_context_variable_is_told_to_take_its_value():
    """Context variables are not sent to worker processes; who uses one is told what to do instead."""
    request = ContextVar("request")
    with pytest.raises(TypeError, match=r"^request, which .* pass its value in args"):
        run_parallel(lambda item: request.get(), [1], executor="processes")
