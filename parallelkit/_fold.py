"""What ``map_reduce`` and ``first_success`` make of the stream of a run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeAlias, TypeVar

from parallelkit._coroutine_functions import check_called
from parallelkit._errors import InputError, ParallelKitError, TaskFailures
from parallelkit._lost import counted, is_a, tally
from parallelkit._marks import UNSET
from parallelkit._options import RunOptions
from parallelkit._outcomes import Failure, Outcome, Success, as_raised
from parallelkit._plan import Plan
from parallelkit._raised import describe_error, is_of_signal
from parallelkit._streamed import Streamed

A = TypeVar("A")

Stream: TypeAlias = Generator[Outcome[Any, Any], None, None]


IN_PLACE = "; the total so far is None: a reduce that changes it in place must return it, too"


def fold(run: Streamed, reduce: Callable[[A, Any], A], so_far: A) -> A:
    """All values of a run, folded."""
    check_called("reduce", reduce)
    count, stream = 0, run.outcomes()
    with failures_of(run, stream) as failures:
        for outcome in stream:
            count += 1
            if outcome.ok:
                so_far = folded(run, reduce, so_far, outcome)
            else:
                failures.append(outcome)
    if failures:
        message = f"{len(failures)} of {counted(count)} failed: the fold would miss their parts"
        raise failed(run, message, failures)
    return so_far


def whole_or_error(fn: Callable[..., Any], items: Iterable[Any], options: RunOptions) -> Streamed:
    """The run of ``iter_parallel``, but for its last error where it is whole: a journal is not worth the fold."""
    return Streamed(Plan.make(fn, items, dict(options), stream=True), lenient=True)


def race(tasks: Any, options: RunOptions) -> Streamed:
    """The run of ``iter_parallel``."""
    return Streamed(Plan.make(tasks, UNSET, dict(options), stream=True))


def folded(run: Streamed, reduce: Callable[[A, Any], A], so_far: A, outcome: Success[Any, Any]) -> A:
    """One step of the fold; what ``reduce`` raises is the caller's, not a task's."""
    try:
        return reduce(so_far, outcome.value)
    except Exception as error:
        if is_of_signal(error):
            raise
        hint = "" if so_far is not None else IN_PLACE
        wrong = InputError(
            f"reduce raised {describe_error(error, f'for the value of {outcome.key!r}')}{hint}"
        )
        wrong.results = run.results_of([outcome])
        try:
            raise wrong from error
        finally:
            del wrong  # it holds this frame, and all that led to it


def first_of(run: Streamed) -> Success[Any, Any]:
    """The first success of a run, which is stopped then."""
    stream = run.outcomes()
    with failures_of(run, stream) as failures:
        for outcome in stream:
            if outcome.ok:
                stop_rest(run, stream, [*failures, outcome])
                return outcome
            failures.append(outcome)
    if not failures:
        raise ValueError("first_success needs at least one task, got none")
    kinds = tally(failure.error for failure in failures)
    raise failed(run, f"none of {counted(len(failures))} succeeded: {kinds}", failures)


def stop_rest(run: Streamed, stream: Stream, done: list[Outcome[Any, Any]]) -> None:
    """Close the stream of a race that is won; as with the results of a run, nothing that it raises costs the winner.

    An input that raises as it is closed is an error that carries what was done. What is left is a
    checkpoint that could not be written: the log has told of it.
    """
    try:
        stream.close()
    except InputError as error:
        error.results = run.results_of(done)
        raise
    except ParallelKitError:
        pass


class failures_of:  # noqa: N801  # used as a function; contextlib's would set an attribute of a task's error
    """A list for the failures of a stream, which is closed in the end.

    Where the input raises when they have been taken from the stream, they are in its error's results all the same.
    """

    def __init__(self, run: Streamed, stream: Stream) -> None:
        self._run = run
        self._stream = stream
        self._failures: list[Failure[Any]] = []

    def __enter__(self) -> list[Failure[Any]]:
        return self._failures

    def __exit__(self, kind: object, error: BaseException | None, frames: object) -> None:
        if is_a(error, InputError) and (error.results is None or not len(error.results)):
            error.results = self._run.results_of(self._failures)
        self._stream.close()


def failed(run: Streamed, message: str, failures: list[Failure[Any]]) -> TaskFailures:
    """The failures of a run as one group that carries them as results."""
    group = TaskFailures(message, [as_raised(failure) for failure in failures])
    group.results = run.results_of(failures)
    return group
