"""Validation: every bad call is refused at once, before anything runs, with the argument, the rule and the value."""

import asyncio
import inspect
import queue
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

from parallelkit import (
    InputError,
    ProcessExecutor,
    RateLimit,
    Retry,
    Task,
    ThreadExecutor,
    iter_parallel,
    map_reduce,
    run_parallel,
)
from parallelkit._form import shape_of
from parallelkit._options import Checked, RunOptions, check_options


def both(*, stream_too=True):
    """Parametrise over both functions; of ``iter_parallel`` only the call is made."""
    calls = [run_parallel, *([iter_parallel] if stream_too else [])]
    return pytest.mark.parametrize("call", calls, ids=lambda call: call.__name__)


class Matrix:
    """Like a sparse matrix of scipy: not an array, but iterable by rows."""

    shape = (2, 2)

    def __iter__(self):
        return iter([[1, 0], [0, 1]])


class Trace:
    """A function and an input that record whether they are used."""

    def __init__(self):
        self.touched = []

    def fn(self, item):
        self.touched.append(("ran", item))

    def items(self):
        self.touched.append("read")
        yield 1


@pytest.fixture
def trace():
    trace = Trace()
    yield trace
    assert [] == trace.touched, "nothing has run, and nothing was read"


NAN, INF = float("nan"), float("inf")

