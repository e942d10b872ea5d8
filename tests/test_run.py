"""``run_parallel`` from end to end: both forms of call, what tasks get, how a run stops, and what it leaves."""

import asyncio
import gc
import signal
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from math import inf

import pytest
import remote_tasks as far
from patience import PATIENCE, given_time

from parallelkit import (
    InputError,
    Results,
    Retry,
    RunInterrupted,
    Task,
    TaskCancelled,
    TaskFailures,
    TaskTimeout,
    ThreadExecutor,
    iter_parallel,
    map_reduce,
    run_parallel,
)
from parallelkit._executors._inline import InlinePort
from parallelkit._executors._thread._port import ThreadPort
from parallelkit._input import _intake
from parallelkit._runs import _plan

in_threads_and_inline = pytest.mark.parametrize("executor", ["threads", "inline"])
everywhere = pytest.mark.parametrize("executor", ["threads", "inline", "processes"])


# The two forms


@in_threads_and_inline
def test_a_function_is_called_once_an_item(executor):
    """The function is called once per item; keys are positions, a mapping's keys, or those of ``key``."""
    assert {0: 9, 1: 4} == dict(run_parallel(far.square, [3, 2], executor=executor))
    assert {"a": 9, "b": 4} == dict(run_parallel(far.square, {"a": 3, "b": 2}, executor=executor))
    assert {"3": 9, "2": 4} == dict(run_parallel(far.square, iter([3, 2]), key=str, executor=executor))


def test_several_functions_are_called_once_each(anywhere):
    """Callables and Tasks, in a mapping or any iterable, are called once each."""
    tasks = {"a": Task(far.square, 3), "b": Task(far.show, 1, kwargs={"key": 2})}
    assert {"a": 9, "b": ((1,), {"key": 2})} == dict(run_parallel(tasks, executor=anywhere))
    assert {0: 9, "k": 16} == dict(
        run_parallel([Task(far.square, 3), Task(far.square, 4, key="k")], executor=anywhere)
    )
    assert {0: ((), {}), 1: 4} == dict(run_parallel(iter([far.show, Task(far.square, 2)]), executor=anywhere))


@in_threads_and_inline
def test_arguments_for_all_follow_each_items_own(executor):
    """``args`` and ``kwargs`` follow each item's own arguments, for one function or for many."""
    options = {"args": (7,), "kwargs": {"flag": True}, "executor": executor}
    assert [((1, 7), {"flag": True})] == run_parallel(far.show, [1], **options).values()
    assert [((1, 2, 7), {"flag": True})] == run_parallel(far.show, [(1, 2)], star=True, **options).values()
    tasks = [Task(far.show, 1, kwargs={"own": 0}), far.show]
    assert [((1, 7), {"own": 0, "flag": True}), ((7,), {"flag": True})] == run_parallel(
        tasks, **options
    ).values()


@everywhere
def test_a_tasks_own_keywords_go_before_those_of_the_run(executor):
    """A Task's own keywords take precedence over the run's."""
    tasks = {"own": Task(dict, kwargs={"a": 1}), "none": dict, "other": Task(dict, kwargs={"c": 3})}
    results = run_parallel(tasks, kwargs={"a": 0, "b": 0}, executor=executor)
    assert {"a": 1, "b": 0} == results["own"]
    assert {"a": 0, "b": 0} == results["none"]
    assert {"a": 0, "b": 0, "c": 3} == results["other"]


@in_threads_and_inline
def test_an_item_that_cannot_be_unpacked_costs_its_own_task(executor):
    """With ``star``, an item that cannot be unpacked fails only its own task."""
    results = run_parallel(max, [(1, 2), 5, (4, 3)], star=True, executor=executor)
    assert {0: 2, 2: 4} == results.successes
    assert isinstance(results.failures[1].error, TypeError)


def test_a_call_that_lacks_arguments_says_how_an_item_becomes_several(anywhere):
    """If a call lacks arguments and its item is a tuple or dict, a note says how to unpack it; other errors have no such note."""

    def add(a, b, c=0, *, d=0):
        return len(a) + b + c + d

    def notes(fn, item, **options):
        return run_parallel(fn, [item], executor=anywhere, **options).failures[0].error.__notes__

    hint = (
        "an item is one argument: star=True unpacks a tuple into several, and lambda item: fn(**item) a dict"
    )
    for options in ({}, {"kwargs": {"d": 1}}):
        assert [hint, "parallelkit: task 0, attempt 1 of 1"] == notes(add, ("ab", 2), **options)
    for options in ({"args": (2,)}, {"kwargs": {"b": 2}}):
        assert [4] == run_parallel(add, ["ab"], executor=anywhere, **options).values()
        assert ["parallelkit: task 0, attempt 1 of 1"] == notes(add, 1, **options)
    assert ["parallelkit: task 0, attempt 1 of 1"] == notes(pow, 1)


