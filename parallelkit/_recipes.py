"""``map_reduce`` and ``first_success``: their signatures and documentation; ``_fold`` does the work, on a stream."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from parallelkit._calls import ready_for_first

if TYPE_CHECKING:
    from parallelkit._options import RunOptions
    from parallelkit._outcomes import Success
    from parallelkit._tasks import Task

A = TypeVar("A")
K = TypeVar("K")
P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")


@overload
def map_reduce(
    fn: Callable[..., Coroutine[Any, Any, V]],
    items: Iterable[T],
    reduce: Callable[[A, V], A],
    *,
    initial: A,
    key: Callable[[T], Any] | None = None,
    **options: Unpack[RunOptions],
) -> A: ...
@overload
def map_reduce(
    fn: Callable[..., V],
    items: Iterable[T],
    reduce: Callable[[A, V], A],
    *,
    initial: A,
    key: Callable[[T], Any] | None = None,
    **options: Unpack[RunOptions],
) -> A: ...
def map_reduce(
    fn: Callable[..., Any],
    items: Iterable[Any],
    reduce: Callable[[A, Any], A],
    *,
    initial: A,
    key: Callable[[Any], Any] | None = None,
    **options: Unpack[RunOptions],
) -> A:
    """Call ``fn(item)`` for each item in parallel, and fold the values in this thread as they come.

    ``reduce(total, value)`` returns the next total, and the first total is ``initial``; it may modify and
    return the same object. Values are folded in order of completion, or in input order with
    ``order="input"``. No value is kept, so memory use is constant. Takes the options of ``iter_parallel``.

    A fold over missing values would be wrong. So if a task fails, or the run is stopped (``run_timeout``)
    before the end of its input, this raises ``TaskFailures`` with all failures, once everything is done; with
    ``on_error="raise"``, it raises the first failure's own error at once.

    If ``reduce`` raises, the run is stopped, and the ``results`` of the ``InputError`` have the outcome that
    it was given. If the input raises, everything read before is folded first, and the ``results`` of the
    ``InputError`` have the failures. A ``checkpoint`` that cannot be written stops the run with a
    ``ParallelKitError``; if all tasks were done by then, it is only logged, and the fold is returned.

    >>> from parallelkit import map_reduce
    >>> map_reduce(len, ["a", "bb", "ccc"], int.__add__, initial=0)
    6
    """
    if not callable(reduce):
        raise TypeError(f"reduce must be callable, got {reduce!r}")
    with ready_for_first(fn, options.get("executor")):
        from parallelkit._fold import fold  # imports all the rest

        return fold(fn, items, {"key": key, **options}, reduce, initial)


def of_tasks_alone(run: Callable[P, T]) -> Callable[P, T]:
    """Reject a call with a function and items, the other form of a run, with a message that shows a right one."""

    @wraps(run)
    def checked(*given: P.args, **options: P.kwargs) -> T:
        if len(given) != 1 or callable(given[0]):
            got = repr(given[0]) if len(given) == 1 else f"{len(given)} positional arguments"
            raise TypeError(
                "first_success takes tasks alone, a mapping or an iterable of callables or Task objects, "
                f"got {got}; for one function write first_success([Task(fn, item) for item in items])"
            )
        return run(*given, **options)

    return checked


@overload
def first_success(
    tasks: Mapping[K, Callable[..., Coroutine[Any, Any, V]] | Task[V]],
    /,
    **options: Unpack[RunOptions],
) -> Success[K, V]: ...
@overload
def first_success(
    tasks: Iterable[Callable[..., Coroutine[Any, Any, V]] | Task[V]], /, **options: Unpack[RunOptions]
) -> Success[Any, V]: ...
@overload
def first_success(
    tasks: Mapping[K, Callable[..., Coroutine[Any, Any, V] | V] | Task[V]], /, **options: Unpack[RunOptions]
) -> Success[K, V]: ...
@overload
def first_success(
    tasks: Iterable[Callable[..., Coroutine[Any, Any, V] | V] | Task[V]], /, **options: Unpack[RunOptions]
) -> Success[Any, V]: ...
@of_tasks_alone
def first_success(
    tasks: Mapping[Any, Callable[..., Any] | Task[Any]] | Iterable[Callable[..., Any] | Task[Any]],
    /,
    **options: Unpack[RunOptions],
) -> Success[Any, Any]:
    """Run tasks in parallel, return the ``Success`` of the first one that succeeds, and stop the others.

    ``tasks`` is an iterable of callables or ``Task`` objects, or a mapping from key to these. At most
    ``max_workers`` run at a time. After the first success the others are not waited for: processes are
    killed, threads abandoned, and tasks that have not started are cancelled.

    With ``order="input"``, the first success in input order wins: it is returned once all tasks before it
    have failed. If a ``checkpoint`` cannot be written, that is logged, and the success is still returned.

    If no task succeeds, raises ``TaskFailures`` with all failures or, if the input raised, ``InputError``
    with the failures in its ``results``. If the input raises when it is closed, after a success, that is also
    an ``InputError``, with the success in its ``results``. Raises ValueError if there are no tasks.

    >>> from parallelkit import first_success
    >>> first_success({"zero": lambda: 1 / 0, "one": lambda: 1 / 1}).key
    'one'
    """
    with ready_for_first(None, options.get("executor")):
        from parallelkit._fold import first_of

        return first_of(tasks, options)
