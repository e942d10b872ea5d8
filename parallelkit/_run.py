"""``run_parallel`` and ``iter_parallel``: what they mean; ``_plan`` does it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from parallelkit._marks import UNSET

if TYPE_CHECKING:
    from parallelkit._options import RunOptions
    from parallelkit._outcomes import Outcome
    from parallelkit._results import Results
    from parallelkit._tasks import Task

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")
P = ParamSpec("P")


def of_two_forms(run: Callable[P, T]) -> Callable[P, T]:
    """Have a run say how it is called where Python would only count arguments."""

    @wraps(run)
    def checked(*given: P.args, **options: P.kwargs) -> T:
        if len(given) > 2:
            raise TypeError(
                f"{run.__name__} takes a function and its items, or tasks alone, got {len(given)} positional arguments; "
                f"options are given by name, and of a function of two arguments write {run.__name__}(fn, zip(a, b), star=True)"
            )
        if not given and ("fn" in options or "tasks" in options):
            raise TypeError(
                f"{run.__name__} takes fn, or tasks, by place and not by name: "
                f"write {run.__name__}(fn, items) or {run.__name__}(tasks)"
            )
        return run(*given, **options)

    return checked


def ready_for_first(fn: object, executor: object) -> AbstractContextManager[object]:
    """Before what a run needs is loaded: where worker processes will be wanted, have that go on at the same time."""
    if "parallelkit._plan" in sys.modules or executor != "processes":
        return nullcontext()
    from parallelkit._executors._process._prestart import started_ahead

    return started_ahead(fn)


@overload
def run_parallel(  # type: ignore[overload-overlap]  # the value is what comes of the coroutine
    fn: Callable[..., Coroutine[Any, Any, V]], /, items: Mapping[K, Any], **options: Unpack[RunOptions]
) -> Results[K, V]: ...
@overload
def run_parallel(
    fn: Callable[..., Coroutine[Any, Any, V]],
    /,
    items: Iterable[T],
    *,
    key: Callable[[T], K],
    **options: Unpack[RunOptions],
) -> Results[K, V]: ...
@overload
def run_parallel(
    fn: Callable[..., Coroutine[Any, Any, V]],
    /,
    items: Iterable[Any],
    *,
    key: None = None,
    **options: Unpack[RunOptions],
) -> Results[int, V]: ...
@overload
def run_parallel(  # type: ignore[overload-overlap]  # a mapping is an iterable too, and comes first
    fn: Callable[..., V], /, items: Mapping[K, Any], **options: Unpack[RunOptions]
) -> Results[K, V]: ...
@overload
def run_parallel(
    fn: Callable[..., V], /, items: Iterable[T], *, key: Callable[[T], K], **options: Unpack[RunOptions]
) -> Results[K, V]: ...
@overload
def run_parallel(
    fn: Callable[..., V], /, items: Iterable[Any], *, key: None = None, **options: Unpack[RunOptions]
) -> Results[int, V]: ...
@overload
def run_parallel(
    tasks: Mapping[K, Callable[..., V] | Task[V]], /, **options: Unpack[RunOptions]
) -> Results[K, V]: ...
@overload
def run_parallel(
    tasks: Iterable[Callable[..., V] | Task[V]], /, **options: Unpack[RunOptions]
) -> Results[Any, V]: ...
@of_two_forms
def run_parallel(fn: Any, /, items: Any = UNSET, **options: Any) -> Results[Any, Any]:
    """Run independent tasks at the same time and give back every outcome by key.

    Two forms: ``run_parallel(fn, items)`` calls ``fn`` once an item (of a mapping: once a value,
    under its key); ``run_parallel(tasks)`` calls each of several functions, given as a mapping
    from key to callable or ``Task``, or as an iterable of these. It returns when every task has its
    outcome, or the run was stopped; a task's error, timeout or crash is its own outcome and never
    ends the run, unless ``on_error`` or ``max_failures`` say so. All times are in seconds.

    Where and how wide:

    - ``executor``: "threads" (default; for I/O), "processes" (for CPU work; a crash or a hang costs
      its own task), "inline" (one by one in this thread, for debuggers; timeouts are not enforced), a dask
      ``Client`` (as processes, on its workers), or any ``concurrent.futures.Executor``, which is not shut
      down.
    - ``max_workers``: threads, and coroutines too: ``min(32, cpus + 4)``; processes: the usable cpus; in a nested run
      divided by the outer width; a Client: the cluster's threads. Not together with a parallelkit executor object.
    - ``args``, ``kwargs``: passed to every task after its item; a ``Task``'s own keywords go before
      these. In processes the memory of large arrays in them is shared by all workers, and read-only there; the
      objects are unpickled once in each, so what a task changes in one of them its worker's next task finds changed.
      ``star``: unpack each item as positional arguments.

    Keys, order, memory:

    - ``key``: a function item → key (default: the item's position in the input; tasks have keys of their own).
      Keys must be unique.
    - ``order``: of the results: "input" (default; what ``then`` made comes after it), "key" (sorted)
      or "completion".
    - ``buffersize``: how many tasks are read from the input ahead of the last one done; default
      ``max(32 * workers, min(done, 5_000))``; of a list, tuple or range 1,000 at least, in processes
      20,000.

    Time and failure:

    - ``timeout``: bounds one attempt, from the moment its worker begins with it; never the queue. An
      overdue process is killed with its children; a thread cannot be, it is abandoned and its slot
      is filled anew. Default: that of the executor, where a parallelkit one has its own; math.inf: none.
    - ``run_timeout``: bounds the run: what is done is returned, the rest cancelled. It cannot strike
      while the input (or ``key``, ``then``) blocks this thread; workers go on meanwhile.
    - ``retries``: extra tries, or a ``Retry``, or a ``tenacity.Retrying``.
    - ``on_error``: "collect" (default), or "raise": stop at the first final failure and raise it. What is
      cancelled, by ``run_timeout`` or because threads hang in every slot, has not failed: see ``stopped``.
    - ``max_failures``: stop as the n-th failure settles, or (0 < share < 1, of 20 outcomes or more). What
      had ended by then counts, so a run of short tasks in processes has some more failures than n.

    Which task when:

    - ``limits``: one or several ``RateLimit`` and ``ConcurrencyLimit`` objects.
    - ``priority``: a function item → number; larger runs first, ties in input order.
    - ``then``: a function outcome → new ``Task`` objects for the same run, called in this thread (of
      ``iter_parallel`` in a thread of the run's own, as ``on_event`` is). Those
      without a key are numbered on from the end of the input. Where that end is not known beforehand
      (a generator), all tasks without a key are numbered alike, in the order of their admission.

    Resuming it:

    - ``checkpoint``: a path, or a ``Checkpoint``: outcomes are recorded there, and a later run of the
      same function makes only those that are missing. Tasks need keys of their own.

    Watching it:

    - ``progress``: True for a tqdm bar, or a dict of tqdm's own options.
    - ``on_event``: a function that is given every ``Event``.

    Returns ``Results``, a mapping from key to value in the chosen order. Raises TypeError and
    ValueError for bad arguments before anything runs; ``InputError`` where the input (or ``key``,
    ``priority``, ``by``, ``then``) raised, after what had been read was run; ``RunInterrupted`` on
    Ctrl-C (both carry ``results``); with ``on_error="raise"`` the task's own error.

    A task costs half a microsecond to two, in threads as in processes, and more with large arguments or values.

    >>> from parallelkit import run_parallel
    >>> results = run_parallel(len, ["a", "bb", "ccc"], key=str.upper)
    >>> results["BB"], results.values()
    (2, [1, 2, 3])
    """
    with ready_for_first(fn, options.get("executor")):
        from parallelkit._plan import Plan  # all the rest, once there is a run

        return Plan.make(fn, items, options).collect()


@overload
def iter_parallel(  # type: ignore[overload-overlap]  # the value is what comes of the coroutine
    fn: Callable[..., Coroutine[Any, Any, V]], /, items: Mapping[K, Any], **options: Unpack[RunOptions]
) -> Generator[Outcome[K, V], None, None]: ...
@overload
def iter_parallel(
    fn: Callable[..., Coroutine[Any, Any, V]],
    /,
    items: Iterable[T],
    *,
    key: Callable[[T], K],
    **options: Unpack[RunOptions],
) -> Generator[Outcome[K, V], None, None]: ...
@overload
def iter_parallel(
    fn: Callable[..., Coroutine[Any, Any, V]],
    /,
    items: Iterable[Any],
    *,
    key: None = None,
    **options: Unpack[RunOptions],
) -> Generator[Outcome[int, V], None, None]: ...
@overload
def iter_parallel(  # type: ignore[overload-overlap]  # a mapping is an iterable too, and comes first
    fn: Callable[..., V], /, items: Mapping[K, Any], **options: Unpack[RunOptions]
) -> Generator[Outcome[K, V], None, None]: ...
@overload
def iter_parallel(
    fn: Callable[..., V], /, items: Iterable[T], *, key: Callable[[T], K], **options: Unpack[RunOptions]
) -> Generator[Outcome[K, V], None, None]: ...
@overload
def iter_parallel(
    fn: Callable[..., V], /, items: Iterable[Any], *, key: None = None, **options: Unpack[RunOptions]
) -> Generator[Outcome[int, V], None, None]: ...
@overload
def iter_parallel(
    tasks: Mapping[K, Callable[..., V] | Task[V]], /, **options: Unpack[RunOptions]
) -> Generator[Outcome[K, V], None, None]: ...
@overload
def iter_parallel(
    tasks: Iterable[Callable[..., V] | Task[V]], /, **options: Unpack[RunOptions]
) -> Generator[Outcome[Any, V], None, None]: ...
@of_two_forms
def iter_parallel(fn: Any, /, items: Any = UNSET, **options: Any) -> Generator[Outcome[Any, Any], None, None]:
    """The outcomes of ``run_parallel``, one by one as they come, in flat memory.

    Takes the same two forms and options, but ``order="key"``; the default order is "completion". With
    "input", what ``then`` makes comes in between, as it was admitted.
    Options are checked at the call; nothing is read or started before the first ``next()``.
    Closing the iterator, or leaving it behind, stops the run; that waits for no task, but for ``then``,
    ``on_event``, a predicate of ``retries`` and what is pickled for a ``checkpoint`` where these are at
    work. ``key`` must be unique only among tasks that have not been yielded.

    >>> from parallelkit import iter_parallel
    >>> sorted(outcome.unwrap() for outcome in iter_parallel(abs, range(-3, 3)))
    [0, 1, 1, 2, 2, 3]
    """
    from parallelkit._plan import Plan

    return Plan.make(fn, items, options, stream=True).stream()