def test_a_function_without_arguments_says_how_it_is_called_many_times(anywhere):
    """If the function takes no argument, a note on the error says what to write; a list of functions does work."""
    error = run_parallel(lambda: 6, range(2), executor=anywhere).failures[1].error
    assert "write run_parallel([fn] * n)" in error.__notes__[0]
    assert [6, 6] == run_parallel([lambda: 6] * 2, executor=anywhere).values()


def test_an_input_of_any_length_will_do():
    """The input may have no item, one, or more than there is room for."""
    for size in (0, 1, 5_000):
        assert size == len(run_parallel(far.square, range(size), max_workers=2))
        assert size == len(run_parallel(far.square, iter(range(size)), max_workers=2, buffersize=3))


# Failures


@everywhere
def test_failures_are_collected_by_default(executor):
    """By default each failure is under its own key, and all other tasks have their values."""
    results = run_parallel(far.invert, [3, 0, 2, 0], executor=executor)
    assert {0: 4, 2: 6} == results.successes
    assert [1, 3] == list(results.failures)
    assert results.stopped is None


def raises_when_read(broke):
    yield 0
    broke.set()
    raise LookupError("no more")


def raises_when_closed(_):
    try:
        yield from range(100)
    finally:
        raise LookupError("no more")


@in_threads_and_inline
def test_the_first_failure_is_raised_if_asked_for(executor):
    """With on_error="raise", the first final failure's own error is raised, with a note on what was done."""
    with pytest.raises(ZeroDivisionError) as caught:
        run_parallel(
            far.invert, [3, 0, *range(1, 50)], executor=executor, on_error="raise", retries=Retry(1, delay=0)
        )
    named, stopped = caught.value.__notes__
    assert "attempt 2 of 2" in named
    assert "the run was stopped at this failure: " in stopped


@pytest.mark.parametrize(
    "call", [run_parallel, lambda *args, **options: list(iter_parallel(*args, **options))]
)
@pytest.mark.parametrize(
    ("source", "text"),
    [
        (raises_when_read, "besides, the input raised LookupError after 1 item: no more"),
        (raises_when_closed, "besides, closing the input raised LookupError: no more"),
    ],
)
def test_the_first_failure_goes_before_an_input_that_breaks_as_well(call, source, text):
    """With on_error="raise", the failure is raised as in a plain loop, and a note on it tells of the input."""
    broke = threading.Event()

    def fail(_):
        if source is raises_when_read:
            assert broke.wait(PATIENCE)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        call(fail, source(broke), on_error="raise", buffersize=None if source is raises_when_read else 1)
    assert text in caught.value.__notes__


@pytest.mark.abandons(2)
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"run_timeout": 0.05}, "run_timeout of 0.05 s"),
        (
            {"timeout": 0.05, "retries": Retry(3, delay=0)},
            "every slot is lost: 2 threads overran their timeout",
        ),
    ],
)
def test_a_stop_that_is_no_failure_is_not_raised(options, reason):
    """With on_error="raise", cancelled tasks raise nothing: the results say why the run was stopped."""
    never = threading.Event()
    results = run_parallel(lambda _: never.wait(), [0], max_workers=1, on_error="raise", **options)
    never.set()
    assert results.stopped.startswith(reason)
    [failure] = results.failures.values()
    assert type(failure.error) is TaskCancelled
    assert ("timeout" in options) == isinstance(failure.error.__cause__, TaskTimeout)


@in_threads_and_inline
def test_a_whole_run_raises_nothing(executor):
    """With on_error="raise", a run without failures returns its results."""
    assert [9] == run_parallel(far.square, [3], on_error="raise", executor=executor).values()


