"""``map_reduce`` and ``first_success``: two shapes of a run, built on the stream."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from parallelkit._errors import InputError, ParallelKitError, TaskFailures
from parallelkit._lost import counted, tally
from parallelkit._options import RunOptions
from parallelkit._outcomes import Failure, Outcome, Success
from parallelkit._raised import describe_error, is_of_signal
from parallelkit._results import Results
from parallelkit._run import iter_parallel, ready_for_first
from parallelkit._stream import ledger_of
from parallelkit._tasks import Task

A = TypeVar("A")
K = TypeVar("K")
P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")


@overload
def map_reduce(
    fn: Callable[..., Coroutine[Any, Any, V]],
    items: Iterable[Any],
    reduce: Callable[[A, V], A],
    *,
    initial: A,
    **options: Unpack[RunOptions],
) -> A: ...
@overload
def map_reduce(
    fn: Callable[..., V],
    items: Iterable[Any],
    reduce: Callable[[A, V], A],
    *,
    initial: A,
    **options: Unpack[RunOptions],
) -> A: ...
def map_reduce(
    fn: Callable[..., Any],
    items: Iterable[Any],
    reduce: Callable[[A, Any], A],
    *,
    initial: A,
    **options: Unpack[RunOptions],
) -> A:
    """Call ``fn`` once an item in parallel and fold the values, in this thread, as they come.

    ``reduce(so_far, value)`` gives the next ``so_far``, beginning with ``initial``; it may change and
    return the same object. Values are folded in input order with ``order="input"``, else as tasks are
    done; none is kept, so memory stays flat. Takes the options of ``iter_parallel``.

    Raises ``TaskFailures`` with all failures once everything is done, for a fold over missing parts
    is wrong (with ``on_error="raise"`` the first failure itself, at once). If ``reduce`` raises, the run
    is stopped and ``InputError`` has the outcome that it was given in its ``results``; if the input
    raises, what was read is folded first, and ``InputError`` has the failures there. A ``checkpoint``
    that cannot be written stops the run, which is a ``ParallelKitError``; where all was done by then, the
    fold is given back all the same, and the log says so.

    >>> from parallelkit import map_reduce
    >>> map_reduce(len, ["a", "bb", "ccc"], int.__add__, initial=0)
    6
    """
    if not callable(reduce):
        raise TypeError(f"reduce must be callable, got {reduce!r}")
    with ready_for_first(fn, options.get("executor")):
        return fold(whole_or_error(fn, items, options), reduce, initial)


def fold(stream: Generator[Outcome[Any, V], None, None], reduce: Callable[[A, V], A], so_far: A) -> A:
    """All values of a stream, folded."""
    failures: list[Failure[Any]] = []
    count = 0
    try:
        for outcome in stream:
            count += 1
            if outcome.ok:
                so_far = folded(reduce, so_far, outcome)
            else:
                failures.append(outcome)
    except InputError as error:
        keep_failures(error, failures)
        raise
    finally:
        stream.close()
    if failures:
        raise failed(f"{len(failures)} of {counted(count)} failed: the fold would miss their parts", failures)
    return so_far


def whole_or_error(
    fn: Callable[..., V], items: Iterable[Any], options: RunOptions
) -> Generator[Outcome[Any, V], None, None]:
    """The stream of ``iter_parallel``, but for its last error where it is whole: a journal is not worth the fold."""
    from parallelkit._plan import Plan

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


def of_tasks_alone(race: Callable[P, T]) -> Callable[P, T]:
    """Have ``first_success`` say what to write in place of a function with items, the other form of a run."""

    @wraps(race)
    def checked(*given: P.args, **options: P.kwargs) -> T:
        if len(given) != 1 or callable(given[0]):
            got = repr(given[0]) if len(given) == 1 else f"{len(given)} positional arguments"
            raise TypeError(
                "first_success takes tasks alone, a mapping or an iterable of callables or Task objects, "
                f"got {got}; of one function write first_success([Task(fn, item) for item in items])"
            )
        return race(*given, **options)

    return checked


@of_tasks_alone
def first_success(
    tasks: Mapping[K, Callable[..., V] | Task[V]] | Iterable[Callable[..., V] | Task[V]],
    /,
    **options: Unpack[RunOptions],
) -> Success[Any, V]:
    """Run all tasks, give back the first that succeeds, and stop the rest.

    The tasks are a mapping or an iterable of callables or ``Task`` objects. It returns while the
    others still run: processes are killed, threads abandoned, what waits is withdrawn. At most
    ``max_workers`` start at once.

    With ``order="input"`` it is the first in that order: those before it are waited for, and it is given
    back as soon as they have all failed. Where its ``checkpoint`` cannot be written, it is given back all
    the same, and the log says so.

    Raises ``TaskFailures`` with all failures where none succeeds; ``InputError`` with these in its
    ``results`` where the input raised besides (with the winner there too, where it raised only as it was
    closed); ValueError where there was no task at all.

    >>> from parallelkit import first_success
    >>> first_success({"zero": lambda: 1 / 0, "one": lambda: 1 / 1}).key
    'one'
    """
    with ready_for_first(None, options.get("executor")):
        return first_of(iter_parallel(tasks, **options))


def first_of(stream: Generator[Outcome[K, V], None, None]) -> Success[K, V]:
    """The first success of a stream, which is closed then."""
    failures: list[Failure[Any]] = []
    try:
        for outcome in stream:
            if outcome.ok:
                stop_rest(stream, [*failures, outcome])
                return outcome
            failures.append(outcome)
    except InputError as error:
        keep_failures(error, failures)
        raise
    finally:
        stream.close()
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


def keep_failures(error: InputError, failures: list[Failure[Any]]) -> None:
    """Of an input that raised when outcomes had been taken from the stream: they are in its results all the same."""
    if error.results is None or not len(error.results):
        error.results = Results(ledger_of(failures))


def failed(message: str, failures: list[Failure[Any]]) -> TaskFailures:
    """The failures of a stream as one group that carries them as results."""
    group = TaskFailures(message, [as_raised(failure) for failure in failures])
    group.results = Results(ledger_of(failures))
    return group


def as_raised(failure: Failure[Any]) -> Exception:
    """The error of a failure, which is always an ``Exception``."""
    assert isinstance(failure.error, Exception), "the scheduler wraps anything else"
    return failure.error
