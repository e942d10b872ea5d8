"""``Results``: every property that the design promises."""

import copy
import gc
import importlib
import operator
import pickle
import re
import signal
import sys
import threading
import traceback
import weakref
from array import array
from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from math import nan

import pytest
from planted import cut_off, plant

import parallelkit
from parallelkit import (
    Checkpoint,
    Failure,
    Results,
    Retry,
    Success,
    TaskCancelled,
    TaskFailures,
    TaskTimeout,
    ThreadExecutor,
    iter_parallel,
    map_reduce,
    run_parallel,
)
from parallelkit._facts import Facts
from parallelkit._keyed import no_such_key
from parallelkit._ledger import Ledger
from parallelkit._lost import Lost


class Refused(Exception):
    """An error whose ``args`` do not fit its ``__init__``, so that unpickling it fails."""

    def __init__(self, host, port):
        super().__init__(f"{host}:{port} refused")
        self.host = host


def invert(x):
    return 12 // x


def make(items=None, **options):
    """Results with one value, one error and one None."""
    return run_parallel(
        lambda x: None if x == 9 else 12 // x,
        {"a": 3, "b": 0, "c": 9} if items is None else items,
        executor="inline",
        **options,
    )


def stopped_run():
    """Results of four tasks, of which the second fails and stops the run, so that the others never begin."""
    results = run_parallel(invert, {"a": 3, "b": 0, "c": 2, "d": 1}, executor="inline", max_failures=1)
    assert "max_failures of 1 reached" == results.stopped
    return results


# A Mapping in the chosen order


def test_results_are_a_mapping():
    """Results are a Mapping."""
    assert isinstance(make(), Mapping)
    assert {"a": 4} == dict(make({"a": 3}))


@pytest.mark.parametrize(
    ("order", "expected"),
    [("input", ["c", "a", "b"]), ("key", ["a", "b", "c"]), ("completion", ["c", "a", "b"])],
)
def test_the_order_is_the_callers_choice(order, expected):
    """Iteration, values, items, outcomes, failures and rows all have the chosen order."""
    results = run_parallel(invert, {"c": 3, "a": 2, "b": 1}, executor="inline", order=order)
    values = [{"c": 4, "a": 6, "b": 12}[key] for key in expected]
    assert expected == list(results) == list(results.keys())
    assert values == results.values()
    assert list(zip(expected, values, strict=True)) == results.items() == list(results.to_dict().items())
    assert expected == list(results.outcomes) == list(results.successes)
    assert expected == [row["key"] for row in results.rows()]


def test_the_order_of_completion_is_that_in_which_tasks_ended():
    """Completion order is the order in which tasks ended, not that in which they were read."""
    first_may_end = threading.Event()

    def task(item):
        assert item or first_may_end.wait(10)
        return item

    def hear(event):
        if event.kind == "succeeded":
            first_may_end.set()

    results = run_parallel(task, [0, 1], max_workers=2, order="completion", on_event=hear)
    assert [1, 0] == list(results) == results.values()


def test_failures_stand_in_the_chosen_order_too():
    """Failures are in the chosen order, even if they were settled in another."""
    results = run_parallel(invert, {"z": 0, "m": 1, "a": 0}, executor="inline", order="key")
    assert ["a", "z"] == list(results.failures)


# A value by its key


def test_a_key_gives_the_value():
    """``results[key]`` returns the value, even None."""
    results = make()
    assert (4, None) == (results["a"], results["c"])


def test_a_key_raises_the_tasks_own_error():
    """``results[key]`` raises the task's own error object, each time."""
    results = make()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as caught:
            results["b"]
        assert caught.value is results.failures["b"].error


def raised_by(take):
    """The lines with which the raised error would end a program."""
    with pytest.raises(ZeroDivisionError) as caught:
        take()
    return traceback.format_exception(caught.value)


@pytest.mark.all
@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_what_is_raised_again_looks_the_same_every_time(executor):
    """An error's traceback does not grow with each access, by key or by outcome."""
    results = run_parallel(invert, {"b": 0}, executor=executor)
    [streamed] = iter_parallel(invert, {"b": 0}, executor=executor)
    outcome, copied = results.outcomes["b"], journey(results)
    for take in (
        partial(results.get, "b"),
        outcome.unwrap,
        partial(results.get, "b"),
        streamed.unwrap,
        copy.copy(streamed).unwrap,
        partial(copied.get, "b"),
    ):
        first = raised_by(take)
        assert first == raised_by(take) == raised_by(take)
        assert 1 == sum("in invert" in line for line in first)


