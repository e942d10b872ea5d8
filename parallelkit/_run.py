"""``run_parallel`` and ``iter_parallel``: what they mean; ``_plan`` does it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypeVar, Unpack, overload

from parallelkit._ledger import UNSET
from parallelkit._options import RunOptions
from parallelkit._outcomes import Outcome
from parallelkit._plan import Plan
from parallelkit._results import Results
from parallelkit._tasks import Task

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")


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
def run_parallel(fn: Any, /, items: Any = UNSET, **options: Any) -> Results[Any, Any]:
    """Run independent tasks at the same time and give back every outcome by key.

    Two forms: ``run_parallel(fn, items)`` calls ``fn`` once an item (of a mapping: once a value,
    under its key); ``run_parallel(tasks)`` calls each of several functions, given as a mapping
    from key to callable or ``Task``, or as an iterable of these.

    >>> from parallelkit import run_parallel
    >>> results = run_parallel(len, ["a", "bb", "ccc"], key=str.upper)
    >>> results["BB"], results.values()
    (2, [1, 2, 3])
    """
    return Plan.make(fn, items, options).collect()


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
def iter_parallel(fn: Any, /, items: Any = UNSET, **options: Any) -> Generator[Outcome[Any, Any], None, None]:
    """The outcomes of ``run_parallel``, one by one as they come, in flat memory.

    Takes the same two forms and options, but ``order="key"``; the default order is "completion".
    Options are checked at the call; nothing is read or started before the first ``next()``.
    Closing the iterator, or leaving it behind, stops the run. ``key`` must be unique only among
    tasks that have not been yielded.

    >>> from parallelkit import iter_parallel
    >>> sorted(outcome.unwrap() for outcome in iter_parallel(abs, range(-3, 3)))
    [0, 1, 1, 2, 2, 3]
    """
    return Plan.make(fn, items, options, stream=True).stream()