BAD_OPTIONS = [
    # names
    ({"max_worker": 4}, TypeError, "unknown option 'max_worker'; did you mean 'max_workers'?"),
    ({"time_out": 4}, TypeError, "unknown option 'time_out'; did you mean 'timeout'?"),
    ({"mode": "process"}, TypeError, "unknown option 'mode'; did you mean 'executor'?"),
    ({"resume": "run.journal"}, TypeError, "unknown option 'resume'; did you mean 'checkpoint'?"),
    ({"retry": 4}, TypeError, "unknown option 'retry'; did you mean 'retries'?"),
    ({"on_eror": 4}, TypeError, "unknown option 'on_eror'; did you mean 'on_error'?"),
    ({"buffer_size": 4}, TypeError, "unknown option 'buffer_size'; did you mean 'buffersize'?"),
    ({"policy": 4}, TypeError, "unknown option 'policy'; "),
    ({"xyz": 4}, TypeError, r"unknown option 'xyz'; the options are args, .*; .* kwargs={'xyz': \.\.\.}"),
    (
        {"initializer": print},
        TypeError,
        r"unknown option 'initializer'; pass it to .* executor=ProcessExecutor\(",
    ),
    ({"initargs": ()}, TypeError, r"unknown option 'initargs'; .* ThreadExecutor\("),
    ({"max_time": 9}, TypeError, r"unknown option 'max_time'; .* retries=Retry\(\.\.\., max_time=\.\.\.\)"),
    ({"total_timeout": 9}, TypeError, "unknown option 'total_timeout'; did you mean 'run_timeout'?"),
    # executor
    (
        {"executor": "thread"},
        ValueError,
        "executor must be one of 'threads', 'processes', 'inline', a concurrent.*; did you mean 'threads'",
    ),
    ({"executor": "Threads"}, ValueError, "executor must be .* got 'Threads'"),
    ({"executor": None}, TypeError, "executor must be .* got None"),
    ({"executor": 4}, TypeError, "executor must be .* got 4"),
    ({"executor": object}, TypeError, "executor must be .* got <class 'object'>; pass an object of it"),
    (
        {"executor": type("Pool", (), {"__module__": "multiprocessing.pool"})()},
        TypeError,
        "executor must be .* got .*; pass a ThreadExecutor or a ProcessExecutor in place of it",
    ),
    ({"executor": ThreadPoolExecutor}, TypeError, "executor must be .* got <class 'concurrent.+ThreadPool"),
    # counts
    ({"max_workers": 0}, ValueError, "max_workers must be greater than 0, got 0"),
    (
        {"max_workers": -3},
        ValueError,
        "greater than 0, got -3; leave it out for as many as suit this machine",
    ),
    ({"max_workers": 2.0}, TypeError, "max_workers must be an int, got 2.0"),
    ({"max_workers": "2"}, TypeError, "max_workers must be an int, got '2'"),
    ({"max_workers": True}, TypeError, "max_workers must be an int, got True"),
    ({"buffersize": 0}, ValueError, "buffersize must be greater than 0, got 0"),
    ({"buffersize": 1.5}, TypeError, "buffersize must be an int, got 1.5"),
    # seconds
    ({"timeout": -1}, ValueError, "timeout must be greater than 0, got -1; math.inf means no limit"),
    ({"timeout": NAN}, ValueError, "timeout must be a number of seconds, got nan"),
    ({"timeout": "5"}, TypeError, "timeout must be a number of seconds, got '5'"),
    ({"timeout": True}, TypeError, "timeout must be a number of seconds, got True"),
    (
        {"timeout": 10**400},
        ValueError,
        "timeout must be a number of seconds that a float can hold, .* got one above that",
    ),
    ({"run_timeout": 10**5000}, ValueError, "run_timeout must be a number of seconds that a float can hold"),
    ({"run_timeout": -0.5}, ValueError, "run_timeout must be greater than 0, got -0.5"),
    ({"run_timeout": NAN}, ValueError, "run_timeout must be a number of seconds, got nan"),
    ({"run_timeout": [5]}, TypeError, r"run_timeout must be a number of seconds, got \[5\]"),
    # retries
    ({"retries": -1}, ValueError, "retries must be at least 0, got -1"),
    ({"retries": 1.0}, TypeError, "retries must be an int, a Retry or a tenacity.Retrying, got 1.0"),
    ({"retries": None}, TypeError, "retries must be an int, a Retry or a tenacity.Retrying, got None"),
    # failures
    ({"on_error": "ignore"}, ValueError, "on_error must be one of 'collect', 'raise', got 'ignore'"),
    ({"on_error": "rise"}, ValueError, "got 'rise'; did you mean 'raise'?"),
    ({"on_error": 5}, TypeError, "on_error must be one of 'collect', 'raise', got 5"),
    ({"on_error": None}, TypeError, "on_error must be one of 'collect', 'raise', got None"),
    ({"on_error": ["raise"]}, TypeError, r"on_error must be one of 'collect', 'raise', got \['raise'\]"),
    ({"max_failures": 0}, ValueError, "max_failures must be greater than 0, got 0"),
    ({"max_failures": -1}, ValueError, "max_failures must be greater than 0, got -1"),
    ({"max_failures": 0.0}, ValueError, "max_failures must be an int, or a share between 0 and 1, got 0.0"),
    ({"max_failures": 1.0}, ValueError, "max_failures must be an int, or a share between 0 and 1, got 1.0"),
    ({"max_failures": NAN}, ValueError, "max_failures must be a number, got nan"),
    ({"max_failures": "3"}, TypeError, "max_failures must be a number, got '3'"),
    ({"max_failures": True}, TypeError, "max_failures must be a number, got True"),
    # order and key
    (
        {"order": "inputs"},
        ValueError,
        "order must be one of 'input', 'key', 'completion', got 'inputs'; did you mean 'input'?",
    ),
    ({"order": None}, TypeError, "order must be one of 'input', 'key', 'completion', got None"),
    (
        {"key": "name"},
        TypeError,
        r"key must be callable, got 'name'; for a field of the item write lambda item: item\['name'\]",
    ),
    (
        {"key": ["a", "b"]},
        TypeError,
        r"key must be callable, got \['a', 'b'\]; for a list of keys pass dict\(zip\(keys, items\)\) as items",
    ),
    ({"priority": 3}, TypeError, "priority must be callable, got 3"),
    ({"then": []}, TypeError, r"then must be callable, got \[\]"),
    # arguments
    ({"args": "abc"}, TypeError, "args must be a tuple or a list of positional arguments, got 'abc'"),
    ({"args": b"abc"}, TypeError, "args must be a tuple or a list of .* got b'abc'"),
    (
        {"args": np.zeros(3)},
        TypeError,
        r"args must be a tuple or a list of .* got the ndarray itself; a single one needs its comma: \(x,\)",
    ),
    (
        {"args": Matrix()},
        TypeError,
        "args must be a tuple or a list of .* got the Matrix itself",
    ),
    ({"args": {"a": 1}}, TypeError, "args must be a tuple or a list of .* got {'a': 1}"),
    ({"args": {1, 2}}, TypeError, "args must be a tuple or a list of .* got {1, 2}"),
    ({"args": {"a": 1}.keys()}, TypeError, "args must be a tuple or a list of .* got dict_keys"),
    ({"args": 5}, TypeError, "args must be a tuple or a list of .* got 5"),
    ({"args": None}, TypeError, "args must be a tuple or a list of .* got None"),
    ({"kwargs": ["a"]}, TypeError, r"kwargs must be a mapping, got \['a'\]"),
    ({"kwargs": {3: "a"}}, TypeError, "kwargs must have names as keys, got 3"),
    ({"star": 1}, TypeError, "star must be a bool, got 1"),
    ({"star": "yes"}, TypeError, "star must be a bool, got 'yes'"),
    # the rest
    ({"progress": "bar"}, TypeError, "progress must be a bool or a dict of tqdm's options, got 'bar'"),
    ({"progress": None}, TypeError, "progress must be a bool or a dict of tqdm's options, got None"),
    (
        {"progress": {"color": "red"}},
        TypeError,
        "progress must be a bool or a dict of tqdm's options, got 'color' in it; did you mean 'colour'?",
    ),
    ({"progress": {"iterable": [1]}}, TypeError, "a dict of tqdm's options, got 'iterable' in it; "),
    ({"progress": {0: 1}}, TypeError, "got 0 in it; they are ascii, bar_format, colour, delay, desc, "),
    ({"limits": 10}, TypeError, "limits must be RateLimit or ConcurrencyLimit objects, got 10"),
    ({"limits": [RateLimit(1, per=1), "2/s"]}, TypeError, "limits must be RateLimit .* got '2/s'"),
]