@in_threads_and_inline
@pytest.mark.parametrize("sized", [True, False])
def test_after_a_stop_what_is_a_task_has_its_outcome(executor, sized):
    """After a stop, every item of sized input has an outcome, or every item that was read; the rest is closed unread."""
    closed = []

    def items():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    results = run_parallel(
        lambda item: 1 // item,
        list(range(100)) if sized else items(),
        key=lambda item: f"k{item}",
        executor=executor,
        max_failures=1,
        buffersize=4,
    )
    assert "max_failures of 1 reached" == results.stopped
    assert [f"k{item}" for item in range(len(results))] == list(results)
    assert len(results) == 100 if sized else len(results) <= 8
    assert {ZeroDivisionError, TaskCancelled} >= {type(one.error) for one in results.failures.values()}
    assert [True] * (not sized) == closed


@pytest.mark.parametrize("on_error", ["collect", "raise"])
@given_time
def test_the_end_of_the_run_keeps_what_is_done(gate, scale, on_error):
    """At ``run_timeout`` nothing is waited for or raised, and each unfinished task says why it has no value."""
    limit = 0.2 * scale
    options = {"max_workers": 3, "run_timeout": limit, "on_error": on_error}
    results = run_parallel(lambda item: item or gate(item), range(3), **options)
    assert {1: 1, 2: 2} == results.successes
    assert f"run_timeout of {limit:g} s" == results.stopped
    cut = results.failures[0]
    assert isinstance(cut.error, TaskCancelled)
    assert (1, True) == (cut.attempts, cut.duration >= limit / 2)


# Input


@in_threads_and_inline
def test_an_input_that_raises_gives_the_results_of_what_was_read(executor):
    """If the input raises, everything that was read is run, and the InputError has the results."""

    def items():
        yield from range(5)
        raise LookupError("the cursor is gone")

    with pytest.raises(InputError, match="the input raised LookupError after 5 items") as caught:
        run_parallel(far.square, items(), executor=executor)
    assert [0, 1, 4, 9, 16] == caught.value.results.values()
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.results.stopped is None


