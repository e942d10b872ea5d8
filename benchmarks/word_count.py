"""How long does it take to count the words of Python's own library, twenty files a task, folded into one count?

Two processes count, the caller folds. Everybody gets the same chunks of files and folds with the same function;
`+ reduce` is `functools.reduce` over what the pool gives. Either everybody starts two workers for
it and ends them, all of it measured, or everybody has two warm ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial, reduce
from typing import TypeAlias

from benchmarks._question import LIMITS, OURS, Figures, Question, expect, stopwatch, unopened
from benchmarks._stdlib import files
from benchmarks._tasks import count_words
from benchmarks._threads import OPTIONS

WORKERS = 2
EACH = 20  # files in a chunk

Words: TypeAlias = Counter[str]
Chunks: TypeAlias = list[list[str]]
Count: TypeAlias = Callable[[Chunks], Words]


@cache
def chunks() -> Chunks:
    paths = files(1)
    return [paths[first : first + EACH] for first in range(0, len(paths), EACH)]


def merge(total: Words, counts: Words) -> Words:
    total.update(counts)
    return total


def folded(counts: Iterator[Words] | Sequence[Words]) -> Words:
    return reduce(merge, counts, Counter())


@contextmanager
def parallelkit(warm: bool) -> Iterator[Count]:
    from parallelkit import map_reduce

    count = partial(map_reduce, count_words, reduce=merge, **OPTIONS)
    if warm:
        from parallelkit import ProcessExecutor

        with ProcessExecutor(WORKERS) as executor:
            yield lambda chunks: count(chunks, initial=Counter(), executor=executor)
    else:
        yield lambda chunks: count(chunks, initial=Counter(), executor="processes", max_workers=WORKERS)


@contextmanager
def for_loop(_: bool) -> Iterator[Count]:
    yield lambda chunks: folded(map(count_words, chunks))


@contextmanager
def pool_map(_: bool) -> Iterator[Count]:
    from multiprocessing import Pool

    with Pool(WORKERS) as pool:
        yield lambda chunks: folded(pool.map(count_words, chunks))


@contextmanager
def pool_imap_unordered(_: bool) -> Iterator[Count]:
    from multiprocessing import Pool

    with Pool(WORKERS) as pool:
        yield lambda chunks: folded(pool.imap_unordered(count_words, chunks))


@contextmanager
def executor_map(_: bool) -> Iterator[Count]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        yield lambda chunks: folded(pool.map(count_words, chunks))


@contextmanager
def joblib(_: bool) -> Iterator[Count]:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    with Parallel(WORKERS, return_as="generator_unordered") as parallel:
        yield lambda chunks: folded(parallel(delayed(count_words)(chunk) for chunk in chunks))
    get_reusable_executor().shutdown()  # otherwise the next measurement would find it warm


Opens: TypeAlias = Callable[[bool], AbstractContextManager[Count]]
SYSTEMS: dict[str, Opens] = {
    OURS: parallelkit,
    "for loop": for_loop,
    "multiprocessing Pool.map + reduce": pool_map,
    "multiprocessing Pool.imap_unordered + reduce": pool_imap_unordered,
    "ProcessPoolExecutor.map + reduce": executor_map,
    "joblib, generator_unordered + reduce": joblib,
}


def until_all_is_counted(opens: Opens, warm: bool) -> Figures:
    wanted = all_words()
    seconds, words = warm_count(opens) if warm else stopwatch(partial(cold_count, opens))
    expect("words", wanted, words)
    return {"s": seconds}


def cold_count(opens: Opens) -> Words:
    with opens(False) as count:
        return count(chunks())


def warm_count(opens: Opens) -> tuple[float, Words]:
    with opens(True) as count:
        count(chunks()[: 2 * WORKERS])
        return stopwatch(lambda: count(chunks()))


@cache
def all_words() -> Words:
    """The expected count, computed in this process."""
    return folded(map(count_words, chunks()))


QUESTION = Question(
    asks=__doc__ or "",
    systems={name: partial(unopened, opens) for name, opens in SYSTEMS.items()},
    cases={"workers started for it": False, "warm workers": True},
    measure=until_all_is_counted,
    yardsticks=LIMITS,
    unit="s",
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