@both()
@pytest.mark.parametrize(("options", "kind", "message"), BAD_OPTIONS)
def test_a_bad_option_is_refused_at_the_call(call, options, kind, message, trace):
    """A bad option is refused at the call, with the argument, the rule and the value."""
    with pytest.raises(kind, match=message):
        call(trace.fn, trace.items(), **options)


GOOD_OPTIONS = [
    {"executor": "processes"},
    {"max_workers": None, "timeout": None, "run_timeout": None, "key": None, "buffersize": None},
    {"max_workers": 1, "buffersize": 1, "timeout": 0.1, "run_timeout": 0.5},
    {"timeout": INF, "run_timeout": INF},
    {"retries": Retry(0), "max_failures": 1},
    {"max_failures": 0.01},
    {"args": [1, 2], "kwargs": None},
    {"args": (), "kwargs": {}, "star": True},
    {"progress": {"desc": "all"}},
    {"limits": RateLimit(1, per=1)},
]


@pytest.mark.parametrize("options", GOOD_OPTIONS)
def test_a_good_option_is_let_in(options):
    """The limits of each rule are valid values."""
    checked = check_options(options)
    given = {
        name: value for name, value in options.items() if name in ("timeout", "run_timeout", "max_failures")
    }
    assert given == {name: getattr(checked, name) for name in given}


def test_what_is_not_given_has_its_default():
    """Without options, a run is in threads, collects failures, and has input order."""
    assert Checked() == check_options({})
    assert ("threads", "collect", "input", None, None) == (
        (checked := check_options({})).executor,
        checked.on_error,
        checked.order,
        checked.timeout,
        checked.policy,
    )


