"""``map_reduce`` and ``first_success``."""

import threading
from collections import Counter
from itertools import count

import pytest
from patience import given_time

from parallelkit import InputError, Success, TaskCancelled, TaskFailures, first_success, map_reduce


def test_values_are_folded():
    """A fold begins with ``initial`` and takes every value once."""
    assert 4951 == map_reduce(abs, range(100), lambda so_far, value: so_far + value, initial=1)


def test_a_fold_may_keep_the_input_order():
    """With ``order="input"``, a fold equals that of functools.reduce."""
    letters = "the quick brown fox"
    assert letters == map_reduce(str, list(letters), str.__add__, initial="", order="input", max_workers=8)


@pytest.mark.parametrize("executor", ["threads", "processes", "inline"])
def test_a_fold_over_missing_parts_is_refused(executor):
    """If tasks of a fold fail, all failures are raised after the rest was done."""
    with pytest.raises(TaskFailures, match="2 of 4 tasks failed") as caught:
        map_reduce(lambda n: 1 // (n % 2), range(4), int.__add__, initial=0, executor=executor)
    assert [ZeroDivisionError] * 2 == [type(error) for error in caught.value.exceptions]
    assert {0: 0, 2: 2} == {key: one.index for key, one in caught.value.results.failures.items()}
    assert {0, 2} == {attempt.index for attempt in caught.value.results.attempts}


@given_time
def test_a_fold_that_was_stopped_before_the_end_of_its_input_is_refused(scale):
    """A fold that a stop cuts short is no sum either, even if every task read so far was done and folded."""

    def add(so_far, value):  # while the caller is here, the run ends, with nothing under way
        for thread in threading.enumerate():
            if thread.name == "parallelkit_stream":
                thread.join()
        return so_far + value

    with pytest.raises(TaskFailures, match="the fold would miss") as caught:
        map_reduce(abs, count(), add, initial=0, buffersize=4, run_timeout=0.2 * scale)
    assert caught.value.results.stopped.startswith("run_timeout of")
    assert {TaskCancelled} == {type(error) for error in caught.value.exceptions}


def test_a_race_that_was_stopped_before_it_read_a_task_does_not_say_that_there_were_none():
    """A race whose time is up before the first of its tasks is read says that it was stopped, and why."""
    with pytest.raises(TaskFailures) as caught:
        first_success((threading.Event().wait for _ in range(9)), run_timeout=1e-9)
    assert caught.value.results.stopped.startswith("run_timeout of")


@pytest.mark.parametrize("executor", ["threads", "processes", "inline"])
def test_the_results_of_an_error_are_those_of_their_run(executor):
    """The results in a recipe's error have the run's executor and duration in their report."""
    with pytest.raises(TaskFailures, match="5 of 5 tasks failed") as caught:
        map_reduce(lambda n: 1 // 0, range(5), int.__add__, initial=0, executor=executor)
    results = caught.value.results
    assert (5, 5, None) == (len(results), results.summary.failed, results.stopped)
    assert results.summary.wall > 0
    assert f"executor {executor}" in results.report()


def test_the_results_of_an_error_say_why_the_run_was_stopped():
    """The results in a recipe's error say why the run was stopped; an error of a task's own stays as it is."""

    def fail(number):
        raise TaskCancelled("that of another run")

    with pytest.raises(TaskFailures) as caught:
        map_reduce(fail, range(3), int.__add__, initial=0, executor="inline", max_failures=1)
    results, why = caught.value.results, "max_failures of 1 reached"
    assert why == results.stopped
    told = ["that of another run", *[f"the run was stopped before this task was done: {why}"] * 2]
    assert told == [str(failure.error) for failure in results.failures.values()]
    assert told == [str(error) for error in caught.value.exceptions]
    assert (1, 2) == (results.summary.failed, results.summary.cancelled)


def test_a_reduce_that_raises_ends_the_run():
    """A ``reduce`` that raises ends the run, also while its error is kept: an InputError with that error as its cause."""

    def items():
        try:
            yield from count()
        finally:
            closed.append(True)

    closed = []
    with pytest.raises(InputError, match="reduce raised TypeError") as caught:
        map_reduce(str, items(), int.__add__, initial=0)
    assert [True] == closed
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_reduce_that_returns_nothing_is_told_so():
    """A ``reduce`` that returns None, such as ``Counter.update``, gets an error that says so."""
    with pytest.raises(
        InputError, match="the total so far is None: a reduce that changes it in place must return"
    ):
        map_reduce(Counter, ["ab", "ac"], Counter.update, initial=Counter())
    with pytest.raises(InputError) as caught:
        map_reduce(abs, [1, 2], lambda total, value: total / 0, initial=1)
    assert "None" not in str(caught.value)


def test_a_reduce_that_cannot_be_called_is_refused_at_the_door():
    """A ``reduce`` that is not callable is refused at once, with the argument and the value."""
    with pytest.raises(TypeError, match="reduce must be callable, got 3"):
        map_reduce(str, [], 3, initial=0)


@pytest.mark.abandons(1)
def test_the_first_success_wins_while_a_loser_still_sleeps():
    """``first_success`` returns at once, and abandons a thread that hangs."""
    forever = threading.Event()
    won = first_success({"hangs": forever.wait, "fails": lambda: 1 / 0, "works": lambda: 42})
    assert ("works", 42) == (won.key, won.value)
    assert isinstance(won, Success)
    forever.set()


def test_where_none_succeeds_all_failures_are_raised():
    """If no task succeeds, all failures are raised in a group that has the results."""
    with pytest.raises(TaskFailures, match="none of 2 tasks succeeded") as caught:
        first_success([lambda: 1 / 0, lambda: {}["no"]])
    assert {ZeroDivisionError, KeyError} == {type(error) for error in caught.value.exceptions}


def test_where_a_stop_leaves_no_other_the_failures_are_raised():
    """Also if the input had not ended, and might have had a task that succeeds."""
    with pytest.raises(TaskFailures, match="none of 1 task succeeded: 1 × ZeroDivisionError"):
        first_success(iter([lambda: 1 / 0] * 3), executor="inline", max_failures=1)


def test_no_task_at_all_is_an_error():
    """``first_success`` of no task is an error."""
    with pytest.raises(ValueError, match="at least one task"):
        first_success([])


@pytest.mark.parametrize(
    ("call", "got"),
    [
        (lambda: first_success(abs, [1]), "2 positional arguments"),
        (lambda: first_success(fn=abs, items=[1]), "0 positional arguments"),
        (lambda: first_success(abs), "<built-in function abs>"),
    ],
)
def test_a_function_with_items_is_no_race_and_what_to_write_is_said(call, got):
    """``first_success(fn, items)``, an easy mistake, is refused before anything runs, with what to write."""
    with pytest.raises(
        TypeError, match=rf"takes tasks alone, .*, got {got}; .* first_success\(\[Task\(fn, item\) for"
    ):
        call()


def test_the_first_in_input_order_is_waited_for():
    """With order="input", a success is returned only when all earlier tasks have failed."""
    may_fail = threading.Event()

    def preferred():
        may_fail.wait(60)
        raise ConnectionError("down")

    def second():
        may_fail.set()
        return 2

    won = first_success([preferred, second, lambda: 3], order="input", max_workers=3)
    assert (1, 2) == (won.key, won.value)


def broken(tasks):
    yield from tasks
    raise LookupError("gone")


def test_failures_are_not_lost_where_the_input_raises():
    """The InputError of a recipe has the failures that had come before."""
    tasks = [lambda: 1 / 0, lambda: {}["no"]]
    with pytest.raises(InputError, match="the input raised LookupError after 2 items") as caught:
        first_success(broken(tasks))
    assert {ZeroDivisionError, KeyError} == {
        type(one.error) for one in caught.value.results.failures.values()
    }
    with pytest.raises(InputError, match="the input raised LookupError after 3 items") as caught:
        map_reduce(lambda n: 1 // n, broken([1, 0, 2]), int.__add__, initial=0)
    assert [1] == list(caught.value.results.failures)


def test_a_winner_is_not_lost_where_the_input_raises_as_it_is_closed():
    """If the input's close raises, the InputError has the winner and earlier failures."""

    def tasks():
        try:
            yield lambda: 1 / 0
            yield lambda: 7
            yield lambda: 8
        finally:
            raise LookupError("gone")

    with pytest.raises(InputError) as caught:
        first_success(tasks(), executor="inline", buffersize=1)
    assert isinstance(caught.value.__cause__, LookupError)
    assert ([0, 1], {1: 7}) == (list(caught.value.results), caught.value.results.successes)


def test_failures_are_not_lost_where_the_input_raises_as_it_is_closed():
    """If the input's close raises after a stop, the InputError of a fold has the failures."""

    def items():
        try:
            yield from range(100)
        finally:
            raise LookupError("gone")

    with pytest.raises(InputError, match="closing the input raised LookupError") as caught:
        map_reduce(lambda n: 1 // n, items(), int.__add__, initial=0, executor="inline", max_failures=1)
    assert ZeroDivisionError in map(type, (one.error for one in caught.value.results.failures.values()))


def test_what_reduce_was_given_is_in_the_error():
    """After an error of ``reduce``, the results have the values that it was given, and nothing else: the rest of the run was stopped."""
    with pytest.raises(InputError, match="reduce raised TypeError for the value of 'a'") as caught:
        map_reduce(str, {"a": 1}, lambda total, text: total + text, initial=0)
    assert {"a": "1"} == dict(caught.value.results.items())


def test_losing_processes_are_killed():
    """The processes of a race's losers are killed (checked by leaks.py)."""
    import time

    won = first_success([lambda: time.sleep(60), lambda: 7], executor="processes", max_workers=2)
    assert 7 == won.value
