"""How long does a `Parallel` of joblib, or a fit of scikit-learn, take on our workers, and how long on loky's?

Two workers that are warm, as from the second call on in a block of `parallel_config`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks._question import OURS, Figures, Question, Run, expect, stopwatch


@contextmanager
def backend(name: str) -> Iterator[Run]:
    """Call the given work inside one ``parallel_config`` block of this backend, so that its workers stay warm."""
    from joblib import parallel_config

    from parallelkit.joblib_backend import register

    register()
    with parallel_config(backend=name, n_jobs=2):
        yield lambda work: work()


def spin(_: int) -> int:
    return sum(range(40_000))


def nap(_: int) -> None:
    time.sleep(0.01)


def part_of(array: Any, number: int) -> float:
    return float(array[number::1000].sum())


def calls(fn: Callable[..., Any], count: int, *args: Any) -> int:
    from joblib import Parallel, delayed

    return len(Parallel()(delayed(fn)(*args, number) for number in range(count)))


def on_one_array(numbers: int, count: int) -> int:
    return calls(part_of, count, array_of(numbers))


def new_arrays(count: int) -> int:
    from joblib import Parallel, delayed

    return len(Parallel()(delayed(array_of)(1_000_000) for _ in range(count)))


def array_of(numbers: int) -> Any:
    import numpy as np

    return np.ones(numbers)


def grid_search(fits: int) -> int:
    from sklearn.datasets import make_classification
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    grid = {"C": [10.0 ** (power / 2 - 3) for power in range(fits // 5)]}
    search = GridSearchCV(LogisticRegression(max_iter=200), grid, cv=5)
    search.fit(*make_classification(4000, 40, random_state=0))
    return 5 * len(search.cv_results_["params"])


def forest(trees: int) -> int:
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    grown = RandomForestClassifier(trees, random_state=0).fit(*make_classification(5000, 30, random_state=0))
    return len(grown.estimators_)


CASES: dict[str, tuple[int, Callable[[int], int]]] = {
    "20,000 calls of nothing": (20_000, partial(calls, abs)),
    "2,000 calls of about half a millisecond": (2_000, partial(calls, spin)),
    "200 naps of 10 ms": (200, partial(calls, nap)),
    "100 calls on one array of 8 MB": (100, partial(on_one_array, 1_000_000)),
    "100 calls on one array of 80 MB": (100, partial(on_one_array, 10_000_000)),
    "40 new arrays of 8 MB back": (40, new_arrays),
    "a grid search of 60 fits": (60, grid_search),
    "a forest of 100 trees": (100, forest),
}


def seconds_of(run: Run, case: tuple[int, Callable[[int], int]]) -> Figures:
    count, work = case
    run(partial(work, count))  # warm-up
    seconds, done = stopwatch(lambda: run(partial(work, count)))
    expect("calls", count, done)
    return {"ms": seconds * 1e3}


QUESTION = Question(
    asks=__doc__ or "",
    systems={OURS: partial(backend, "parallelkit"), "loky": partial(backend, "loky")},
    cases=CASES,
    measure=seconds_of,
    unit="ms",
    log=True,
)


if __name__ == "__main__":
    from benchmarks.__main__ import main

    main([__file__])