@pytest.mark.parametrize(("call", "order"), [(run_parallel, "input"), (iter_parallel, "completion")])
def test_the_signature_declares_each_option_with_its_default_and_type(call, order):
    """``help``, editors and notebooks show and complete the options; they are as validated, and as type checkers see them."""
    declared = {
        name: parameter
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    defaults = {name: parameter.default for name, parameter in declared.items()}
    types = {name: parameter.annotation for name, parameter in declared.items() if name != "key"}
    assert defaults.pop("retries") == 0
    assert check_options(defaults, order=order) == check_options({}, order=order)
    assert types == {name: kind.__forward_arg__ for name, kind in RunOptions.__annotations__.items()}


def test_arguments_are_copied():
    """``args`` and ``kwargs`` are copied: later changes by the caller do not affect the run."""
    args, kwargs = [1], {"a": 1}
    checked = check_options({"args": args, "kwargs": kwargs})
    args.append(2)
    kwargs["b"] = 2
    assert ((1,), {"a": 1}) == (checked.args, checked.kwargs)


def test_a_tuple_of_arguments_may_have_a_field_of_any_name():
    """A named tuple of arguments may have a field ``shape``, and is not taken for an array."""
    gamma = NamedTuple("gamma", [("shape", float), ("scale", float)])(2.0, 3.0)
    results = run_parallel(lambda item, shape, scale: item * shape * scale, [1, 2], args=gamma)
    assert [6.0, 12.0] == results.values()


def test_whatever_can_submit_is_an_executor():
    """An executor need not derive from ``concurrent.futures.Executor``."""

    class Pool:
        def submit(self, fn, /, *args, **kwargs):
            raise AssertionError("not called at the door")

    pool = Pool()
    assert pool is check_options({"executor": pool}).executor


def test_a_submit_that_needs_more_than_a_function_is_another_interface():
    """A pool such as pebble's, whose ``submit`` would take the first argument for a timeout, is refused at the door."""

    class Pool:
        def submit(self, fn, timeout, /, *args, **kwargs):
            raise AssertionError("not called at the door")

    told = (
        r"^executor must be one of .*Pool object at .*; its submit needs more than a function: .*'timeout'$"
    )
    with pytest.raises(TypeError, match=told):
        check_options({"executor": Pool()})


# The two forms


def square(x):
    return x * x


async def wait_for(x):
    return x


async def give(x):
    yield x


@pytest.fixture
def coroutine():
    made = wait_for(1)
    yield made
    made.close()


@both()
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {"fn": square, "items": [1]}, r"as a positional argument: write \w+_parallel\(fn, items\)"),
        ((), {"tasks": [square]}, r"takes fn, or tasks, as a positional argument: .* \w+_parallel\(tasks\)"),
        ((pow, [1], [2]), {}, r"got 3 positional .* write \w+_parallel\(fn, zip\(a, b\), star=True\)"),
        ((square, [1], 4), {}, "got 3 positional arguments; pass options by keyword"),
        ((), {}, "missing 1 required positional argument: 'fn'"),
    ],
)
def test_how_a_run_is_called_is_said(call, arguments, options, message):
    """A wrong number of arguments is refused with the forms of the call."""
    with pytest.raises(TypeError, match=message):
        call(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("key", lambda fn: run_parallel(square, [1], key=fn)),
        ("priority", lambda fn: run_parallel(square, [1], priority=fn)),
        ("then", lambda fn: run_parallel(square, [1], then=fn)),
        ("on_event", lambda fn: run_parallel(square, [1], on_event=fn)),
        ("by", lambda fn: RateLimit(1, per=1, by=fn)),
        ("on", lambda fn: Retry(1, on=fn)),
        ("reduce", lambda fn: map_reduce(square, [1], fn, initial=0)),
        ("initializer", lambda fn: ThreadExecutor(1, initializer=fn)),
        ("initializer", lambda fn: ProcessExecutor(1, initializer=fn)),
    ],
)
def test_what_a_run_calls_itself_runs_when_it_is_called(name, call):
    """Coroutine functions and generators are refused for ``key``, initializers and so on: no code of theirs would run."""

    async def later(*given):
        """Never called."""

    async def several(*given):
        yield "never called"

    for function in (later, several):
        with pytest.raises(TypeError, match=f"{name} must not be defined by 'async def', since nobody"):
            call(function)

    def one_by_one(*given):
        yield "never called"

    if name != "then":
        with pytest.raises(TypeError, match=f"{name} must not be a generator function, whose call does not"):
            call(one_by_one)