@in_threads_and_inline
def test_an_input_that_refuses_to_close_loses_no_result(executor):
    """If the input's close raises, the InputError has that error and all results."""

    def items():
        try:
            yield from count()
        finally:
            raise LookupError("refused")

    with pytest.raises(InputError, match="closing the input raised LookupError") as caught:
        run_parallel(lambda item: 1 // item, items(), executor=executor, max_failures=1)
    assert isinstance(caught.value.results.failures[0].error, ZeroDivisionError)


@pytest.mark.parametrize("option", ["key", "priority", "then"])
def test_an_input_that_is_not_read_on_is_closed(option):
    """An InputError that is not the input's own leaves no generator open, and has a note on what closing it raised."""

    def items():
        try:
            yield from count()
        finally:
            raise LookupError("refused")

    with pytest.raises(InputError, match=f"{option} raised KeyError") as caught:
        run_parallel(far.square, items(), **{option: {}.__getitem__})
    assert ["besides, closing the input raised LookupError: refused"] == caught.value.__notes__


@pytest.mark.parametrize("option", ["key", "then", "items"])
def test_an_input_error_has_the_text_of_its_cause_also_where_that_cannot_be_had(option):
    """An InputError names the cause's type, place and text, or only the type if the text cannot be had."""

    class Unspeakable(Exception):
        def __str__(self):
            raise OSError("no text")

    def fail(item=None):
        raise Unspeakable

    def items():
        yield 1
        fail()

    with pytest.raises(
        InputError, match=r"raised Unspeakable (for|after) .+: <its text cannot be had: OSError>"
    ):
        run_parallel(
            far.square,
            items() if option == "items" else iter([1]),
            **{option: fail} if option != "items" else {},
        )


def test_lazy_keys_that_cannot_be_sorted_are_an_input_error():
    """Lazy keys that cannot be sorted raise an InputError at the end, which has all results in input order."""
    with pytest.raises(InputError, match="order='key', got 'b' and 1 at positions 1 and 0") as caught:
        run_parallel(far.square, iter([1, 2]), key=lambda item: item if item == 1 else "b", order="key")
    assert [1, 4] == caught.value.results.values()


class Unsortable(str):
    """A key whose comparison raises something other than TypeError."""

    __slots__ = ()

    def __lt__(self, other):
        raise OSError("no order")


def test_lazy_keys_whose_comparison_raises_anything_cost_no_result():
    """As those that cannot be sorted; it was raised as it is, and all that had been done was lost."""
    message = "got 'b' and 'a' at positions 1 and 0, which raised OSError: no order"
    with pytest.raises(InputError, match=message) as caught:
        run_parallel(str.upper, iter("ab"), key=Unsortable, executor="inline", order="key")
    assert ["A", "B"] == caught.value.results.values()


class Odd:
    """A key whose ``repr`` raises."""

    def __init__(self, error):
        self.error = error

    def __repr__(self):
        raise self.error


@in_threads_and_inline
@pytest.mark.parametrize("raised", [RuntimeError, SystemExit])
def test_a_key_that_cannot_be_shown_costs_nothing(executor, raised):
    """For a key whose ``repr`` raises, messages name its type."""
    key = Odd(raised)
    results = run_parallel(far.invert, {key: 0}, executor=executor)
    error = results.failures[key].error
    assert isinstance(error, ZeroDivisionError)
    assert any(f"task <Odd, whose repr raised {raised.__name__}>" in note for note in error.__notes__)


def test_a_long_key_is_shortened_in_messages():
    """Of a key that is a whole document, messages show its begin and its end, which tell it from others."""
    documents = [f"{number} {'word ' * 1000}{number}" for number in range(2)]
    for key, failure in run_parallel(int, documents, key=str).failures.items():
        begin, end = failure.error.__notes__[-1].split("…")
        assert begin == f"parallelkit: task '{key[:98]}"
        assert end == f"{key[-99:]}', attempt 1 of 1"


# Ctrl-C


@in_threads_and_inline
def test_ctrl_c_gives_what_was_done(executor, gate):
    """Ctrl-C while a task runs stops the run, and RunInterrupted has the results, in which that task had started."""

    def task(item):
        if item == 3:
            signal.raise_signal(signal.SIGINT) if executor == "inline" else press()
            gate(item)
        return item

    def press():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    told = []
    with pytest.raises(RunInterrupted) as caught:
        run_parallel(task, range(50), executor=executor, max_workers=1, on_event=told.append)
    results = caught.value.results
    assert isinstance(results, Results)
    assert "interrupted (Ctrl-C)" == results.stopped
    assert {0: 0, 1: 1, 2: 2} == results.successes
    assert 50 == len(results)
    cut_off = results.failures[3]
    assert isinstance(cut_off.error, TaskCancelled)
    assert cut_off.started_at is not None
    assert [1, 0] == [cut_off.attempts, results.failures[4].attempts]
    assert ["started", "failed"] == [event.kind for event in told if event.key == 3]
    assert signal.default_int_handler is signal.getsignal(signal.SIGINT)


def test_ctrl_c_ends_a_backoff_of_an_inline_run(monkeypatch):
    """Ctrl-C ends the delay before a retry of an inline run."""

    def refuse(item):
        raise OSError(item)

    def sleep_and_press(port, seconds):
        if seconds > 0:  # the loop has first taken a look
            presser.start()
        sleep(port, seconds)

    sleep = InlinePort.sleep
    monkeypatch.setattr(InlinePort, "sleep", sleep_and_press)
    to_main_thread = threading.main_thread().ident, signal.SIGINT
    presser = threading.Thread(target=signal.pthread_kill, args=to_main_thread)
    retry = Retry(9, delay=1e9, factor=1, max_delay=1e9)
    with pytest.raises(RunInterrupted) as caught:
        run_parallel(refuse, [0], executor="inline", retries=retry)
    presser.join()
    assert isinstance(caught.value.results.failures[0].error, TaskCancelled)


def test_ctrl_c_in_the_input_gives_what_was_read(monkeypatch):
    """Ctrl-C interrupts the input's own code, and the results of what was read are kept, that of the same moment, too."""
    monkeypatch.setattr(_intake, "PORTION", inf)  # else, if a thread starts slowly, two portions

    def items():
        yield from range(3)
        signal.raise_signal(signal.SIGINT)
        yield 3

    with pytest.raises(RunInterrupted) as caught:
        run_parallel(far.square, items())
    assert [0, 1, 2] == list(caught.value.results)


def test_after_ctrl_c_nothing_more_is_read():
    """After Ctrl-C, the rest of an input with a length is cancelled unread: its next item might be long in coming."""

    class Source:
        def __len__(self):
            return 9

        def __iter__(self):
            for item in range(9):
                read.append(item)
                yield item

    read = []
    with pytest.raises(RunInterrupted) as caught:
        run_parallel(lambda _: signal.raise_signal(signal.SIGINT), Source(), executor="inline", buffersize=1)
    assert [0] == read
    assert 9 == len(caught.value.results)


class Lazy:
    """As a lazy object of Django's whose making fails: whoever asks for its class, by ``isinstance`` say, makes it."""

    @property
    def __class__(self):
        raise LookupError("no database")


@pytest.mark.parametrize(
    "options", [{}, {"priority": lambda _: 0}, {"then": lambda _: None}], ids=["plain", "priority", "then"]
)
@pytest.mark.parametrize("items", [list, iter])
def test_an_item_whose_class_cannot_be_asked_for_is_one_as_any_other(items, options):
    """To ask whether it is a ``Task`` raised the proxy's error, at the call or as that of the input."""
    assert [0, 0] == run_parallel(lambda _: 0, items([Lazy(), 1]), executor="inline", **options).values()


# Executors


def test_an_executor_of_the_callers_stays_open():
    """A caller's executor keeps its threads from one run to the next."""
    with ThreadExecutor(1) as executor:
        names = {
            run_parallel([lambda: threading.current_thread().name], executor=executor)[0] for _ in range(5)
        }
        assert 1 == len(names)
        assert 9 == executor.submit(far.square, 3).result()


class Table:
    """An input whose length is its rows, but which iterates over its columns."""

    def __len__(self):
        return 100

    def __iter__(self):
        return iter(["x", "y"])


def test_no_outcome_is_made_up_for_an_item_that_does_not_exist():
    """If the input's length exceeds its items, there is one outcome per item, also after a stop."""
    assert ["x", "y"] == run_parallel(str, Table(), executor="inline").values()
    stopped = run_parallel(int, Table(), executor="inline", max_failures=1)
    assert [0, 1] == list(stopped)
    assert [0, 1] == sorted(one.key for one in iter_parallel(int, Table(), executor="inline", max_failures=1))


@pytest.mark.parametrize("count", [1, 31, 32, 33])
@pytest.mark.parametrize("options", [{}, {"buffersize": 1}, {"order": "completion"}])
def test_a_run_that_was_done_when_it_was_to_be_stopped_is_whole(count, options):
    """If the last item's failure reaches ``max_failures``, the run does not count as stopped, even if the input's end was not seen yet."""
    items = [*range(1, count), "no number"]
    results = run_parallel(int, items, executor="inline", max_failures=1, **options)
    assert (None, count) == (results.stopped, len(results))
    items.append(count)
    results = run_parallel(int, items, executor="inline", max_failures=1, **options)
    assert ("max_failures of 1 reached", 2) == (results.stopped, len(results.failures))


class Understated(Table):
    """An input that has more items than its length tells."""

    def __len__(self):
        return 1


@pytest.mark.parametrize("kind", [Understated, list])
@pytest.mark.parametrize("by", [run_parallel, iter_parallel])
def test_a_run_that_left_out_an_item_beyond_the_length_is_not_whole(kind, by):
    """A stop after as many items as the length told, or a list had at first, counts as one if there is another item."""
    source = Understated() if kind is Understated else ["x"]

    def refuse(item):
        if kind is list:
            source.append("y")
        raise LookupError(item)

    done = by(refuse, source, executor="inline", max_failures=1, buffersize=1)
    if by is run_parallel:
        assert "max_failures of 1 reached" == done.stopped
        done = done.outcomes.values()
    assert [LookupError, TaskCancelled] == [type(outcome.error) for outcome in done][:2]


class Columns(Table, Mapping):
    """The same as a mapping."""

    def __getitem__(self, key):
        return f"column {key}"


@pytest.mark.parametrize("options", [{}, {"max_failures": 1, "buffersize": 1}])
@pytest.mark.parametrize(("source", "key"), [(Table(), str), (Columns(), None)], ids=["items", "mapping"])
def test_every_item_with_a_key_has_its_outcome_whatever_the_length_that_was_told(source, key, options):
    """With keys, too, a wrong length changes no outcome, even after a stop; positions of ``then``'s tasks go on from the real end."""
    results = run_parallel(int, source, key=key, executor="inline", **options)
    assert ["x", "y"] == [outcome.key for outcome in results.outcomes.values()] == list(results)
    grown = run_parallel(
        str, source, key=key, executor="inline", then=lambda one: [Task(abs, 1)] * (one.key == "x")
    )
    assert ["x", "y", 2] == list(grown)


@pytest.mark.parametrize("module", ["pandas", "polars"])
def test_a_data_frame_is_refused_with_what_to_pass_instead(module):
    """A DataFrame is refused, because it iterates over columns; the message says what to pass instead."""
    frames = pytest.importorskip(module, reason="a library for tables; only pandas comes with the test extra")
    ways = {
        "pandas": r"df\.itertuples\(\), df\.to_dict\('records'\), df\.groupby",
        "polars": r"pass df\.iter_rows",
    }
    frame = frames.DataFrame({"x": [1, 2], "y": [3, 4]})
    for call in (run_parallel, iter_parallel):
        with pytest.raises(TypeError, match="items must not be a DataFrame.*" + ways[module]):
            call(str, frame)


def test_what_a_data_frame_gives_on_request_is_fine():
    """Rows of a DataFrame as tuples or dicts, and its groups, are accepted."""
    pandas = pytest.importorskip("pandas", reason="comes with the test extra")
    frame = pandas.DataFrame({"x": [1, 1, 2], "y": [3, 4, 5]})
    assert [4, 5, 7] == run_parallel(lambda row: row.x + row.y, frame.itertuples()).values()
    assert [4, 5, 7] == run_parallel(lambda row: row["x"] + row["y"], frame.to_dict("records")).values()
    assert [7, 5] == run_parallel(lambda x, group: int(group.y.sum()), frame.groupby("x"), star=True).values()


@pytest.mark.parametrize(
    "call", [run_parallel, lambda *args, **options: next(iter_parallel(*args, **options))]
)
def test_a_run_whose_parts_cannot_be_built_leaves_nothing_open(call, monkeypatch):
    """If setting up a run fails, the port that it has opened on the caller's executor is closed."""
    ports, opened = [], ThreadPort.__init__

    def note(self, *args, **options):
        opened(self, *args, **options)
        ports.append(self)

    monkeypatch.setattr(ThreadPort, "__init__", note)
    monkeypatch.setattr(_plan, "open_bar", lambda *args: 1 / 0)
    with ThreadExecutor(1) as executor:
        with pytest.raises(ZeroDivisionError):
            call(abs, [1], executor=executor)
        assert [True] == [port._closed for port in ports]


@pytest.mark.parametrize("executor", ["threads", "processes", "inline"])
@pytest.mark.parametrize("make", [list, deque, set, dict.fromkeys], ids=["list", "deque", "set", "dict"])
def test_sized_input_is_read_whole_before_the_first_start(make, executor):
    """With priorities, sized input is read completely before the first start, so that tasks start in exact order."""
    items = make(range(100))
    items = {n: n for n in items} if isinstance(items, dict) else items
    results = run_parallel(
        abs, items, priority=lambda n: n, max_workers=1, order="completion", executor=executor
    )
    assert list(range(99, -1, -1)) == results.values()


@pytest.mark.parametrize("named", [False, True])
def test_tasks_with_priorities_of_their_own_are_read_whole_too(named):
    """The same holds for Tasks that have priorities of their own."""
    tasks = [Task(abs, n, priority=n) for n in range(100)]
    results = run_parallel(dict(enumerate(tasks)) if named else tasks, max_workers=1, order="completion")
    assert list(range(99, -1, -1)) == results.values()


def test_an_item_is_queued_when_it_was_read():
    """``queued_at`` is when the item itself was read, and never after its start."""
    done = threading.Event()

    def items():
        yield 0
        done.wait(PATIENCE)
        yield 1

    first, second = run_parallel(lambda item: done.set() or item, items()).outcomes.values()
    assert first.queued_at <= first.started_at <= second.queued_at <= second.started_at
    assert [0, 1] == [first.value, second.value]


@pytest.mark.parametrize("executor", ["threads", "processes", "inline"])
def test_values_go_with_the_results(executor):
    """Values are freed with the results, without garbage collection."""
    gc.collect()
    gc.disable()
    try:
        results = run_parallel(set, [[1], [2]], executor=executor, max_workers=1, retries=1)
        value = weakref.ref(results[0])
        del results
        assert value() is None
    finally:
        gc.enable()


async def fail_on_awaiting(thing, load):
    raise ValueError("not this one")


async def hang_on(thing, load):
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("fn", "options"),
    [(fail_on_awaiting, {}), (hang_on, {"timeout": 0.05}), (hang_on, {"run_timeout": 0.05})],
    ids=["failure", "timeout", "stop"],
)
def test_what_coroutines_were_given_goes_with_the_results(fn, options):
    """Arguments of coroutines are freed with the results, without garbage collection, even after a failure."""
    gc.collect()
    gc.disable()
    try:
        thing, load = far.Thing(), far.Thing()
        gone = [weakref.ref(thing), weakref.ref(load)]
        results = run_parallel(fn, [thing], args=(load,), **options)
        assert 1 == len(results.failures)
        del results, thing, load
        assert [None, None] == [ref() for ref in gone]
    finally:
        gc.enable()


