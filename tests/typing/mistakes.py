"""Mistakes that mypy and pyright report: each ignore below is an error of its own if there is nothing to ignore."""

# pyright: basic, reportUnnecessaryTypeIgnoreComment=true

from parallelkit import (
    Failure,
    Results,
    Retry,
    Task,
    ThreadExecutor,
    WorkerDied,
    iter_parallel,
    map_reduce,
    run_parallel,
)


def length(text: str) -> int:
    return len(text)


def count(total: int, text: str) -> int:
    return total + len(text)


def options(words: list[str]) -> None:
    """An option has a wrong name or value."""
    run_parallel(length, words, timeot=5)  # type: ignore[call-overload]
    run_parallel(length, words, executor="process")  # type: ignore[call-overload]
    run_parallel(length, words, retries="3")  # type: ignore[call-overload]
    run_parallel(length, words, limits=10)  # type: ignore[call-overload]
    run_parallel(length, words, key="name")  # type: ignore[call-overload]
    run_parallel(length, words, then=lambda outcome: [1])  # type: ignore[arg-type, list-item]
    run_parallel(length, words, on_event=length)  # type: ignore[arg-type]
    Task(length, "one", retries="3")  # type: ignore[call-overload]
    Retry(3, on="OSError")  # type: ignore[arg-type]


def calls(words: list[str]) -> None:
    """What is to be called was called already, or does not go with what it is given."""
    run_parallel([length("one")])  # type: ignore[arg-type]
    run_parallel(length("one"), words)  # type: ignore[call-overload]
    map_reduce(length, words, count, initial=0)  # type: ignore[arg-type]
    ThreadExecutor().submit(length, 3)  # type: ignore[arg-type]


def outcomes(results: Results[str, int], failure: Failure[str], died: WorkerDied) -> None:
    """What is asked for is not there."""
    results[0]  # type: ignore[index]
    failure.value  # type: ignore[attr-defined]
    died.exit_code  # type: ignore[attr-defined]
    for outcome in iter_parallel(length, ["one"]):
        outcome.value  # type: ignore[union-attr]
