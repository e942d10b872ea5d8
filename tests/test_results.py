"""``Results``: every sentence that the design says of it."""

import copy
import gc
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
from functools import partial

import pytest

from parallelkit import (
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
from parallelkit._ledger import Facts, Ledger
from parallelkit._lost import Lost


class Refused(Exception):
    """An error whose ``__init__`` takes what its ``args`` do not hold: it breaks on unpickling."""

    def __init__(self, host, port):
        super().__init__(f"{host}:{port} refused")
        self.host = host


def invert(x):
    return 12 // x


def make(items=None, **options):
    """One value, one error, one ``None``."""
    return run_parallel(
        lambda x: None if x == 9 else 12 // x,
        {"a": 3, "b": 0, "c": 9} if items is None else items,
        executor="inline",
        **options,
    )


def stopped_run():
    """The second of four tasks fails and stops the run, the others never begin."""
    results = run_parallel(invert, {"a": 3, "b": 0, "c": 2, "d": 1}, executor="inline", max_failures=1)
    assert "max_failures of 1 reached" == results.stopped
    return results


# A Mapping in the chosen order


def test_results_are_a_mapping():
    """Whatever takes a Mapping takes them."""
    assert isinstance(make(), Mapping)
    assert {"a": 4} == dict(make({"a": 3}))


@pytest.mark.parametrize(
    ("order", "expected"),
    [("input", ["c", "a", "b"]), ("key", ["a", "b", "c"]), ("completion", ["c", "a", "b"])],
)
def test_the_order_is_the_callers_choice(order, expected):
    """It is that of iteration, values, items, outcomes, failures and rows alike."""
    results = run_parallel(invert, {"c": 3, "a": 2, "b": 1}, executor="inline", order=order)
    values = [{"c": 4, "a": 6, "b": 12}[key] for key in expected]
    assert expected == list(results) == list(results.keys())
    assert values == results.values()
    assert list(zip(expected, values, strict=True)) == results.items() == list(results.to_dict().items())
    assert expected == list(results.outcomes) == list(results.successes)
    assert expected == [row["key"] for row in results.rows()]


def test_the_order_of_completion_is_that_in_which_tasks_ended():
    """Not that in which they were read."""
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
    """Also where they were settled in another."""
    results = run_parallel(invert, {"z": 0, "m": 1, "a": 0}, executor="inline", order="key")
    assert ["a", "z"] == list(results.failures)


# A value by its key


def test_a_key_gives_the_value():
    """``None`` is an ordinary value."""
    results = make()
    assert (4, None) == (results["a"], results["c"])


def test_a_key_raises_the_tasks_own_error():
    """The very object, as often as one likes."""
    results = make()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as caught:
            results["b"]
        assert caught.value is results.failures["b"].error


def raised_by(take):
    """The lines with which what it raises would end a program."""
    with pytest.raises(ZeroDivisionError) as caught:
        take()
    return traceback.format_exception(caught.value)


@pytest.mark.parametrize("executor", ["inline", "threads", "processes"])
def test_what_is_raised_again_looks_the_same_every_time(executor):
    """The frames of those who asked before are none of the task's, be it asked as a key or an outcome."""
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
    """Who asked for one of them before is not in it: neither in that of the results nor in that of a fold."""

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
    """IPython shows them, and wrote "failed resolving arguments" where one had been deleted."""
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
    """And one that is raised is never returned."""
    error = ValueError("returned")
    results = run_parallel(lambda _: error, [0], executor="inline")
    assert error is results[0]
    assert [True] == [outcome.ok for outcome in results.outcomes.values()]


def test_a_failure_that_is_asked_for_its_value_tells_its_error():
    """Who forgot to look at ``ok`` sees what the task raised, not only that a name is missing."""
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
    """As in a dict."""
    results = make()
    with pytest.raises(KeyError):
        results[key]
    with pytest.raises(KeyError):
        results.outcomes[key]


# in, len, iteration and get look at keys only


def test_membership_and_length_look_at_keys_only():
    """A failed task is there, and asking raises nothing."""
    results = make()
    assert 3 == len(results)
    assert "b" in results
    assert "d" not in results
    assert ["a", "b", "c"] == list(results)


def test_get_is_for_unknown_keys():
    """A failed task raises; the default stands in for what was never asked for, and for nothing else."""
    results = make()
    assert (4, None) == (results.get("a"), results.get("c", 7))
    assert (None, 7) == (results.get("d"), results.get("d", 7))
    with pytest.raises(ZeroDivisionError):
        results.get("b", 7)


class Position:
    """An integer of another kind, as numpy has them."""

    def __index__(self):
        return 1


def test_positions_are_integers_of_any_kind():
    """Where the position is the key, numpy's integers and booleans find it, as they would in a dict."""
    results = run_parallel(invert, [3, 2, 1], executor="inline")
    assert (6, 6) == (results[True], results[Position()])
    for stranger in (3, -1, 1.5, "1", None, (1,)):
        assert stranger not in results
        with pytest.raises(KeyError):
            results[stranger]


@pytest.mark.parametrize("key", ["ann", 3])
def test_a_forgotten_key_is_hinted_at(key):
    """Who asks by name where positions are the keys has forgotten ``key=``."""
    results = run_parallel(invert, [3, 2, 1], executor="inline")
    with pytest.raises(KeyError, match="the keys here are the positions of the items; pass key= for others"):
        results[key]


# All values at once


def test_values_and_items_are_lists():
    """They can be indexed, and do not change."""
    results = make({"a": 3, "b": 2})
    assert [4, 6] == results.values()
    assert [("a", 4), ("b", 6)] == results.items()
    assert (list, list) == (type(results.values()), type(results.items()))


@pytest.mark.parametrize("take", [Results.values, Results.items, Results.to_dict, Results.raise_failures])
def test_what_cannot_be_whole_raises_every_failure(take):
    """``TaskFailures`` holds all of them, in order, and the results."""
    results = make({"a": 0, "b": 3, "c": 0})
    with pytest.raises(TaskFailures, match="2 of 3 tasks failed") as caught:
        take(results)
    group = caught.value
    assert [results.failures[key].error for key in "ac"] == list(group.exceptions)
    assert results is group.results
    with pytest.raises(ExceptionGroup):
        raise group


def test_cancelled_tasks_are_failures_too():
    """What was never begun has no value either."""
    with pytest.raises(TaskFailures) as caught:
        stopped_run().values()
    assert [ZeroDivisionError, TaskCancelled, TaskCancelled] == [type(one) for one in caught.value.exceptions]


def test_a_default_stands_where_a_task_failed():
    """Any value, ``None`` included; a task's own ``None`` is not mistaken for it."""
    results = make()
    assert [4, -1, None] == results.values(default=-1)
    assert [("a", 4), ("b", None), ("c", None)] == results.items(default=None)
    assert {"a": 4, "b": -1, "c": None} == results.to_dict(default=-1)


def test_where_all_is_well_nothing_is_raised():
    """With or without a default."""
    results = make({"a": 3})
    assert results.raise_failures() is None
    assert [4] == results.values(default=0) == results.values()


# Views


def test_outcomes_are_a_mapping_to_success_or_failure():
    """Each is built when it is looked at, and is what the task came to."""
    outcomes = make().outcomes
    assert isinstance(outcomes, Mapping)
    assert 3 == len(outcomes)
    assert isinstance(outcomes["a"], Success)
    assert isinstance(outcomes["b"], Failure)
    assert ["a", "b", "c"] == list(outcomes) == [outcome.key for outcome in outcomes.values()]
    assert "3 tasks" in repr(outcomes)


def test_successes_and_failures_share_out_the_keys():
    """Key to value here, key to ``Failure`` there, every key in exactly one."""
    results = make()
    assert {"a": 4, "c": None} == results.successes
    assert {"b": ZeroDivisionError} == {key: type(one.error) for key, one in results.failures.items()}
    assert {} == make({"a": 3}).failures


def test_stopped_says_why():
    """None for a run that went to its end."""
    assert make().stopped is None
    assert "max_failures of 1 reached" == stopped_run().stopped


def test_attempts_are_the_log_of_every_execution():
    """Failed tries included, in the order of their starts."""
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
    """Tasks by their fate, attempts, seconds; parallelism is busy ÷ wall."""
    ledger = Ledger(Facts(began_at=100.0, ended_at=110.0))
    ledger.admit(None, 4, 100.0)
    ledger.try_again(0, Lost(OSError(), 1, 100.0, 101.0, "w"))
    ledger.succeed_again(0, 2)
    ledger.succeed((0, 1), (1, 2), (101.0, 100.0), (103.0, 108.0), ("w", "v"))
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
    """A dict a task, in order, with the error as text."""
    rows = make().rows()
    assert [("a", True, 4, None), ("b", False, None, "ZeroDivisionError"), ("c", True, None, None)] == [
        (row["key"], row["ok"], row["value"], row["error"] and row["error"].partition(":")[0]) for row in rows
    ]
    assert {"index", "attempts", "queued_at", "started_at", "duration", "worker", "parent"} < rows[0].keys()


@pytest.mark.all  # pandas takes a second to load
def test_the_frame_of_an_empty_run_has_its_columns():
    """So that what is done with a frame works with it too."""
    pytest.importorskip("pandas")
    assert list(make().rows()[0])[1:] == list(run_parallel(len, []).to_frame().columns)


def test_a_frame_needs_pandas(monkeypatch):
    """And says how to get it."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"to_frame needs pandas: pip install pandas"):
        run_parallel(len, []).to_frame()


def test_a_frame_is_the_rows_by_key():
    """pandas, indexed by key."""
    pytest.importorskip("pandas")
    frame = make().to_frame()
    assert ["a", "b", "c"] == list(frame.index)
    assert [True, False, True] == list(frame["ok"])


def test_the_report_is_text():
    """Without a figure asked for, and with one."""
    results = make()
    assert "ZeroDivisionError" in results.report()
    assert results.report() != results.report(cost_per_attempt=0.01)


def test_the_repr_counts():
    """What it is, in a line."""
    assert "<Results of 3 tasks: 2 succeeded, 1 failed>" == repr(make())
    assert "<Results of 4 tasks: 1 succeeded, 1 failed, 2 cancelled>" == repr(stopped_run())


def test_results_are_not_taken_for_an_array_of_their_keys():
    """``np.mean(run_parallel(…))`` was the mean of the positions; a series and a column are the values, by key."""
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
    """``np.array([results, None], dtype=object)``, and ``array == results``: nobody takes their keys for numbers there."""
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
    """The view shows the first of them, in order, and goes no further for a million; it compares as a view does."""
    results = make()
    for keys in (results.keys(), results.outcomes.keys()):
        assert "KeysView(['a', 'b', 'c'])" == repr(keys)
        assert {"a", "b", "c"} == keys
        assert {"b"} == keys & {"b", "z"}
    many = run_parallel(abs, range(1000), executor="inline").keys()
    assert f"KeysView([{', '.join(map(str, range(20)))}, ...])" == repr(many)


def test_results_are_equal_to_themselves_only():
    """Comparing must not raise what tasks raised; and like every mapping they have no hash."""
    results = make()
    assert results == results
    assert results != make()
    with pytest.raises(TypeError):
        hash(results)


def test_an_empty_run_has_results():
    """No tasks, no outcomes, nothing raised."""
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
    """What the run needed to get them (items, functions, workers) is free when it is over."""

    class Item:
        pass

    items = [Item() for _ in range(3)]
    alive = [weakref.ref(item) for item in items]
    results = run_parallel(lambda item: 1, items, max_workers=2)
    del items
    gc.collect()
    assert [None] * 3 == [ref() for ref in alive]
    assert 3 == len(results)


def test_a_small_object_for_many_outcomes():
    """Outcomes are columns: those of a thousand tasks take less than a fifth of as many objects."""
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
    """Keys, order, values, errors, figures and the reason of the stop."""
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


def test_positions_survive_pickling():
    """Keys that were never given are found afterwards too."""
    assert 6 == journey(run_parallel(invert, [3, 2], executor="inline"))[1]


def test_tracebacks_survive_pickling_as_text():
    """Word for word, causes included."""
    results = stopped_run()
    copied = journey(results)
    for key in ("b", "c"):
        assert results.failures[key].traceback == copied.failures[key].traceback
    assert "in invert" in copied.failures["b"].traceback


def test_notes_survive_pickling():
    """The task and the attempt are still named."""
    assert ["parallelkit: task 'b', attempt 1 of 1"] == journey(make()).failures["b"].error.__notes__


def raiser(make_error):
    raise make_error()


def with_lock():
    error = OSError("held")
    error.lock = threading.Lock()
    return error


@pytest.mark.parametrize("make_error", [with_lock, lambda: Refused("db", 5432)], ids=["lock", "arguments"])
def test_an_error_that_cannot_travel_costs_nothing_else(make_error):
    """Results pickle whatever the tasks have raised; what stands in for an error says what it was."""
    results = run_parallel({"bad": lambda: raiser(make_error), "good": lambda: 1}, executor="inline")
    copied = journey(results)
    assert 1 == copied["good"]
    error = copied.failures["bad"].error
    assert type(results.failures["bad"].error).__name__ in type(error).__name__ + str(error)
    assert str(results.failures["bad"].error) in str(error)


def test_causes_survive_pickling():
    """The chain of an error is part of it: what a timeout or an exit was caused by is still there."""

    def task():
        try:
            raise OSError("inner")
        except OSError as error:
            raise ValueError("outer") from error

    error = journey(run_parallel([task], executor="inline")).failures[0].error
    assert ("outer", "inner") == (str(error), str(error.__cause__))


def test_results_can_be_copied():
    """As any value, deep or not."""
    results = make({"a": 3})
    assert 4 == copy.copy(results)["a"] == copy.deepcopy(results)["a"]


def test_errors_that_carry_results_survive_pickling():
    """A group of failures arrives with its results."""
    with pytest.raises(TaskFailures) as caught:
        make().values()
    copied = journey(caught.value)
    assert 4 == copied.results["a"]
    assert [ZeroDivisionError] == [type(error) for error in copied.exceptions]


# Outcomes


def test_an_outcome_is_frozen():
    """Nobody can change what has happened."""
    success = Success("a", 0, 1, 1, 0.0, 0.0, 0.1, "w")
    failure = Failure("a", 0, OSError(), 1, 0.0, 0.0, 0.1, "w")
    for outcome in (success, failure):
        with pytest.raises(AttributeError):
            outcome.key = "b"
    assert (True, False) == (success.ok, failure.ok)


def test_a_success_has_no_error():
    """Whoever asks every outcome for its error gets None of what went well, as of an attempt or an event."""
    outcomes = make().outcomes
    assert ["b"] == [key for key, outcome in outcomes.items() if outcome.error]
    assert outcomes["a"].error is None
    assert "error" not in repr(outcomes["a"])


def test_outcomes_are_matched_by_type():
    """``match`` tells the two apart and takes out what is wanted."""
    seen = []
    for outcome in make().outcomes.values():
        match outcome:
            case Success(key=key, value=value):
                seen.append((key, value))
            case Failure(key=key, error=error):
                seen.append((key, type(error)))
    assert [("a", 4), ("b", ZeroDivisionError), ("c", None)] == seen


def test_unwrap_gives_or_raises():
    """The value, or the error itself."""
    outcomes = make().outcomes
    assert 4 == outcomes["a"].unwrap()
    with pytest.raises(ZeroDivisionError):
        outcomes["b"].unwrap()


def test_instants_count_from_the_beginning_of_the_run():
    """Queued, started, ended, in that order, none before zero."""
    for outcome in make().outcomes.values():
        assert 0.0 <= outcome.queued_at <= outcome.started_at
        assert 0.0 <= outcome.duration


def test_groups_of_failures_can_be_split():
    """``except*`` and ``split`` keep type and results."""
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
    """Any order of any ledger: the class asks for no run."""
    ledger = Ledger()
    ledger.admit(["x", "y"], 2, 0.0)
    ledger.succeed((0, 1), (1, 2), (0.0, 0.0), (1.0, 1.0), ("w", "w"))
    assert [("y", 2), ("x", 1)] == Results(ledger, array("q", [1, 0])).items()


def test_results_compare_as_mappings_do():
    """Equal keys and values are equal, also to a dict; a run with a failure equals only itself."""
    doubled = run_parallel(lambda n: 2 * n, {"a": 1, "b": 2}, executor="inline")
    assert {"a": 2, "b": 4} == doubled
    assert doubled == run_parallel(lambda n: 2 * n, {"a": 1, "b": 2}, executor="inline")
    assert {"a": 2} != doubled

    failed = run_parallel(lambda n: 1 / n, [0], executor="inline")
    assert failed == failed
    assert {} != failed


def test_a_group_of_failures_counts_their_kinds():
    """The message says what failed without a look into the group."""
    failed = run_parallel(lambda n: 1 / n, [0, 0, "x"], executor="inline")
    with pytest.raises(TaskFailures, match="3 of 3 tasks failed: 2 × ZeroDivisionError, 1 × TypeError"):
        failed.values()


def test_the_repr_of_a_failure_is_short():
    """Neither traceback nor stack is in it."""
    (failure,) = run_parallel(lambda n: 1 / n, [0], executor="inline").failures.values()
    assert "Traceback" in failure.traceback
    assert "Traceback" not in repr(failure)


class Table:
    """A value with a picture of itself in many lines."""

    def __repr__(self):
        return "\n".join(["x  y"] * 50)


def test_ctrl_c_ends_the_repr_of_an_outcome():
    """That of its value may take long: a database query of an ORM shows its rows."""

    class Query:
        def __repr__(self):
            signal.raise_signal(signal.SIGINT)
            return "rows"

    with pytest.raises(KeyboardInterrupt):
        repr(Success("a", 0, Query(), 1, 0.0, 0.0, 0.1, "w"))


def test_the_repr_of_an_outcome_is_a_line():
    """Key, value or error, and what it took; a long value is cut."""
    results = run_parallel(lambda x: 12 // x, {"a": 3, "b": 0}, executor="inline", retries=Retry(1, delay=0))
    assert re.fullmatch(r"<Success 'a': 4, \S+ s>", repr(results.outcomes["a"]))
    lost = r"<Failure 'b': ZeroDivisionError\('integer division or modulo by zero'\), 2 attempts, \S+ s>"
    assert re.fullmatch(lost, repr(results.outcomes["b"]))
    for value in (list(range(10**6)), "a" * 10**6, Table()):
        text = repr(Success("a", 0, value, 1, 0.0, 0.0, 0.1, "w"))
        assert len(text) < 100
        assert "\n" not in text
    stopped = run_parallel(lambda x: 1 / 0, [0, 1, 2], executor="inline", max_failures=1)
    assert repr(stopped.outcomes[2]).endswith(", never started>")
