"""The joblib backend: results of calls in one block, whose workers serve all tests, and arrays that are files."""

import os

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from joblib_calls import parallel, pids, write_own

from parallelkit.joblib_backend import register

register()


@pytest.fixture(scope="module", autouse=True)
def block(tmp_path_factory):
    """A block in which our backend is the active one, and both workers run."""
    with parallel_config(backend="parallelkit", n_jobs=2):
        pids(tmp_path_factory.mktemp("block"), "first")
        yield


@pytest.mark.parametrize(
    "return_as", ["list", pytest.param("generator", marks=pytest.mark.all), "generator_unordered"]
)
def test_results_come_back(return_as):
    """Results come in order or as they come, for lambdas and closures too, in batches of any size."""
    offset = 3
    results = list(Parallel(return_as=return_as)(delayed(lambda x: x + offset)(x) for x in range(500)))
    assert list(range(3, 503)) == (sorted(results) if return_as == "generator_unordered" else results)


def test_the_work_is_done_in_processes(tmp_path):
    """Calls run in two processes, and not in this one."""
    found = pids(tmp_path, "a")
    assert (2, False) == (len(found), os.getpid() in found)


def test_a_generator_and_another_parallel_do_not_meet():
    """A call in a block works while the results of another are still being taken."""
    results = parallel((delayed(abs)(-n) for n in range(20)), return_as="generator")
    assert 0 == next(results)
    assert [1, 2] == parallel([delayed(abs)(-1), delayed(abs)(-2)])
    assert list(range(1, 20)) == list(results)


@pytest.mark.parametrize("view", [lambda array: array, lambda array: array[1:-1]])
def test_an_array_that_is_a_file_is_that_file(tmp_path, view):
    """What workers write into a memory-mapped array, or a slice of it, is in its file."""
    array = np.memmap(tmp_path / "file", "f8", "w+", shape=(12,))
    assert {"memmap"} == set(parallel(delayed(write_own)(view(array), number) for number in range(10)))
    assert list(range(10)) == view(array)[:10].tolist()


@pytest.mark.all
def test_a_file_that_is_not_in_one_piece_travels_as_a_copy(tmp_path):
    """A non-contiguous slice of a memory-mapped array is copied."""
    array = np.memmap(tmp_path / "file", "f8", "w+", shape=(10,))
    array[:] = range(10)
    assert [20.0] * 3 == parallel(delayed(np.sum)(array[::2]) for _ in range(3))
