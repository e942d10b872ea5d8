"""What ``map_reduce`` and ``first_success`` make of the stream of a run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from parallelkit._errors import InputError, ParallelKitError, TaskFailures
from parallelkit._lost import counted, tally
from parallelkit._options import RunOptions
from parallelkit._outcomes import Failure, Outcome, Success, as_member
from parallelkit._plan import Plan
from parallelkit._raised import describe_error, is_of_signal
from parallelkit._results import Results
from parallelkit._stream import ledger_of

A = TypeVar("A")
K = TypeVar("K")
V = TypeVar("V")


def fold(stream: Generator[Outcome[Any, V], None, None], reduce: Callable[[A, V], A], so_far: A) -> A:
    """All values of a stream, folded."""
    count = 0
    with failures_of(stream) as failures:
        for outcome in stream:
            count += 1
            if outcome.ok:
                so_far = folded(reduce, so_far, outcome)
            else:
                failures.append(outcome)
    if failures:
        raise failed(f"{len(failures)} of {counted(count)} failed: the fold would miss their parts", failures)
    return so_far


def whole_or_error(
    fn: Callable[..., V], items: Iterable[Any], options: RunOptions
) -> Generator[Outcome[Any, V], None, None]:
    """The stream of ``iter_parallel``, but for its last error where it is whole: a journal is not worth the fold."""
    return Plan.make(fn, items, dict(options), stream=True).stream(lenient=True)


def folded(reduce: Callable[[A, V], A], so_far: A, outcome: Success[Any, V]) -> A:
    """One step of the fold; what ``reduce`` raises is the caller's, not a task's."""
    try:
        return reduce(so_far, outcome.value)
    except Exception as error:
        if is_of_signal(error):
            raise
        wrong = InputError(f"reduce raised {describe_error(error, f'for the value of {outcome.key!r}')}")
        wrong.results = Results(ledger_of([outcome]))
        raise wrong from error


def first_of(stream: Generator[Outcome[K, V], None, None]) -> Success[K, V]:
    """The first success of a stream, which is closed then."""
    with failures_of(stream) as failures:
        for outcome in stream:
            if outcome.ok:
                stop_rest(stream, [*failures, outcome])
                return outcome
            failures.append(outcome)
    if not failures:
        raise ValueError("first_success needs at least one task, got none")
    kinds = tally(failure.error for failure in failures)
    raise failed(f"none of {counted(len(failures))} succeeded: {kinds}", failures)


def stop_rest(stream: Generator[Any, None, None], done: list[Outcome[Any, Any]]) -> None:
    """Close the stream of a race that is won; as with the results of a run, nothing that it raises costs the winner.

    An input that raises as it is closed is an error that carries what was done. What is left is a
    checkpoint that could not be written: the log has told of it.
    """
    try:
        stream.close()
    except InputError as error:
        error.results = Results(ledger_of(done))
        raise
    except ParallelKitError:
        pass


@contextmanager
def failures_of(stream: Generator[Any, None, None]) -> Iterator[list[Failure[Any]]]:
    """A list for the failures of a stream, which is closed in the end.

    Where the input raises when they have been taken from the stream, they are in its error's results all the same.
    """
    failures: list[Failure[Any]] = []
    try:
        yield failures
    except InputError as error:
        if error.results is None or not len(error.results):
            error.results = Results(ledger_of(failures))
        raise
    finally:
        stream.close()


def failed(message: str, failures: list[Failure[Any]]) -> TaskFailures:
    """The failures of a stream as one group that carries them as results."""
    group = TaskFailures(message, [as_member(failure) for failure in failures])
    group.results = Results(ledger_of(failures))
    return group