def test_a_group_shows_errors_with_the_traceback_that_they_came_with():
    """Errors in a group have their original tracebacks, without frames of earlier accesses."""

    def ask(outcome):
        raised_by(outcome.unwrap)
        return ()

    results = run_parallel(invert, [0], executor="inline")
    raised_by(partial(results.get, 0))
    for take in (
        results.values,
        partial(map_reduce, invert, [0], max, initial=0, executor="inline", then=ask),
    ):
        with pytest.raises(TaskFailures) as caught:
            take()
        [error] = caught.value.exceptions
        assert ["invert"] == [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def test_every_frame_of_a_raised_error_has_the_arguments_of_its_call():
    """Each frame of a raised error still has its arguments, which IPython shows."""
    results = run_parallel(invert, [0], executor="inline")
    with ThreadExecutor(1) as executor:
        future = executor.submit(invert, 0)
        for take in (partial(results.get, 0), results.failures[0].unwrap, future.result):
            with pytest.raises(ZeroDivisionError) as caught:
                take()
            for entry in caught.traceback:
                code = entry.frame.raw.f_code
                assert set(code.co_varnames[: code.co_argcount]) <= set(entry.frame.raw.f_locals)


def test_an_exception_that_is_returned_is_a_value():
    """A returned exception is a value, and a raised one is never returned."""
    error = ValueError("returned")
    results = run_parallel(lambda _: error, [0], executor="inline")
    assert error is results[0]
    assert [True] == [outcome.ok for outcome in results.outcomes.values()]


def test_a_failure_that_is_asked_for_its_value_tells_its_error():
    """``failure.value`` raises an error that shows what the task raised."""
    failure = make().outcomes["b"]
    with pytest.raises(
        AttributeError, match=r"<Failure 'b': ZeroDivisionError.* has no value; ask ok first"
    ) as caught:
        failure.value
    assert failure.error is caught.value.__cause__
    assert not hasattr(failure, "value")
    with pytest.raises(AttributeError, match=r"^'Failure' object has no attribute 'valeu'$") as caught:
        failure.valeu
    assert caught.value.__cause__ is None
    assert repr(failure) == repr(pickle.loads(pickle.dumps(copy.copy(failure))))


@pytest.mark.parametrize("key", ["d", 0, None, 1.5])
def test_an_unknown_key_is_a_key_error(key):
    """An unknown key is a KeyError."""
    results = make()
    with pytest.raises(KeyError):
        results[key]
    with pytest.raises(KeyError):
        results.outcomes[key]


def test_a_position_in_place_of_a_key_is_hinted_at():
    """The KeyError for a position, where the tasks have keys, shows a key and names values(); so it does if there are no tasks."""
    with pytest.raises(
        KeyError, match=r"0 \(no task has this key; the first of 3 is 'a'; values\(\) is a list"
    ):
        make()[0]
    assert "no task has this key; there are no tasks" in str(no_such_key(0, []))


# in, len, iteration and get look at keys only


@pytest.mark.parametrize("keys", [range(3), range(1, 4)])
def test_a_key_is_what_is_equal_to_it_in_a_dict(keys):
    """Also if the keys are positions: ids that pandas has made floats, for the sake of a missing one, find their outcomes."""
    results = run_parallel(str, {key: key for key in keys}, executor="inline")
    like = [1, 1.0, True, Fraction(1), complex(1), 1.5, nan, -1, 2**70, "1", (1,)]
    assert [key in results.to_dict() for key in like] == [key in results for key in like]
    assert "1" == results[1.0] == results.outcomes[1.0].unwrap()


def test_membership_and_length_look_at_keys_only():
    """``in`` and ``len`` look at keys only, so a failed task raises nothing."""
    results = make()
    assert 3 == len(results)
    assert "b" in results
    assert "d" not in results
    assert ["a", "b", "c"] == list(results)


def test_get_is_for_unknown_keys():
    """``get`` returns its default only for unknown keys, and raises for a failed task."""
    results = make()
    assert (4, None) == (results.get("a"), results.get("c", 7))
    assert (None, 7) == (results.get("d"), results.get("d", 7))
    with pytest.raises(ZeroDivisionError):
        results.get("b", 7)


class Position:
    """An integer of another class, like NumPy's."""

    def __index__(self):
        return 1


def test_an_error_that_is_raised_costs_no_text(monkeypatch):
    """Raising errors, one or all, formats no traceback, which takes a tenth of a millisecond each."""
    results, formatted = make(), []
    monkeypatch.setattr("traceback.format_exception", lambda *given: formatted.append(given) or [])
    with pytest.raises(ZeroDivisionError):
        results["b"]
    with pytest.raises(TaskFailures):
        results.values()
    assert [] == formatted


class Unshown:
    """An object whose repr raises."""

    def __repr__(self):
        raise OSError("no repr")


def test_positions_are_integers_of_any_kind():
    """If positions are the keys, NumPy integers and booleans find them, as in a dict."""
    results = run_parallel(invert, [3, 2, 1], executor="inline")
    assert (6, 6) == (results[True], results[Position()])
    for stranger in (3, -1, 1.5, "1", None, (1,), Unshown()):
        assert stranger not in results
        with pytest.raises(KeyError):
            results[stranger]


@pytest.mark.parametrize("key", ["ann", 3])
def test_a_forgotten_key_is_hinted_at(key):
    """The KeyError for a name, where positions are the keys, hints at ``key=``."""
    results = run_parallel(invert, [3, 2, 1], executor="inline")
    with pytest.raises(KeyError, match=r"keys are positions from 0; .*; key= sets others"):
        results[key]


# All values at once


def test_values_and_items_are_lists():
    """``values()`` and ``items()`` are lists."""
    results = make({"a": 3, "b": 2})
    assert [4, 6] == results.values()
    assert [("a", 4), ("b", 6)] == results.items()
    assert (list, list) == (type(results.values()), type(results.items()))


@pytest.mark.parametrize("take", [Results.values, Results.items, Results.to_dict, Results.raise_failures])
def test_what_cannot_be_whole_raises_every_failure(take):
    """If tasks failed, ``values()`` and ``items()`` raise TaskFailures with all failures, in order, and the results."""
    results = make({"a": 0, "b": 3, "c": 0})
    with pytest.raises(TaskFailures, match="2 of 3 tasks failed") as caught:
        take(results)
    group = caught.value
    assert [results.failures[key].error for key in "ac"] == list(group.exceptions)
    assert results is group.results
    with pytest.raises(ExceptionGroup):
        raise group


def test_cancelled_tasks_are_failures_too():
    """Cancelled tasks count as failures."""
    with pytest.raises(TaskFailures) as caught:
        stopped_run().values()
    assert [ZeroDivisionError, TaskCancelled, TaskCancelled] == [type(one) for one in caught.value.exceptions]


def test_a_default_stands_where_a_task_failed():
    """A default, even None, replaces the value of a failed task, but not a task's own None."""
    results = make()
    assert [4, -1, None] == results.values(default=-1)
    assert [("a", 4), ("b", None), ("c", None)] == results.items(default=None)
    assert {"a": 4, "b": -1, "c": None} == results.to_dict(default=-1)


def test_where_all_is_well_nothing_is_raised():
    """Without failures, nothing is raised, with or without a default."""
    results = make({"a": 3})
    assert results.raise_failures() is None
    assert [4] == results.values(default=0) == results.values()


# Views


def test_outcomes_are_a_mapping_to_success_or_failure():
    """``outcomes`` maps each key to a Success or Failure, built on access."""
    outcomes = make().outcomes
    assert isinstance(outcomes, Mapping)
    assert 3 == len(outcomes)
    assert isinstance(outcomes["a"], Success)
    assert isinstance(outcomes["b"], Failure)
    assert ["a", "b", "c"] == list(outcomes) == [outcome.key for outcome in outcomes.values()]
    assert "3 tasks" in repr(outcomes)


def test_successes_and_failures_share_out_the_keys():
    """Every key is in exactly one of ``successes`` (key → value) and ``failures`` (key → Failure)."""
    results = make()
    assert {"a": 4, "c": None} == results.successes
    assert {"b": ZeroDivisionError} == {key: type(one.error) for key, one in results.failures.items()}
    assert {} == make({"a": 3}).failures


def test_stopped_says_why():
    """``stopped`` is the reason of a stop, or None."""
    assert make().stopped is None
    assert "max_failures of 1 reached" == stopped_run().stopped


class Proxy:
    """A value that nobody may ask for its class, such as a proxy of something that is gone."""

    @property
    def __class__(self):
        raise OSError("it is gone")


def test_attempts_ask_no_value_for_its_class():
    """``attempts`` needs no values, and leaves alone a proxy that would load, or fail to load, what it stands for."""
    assert 1 == len(run_parallel(lambda item: Proxy(), [1], executor="inline").attempts)


def test_attempts_are_the_log_of_every_execution():
    """``attempts`` lists every attempt, failed ones included, in order of their starts."""
    calls = []

    def flaky(item):
        calls.append(item)
        if calls.count(item) <= item:
            raise OSError(item)

    results = run_parallel(flaky, [0, 2, 1], executor="inline", retries=2, key=str)
    log = results.attempts
    assert 6 == len(log) == len(calls)
    assert sorted(one.started_at for one in log) == [one.started_at for one in log]
    assert {"0": [1], "1": [1, 2], "2": [1, 2, 3]} == {
        key: [one.number for one in log if one.key == key] for key in "012"
    }
    assert [None, OSError, OSError] == [
        one.error and type(one.error) for one in sorted(log, key=lambda one: (one.key != "2", -one.number))
    ][:3]


def test_the_summary_counts():
    """``summary`` has counts of tasks by fate, attempts, seconds, and parallelism = busy ÷ wall."""
    ledger = Ledger(Facts(began_at=100.0, ended_at=110.0))
    ledger.admit(None, 4, 100.0)
    ledger.try_again(0, Lost(OSError(), 1, 100.0, 101.0, "w"))
    ledger.succeed_again(0, 2)
    ledger.succeed(((0, 1), (1, 2), (101.0, 100.0), (103.0, 108.0), ("w", "v")))
    ledger.fail(2, Lost(OSError(), 1, 103.0, 107.0, "w"))
    ledger.cancel([3], {})
    summary = Results(ledger).summary
    assert (4, 2, 1, 1, 4, 1) == (
        summary.tasks,
        summary.succeeded,
        summary.failed,
        summary.cancelled,
        summary.attempts,
        summary.retried,
    )
    assert (10.0, 15.0, 1.5) == (summary.wall, summary.busy, summary.parallelism)


def test_rows_are_flat():
    """``rows()`` has a dict per task, in order, with the error as text."""
    rows = make().rows()
    assert [("a", True, 4, None), ("b", False, None, "ZeroDivisionError"), ("c", True, None, None)] == [
        (row["key"], row["ok"], row["value"], row["error"] and row["error"].partition(":")[0]) for row in rows
    ]
    assert {"index", "attempts", "queued_at", "started_at", "duration", "worker", "parent"} < rows[0].keys()


@pytest.mark.all  # pandas takes a second to load
def test_the_frame_of_an_empty_run_has_its_columns():
    """The DataFrame of an empty run has its columns."""
    pytest.importorskip("pandas")
    assert list(make().rows()[0])[1:] == list(run_parallel(len, []).to_frame().columns)


def test_a_frame_needs_pandas(monkeypatch):
    """Without pandas, ``to_frame`` says how to install it."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_frame needs pandas: pip install pandas"):
        run_parallel(len, []).to_frame()


def test_a_frame_is_the_rows_by_key():
    """``to_frame`` gives the rows, indexed by key."""
    pytest.importorskip("pandas")
    frame = make().to_frame()
    assert ["a", "b", "c"] == list(frame.index)
    assert [True, False, True] == list(frame["ok"])


@pytest.mark.parametrize("of", [int, "int64"])
def test_a_frame_changes_no_number(of):
    """Whole numbers beside a failed task are what they were, also those that a float cannot hold."""
    pytest.importorskip("pandas")
    number = int if of is int else pytest.importorskip("numpy").dtype(of).type
    large = run_parallel(lambda n: number(n // (n != 7)), [2**60 + 1, 7, 3], executor="inline").to_frame()
    assert [2**60 + 1, None, 3] == list(large["value"])
    small = run_parallel(lambda n: number(n // (n != 7)), [2**53 + 2, 7, 3], executor="inline").to_frame()
    assert ("float64", 2**53 + 2) == (str(small["value"].dtype), small["value"][0])
    whole = run_parallel(number, [2**60 + 1, 3], executor="inline").to_frame()
    assert ("int64", 2**60 + 1) == (str(whole["value"].dtype), whole["value"][0])


def test_the_repr_counts():
    """The repr is one line with counts."""
    assert "<Results of 3 tasks: 2 succeeded, 1 failed>" == repr(make())
    assert "<Results of 4 tasks: 1 succeeded, 1 failed, 2 cancelled>" == repr(stopped_run())


def test_results_are_not_taken_for_an_array_of_their_keys():
    """An array of results is refused, because it would contain their keys; a pandas Series and a column take the values, by key."""
    np, pd = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    results = run_parallel(lambda number: 10 * number, {"a": 1, "b": 2}, executor="inline")
    for mapping in (results, results.outcomes):
        for take in (
            np.asarray,
            np.mean,
            np.sum,
            np.ones(2).__add__,
            lambda given: pd.DataFrame({"x": given}),
        ):
            with pytest.raises(
                TypeError, match=r"an array of it would contain its keys; pass its \.values\(\), or dict"
            ):
                take(mapping)
    frame = pd.DataFrame({"x": [1, 2]}, index=["b", "a"])
    frame["y"] = results
    assert {"b": 20, "a": 10} == frame["y"].to_dict()
    assert {"a": 10, "b": 20} == pd.Series(results).to_dict()


def test_results_are_objects_in_an_array_of_objects():
    """In an array of objects, and in a comparison with an array, results are single objects."""
    np = pytest.importorskip("numpy")
    results = run_parallel(abs, [-1, -2], executor="inline")
    for mapping in (results, results.outcomes):
        held = np.array([mapping, None], dtype=object)
        assert held.shape == (2,)
        assert held[0] is mapping
        assert np.asarray(mapping, dtype=object)[()] is mapping
        assert [False, False] == (np.array([0, 1]) == mapping).tolist()
        assert [True, True] == (mapping != np.array([0, 1])).tolist()
        assert [True, False] == (held == mapping).tolist()
        with pytest.raises(TypeError, match="an array of it would contain its keys"):
            np.asarray(mapping, dtype=float)


def test_keys_can_be_looked_at():
    """The repr of ``keys()`` shows the first keys only, and it compares as a view does."""
    results = make()
    for keys in (results.keys(), results.outcomes.keys()):
        assert "KeysView(['a', 'b', 'c'])" == repr(keys)
        assert {"a", "b", "c"} == keys
        assert {"b"} == keys & {"b", "z"}
    many = run_parallel(abs, range(1000), executor="inline").keys()
    assert f"KeysView([{', '.join(map(str, range(20)))}, ...])" == repr(many)


def test_results_are_equal_to_themselves_only():
    """Comparing results raises nothing that tasks raised, and results have no hash."""
    results = make()
    assert results == results
    assert results != make()
    with pytest.raises(TypeError):
        hash(results)


def test_an_empty_run_has_results():
    """An empty run has empty results, and raises nothing."""
    results = run_parallel(invert, [])
    assert (0, [], [], {}, {}, []) == (
        len(results),
        list(results),
        results.values(),
        results.failures,
        results.to_dict(),
        results.attempts,
    )


# Looking does not change


def test_results_hold_no_more_than_the_values():
    """Results keep no item, function or worker of their run alive."""

    class Item:
        pass

    items = [Item() for _ in range(3)]
    alive = [weakref.ref(item) for item in items]
    results = run_parallel(lambda item: 1, items, max_workers=2)
    del items
    gc.collect()
    assert [None] * 3 == [ref() for ref in alive]
    assert 3 == len(results)


def test_results_can_be_referred_to_weakly():
    """A cache of results may hold them weakly, and loses them with their last use."""
    kept = weakref.WeakValueDictionary(a=run_parallel(len, ["a"], executor="inline"))
    gc.collect()
    assert [] == list(kept)


def test_a_small_object_for_many_outcomes():
    """Outcomes are stored in columns: a thousand take less than a fifth as many objects."""
    many = run_parallel(operator.index, range(1_000), executor="inline")
    as_objects = sum(sys.getsizeof(outcome) + 3 * sys.getsizeof(0.5) for outcome in many.outcomes.values())
    ledger = many._ledger
    columns = (ledger.values, ledger.queued, ledger.started, ledger.ended, ledger.workers)
    assert 5 * sum(map(sys.getsizeof, columns)) < 4 * as_objects


# Pickling


def journey(results):
    return pickle.loads(pickle.dumps(results))


@pytest.mark.parametrize("order", ["input", "key", "completion"])
def test_results_survive_pickling(order):
    """Keys, order, values, errors, figures and the reason of the stop survive pickling."""
    results = run_parallel(
        invert, {"b": 3, "a": 0, "c": 2, "d": 1}, executor="inline", max_failures=1, order=order
    )
    copied = journey(results)
    assert list(results) == list(copied)
    assert results.successes == copied.successes
    assert results.stopped == copied.stopped
    assert results.summary == copied.summary
    assert repr(results) == repr(copied)
    assert [repr(one.error) for one in results.failures.values()] == [
        repr(one.error) for one in copied.failures.values()
    ]
    assert [one.number for one in results.attempts] == [one.number for one in copied.attempts]
    with pytest.raises(ZeroDivisionError):
        copied["a"]


def test_results_can_be_pickled_beside_a_module_of_the_program_that_is_named_copy(monkeypatch):
    """A script's folder may well have a ``copy.py``, which hides Python's."""
    monkeypatch.setitem(sys.modules, "copy", None)
    assert [1] == pickle.loads(pickle.dumps(run_parallel(abs, [-1]))).values()


def test_positions_survive_pickling():
    """Positions as keys survive pickling."""
    assert 6 == journey(run_parallel(invert, [3, 2], executor="inline"))[1]


def test_tracebacks_survive_pickling_as_text():
    """Tracebacks survive pickling word for word as text, including causes."""
    results = stopped_run()
    copied = journey(results)
    for key in ("b", "c"):
        assert results.failures[key].traceback == copied.failures[key].traceback
    assert "in invert" in copied.failures["b"].traceback


def test_what_was_cut_off_survives_pickling():
    """A task whose first attempt was running when the run stopped, which has no error of its own, survives pickling."""
    ledger = plant([1.0])
    cut_off(ledger, [0], "run_timeout of 1 s")
    failure, copied = Results(ledger).failures[0], journey(Results(ledger)).failures[0]
    assert (failure.traceback, repr(failure.error), 1) == (
        copied.traceback,
        repr(copied.error),
        copied.attempts,
    )


def test_notes_survive_pickling():
    """The note that names task and attempt survives pickling."""
    assert ["parallelkit: task 'b', attempt 1 of 1"] == journey(make()).failures["b"].error.__notes__


def raiser(make_error):
    raise make_error()


def with_lock():
    error = OSError("held")
    error.lock = threading.Lock()
    return error


@pytest.mark.parametrize("make_error", [with_lock, lambda: Refused("db", 5432)], ids=["lock", "arguments"])
def test_an_error_that_cannot_travel_costs_nothing_else(make_error):
    """Results can be pickled whatever errors they have; a stand-in says what an error was."""
    results = run_parallel({"bad": lambda: raiser(make_error), "good": lambda: 1}, executor="inline")
    copied = journey(results)
    assert 1 == copied["good"]
    error = copied.failures["bad"].error
    assert type(results.failures["bad"].error).__name__ in type(error).__name__ + str(error)
    assert str(results.failures["bad"].error) in str(error)


@pytest.mark.parametrize("make_error", [with_lock, lambda: Refused("db", 5432)], ids=["lock", "arguments"])
def test_a_failure_travels_as_results_do(make_error):
    """A single failure, or an attempt, can be pickled whatever its error is; a shallow copy has the error itself."""
    results = run_parallel([lambda: raiser(make_error)], executor="inline", retries=Retry(1, delay=0))
    failure, expected = results.failures[0], journey(results).failures[0]
    assert copy.copy(failure).error is failure.error
    for copied in journey(failure), copy.deepcopy(failure):
        assert repr(expected) == repr(copied)
        assert (failure.traceback, failure.attempts) == (copied.traceback, copied.attempts)
    attempts = journey(list(results.attempts))
    assert [(1, repr(expected.error)), (2, repr(expected.error))] == [
        (each.number, repr(each.error)) for each in attempts
    ]


def test_what_a_pickle_leaves_out_is_noted_without_a_worker():
    """The note on what an error lost on its way is true of an error that was pickled in the program itself, too."""
    failure = run_parallel([lambda: raiser(with_lock)], executor="inline").failures[0]
    (_, note) = journey(failure).error.__notes__
    assert "left behind, because it cannot be pickled: attribute 'lock'" == note


def test_an_attempt_that_succeeded_travels():
    """An attempt without an error can be pickled."""
    (attempt,) = run_parallel(abs, [-1], executor="inline").attempts
    assert attempt == journey(attempt)


def test_a_failure_travels_whose_error_leads_back_to_it():
    """In the pickle of a failure whose error refers to it, None stands for it."""
    (failure,) = run_parallel([lambda: raiser(lambda: Counted("no"))], executor="inline").failures.values()
    failure.error.failure = failure
    Counted.pickled = 0
    copied = journey(failure)
    assert (("no",), None) == (copied.error.args, copied.error.failure)


def test_a_failure_in_the_error_of_another_is_tried_once():
    """How an error can be pickled is tried out; with a failure in each error, the tries would multiply from one to the next."""
    failure = None
    for name in "abcdef":
        error = Counted(name)
        error.inner = failure
        (failure,) = run_parallel(
            [partial(raiser, lambda error=error: error)], executor="inline"
        ).failures.values()
    Counted.pickled = 0
    copied = journey(failure)
    assert ["f", "e", "d"] == [
        one.error.args[0] for one in (copied, copied.error.inner, copied.error.inner.error.inner)
    ]
    assert Counted.pickled <= 60


class Interrupting(ValueError):
    """An error during whose pickling Ctrl-C comes."""

    def __reduce__(self):
        signal.raise_signal(signal.SIGINT)
        return super().__reduce__()


@pytest.mark.parametrize("part", [lambda results: results, lambda results: results.failures[0]])
def test_an_error_can_be_interrupted_as_it_is_pickled(part):
    """Ctrl-C ends the pickling of results, or of a failure: the class of an error may take long, or hang."""
    results = run_parallel([lambda: raiser(Interrupting)], executor="inline")
    with pytest.raises(KeyboardInterrupt):
        pickle.dumps(part(results))


def test_pickling_leaves_the_error_as_it_is():
    """A worker frees the variables of what ran out of memory; in the program they are still there after pickling."""

    def fill():
        kept = [1]
        raise MemoryError(kept)

    results = run_parallel([fill], executor="inline")
    journey(results)
    journey(results.failures[0])
    frames = results.failures[0].error.__traceback__
    while frames.tb_next is not None:
        frames = frames.tb_next
    assert {"kept": [1]} == frames.tb_frame.f_locals


def test_causes_survive_pickling():
    """The causes of errors, such as those of a timeout or an exit, survive pickling."""

    def task():
        try:
            raise OSError("inner")
        except OSError as error:
            raise ValueError("outer") from error

    error = journey(run_parallel([task], executor="inline")).failures[0].error
    assert ("outer", "inner") == (str(error), str(error.__cause__))


def test_results_can_be_copied():
    """Results can be copied and deep-copied."""
    results = make({"a": 3})
    assert 4 == copy.copy(results)["a"] == copy.deepcopy(results)["a"]


def test_errors_that_carry_results_survive_pickling():
    """A group of failures can be pickled with its results."""
    with pytest.raises(TaskFailures) as caught:
        make().values()
    copied = journey(caught.value)
    assert 4 == copied.results["a"]
    assert [ZeroDivisionError] == [type(error) for error in copied.exceptions]


class Counted(ValueError):
    """An error that counts how often it is pickled, and ends what goes round for ever."""

    pickled = 0

    def __reduce__(self):
        Counted.pickled += 1
        if Counted.pickled > 1000:
            raise KeyboardInterrupt
        return super().__reduce__()


def raise_counted(item):
    raise Counted(item) from OSError("down")


def test_an_error_that_leads_back_to_its_results_survives_pickling():
    """An error that was raised again from its ``TaskFailures`` is pickled with its chain, in which the results are None."""
    results = run_parallel(raise_counted, {"a": 1, "b": 2}, executor="inline")
    with pytest.raises(Counted):
        try:
            results.values()
        except TaskFailures as group:
            raise group.exceptions[0]  # noqa: B904  as it happens
    Counted.pickled = 0
    try:
        copied = journey(results)
    except KeyboardInterrupt:
        pytest.fail("it goes round")
    assert [("a", (1,)), ("b", (2,))] == [(key, one.error.args) for key, one in copied.failures.items()]
    error = copied.failures["a"].error
    assert (OSError, None) == (type(error.__cause__), error.__context__.results)
    assert [(1,), (2,)] == [one.args for one in error.__context__.exceptions]
    assert copy.copy(results).failures.keys() == {"a", "b"} == copy.deepcopy(results).failures.keys()


# Outcomes


def test_an_outcome_is_frozen():
    """An outcome cannot be changed."""
    success = Success("a", 0, 1, 1, 0.0, 0.0, 0.1, "w")
    failure = Failure("a", 0, OSError(), 1, 0.0, 0.0, 0.1, "w")
    for outcome in (success, failure):
        with pytest.raises(AttributeError):
            outcome.key = "b"
    assert (True, False) == (success.ok, failure.ok)


def test_a_success_has_no_error():
    """``error`` of a success is None, as that of an attempt or an event."""
    outcomes = make().outcomes
    assert ["b"] == [key for key, outcome in outcomes.items() if outcome.error]
    assert outcomes["a"].error is None
    assert "error" not in repr(outcomes["a"])


def test_outcomes_are_matched_by_type():
    """``match`` distinguishes Success and Failure, and unpacks them."""
    seen = []
    for outcome in make().outcomes.values():
        match outcome:
            case Success(key=key, value=value):
                seen.append((key, value))
            case Failure(key=key, error=error):
                seen.append((key, type(error)))
    assert [("a", 4), ("b", ZeroDivisionError), ("c", None)] == seen


def test_unwrap_gives_or_raises():
    """``unwrap`` returns the value, or raises the error."""
    outcomes = make().outcomes
    assert 4 == outcomes["a"].unwrap()
    with pytest.raises(ZeroDivisionError):
        outcomes["b"].unwrap()


def test_instants_count_from_the_beginning_of_the_run():
    """Times count from the start of the run: queued, started and ended, in this order, none negative."""
    for outcome in make().outcomes.values():
        assert 0.0 <= outcome.queued_at <= outcome.started_at
        assert 0.0 <= outcome.duration


def test_groups_of_failures_can_be_split():
    """``except*`` and ``split`` keep the type and the results."""
    results = run_parallel(
        {"slow": lambda: raiser(lambda: TaskTimeout("late")), "bad": lambda: 1 // 0}, executor="inline"
    )
    seen = []
    try:
        results.raise_failures()
    except* TimeoutError as late:
        seen.append((type(late), late.results is results, len(late.exceptions)))
    except* ZeroDivisionError as rest:
        seen.append((type(rest), rest.results is results, len(rest.exceptions)))
    assert [(TaskFailures, True, 1)] * 2 == seen


def test_results_by_hand():
    """Results can be made of any ledger, in any order, without a run."""
    ledger = Ledger()
    ledger.admit(["x", "y"], 2, 0.0)
    ledger.succeed(((0, 1), (1, 2), (0.0, 0.0), (1.0, 1.0), ("w", "w")))
    assert [("y", 2), ("x", 1)] == Results(ledger, array("q", [1, 0])).items()


def test_results_compare_as_mappings_do():
    """Results with equal keys and values are equal, also to a dict; those with a failure equal only themselves."""
    doubled = run_parallel(lambda n: 2 * n, {"a": 1, "b": 2}, executor="inline")
    assert {"a": 2, "b": 4} == doubled
    assert doubled == run_parallel(lambda n: 2 * n, {"a": 1, "b": 2}, executor="inline")
    assert {"a": 2} != doubled

    failed = run_parallel(lambda n: 1 / n, [0], executor="inline")
    assert failed == failed
    assert {} != failed
    assert failed != run_parallel(abs, [0], executor="inline") != failed


def test_a_group_of_failures_counts_their_kinds():
    """The message of TaskFailures counts the kinds of errors."""
    failed = run_parallel(lambda n: 1 / n, [0, 0, "x"], executor="inline")
    with pytest.raises(TaskFailures, match="3 of 3 tasks failed: 2 × ZeroDivisionError, 1 × TypeError"):
        failed.values()


def test_the_repr_of_a_failure_is_short():
    """The repr of a Failure has neither its traceback nor its stack."""
    (failure,) = run_parallel(lambda n: 1 / n, [0], executor="inline").failures.values()
    assert "Traceback" in failure.traceback
    assert "Traceback" not in repr(failure)


class Table:
    """A value whose repr has many lines."""

    def __repr__(self):
        return "\n".join(["x  y"] * 50)


def give_up(number, frame):
    raise SystemExit("told to end")


class Query(Exception):
    """A signal arrives while it is shown, or its notes are read."""

    def __repr__(self):
        signal.raise_signal(signal.SIGINT)
        return "rows"

    __notes__ = property(__repr__)


@pytest.mark.parametrize(
    ("handler", "kind"), [(signal.default_int_handler, KeyboardInterrupt), (give_up, SystemExit)]
)
@pytest.mark.parametrize(
    "show",
    [
        lambda: repr(Success("a", 0, Query(), 1, 0.0, 0.0, 0.1, "w")),
        lambda: Lost(Query(), 1, 0.0, 1.0, "w").traceback,
    ],
    ids=["repr", "traceback"],
)
def test_a_signal_ends_the_repr_and_the_traceback_of_an_outcome(show, handler, kind):
    """A repr may take long, as of a database query of an ORM that shows its rows; and so do the tracebacks of many failures."""
    former = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(kind):
            show()
    finally:
        signal.signal(signal.SIGINT, former)


def test_the_repr_of_an_outcome_is_a_line():
    """The repr of an outcome is one line: key, value or error, and duration; a long value is cut."""
    results = run_parallel(lambda x: 12 / x, {"a": 3, "b": 0}, executor="inline", retries=Retry(1, delay=0))
    assert re.fullmatch(r"<Success 'a': 4.0, \S+ s>", repr(results.outcomes["a"]))
    lost = r"<Failure 'b': ZeroDivisionError\('division by zero'\), 2 attempts, \S+ s>"
    assert re.fullmatch(lost, repr(results.outcomes["b"]))
    for value in (list(range(10**6)), "a" * 10**6, Table()):
        text = repr(Success("a", 0, value, 1, 0.0, 0.0, 0.1, "w"))
        assert len(text) < 100
        assert "\n" not in text
    stopped = run_parallel(lambda x: 1 / 0, [0, 1, 2], executor="inline", max_failures=1)
    assert repr(stopped.outcomes[2]).endswith(", never started>")


def test_the_repr_of_an_outcome_without_an_attempt_says_where_it_is_from(tmp_path):
    """An outcome that comes from a checkpoint says so: it neither took 0 s nor never started."""
    journal = Checkpoint(tmp_path / "journal", rerun_failed=False)
    for _ in range(2):
        results = run_parallel(lambda x: 12 // x, {"a": 3, "b": 0}, checkpoint=journal)
    assert "<Success 'a': 4, from the checkpoint>" == repr(results.outcomes["a"])
    assert repr(results.outcomes["b"]).endswith("'), from the checkpoint>")


@pytest.mark.parametrize(("home", "name"), [("_outcomes", "Failure"), ("_cancelled", "TaskCancelled")])
def test_a_module_that_is_loaded_again_has_the_classes_that_the_program_has(home, name, monkeypatch):
    """A test that mocks modules by ``patch.dict(sys.modules)`` removes those that were loaded under it, and they are loaded again."""
    known, module = getattr(parallelkit, name), importlib.import_module(f"parallelkit.{home}")
    monkeypatch.setattr(parallelkit, home, module)  # which the second import replaces
    monkeypatch.delitem(sys.modules, module.__name__)
    again = importlib.import_module(module.__name__)
    assert again is not module
    assert getattr(again, name) is known