def give_or_fail(fails, _, given):
    """Return a new Thing, or fail once there is one."""
    if fails:
        assert given.wait(PATIENCE)
        raise ValueError("this one")
    given.alive.append(weakref.ref(thing := far.Thing()))
    given.set()
    return thing


def from_broken_input():
    yield False
    raise LookupError


def refuse(so_far, value):
    raise ValueError("no sum")


@pytest.mark.parametrize(
    ("run", "options"),
    [
        (run_parallel, {"on_error": "raise"}),
        (run_parallel, {"items": from_broken_input}),
        (lambda *given, **options: run_parallel(*given, **options).values(), {}),
        (lambda *given, **options: run_parallel(*given, **options).to_dict(), {}),
        (lambda *given, **options: run_parallel(*given, **options)[0], {}),
        (
            lambda *given, **options: list(iter_parallel(*given, **options)),
            {"on_error": "raise", "order": "input"},
        ),
        (lambda *given, **options: list(iter_parallel(*given, **options)), {"items": from_broken_input}),
        (partial(map_reduce, reduce=refuse, initial=0), {"items": lambda: [False]}),
    ],
    ids=["on_error", "input", "values", "to_dict", "by key", "stream", "input of a stream", "fold"],
)
def test_all_that_a_run_knows_goes_with_the_error_that_it_ends_in(run, options):
    """If a run ends in an error, its values and arguments are freed with that error, without garbage collection."""
    given = threading.Event()
    given.alive = [weakref.ref(load := far.Thing())]
    options = {"items": lambda: [True, False], **options}
    items = options.pop("items")()
    gc.collect()
    gc.disable()
    try:
        with suppress(ValueError, InputError, TaskFailures):
            run(give_or_fail, items, args=(load, given), max_workers=2, **options)
        del load
        assert [None] * 2 == [ref() for ref in given.alive]
    finally:
        gc.enable()


