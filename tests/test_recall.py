"""Outcomes that are known before a task starts: hits of a ``joblib.Memory``."""

import signal
from textwrap import shorten

import pytest

from parallelkit import RateLimit, RunInterrupted, Task, TaskCancelled, run_parallel
from parallelkit._input._recall import MemoryRecall
from parallelkit._marks import UNSET

joblib = pytest.importorskip("joblib", reason="joblib is an extra")


@pytest.fixture
def cached(tmp_path):
    """A function whose values are kept in a folder of the test."""
    return joblib.Memory(tmp_path, verbose=0).cache(shorten)


@pytest.mark.parametrize("executor", ["threads", "processes", "inline"])
def test_hits_take_no_worker_and_no_token(cached, executor):
    """What a first run stored, the second answers in the parent; only the new item is an attempt."""
    texts = [f"text number {n}" for n in range(5)]
    first = run_parallel(cached, texts, kwargs={"width": 8}, executor=executor, max_workers=1)
    limit = RateLimit(1, per=60)
    again = run_parallel(cached, [*texts, "new"], kwargs={"width": 8}, executor=executor, limits=limit)

    assert first.values() == again.values()[:5]
    assert [0, 0, 0, 0, 0, 1] == [outcome.attempts for outcome in again.outcomes.values()]
    assert {"cache"} == {again.outcomes[index].worker for index in range(5)}


def test_hits_of_a_coroutine_function_start_none(tmp_path):
    """What a coroutine function has returned is answered in the parent, too."""

    async def double(number):
        return 2 * number

    cached = joblib.Memory(tmp_path, verbose=0).cache(double)
    assert [2, 4] == run_parallel(cached, [1, 2]).values()
    again = run_parallel(cached, [1, 2, 3])
    assert ([2, 4, 6], [0, 0, 1]) == (again.values(), [one.attempts for one in again.outcomes.values()])


def test_tasks_of_their_own_are_answered_too(cached):
    """Also in the tasks form, and for children of ``then``."""
    cached("a long text of words", width=9)
    tasks = {"known": Task(cached, "a long text of words", kwargs={"width": 9}), "other": lambda: 1}
    results = run_parallel(tasks)
    assert (0, 1) == (results.outcomes["known"].attempts, results.outcomes["other"].attempts)

    assert 0 == run_parallel({"known": tasks["known"]}, kwargs={"width": 7}).outcomes["known"].attempts

    grown = run_parallel(
        str,
        ["x"],
        then=lambda o: (
            [Task(cached, "a long text of words", kwargs={"width": 9})] if o.parent is None else ()
        ),
    )
    assert 0 == grown.outcomes[1].attempts


def test_a_hit_is_that_of_the_whole_call(tmp_path):
    """What is looked up is the call with the ``args`` of the run, an item with ``star`` unpacked: other arguments have other values."""
    raised = joblib.Memory(tmp_path, verbose=0).cache(pow)

    def attempts_of(items, **options):
        results = run_parallel(raised, items, **options)
        return results.values(), [outcome.attempts for outcome in results.outcomes.values()]

    assert ([2, 3], [1, 1]) == attempts_of([2, 3], args=(1,))
    assert ([4, 9], [1, 1]) == attempts_of([2, 3], args=(2,))
    assert ([4, 16], [0, 1]) == attempts_of([2, 4], args=(2,))
    assert ([2, 9, 8], [0, 0, 1]) == attempts_of([(2, 1), (3, 2), (2, 3)], star=True)


def test_looking_up_keeps_nobody_waiting(tmp_path, monkeypatch):
    """A list is read far ahead; but not where each item is first looked for in a folder, before the first can start."""
    looked, starts = [], []
    monkeypatch.setattr(MemoryRecall, "_look_up", lambda *call: looked.append(call) or UNSET)
    uncached = type(
        "Uncached", (joblib.memory.MemorizedFunc,), {"__call__": lambda own, *args: own.func(*args)}
    )
    run_parallel(uncached(lambda n: starts.append(len(looked)), tmp_path), range(3_000), max_workers=1)

    assert starts[0] <= 100
    assert 3_000 == len(starts)


def test_ctrl_c_as_a_store_is_read_loses_no_task(cached, monkeypatch):
    """What was read of the input by then has its outcome, though it is not known which of it the store has."""
    monkeypatch.setattr(MemoryRecall, "_look_up", lambda *call: signal.raise_signal(signal.SIGINT))
    with pytest.raises(RunInterrupted) as caught:
        run_parallel(cached, (text for text in ["a", "b"]), kwargs={"width": 9})
    failures = caught.value.results.failures
    assert [(0, TaskCancelled)] == [(key, type(failure.error)) for key, failure in failures.items()]


def test_an_unreadable_entry_is_computed_anew(cached, tmp_path):
    """A damaged store is a miss, not an error."""
    cached("a long text of words", width=9)
    for entry in tmp_path.rglob("output.pkl"):
        entry.write_bytes(b"damaged")
    results = run_parallel({"a": Task(cached, "a long text of words", kwargs={"width": 9})})
    assert 1 == results.outcomes["a"].attempts


def test_arguments_that_do_not_fit_are_the_tasks_own_error(cached):
    """What cannot be looked up is run, and fails there under its key."""
    results = run_parallel(cached, ["a long text of words"], kwargs={"breadth": 3})
    assert isinstance(results.failures[0].error, (TypeError, ValueError))
