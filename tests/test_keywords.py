"""A keyword that a class does not have: which was meant is said, and its signature stays its own."""

import copy
import inspect
import pickle

import pytest

from parallelkit import Checkpoint, ConcurrencyLimit, ProcessExecutor, RateLimit, Retry, ThreadExecutor
from parallelkit._keywords import WORKERS, suggests

CLASSES = (Checkpoint, ConcurrencyLimit, ProcessExecutor, RateLimit, Retry, ThreadExecutor)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Retry(max_retries=3),
            r"Retry got an unknown keyword: max_retries; did you mean 'retries'\?",
        ),
        (lambda: Retry(max_tries=3), r"max_tries; did you mean 'retries=max_tries - 1'\?"),
        (lambda: Retry(3, backoff=2), r"backoff; did you mean 'factor'\?"),
        (
            lambda: Retry(3, jitter=1),
            "jitter; the keywords are retries, on, delay, factor, max_delay, max_time",
        ),
        (lambda: RateLimit(10, period=1), r"period; did you mean 'per'\?"),
        (lambda: ConcurrencyLimit(limit=1), r"limit; did you mean 'n'\?"),
        (lambda: Checkpoint("x", rerun_fail=True), r"rerun_fail; did you mean 'rerun_failed'\?"),
        (lambda: ThreadExecutor(workers=4), r"workers; did you mean 'max_workers'\?"),
        (lambda: ThreadExecutor(n_jobs=4), r"n_jobs; did you mean 'max_workers'\?"),
        (lambda: ThreadExecutor(threads=4), r"threads; did you mean 'max_workers'\?"),
        (lambda: ProcessExecutor(max_task_per_child=4), r"did you mean 'max_tasks_per_child'\?"),
    ],
)
def test_an_unknown_keyword_of_a_class_gets_the_nearest(make, said):
    """The error of an unknown keyword suggests the nearest, or what it is called here, or lists all there are."""
    with pytest.raises(TypeError, match=said):
        make()


@pytest.mark.parametrize("kind", CLASSES)
def test_whoever_asks_for_the_signature_gets_its_own(kind):
    """The signature of a class is its own, as editors and documentation show it, without ``**kwargs``."""
    parameters = inspect.signature(kind).parameters
    assert "kwargs" not in parameters
    assert len(parameters) >= 2


def test_what_they_make_is_what_it_was():
    """Subclasses with an ``__init__`` of their own work, and objects can be copied and pickled."""

    class Wide(ThreadExecutor):
        def __init__(self, workers):
            super().__init__(max_workers=workers)

    with Wide(workers=2) as executor:
        assert 2 == executor.submit(abs, -2).result()
    retry = Retry(3, delay=1)
    assert retry == copy.copy(retry) == pickle.loads(pickle.dumps(retry))


def test_a_local_variable_is_no_keyword():
    """The name of a local variable, which Python lists with those of the parameters, is an unknown keyword."""

    class Room:
        def __init__(self, max_workers, *, other=0):
            local = other  # no keyword, although the code knows its name
            self.max_workers = max_workers + local

    room = suggests(**WORKERS)(Room)
    assert 3 == room(2, other=1).max_workers
    with pytest.raises(
        TypeError, match="Room got an unknown keyword: local; the keywords are max_workers, other"
    ):
        room(2, local=1)
