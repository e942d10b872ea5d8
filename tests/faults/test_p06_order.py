"""Promise 6: the caller chooses the order."""

import threading
from functools import partial

import acts
import pytest
import remote_tasks as far

from parallelkit import InputError, iter_parallel, run_parallel

BOTH = pytest.mark.parametrize("executor", ["threads", "processes"])


def run(executor, tmp_path, **options):
    """Run four tasks at the same time, which end in reverse order; the third fails."""
    path = str(tmp_path / "ended")
    then = partial(acts.note, path)
    work = partial(acts.last_first, path=path)
    return run_parallel(work, range(4), executor=executor, max_workers=4, timeout=20, then=then, **options)


@BOTH
def test_input_order_is_the_default(executor, tmp_path):
    """By default, results are in input order, whichever task ends first."""
    results = run(executor, tmp_path)
    assert [0, 1, 2, 3] == list(results)
    assert [0, 1, None, 3] == results.values(default=None)


@BOTH
def test_completion_order(executor, tmp_path):
    """With ``order="completion"``, results are in the order in which the tasks ended, failures included."""
    results = run(executor, tmp_path, order="completion")
    assert [3, 2, 1, 0] == list(results)
    assert [3, None, 1, 0] == results.values(default=None)


def test_key_order(tmp_path):
    """With ``order="key"``, results are sorted by key."""
    results = run("threads", tmp_path, order="key", key=lambda item: "dacb"[item])
    assert ["a", "b", "c", "d"] == list(results)
    assert [1, 3, None, 0] == results.values(default=None)


def test_views_follow_the_order(tmp_path):
    """All views of the results follow the order: keys, values, items, outcomes, successes and rows."""
    results = run("threads", tmp_path, order="key", key=lambda item: -item)
    keys = [-3, -2, -1, 0]
    assert keys == list(results.outcomes) == [row["key"] for row in results.rows()]
    assert [3, None, 1, 0] == results.values(default=None)
    assert list(zip(keys, [3, None, 1, 0], strict=True)) == results.items(default=None)
    assert [-3, -1, 0] == list(results.successes)


def stream(executor, tmp_path, **options):
    path = str(tmp_path / "ended")
    then = partial(acts.note, path)
    work = partial(acts.last_first, path=path)
    return iter_parallel(work, range(4), executor=executor, max_workers=4, timeout=20, then=then, **options)


@BOTH
def test_stream_yields_what_ends_first(executor, tmp_path):
    """By default, a stream yields a task as soon as it has ended, while others run."""
    assert [3, 2, 1, 0] == [outcome.key for outcome in stream(executor, tmp_path)]


@BOTH
def test_stream_in_input_order(executor, tmp_path):
    """With ``order="input"``, a stream yields in input order."""
    assert [0, 1, 2, 3] == [outcome.key for outcome in stream(executor, tmp_path, order="input")]


def test_stream_in_key_order_is_refused():
    """A stream refuses ``order="key"``: it would have to wait for the last task before it could yield the first."""
    with pytest.raises(ValueError, match="order"):
        iter_parallel(abs, range(3), order="key")


def test_keys_that_cannot_be_sorted_are_refused_at_the_door():
    """With sized input, keys that cannot be sorted are refused before anything runs."""
    begun = threading.Event()
    with pytest.raises(TypeError, match="compared"):
        run_parallel(lambda item: begun.set(), [1, "a"], key=lambda item: item, order="key")
    assert not begun.is_set()


def test_keys_that_cannot_be_sorted_in_the_end():
    """With unsized input, keys that cannot be sorted raise an InputError at the end, which has all results."""
    with pytest.raises(InputError) as caught:
        run_parallel(far.give_back, iter([1, "a"]), key=lambda item: item, order="key")
    assert {1: 1, "a": "a"} == caught.value.results.to_dict()
