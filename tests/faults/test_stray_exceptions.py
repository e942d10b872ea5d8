"""Exceptions that hit a worker thread outside of its task: sent from elsewhere, or raised by a trace function that a task has set."""

import sys

import pytest

from parallelkit import ParallelKitError, ThreadExecutor, run_parallel
from parallelkit._executors import _contract

OURS = _contract.__file__.removesuffix("_contract.py")
SOON = 20  # seconds; it used to be for ever


class StrayError(BaseException):
    """An exception that nobody expects."""


class Stray:
    """A profile function that raises in the thread that arms it, at the n-th event in our code."""

    def __init__(self, number):
        self.left = number

    def arm(self):
        sys.setprofile(self)

    def __call__(self, frame, event, argument):
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(OURS):
            self.left -= 1
            if self.left == 0:
                raise StrayError  # and Python takes this function off


def fail():
    raise KeyError


def nest(executor):
    """Make the executor keep track, from now on, of whose slot is lent."""
    run_parallel([lambda: run_parallel([int], executor=executor)], executor=executor).values()


@pytest.mark.parametrize("nested", [pytest.param(False, marks=pytest.mark.all), True])
def test_wherever_an_exception_strikes_every_task_has_one_outcome(nested, caplog):
    """Wherever in our code an exception hits a worker thread, every task has one outcome, and at most one is spoilt."""
    for number in range(1, 1000):
        stray = Stray(number)
        with ThreadExecutor(1) as executor:
            if nested:
                nest(executor)
            tasks = [stray.arm, int, fail, int, int]
            results = run_parallel(tasks, executor=executor, max_failures=9, timeout=SOON)
            assert [0, 0] == run_parallel([int, int], executor=executor, timeout=SOON).values(default=0), (
                number
            )
        assert (5, None) == (len(results.outcomes), results.stopped), number
        errors = [failure.error for failure in results.failures.values()]
        struck = [error for error in errors if not isinstance(error, KeyError)]
        assert len(struck) <= 1, number
        assert len(errors) <= 2, number
        assert all(isinstance(error.__cause__, StrayError) for error in struck), number
        if stray.left > 0:
            break
    assert number > 100
    assert "outside of any task" in caplog.text


def test_a_trace_function_that_raises_costs_its_own_task():
    """A trace function that a task sets and that raises costs only that task; the others run in another thread."""

    def trace(item):
        if item == 1:
            sys.setprofile(fail)
            sys.settrace(fail)
        return item

    def fail(*event):
        raise ZeroDivisionError

    results = run_parallel(trace, range(4), max_workers=1, timeout=SOON)
    assert {0: 0, 2: 2, 3: 3} == results.successes
    assert isinstance(results.failures[1].error, (ParallelKitError, ZeroDivisionError))
