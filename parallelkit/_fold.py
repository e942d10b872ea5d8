"""``map_reduce`` and ``first_success``, on the stream of a run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

from parallelkit._cancelled import TaskCancelled
from parallelkit._coroutine_functions import check_called
from parallelkit._errors import InputError, ParallelKitError, TaskFailures
from parallelkit._lost import counted, is_a, tally
from parallelkit._marks import UNSET
from parallelkit._outcomes import Failure, Outcome, Success, as_raised
from parallelkit._raised import describe_error, is_of_signal
from parallelkit._runs._plan import Plan
from parallelkit._runs._streamed import Streamed

A = TypeVar("A")

Stream: TypeAlias = Generator[Outcome[Any, Any], None, None]


IN_PLACE = "; the total so far is None: a reduce that changes it in place must return it, too"


def fold(
    fn: Callable[..., Any],
    items: Iterable[Any],
    options: Mapping[str, Any],
    reduce: Callable[[A, Any], A],
    so_far: A,
) -> A:
    """Fold all values of a run; raise TaskFailures if a task failed."""
    run = Streamed(Plan.make(fn, items, options, stream=True), folds=True)
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
    if run.cut_short:
        raise stopped_early(run, "the fold would miss the rest")
    return so_far


def folded(run: Streamed, reduce: Callable[[A, Any], A], so_far: A, outcome: Success[Any, Any]) -> A:
    """Do one step of the fold; what ``reduce`` raises becomes an InputError, for it is no task's failure."""
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
            del wrong  # its traceback refers to this frame: a cycle


def first_of(tasks: Any, options: Mapping[str, Any]) -> Success[Any, Any]:
    """Return the first success of a run, and stop the rest; raise TaskFailures if there is none."""
    run = Streamed(Plan.make(tasks, UNSET, options, stream=True))
    stream = run.outcomes()
    with failures_of(run, stream) as failures:
        for outcome in stream:
            if outcome.ok:
                stop_rest(run, stream, [*failures, outcome])
                return outcome
            failures.append(outcome)
    if not failures and run.cut_short:
        raise stopped_early(run, "no task was read yet")
    if not failures:
        raise ValueError("first_success needs at least one task, got none")
    kinds = tally(failure.error for failure in failures)
    raise failed(run, f"none of {counted(len(failures))} succeeded: {kinds}", failures)


def stop_rest(run: Streamed, stream: Stream, done: list[Outcome[Any, Any]]) -> None:
    """Close the stream of a race that is won; the outcomes ``done`` are in the error of an input that raises then.

    Any other ParallelKitError is that of a checkpoint that could not be written: it has been logged, and must not
    cost the winner, as it does not cost ``run_parallel`` its results.
    """
    try:
        stream.close()
    except InputError as error:
        error.results = run.results_of(done)
        raise
    except ParallelKitError:
        pass


class failures_of:  # noqa: N801  # used as a function; contextlib's would set attributes of a task's error
    """A list for the failures of a stream, which is closed at the end of the block.

    If the block ends in an InputError, its results are these failures: a stream leaves out what it has yielded.
    """

    def __init__(self, run: Streamed, stream: Stream) -> None:
        self._run = run
        self._stream = stream
        self._failures: list[Failure[Any]] = []

    def __enter__(self) -> list[Failure[Any]]:
        return self._failures

    def __exit__(self, kind: object, error: BaseException | None, frames: object) -> None:
        if is_a(error, InputError) and not error.results:  # None, or empty
            error.results = self._run.results_of(self._failures)
        self._stream.close()


def stopped_early(run: Streamed, so: str) -> TaskFailures:
    """Return the error of a run without failures, stopped before it saw the end of an input that has no length."""
    message = f"the run was stopped before the end of its input: {run.stopped}"
    group = TaskFailures(f"{message}; {so}", [TaskCancelled(message)])
    group.results = run.results_of(())
    return group


def failed(run: Streamed, message: str, failures: list[Failure[Any]]) -> TaskFailures:
    """Return the failures of a run as one group, with its ``results``."""
    group = TaskFailures(message, [as_raised(failure) for failure in failures])
    group.results = run.results_of(failures)
    return group