def test_a_callable_may_raise_for_whatever_it_is_asked():
    """A callable whose attributes raise, such as a client of remote calls, is accepted."""

    class Remote:
        def __call__(self, item):
            return item + 1

        def __getattr__(self, name):
            raise RuntimeError(f"no session for {name}")

    assert {2: 1} == run_parallel(square, [1], key=Remote(), priority=Remote()).to_dict()


@both()
def test_what_a_coroutine_function_returns_is_no_input(call, coroutine):
    """A coroutine as input is refused: the message asks for the function."""
    for arguments, message in (
        ((coroutine,), "tasks must be iterable, got <coroutine .*; pass the function itself, and not"),
        ((coroutine, [1]), "fn must be callable, got <coroutine .*; pass the function itself, and not"),
        ((square, give(1)), r"items must be iterable, got <async_gen.*\[item async for item in \.\.\.\]"),
    ):
        with pytest.raises(TypeError, match=message):
            call(*arguments)


@both()
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (3, [1]),
            "fn must be callable, got 3; pass the function itself, and not its name or what it returns",
        ),
        (([1, 2], square), r"fn must be callable, got \[1, 2\]; the function comes first, its items second"),
        (("len", [1]), "fn must be callable, got 'len'; pass the function itself, and not its name"),
        (([square], [1]), r"fn must be callable, got .*; several functions .* goes into args=\(\.\.\.\)"),
        ((square,), "items must be given together with a function, got only <function square"),
        ((square, 5), "items must be iterable, got 5"),
        ((square, square), "items must be iterable, got <function square .*; pass what it returns, and not"),
        ((square, None), "items must be iterable, got None"),
        (
            (square, queue.Queue()),
            r"items must be iterable, got <queue\.Queue .*; .* iter\(queue\.get, None\)",
        ),
        ((square, asyncio.Queue()), r"items must be iterable, got <Queue at \w+ maxsize=0>$"),
        ((5,), "tasks must be iterable, got 5"),
        (({"a": square}, [1]), "items must not be given together with a mapping of tasks; several functions"),
        (
            ({"a": 1}, square),
            "items must not be given together with a mapping of tasks; the function comes first",
        ),
        ((None, [1]), "fn must be callable, got None"),
        ((square, "abc"), "items must not be the str 'abc', which would be taken apart into its characters"),
        ((square, b"abc"), "items must not be the bytes b'abc', which would be taken apart into its numbers"),
        (("abc",), "tasks must not be the str 'abc'"),
        ((square, [Task(square, 1)]), "items must not be Task objects.*; pass them alone, as tasks"),
        ((square, {"a": Task(square, 1)}), "items must not be Task objects"),
    ],
)
def test_what_is_neither_form_is_refused(call, arguments, message):
    """A call must have a function with items, or tasks alone."""
    with pytest.raises(TypeError, match=message):
        call(*arguments)


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_tasks_among_items_are_refused_as_they_are_read(executor):
    """A Task in lazy items is refused when it is read, and does not run."""
    with pytest.raises(InputError, match="items must not be Task objects") as caught:
        run_parallel(square, (Task(square, item) for item in range(3)), executor=executor)
    assert 0 == len(caught.value.results)


def test_a_task_in_a_mapping_may_repeat_the_mappings_key():
    """It changes nothing."""
    assert {"a": 1} == run_parallel({"a": Task(abs, -1, key="a")}, executor="inline").to_dict()


@both()
def test_a_task_in_a_mapping_has_the_mappings_key(call, trace):
    """A Task in a mapping may not have another key of its own."""
    with pytest.raises(
        ValueError, match="key must be that of the mapping or not given, got 'b' for the task under 'a'"
    ):
        call({"a": Task(trace.fn, 1, key="b")})


