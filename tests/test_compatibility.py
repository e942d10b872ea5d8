"""What the check of a dask cluster makes of the answers of its workers: on a client that only answers."""

import platform

import pytest

from parallelkit._executors._cluster import _compatibility
from parallelkit._executors._cluster._wire import versions

CLOSED = OSError("stream is closed")


class Answers:
    """A client whose workers, while they are there, answer the question with one of these at a time, and then go on with the last."""

    def __init__(self, *answers, present=("a",), python=None):
        self.asked = 0
        self._answers = answers
        self._present = present
        self._python = python

    def nthreads(self):
        return dict.fromkeys(self._present, 1)

    def run(self, fn, *args, workers, on_error):
        if fn is platform.python_version:
            return dict.fromkeys(workers, self._python or CLOSED)
        self.asked += 1
        return dict.fromkeys(workers, self._answers[min(self.asked, len(self._answers)) - 1])


def test_a_worker_that_closes_the_connection_and_is_still_there_is_refused():
    """So does one of distributed on Python 3.15 that cannot import parallelkit."""
    client = Answers(CLOSED, python=platform.python_version())
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"worker a does not fit .* cannot be imported there \(OSError: stream"
        ):
            _compatibility._check_workers(client, {"a"})


@pytest.mark.parametrize("present", [(), ("a",)], ids=["gone", "silent"])
def test_a_worker_that_leaves_as_it_is_asked_is_asked_again_if_it_comes_back(present):
    """It does not count as one that fits."""
    client = Answers(CLOSED, present=present)
    _compatibility._check_workers(client, {"a"})
    before = client.asked
    _compatibility._check_workers(client, {"a"})
    assert 2 * before == client.asked


def test_a_worker_whose_connection_was_lost_once_fits():
    """It is asked once more, and then never again."""
    client = Answers(CLOSED, versions())
    for _ in range(2):
        _compatibility._check_workers(client, {"a"})
    assert 2 == client.asked
