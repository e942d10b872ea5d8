"""Promise 6: the caller chooses the order."""

from functools import partial

import acts
import pytest

from parallelkit import iter_parallel, run_parallel

BOTH = pytest.mark.parametrize("executor", ["threads", "processes"])


def begin(call, executor, tmp_path, **options):
    """Run or stream four tasks at the same time, which end in reverse order; the third fails."""
    path = str(tmp_path / "ended")
    then = partial(acts.note, path)
    work = partial(acts.last_first, path=path)
    return call(work, range(4), executor=executor, max_workers=4, timeout=20, then=then, **options)


@BOTH
def test_input_order_is_the_default(executor, tmp_path):
    """By default, results are in input order, whichever task ends first."""
    results = begin(run_parallel, executor, tmp_path)
    assert [0, 1, 2, 3] == list(results)
    assert [0, 1, None, 3] == results.values(default=None)


@BOTH
def test_completion_order(executor, tmp_path):
    """With ``order="completion"``, results are in the order in which the tasks ended, failures included."""
    results = begin(run_parallel, executor, tmp_path, order="completion")
    assert [3, 2, 1, 0] == list(results)
    assert [3, None, 1, 0] == results.values(default=None)


def test_key_order(tmp_path):
    """With ``order="key"``, results are sorted by key."""
    results = begin(run_parallel, "threads", tmp_path, order="key", key=lambda item: "dacb"[item])
    assert ["a", "b", "c", "d"] == list(results)
    assert [1, 3, None, 0] == results.values(default=None)


@BOTH
def test_stream_yields_what_ends_first(executor, tmp_path):
    """By default, a stream yields a task as soon as it has ended, while others run."""
    assert [3, 2, 1, 0] == [outcome.key for outcome in begin(iter_parallel, executor, tmp_path)]


@BOTH
def test_stream_in_input_order(executor, tmp_path):
    """With ``order="input"``, a stream yields in input order."""
    assert [0, 1, 2, 3] == [
        outcome.key for outcome in begin(iter_parallel, executor, tmp_path, order="input")
    ]