@pytest.mark.parametrize("lazy", [False, True])
def test_the_tuples_of_joblib_are_recognised(lazy):
    """For tuples of ``joblib.delayed``, the message shows the form to use instead."""
    delayed = pytest.importorskip("joblib", reason="joblib is an extra").delayed
    calls = [delayed(square)(item) for item in range(3)]
    with pytest.raises(
        (TypeError, InputError), match=r"in place of joblib's delayed\(f\)\(x\), write Task\(f, x\)"
    ):
        run_parallel(iter(calls) if lazy else calls)


@pytest.mark.parametrize("library", ["joblib", "dask", "sklearn.utils.parallel"])
def test_delayed_functions_are_refused(library):
    """A function that is still wrapped in ``delayed`` is refused: its values would be mere descriptions of calls, and look like success."""
    delayed = pytest.importorskip(library, reason="an extra").delayed
    said = "must not be wrapped in delayed, which only notes the call .*; pass the function itself"
    for call in (delayed(square), [1]), (partial(delayed(square), 1), [()]), ([Task(delayed(square), 1)],):
        with pytest.raises(TypeError, match=said):
            run_parallel(*call)
    with pytest.raises(InputError, match=said):
        run_parallel(delayed(square) for _ in range(2))


def delayed(fn):
    """A decorator of the program's, with the names of joblib's."""

    def delayed_function(item):
        return fn(item)

    return delayed_function


def test_functions_of_the_program_are_not_taken_for_delayed_ones():
    """Neither a decorator of that name, nor a callable whose class raises when asked for what dask's have."""

    class Watchful(type):
        def __getattr__(cls, name):
            raise RuntimeError(name)

    class Doubling(metaclass=Watchful):
        def __call__(self, item):
            return 2 * item

    assert [4] == run_parallel(delayed(square), [2], executor="inline").values()
    assert [4] == run_parallel(Doubling(), [2], executor="inline").values()


@both(stream_too=False)
@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            [square, 3],
            r"tasks must be callables or Task objects, got 3 at position 1; .* a call f\(x\), write Task",
        ),
        ((None,), "tasks must be callables or Task objects, got None at position 0"),
        ({"a": square, "b": "c"}, "tasks must be callables or Task objects, got 'c' at position 1"),
    ],
)
def test_what_cannot_be_called_is_refused_before_anything_runs(call, tasks, message, trace):
    """A task that is not callable is refused before anything runs, even behind good ones."""
    tasks = {"first": trace.fn, **tasks} if isinstance(tasks, dict) else tasks
    with pytest.raises(TypeError, match=message.replace("1", "[12]")):
        call(tasks)


@both()
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((square, {"a": 1}), {"key": str}, "key must not be given together with a mapping"),
        (({"a": square},), {"key": str}, "key must not be given together with tasks"),
        (([square],), {"key": str}, "key must not be given together with tasks"),
        (([square],), {"star": True}, "star must not be given together with tasks"),
    ],
)
def test_an_option_that_would_mean_nothing_is_refused(call, arguments, options, message):
    """An option that would have no effect is refused, because the caller expects one."""
    with pytest.raises(TypeError, match=message):
        call(*arguments, **options)


# Keys of sized input


@pytest.mark.parametrize(
    ("items", "key", "kind", "message"),
    [
        (["a", "b", "a"], str, ValueError, "key must be unique, got 'a' at positions 0 and 2"),
        ([1, 2.5, 1.0], lambda item: item, ValueError, "key must be unique, got 1.0 at positions 0 and 2"),
        (["a", "b"], lambda item: [item], TypeError, r"key must be hashable, got \['a'\] at position 0"),
        (["a", 3], len, InputError, "key raised TypeError for the item at position 1"),
    ],
)
def test_a_bad_key_of_sized_input_is_found_before_anything_runs(items, key, kind, message, trace):
    """A bad or duplicate key of sized input is refused before anything runs, with its position or both positions."""
    with pytest.raises(kind, match=message):
        run_parallel(trace.fn, items, key=key)


