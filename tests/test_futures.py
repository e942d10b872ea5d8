"""``ThreadExecutor`` and ``ProcessExecutor`` beyond the contract of ``concurrent.futures`` (tests/cpython)."""

import pytest

from parallelkit import ProcessExecutor, ThreadExecutor, run_parallel

both = pytest.mark.parametrize("make", [ThreadExecutor, ProcessExecutor])


@both
@pytest.mark.parametrize("used", [False, True])
def test_a_shutdown_stops_the_runs_on_the_executor(make, used):
    """They would wait for ever for workers that are gone."""
    executor = make(1)
    if used:
        assert 1 == executor.submit(abs, -1).result()

    def items():
        yield -1
        executor.shutdown(wait=True)
        yield from range(-100, 0)

    results = run_parallel(abs, items(), executor=executor)
    assert "the executor was shut down" == results.stopped
    assert results.failures


def test_a_nested_run_that_is_stopped_gives_its_slot_back_once():
    """The slot that a nested run borrows is not taken from the executor when the run is stopped."""
    with ThreadExecutor(1) as executor:

        def nested(_):
            with pytest.raises(ZeroDivisionError):
                run_parallel(invert, [0] * 1000, executor=executor, on_error="raise")

        for _ in range(3):
            results = run_parallel(nested, [0], executor=executor, run_timeout=10)
            assert (None, {}) == (results.stopped, results.failures)


def invert(number):
    return 1 / number
