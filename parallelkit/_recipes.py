"""``map_reduce`` and ``first_success``: what they mean; ``_fold`` does it, with the stream of a run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from parallelkit._run import ready_for_first

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
        from parallelkit._fold import fold, whole_or_error  # and with it all the rest

        return fold(whole_or_error(fn, items, options), reduce, initial)


def of_tasks_alone(run: Callable[P, T]) -> Callable[P, T]:
    """Have ``first_success`` say what to write in place of a function with items, the other form of a run."""

    @wraps(run)
    def checked(*given: P.args, **options: P.kwargs) -> T:
        if len(given) != 1 or callable(given[0]):
            got = repr(given[0]) if len(given) == 1 else f"{len(given)} positional arguments"
            raise TypeError(
                "first_success takes tasks alone, a mapping or an iterable of callables or Task objects, "
                f"got {got}; of one function write first_success([Task(fn, item) for item in items])"
            )
        return run(*given, **options)

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
        from parallelkit._fold import first_of, race

        return first_of(race(tasks, options))