@everywhere
@pytest.mark.parametrize("options", [{}, {"then": lambda outcome: ()}], ids=["plain", "then"])
def test_what_a_stream_was_given_goes_with_it(executor, options):
    """A stream's arguments are freed with it, without garbage collection, even with ``then``."""
    load = far.Thing()
    gone = weakref.ref(load)
    gc.collect()
    gc.disable()
    try:
        assert 1 == len(list(iter_parallel(bool, [load], executor=executor, **options)))
        del load
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("options", [{}, {"order": "input"}, {"then": lambda outcome: ()}])
def test_failures_that_a_stream_has_not_yielded_go_with_it(options):
    """They are freed as it is closed, without garbage collection, and so is what their tracebacks lead to."""
    failed, load = threading.Semaphore(0), far.Thing()
    gone = weakref.ref(load)

    def fail(item, _):
        raise KeyError if item == 1 else OSError

    def listen(event):
        if event.kind == "failed":
            failed.release()

    again = Retry(1, on=KeyError, delay=1e6, factor=1, max_delay=1e6)  # so the second is not done yet
    gc.collect()
    gc.disable()
    try:
        stream = iter_parallel(fail, range(3), args=(load,), retries=again, on_event=listen, **options)
        next(stream)
        assert failed.acquire(timeout=PATIENCE)
        assert failed.acquire(timeout=PATIENCE)
        stream.close()
        del stream, load
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.parametrize(
    ("fn", "options"),
    [(far.fail_on, {"retries": Retry(1, delay=0)}), (id, {"then": lambda outcome: ()})],
    ids=["failures", "then"],
)
def test_items_go_with_the_results(executor, fn, options):
    """Items are freed with the results, without garbage collection, including those of failures and of runs with ``then``."""
    gc.collect()
    gc.disable()
    try:
        things = [far.Thing() for _ in range(3)]
        alive = [weakref.ref(thing) for thing in things]
        results = run_parallel(fn, things, executor=executor, max_workers=1, **options)
        assert len(results) == 3
        del things, results
        assert not any(thing() for thing in alive)
    finally:
        gc.enable()
