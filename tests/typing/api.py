"""Typed use of the public names, as a caller writes it. Checked by mypy and pyright in strict mode, never run."""

# pyright: strict

from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import Any, assert_type

import ratelimit
import tenacity

from parallelkit import (
    Checkpoint,
    ConcurrencyLimit,
    Event,
    Failure,
    Outcome,
    ProcessExecutor,
    RateLimit,
    Results,
    Retry,
    Success,
    Task,
    ThreadExecutor,
    first_success,
    iter_parallel,
    map_reduce,
    run_parallel,
)


def length(text: str) -> int:
    return len(text)


def answer() -> int:
    return 42


def title(text: str) -> str:
    return text.title()


def power(number: int, exponent: int) -> int:
    return int(number**exponent)


def map_form(words: list[str], by_name: dict[str, str]) -> None:
    """Keys are positions, what ``key`` gives, or the mapping's own; values are what the function returns."""
    assert_type(run_parallel(length, words), Results[int, int])
    assert_type(run_parallel(length, iter(words)), Results[int, int])
    assert_type(run_parallel(length, words, key=None), Results[int, int])
    assert_type(run_parallel(length, words, key=title), Results[str, int])
    assert_type(run_parallel(length, words, key=length), Results[int, int])
    assert_type(run_parallel(length, by_name), Results[str, int])
    assert_type(run_parallel(power, [(2, 3), (3, 2)], star=True), Results[int, int])


def task_form() -> None:
    """A mapping of tasks lends its keys; tasks one after the other may name their own."""
    assert_type(run_parallel({"a": answer, "b": answer}), Results[str, int])
    assert_type(run_parallel({1: Task(length, "one"), 2: Task(length, "two")}), Results[int, int])
    assert_type(run_parallel([Task(length, "one", key="first"), Task(length, "two")]), Results[Any, int])
    run_parallel({"a": Task(length, "one"), "b": Task(str.upper, "two")})  # which give unlike things
    assert_type(run_parallel([answer, answer]), Results[Any, int])


async def fetch(text: str) -> int:
    return len(text)


def add(total: int, more: int) -> int:
    return total + more


def coroutines(words: list[str], by_name: dict[str, str]) -> None:
    """The value of a coroutine function is what its coroutine returns, and it goes together with plain ones."""
    assert_type(run_parallel(fetch, words), Results[int, int])
    assert_type(run_parallel(fetch, words, key=title), Results[str, int])
    assert_type(run_parallel(fetch, by_name, max_workers=100), Results[str, int])
    assert_type(iter_parallel(fetch, by_name), Generator[Outcome[str, int], None, None])
    assert_type(Task(fetch, "one", timeout=5), Task[int])
    assert_type(run_parallel({"a": Task(fetch, "one"), "b": Task(length, "one")}), Results[str, int])
    assert_type(first_success([Task(fetch, "one"), Task(length, "one")]), Success[Any, int])
    assert_type(map_reduce(fetch, words, add, initial=0), int)
    assert_type(run_parallel({"a": fetch}, args=("one",)), Results[str, int])
    assert_type(run_parallel([fetch, fetch], args=("one",)), Results[Any, int])
    assert_type(first_success({"a": fetch}, args=("one",)), Success[str, int])
    assert_type(first_success([fetch], args=("one",)), Success[Any, int])


def recipes(words: list[str]) -> None:
    """A fold has the type of its first total, and takes a key, which a checkpoint needs; a race keeps its keys."""
    assert_type(map_reduce(length, words, add, initial=0), int)
    assert_type(map_reduce(length, words, add, initial=0, key=title, checkpoint="sum.journal"), int)
    assert_type(first_success({"a": answer, "b": answer}), Success[str, int])
    assert_type(first_success([answer]), Success[Any, int])


def streams(words: list[str], by_name: dict[str, str]) -> None:
    """A stream yields outcomes with the same keys and values."""
    assert_type(iter_parallel(length, words), Generator[Outcome[int, int], None, None])
    assert_type(iter_parallel(length, words, key=title), Generator[Outcome[str, int], None, None])
    assert_type(iter_parallel(length, by_name), Generator[Outcome[str, int], None, None])
    assert_type(iter_parallel({"a": answer}), Generator[Outcome[str, int], None, None])
    assert_type(iter_parallel({"a": fetch}, args=("one",)), Generator[Outcome[str, int], None, None])
    assert_type(iter_parallel([fetch], args=("one",)), Generator[Outcome[Any, int], None, None])


def longer(outcome: Outcome[int, int]) -> list[Task[int]]:
    """What ``then`` is given, and what it gives."""
    return [Task(length, "longer")] if outcome.ok else []


def options(words: list[str]) -> Results[int, int]:
    """Every option is a plain keyword with a type of its own."""
    return run_parallel(
        length,
        words,
        executor="processes",
        max_workers=2,
        timeout=5,
        run_timeout=60.0,
        retries=Retry(3, on=(OSError, TimeoutError), delay=0.5),
        limits=[RateLimit(10, per=1, by=title), ConcurrencyLimit(2)],
        priority=length,
        then=longer,
        on_error="raise",
        max_failures=0.1,
        order="completion",
        buffersize=100,
        progress={"desc": "words"},
        checkpoint=Checkpoint("words.journal", rerun_failed=False),
    )


def told(event: Event[str]) -> None:
    """What ``on_event`` is given."""
    assert_type(event.key, str | None)
    assert_type(event.error, BaseException | None)


def transient(error: Exception) -> bool:
    """A predicate of ``Retry``: no task fails with less than an ``Exception``."""
    return "busy" in str(error)


def brought(words: list[str], waits: tenacity.Retrying, ten_a_second: RateLimit) -> None:
    """Options may be objects of other packages, or a single limit; the event of a lambda has a type."""
    run_parallel(length, words, key=title, retries=waits, limits=ten_a_second, on_event=told)
    run_parallel(length, words, limits=None, on_event=lambda event: event.kind)
    run_parallel(length, words, retries=Retry(3, on=transient))
    run_parallel(length, words, limits=ratelimit.limits(calls=10, period=1))
    run_parallel(length, words, limits=[ten_a_second, ratelimit.limits(calls=10, period=1)])
    Task(length, "one", retries=waits)


def outcomes(results: Results[str, int]) -> None:
    """An outcome is a success with a value or a failure with an error, and a match is exhaustive."""
    assert_type(results["a"], int)
    assert_type(results.get("a"), int | None)
    assert_type(results.values(), list[int])
    assert_type(results.items(), list[tuple[str, int]])
    for outcome in results.outcomes.values():
        assert_type(outcome.error, BaseException | None)
        match outcome:
            case Success(value=value):
                assert_type(value, int)
            case Failure(error=error):
                assert_type(error, BaseException)
        if outcome.error is None:  # by ok alone pyright does not tell them apart
            assert_type(outcome.value, int)
        else:
            assert_type(outcome.stack, str | None)
        assert_type(outcome.key, str)
        assert_type(outcome.unwrap(), int)


def executors(words: list[str]) -> None:
    """The executors are those of ``concurrent.futures``, and a run takes either."""
    with ThreadExecutor(4, timeout=5) as threads, ProcessExecutor(max_tasks_per_child=10) as processes:
        assert_type(threads.submit(length, "one"), Future[int])
        assert_type(processes.submit(pow, 2, 5), Future[int])
        assert_type(processes.map(length, words, chunksize=10), Iterator[int])
        assert_type(run_parallel(length, words, executor=processes), Results[int, int])
