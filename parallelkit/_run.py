"""``run_parallel`` and ``iter_parallel``: their signatures and documentation; ``_runs`` does the work."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from parallelkit._calls import of_two_forms, options_among, ready_for_first
from parallelkit._marks import UNSET

if TYPE_CHECKING:
    import os
    from concurrent.futures import Executor

    from parallelkit._checkpoint import Checkpoint
    from parallelkit._events import Event
    from parallelkit._limits import Limits
    from parallelkit._options import RunOptions, Submits
    from parallelkit._outcomes import Outcome
    from parallelkit._policies import Retrying
    from parallelkit._results import Results
    from parallelkit._retry import Retry
    from parallelkit._tasks import Task

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")


@overload
def run_parallel(  # type: ignore[overload-overlap]  # the value is the coroutine's result
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
    tasks: Mapping[K, Callable[..., Coroutine[Any, Any, V]] | Task[V]], /, **options: Unpack[RunOptions]
) -> Results[K, V]: ...
@overload
def run_parallel(
    tasks: Iterable[Callable[..., Coroutine[Any, Any, V]] | Task[V]], /, **options: Unpack[RunOptions]
) -> Results[Any, V]: ...
@overload
def run_parallel(
    tasks: Mapping[K, Callable[..., Coroutine[Any, Any, V] | V] | Task[V]], /, **options: Unpack[RunOptions]
) -> Results[K, V]: ...
@overload
def run_parallel(
    tasks: Iterable[Callable[..., Coroutine[Any, Any, V] | V] | Task[V]], /, **options: Unpack[RunOptions]
) -> Results[Any, V]: ...
@of_two_forms
def run_parallel(
    fn: Any,
    /,
    items: Any = UNSET,
    *,
    key: Callable[[Any], Any] | None = None,
    executor: Literal["threads", "processes", "inline"] | Executor | Submits = "threads",
    max_workers: int | None = None,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    star: bool = False,
    timeout: float | None = None,
    run_timeout: float | None = None,
    retries: int | Retry | Retrying = 0,
    limits: Limits | None = None,
    priority: Callable[[Any], float] | None = None,
    then: Callable[[Outcome[Any, Any]], Iterable[Callable[..., Any] | Task[Any]] | None] | None = None,
    on_error: Literal["collect", "raise"] = "collect",
    max_failures: float | None = None,
    order: Literal["input", "key", "completion"] = "input",
    buffersize: int | None = None,
    progress: bool | dict[str, Any] = False,
    on_event: Callable[[Event[Any]], object] | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    **unknown: Any,
) -> Results[Any, Any]:
    """Run independent tasks in parallel and return every outcome by key.

    - ``run_parallel(fn, items)`` calls ``fn(item)`` for each item. If ``items`` is a mapping, ``fn`` gets its
      values, and the results have its keys.
    - ``run_parallel(tasks)`` calls different functions, given as an iterable of callables or ``Task`` objects,
      or as a mapping from key to these.

    >>> from parallelkit import run_parallel
    >>> results = run_parallel(len, ["a", "bb", "ccc"], key=str.upper)
    >>> results["BB"], results.values()
    (2, [1, 2, 3])

    Returns ``Results``, a mapping from key to value, when every task has an outcome or the run was stopped. An
    error, a timeout or a crash is the outcome of its own task, and ends the run only if ``on_error`` or
    ``max_failures`` says so. All times are in seconds.

    Where tasks run, and how many at a time:

    - ``executor``: "threads" (default; for I/O), "processes" (for CPU-bound work, and for code that may hang or
      crash), "inline" (one task after another in this thread, for debugging; timeouts are not enforced), a dask
      ``Client`` (processes on its workers), or any ``concurrent.futures.Executor``. An executor object is not
      shut down.
    - ``max_workers``: default ``min(32, cpus + 4)`` for threads and coroutines, the usable cpus for processes
      (in a nested run, either is divided by the outer run's width), the cluster's threads for a ``Client``.
      Not allowed together with a parallelkit executor object.
    - ``args``, ``kwargs``: passed to every task after its item; a ``Task``'s own keywords take precedence. In
      processes, each worker unpickles them once for all its tasks, so a task sees what an earlier one has
      changed. Large arrays are shared by all workers, and read-only.
    - ``star``: unpack each item into positional arguments.

    Keys, order, memory:

    - ``key``: a function from item to key (default: the item's position), for the first form; a ``Task`` may
      have its own key. Keys must be unique.
    - ``order``: the order of the results: "input" (default; tasks made by ``then`` come last), "key" (sorted)
      or "completion".
    - ``buffersize``: how many tasks may have been read from the input and not yet be done (in
      ``iter_parallel``: yielded). Default: ``max(32 * workers, min(done, 5_000))``. Of a list, tuple or range,
      ``run_parallel`` reads at least 1,000 ahead, in processes 20,000, unless a failure may stop the run.

    Time and failure:

    - ``timeout``: limit for one attempt, counted from its start in a worker, without the time in the queue. An
      overdue process is killed with its children. A thread cannot be killed: it is abandoned, and a new one
      takes its slot. Default: the timeout of the parallelkit executor, if there is one; ``math.inf`` means no
      limit.
    - ``run_timeout``: limit for the whole run. When it expires, the results so far are returned, and all other
      tasks are cancelled. It cannot take effect while the input, ``key`` or ``then`` blocks this thread; the
      workers go on meanwhile.
    - ``retries``: how many more times a failed task is tried (default 0), or a ``Retry``, or a ``tenacity.Retrying``.
    - ``on_error``: "collect" (default), or "raise": stop at the first final failure and raise its error. Tasks
      cancelled by ``run_timeout``, or because threads hang in every slot, have not failed: see
      ``Results.stopped``.
    - ``max_failures``: stop at this number of failures or, if it is between 0 and 1, at this share of the
      outcomes (at least 20 of them). Tasks that end before the stop takes effect count, so a run of short tasks
      in processes may have a few more failures.

    Which task runs when:

    - ``limits``: one or several ``RateLimit`` and ``ConcurrencyLimit`` objects.
    - ``priority``: a function from item to number; larger numbers run first, equal ones in input order.
    - ``then``: a function from outcome to new ``Task`` objects for the same run. It is called in this thread
      (in ``iter_parallel``, like ``on_event``, in a thread of the run), and no more once the run is to stop: not
      for the failure that stops it either. New tasks without a key are numbered on
      from the end of the input. If that end is not known in advance (a generator), all tasks without a key,
      including those of the input, are numbered in the order in which the run receives them.

    Resuming:

    - ``checkpoint``: a path or a ``Checkpoint``. Outcomes are recorded there, and a later run of the same
      function runs only tasks that have none or have failed. Tasks need explicit keys.

    Watching:

    - ``progress``: True for a tqdm bar, or a dict of tqdm's options.
    - ``on_event``: a function that is called with every ``Event``.

    Raises TypeError or ValueError for bad arguments, before anything runs; ``InputError`` if the input,
    ``key``, ``priority``, ``by`` or ``then`` raises, once everything read before that has run;
    ``RunInterrupted`` on Ctrl-C (both have the ``results`` so far); and, with ``on_error="raise"``, the task's
    own error, even if the input raises as well.

    The overhead is 0.5 to 2 µs per task, in threads as in processes, and more with large arguments or values.
    """
    options = options_among(locals())
    with ready_for_first(fn, executor):
        from parallelkit._runs._collected import Collected  # imports all the rest
        from parallelkit._runs._plan import Plan

        return Collected(Plan.make(fn, items, options)).run()


@overload
def iter_parallel(  # type: ignore[overload-overlap]  # the value is the coroutine's result
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
    tasks: Mapping[K, Callable[..., Coroutine[Any, Any, V]] | Task[V]], /, **options: Unpack[RunOptions]
) -> Generator[Outcome[K, V], None, None]: ...
@overload
def iter_parallel(
    tasks: Iterable[Callable[..., Coroutine[Any, Any, V]] | Task[V]], /, **options: Unpack[RunOptions]
) -> Generator[Outcome[Any, V], None, None]: ...
@overload
def iter_parallel(
    tasks: Mapping[K, Callable[..., Coroutine[Any, Any, V] | V] | Task[V]], /, **options: Unpack[RunOptions]
) -> Generator[Outcome[K, V], None, None]: ...
@overload
def iter_parallel(
    tasks: Iterable[Callable[..., Coroutine[Any, Any, V] | V] | Task[V]], /, **options: Unpack[RunOptions]
) -> Generator[Outcome[Any, V], None, None]: ...
@of_two_forms
def iter_parallel(
    fn: Any,
    /,
    items: Any = UNSET,
    *,
    key: Callable[[Any], Any] | None = None,
    executor: Literal["threads", "processes", "inline"] | Executor | Submits = "threads",
    max_workers: int | None = None,
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    star: bool = False,
    timeout: float | None = None,
    run_timeout: float | None = None,
    retries: int | Retry | Retrying = 0,
    limits: Limits | None = None,
    priority: Callable[[Any], float] | None = None,
    then: Callable[[Outcome[Any, Any]], Iterable[Callable[..., Any] | Task[Any]] | None] | None = None,
    on_error: Literal["collect", "raise"] = "collect",
    max_failures: float | None = None,
    order: Literal["input", "key", "completion"] = "completion",
    buffersize: int | None = None,
    progress: bool | dict[str, Any] = False,
    on_event: Callable[[Event[Any]], object] | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    **unknown: Any,
) -> Generator[Outcome[Any, Any], None, None]:
    """Run tasks like ``run_parallel``, but yield each outcome as it comes, in constant memory.

    Takes the same two forms and options, except ``order="key"``. The default order is "completion"; with
    "input", tasks made by ``then`` come where the run received them, between those of the input. Keys need be
    unique only among tasks that have not been yielded.

    Options are checked at the call; nothing is read or started before the first ``next()``. Closing the
    generator, or dropping the last reference to it (as by leaving a loop over the call), stops the run. That
    does not wait for tasks, only for a call of ``then``, ``on_event`` or a predicate of ``retries`` that is in
    progress, or pickling for a ``checkpoint``.

    >>> from parallelkit import iter_parallel
    >>> sorted(outcome.unwrap() for outcome in iter_parallel(abs, range(-3, 3)))
    [0, 1, 1, 2, 2, 3]
    """
    options = options_among(locals())
    from parallelkit._runs._plan import Plan
    from parallelkit._runs._streamed import Streamed

    return Streamed(Plan.make(fn, items, options, stream=True)).outcomes()