def test_a_task_with_the_key_of_another_is_found_before_anything_runs(trace):
    """Keys of Tasks must differ from each other and from the positions of those without a key."""
    with pytest.raises(ValueError, match="key must be unique, got 'k' at positions 0 and 2"):
        run_parallel([Task(trace.fn, 1, key="k"), trace.fn, Task(trace.fn, 2, key="k")])
    with pytest.raises(ValueError, match="key must be unique, got 1 at positions 0 and 1"):
        run_parallel([Task(trace.fn, 1, key=1), trace.fn])


@pytest.mark.parametrize(
    ("keys", "positions"),
    [([1, "b"], "[01] and [01]"), ([3, 1, None, 2], "[0123] and [0123]"), ([1j, 2j], "[01] and [01]")],
)
def test_keys_that_cannot_be_sorted_are_found_before_anything_runs(keys, positions, trace):
    """With order="key", keys that cannot be sorted are refused with both positions, before anything runs."""
    message = f"key must return values that can be compared, for order='key'.* at positions {positions}"
    with pytest.raises(TypeError, match=message):
        run_parallel(trace.fn, keys, key=lambda item: item, order="key")
    with pytest.raises(TypeError, match=message):
        run_parallel(dict.fromkeys(keys, trace.fn), order="key")


class Undecided:
    """A key that compares to something without a truth value, as ``pandas.NA`` and symbols do; and cannot be shown."""

    def __lt__(self, other):
        return self

    def __bool__(self):
        raise TypeError("ambiguous")

    def __repr__(self):
        raise OSError


def test_keys_whose_comparison_has_no_truth_value_are_named_too(trace):
    """Whatever raises as keys are sorted, and whatever they are, the message has both positions."""
    shown = "<Undecided, whose repr raised OSError>"
    with pytest.raises(TypeError, match=f"got {shown} and {shown} at positions 1 and 0$"):
        run_parallel(trace.fn, [Undecided(), Undecided()], key=lambda item: item, order="key")


def test_tasks_without_keys_are_sorted_by_position():
    """With order="key", tasks without keys are sorted by their positions."""
    assert [0, 1, 2] == list(run_parallel([list, list, list], order="key"))


def test_a_key_that_raises_keeps_its_error(trace):
    """What ``key`` raises is the cause of the InputError, whose results, which a caller may want to save, are empty."""
    with pytest.raises(InputError) as caught:
        run_parallel(trace.fn, [1], key=lambda item: item.name)
    assert isinstance(caught.value.__cause__, AttributeError)
    assert {} == caught.value.results.successes


class Breaking:
    """Two items as it says, and an error in place of the second."""

    def __len__(self):
        return 2

    def __iter__(self):
        yield abs
        raise OSError("gone")


@pytest.mark.parametrize("call", [run_parallel, iter_parallel])
def test_sized_input_that_breaks_at_the_door_is_an_input_error(call):
    """It is one where items are read in the run, so whoever expects it need not know when they are read."""
    given = [(Breaking(),)] if call is iter_parallel else [(Breaking(),), (str, Breaking())]
    for form in given:
        with pytest.raises(InputError, match="the input raised OSError after 1 item: gone") as caught:
            call(*form, **{"key": str} if len(form) == 2 else {})
        assert isinstance(caught.value.__cause__, OSError)
        assert {} == caught.value.results


@pytest.mark.parametrize(
    ("options", "ordered"),
    [
        ({}, False),
        ({"limits": RateLimit(1, per=1)}, True),
        ({"priority": id}, True),
        ({"then": bool}, True),
        ({"retries": Retry(1, max_time=9)}, True),
    ],
)
def test_what_has_an_order_waits_for_no_task_to_call_for_one(options, ordered):
    """A run with limits, priorities, ``then`` or ``max_time`` has its order from the first task on, also in input that is read lazily."""
    shape = shape_of(check_options(options), None, iter([]))
    assert (True, not ordered) == (shape.gated or shape.bounded, shape.tentative)


def test_a_stream_cannot_be_sorted(trace):
    """A stream refuses order="key": it would have to wait for its last outcome before it yields the first."""
    with pytest.raises(ValueError, match="order must be 'input' or 'completion' for a stream, got 'key'"):
        iter_parallel(trace.fn, trace.items(), order="key")


