"""Exceptions that hit a worker thread outside of its task: sent from elsewhere, or raised by a task's own trace function."""

import sys

import pytest

from parallelkit import ParallelKitError, ThreadExecutor, run_parallel
from parallelkit._executors import _contract

OURS = _contract.__file__.removesuffix("_contract.py")
SOON = 20  # seconds; it used to be for ever


class StrayError(BaseException):
    """What nobody expects."""


class Stray:
    """Raised in the thread that arms it, the n-th time that Python looks for such an exception in our code.

    Python does so as a function begins and when a builtin one has returned.
    """

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
    """From here on the executor has to look whose slot is lent."""
    run_parallel([lambda: run_parallel([int], executor=executor)], executor=executor).values()


@pytest.mark.parametrize("nested", [pytest.param(False, marks=pytest.mark.all), True])
def test_wherever_an_exception_strikes_every_task_has_one_outcome(nested, caplog):
    """Also between a ticket's leaving the queue and its start, and between its end and what tells of it."""
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
    """And the failure says what has happened; the others run in another thread."""

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