# Executors


@both()
def test_the_width_of_our_own_executor_is_its_own(call, trace):
    """``max_workers`` together with an executor of ours is refused."""
    with ThreadExecutor(2) as executor:
        with pytest.raises(
            ValueError, match="max_workers must not be given together with a parallelkit executor"
        ):
            call(trace.fn, trace.items(), executor=executor, max_workers=3)


@both()
def test_an_executor_that_is_shut_down_is_refused(call, trace):
    """An executor that is shut down is refused, with a message that speaks of no future: a run has none to show."""
    executor = ThreadExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="executor must not have been shut down; make a new one"):
        call(trace.fn, trace.items(), executor=executor)


@both()
def test_a_foreign_executor_must_say_how_wide_it_is(call, trace):
    """A foreign executor that does not tell its width needs ``max_workers``."""

    class Pool(Executor):
        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    with pytest.raises(ValueError, match="max_workers must be given for Pool"):
        call(trace.fn, trace.items(), executor=Pool())
    assert [1, 4] == run_parallel(square, [1, 2], executor=Pool(), max_workers=2).values()


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        *(
            ({name: 2}, "did you mean 'max_workers'")
            for name in ("n_jobs", "nthreads", "num_threads", "processes", "procs", "threads", "worker")
        ),
        ({"backend": "threads"}, "did you mean 'executor'"),
        ({"num_cpus": 2}, "did you mean 'max_workers'"),
        ({"argument_type": "args"}, "did you mean 'star'"),
        ({"executor": "process"}, "did you mean 'processes'"),
        ({"executor": "loky"}, "did you mean 'processes'"),
        ({"executor": "sequential"}, "did you mean 'inline'"),
        ({"start_method": "spawn"}, "a worker process is always a fresh interpreter$"),
        ({"mmap_mode": "r"}, "large arrays in args are shared in memory, and no file is written$"),
        ({"concurrency": 2}, "did you mean 'max_workers'"),
        ({"executor": "asyncio"}, "executor='threads' runs coroutine functions, too"),
        ({"task_timeout": 2}, "did you mean 'timeout'"),
        ({"chunksize": 2}, "unknown option 'chunksize'; batches are sized automatically"),
        ({"return_exceptions": True}, "every outcome is kept, errors too: see outcomes and failures"),
        ({"desc": "squares"}, r"a dict: progress={'desc': \.\.\.}"),
        ({"callback": print}, "iter_parallel yields .*on_event .* no values"),
        ({"on_failure": print}, "iter_parallel yields .*on_event .* no values"),  # close to max_failures
        ({"on_start": print}, "iter_parallel yields .*on_event .* no values"),  # close to star
        ({"max_errors": 2}, "did you mean 'max_failures'"),
        ({"fail_fast": True}, "did you mean \"on_error='raise'\""),
        ({"stream": True}, "iter_parallel yields the outcomes as they come"),
        ({"maxtasksperchild": 2}, r"ProcessExecutor\(\.\.\., max_tasks_per_child="),
        ({"max_tasks_per_child": 2}, r"ProcessExecutor\(\.\.\., max_tasks_per_child=\.\.\.\)$"),
        ({"thread_name_prefix": "a"}, r"executor=ThreadExecutor\(\.\.\., thread_name_prefix=\.\.\.\)$"),
        ({"initializer": print}, r"ProcessExecutor\(\.\.\., initializer="),
        ({"worker_init": print}, r"ProcessExecutor\(\.\.\., initializer="),
        ({"max_tries": 3}, "did you mean 'retries=max_tries - 1'"),
        ({"exceptions": OSError}, r"retries=Retry\(\.\.\., on=\.\.\.\)"),
    ],
)
def test_names_of_other_libraries_are_understood(options, hint):
    """For an option of another library, the message gives the name that it has here."""
    with pytest.raises((TypeError, ValueError), match=hint):
        run_parallel(abs, [1], **options)
