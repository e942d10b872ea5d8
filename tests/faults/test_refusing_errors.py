"""Errors whose classes refuse attributes or truth tests: frozen dataclasses, and worse."""

import pickle
from functools import partial
from textwrap import dedent

import pytest
import refusing
from outside import run_script

from parallelkit import (
    InputError,
    ProcessExecutor,
    Task,
    ThreadExecutor,
    first_success,
    iter_parallel,
    map_reduce,
    run_parallel,
)

KINDS = ["threads", "processes", "inline"]
SOON = 20  # seconds; it used to be for ever


@pytest.mark.parametrize("kind", refusing.HARD_TO_SHOW)
def test_an_error_that_refuses_attributes_costs_its_own_task(anywhere, kind):
    """An error that refuses attributes is its task's own error, and affects no other task."""
    results = run_parallel(refusing.fail_at_one, range(3), args=(kind,), executor=anywhere, timeout=SOON)

    assert {0: 0, 2: 2} == results.successes
    assert kind == type(results.failures[1].error).__name__


@pytest.mark.parametrize("executor", KINDS)
def test_a_frozen_error_has_its_note_its_traceback_and_is_raised(executor):
    """A frozen error is raised with its note and traceback by runs, streams, folds and races."""

    def race(fn, items, args, **options):
        return first_success([Task(fn, item, *args) for item in items], **options)

    for run in (
        run_parallel,
        lambda *args, **options: list(iter_parallel(*args, **options)),
        partial(map_reduce, reduce=max, initial=0),
        race,
    ):
        with pytest.raises(refusing.Frozen) as caught:
            run(refusing.fail_at_one, [1], args=("Frozen",), executor=executor, on_error="raise")
        assert refusing.Frozen(5) == caught.value
        assert "parallelkit: task 0, attempt 1 of 1" == caught.value.__notes__[0]
        assert "fail_at_one" in {entry.name for entry in caught.traceback}


async def fail_slowly(item):
    return refusing.fail_at_one(item, "Frozen")


def test_a_frozen_error_of_a_coroutine():
    """A frozen error of a coroutine leaves the event loop's thread alive."""
    results = run_parallel(fail_slowly, range(3), timeout=SOON)
    assert ([0, 2], refusing.Frozen(5)) == ([*results.successes.values()], results.failures[1].error)


@pytest.mark.parametrize("executor", [ThreadExecutor, ProcessExecutor])
def test_a_frozen_error_of_a_future(executor):
    """A frozen error is its future's exception, and the next call runs."""
    with executor(1) as pool:
        failed, fine = (pool.submit(refusing.fail_at_one, item, "Frozen") for item in (1, 2))
        assert (refusing.Frozen(5), 2) == (failed.exception(SOON), fine.result(SOON))


@pytest.mark.parametrize("kind", ["Untrue", "NoTruth"])
@pytest.mark.parametrize("executor", [ThreadExecutor, ProcessExecutor])
def test_an_untrue_error_of_a_future_is_raised(executor, kind):
    """``result`` and ``map`` raise an error that is false or has no truth value; they do not return None."""
    error = getattr(refusing, kind)
    with executor(1) as pool:
        with pytest.raises(error):
            pool.submit(refusing.fail_at_one, 1, kind).result(SOON)
        with pytest.raises(error):
            list(pool.map(refusing.fail_at_one, [0, 1], [kind] * 2))


@pytest.mark.parametrize("kind", ["Untrue", "NoTruth"])
@pytest.mark.parametrize("executor", [ThreadExecutor, ProcessExecutor])
@pytest.mark.all
def test_an_untrue_error_of_an_initializer_is_the_cause(executor, kind):
    """An initializer's error is the cause of every cancellation, even if it is false, and survives pickling."""
    error = getattr(refusing, kind)
    with executor(1, initializer=refusing.fail_to_begin, initargs=(kind,)) as pool:
        results = run_parallel(abs, [1, 2], executor=pool)
        streamed = [*iter_parallel(abs, [1, 2], executor=pool)]
    arrived = pickle.loads(pickle.dumps(results))
    for failures in (results.failures.values(), arrived.failures.values(), streamed):
        assert [error] * 2 == [type(failure.error.__cause__) for failure in failures]


def test_a_frozen_error_of_what_the_caller_gave():
    """A frozen error of the input or of ``then`` is the cause of the InputError, and not replaced by contextlib's own error."""

    def broken():
        yield 0
        raise refusing.Frozen(5)

    def then(outcome):
        raise refusing.Frozen(6)

    with pytest.raises(InputError) as of_input:
        run_parallel(abs, broken())
    with pytest.raises(InputError) as of_then:
        run_parallel(abs, [0], then=then)
    assert [refusing.Frozen(5), refusing.Frozen(6)] == [of_input.value.__cause__, of_then.value.__cause__]


def test_a_frozen_error_of_a_scripts_own():
    """A frozen error class of a script is sent by value."""
    finished = run_script(
        dedent("""
        from dataclasses import dataclass
        from parallelkit import run_parallel

        @dataclass(frozen=True)
        class ApiError(Exception):
            code: int

        def fail(item):
            raise ApiError(item)

        print(run_parallel(fail, [7], executor="processes").failures[0].error == ApiError(7))
        """)
    )
    assert "True\n" == finished.out


@pytest.mark.parametrize("kind", refusing.HARD_TO_SHOW)
def test_an_error_that_cannot_be_shown_spoils_no_report(kind, tmp_path):
    """An error that cannot be shown spoils neither reports nor pages, traces or events."""
    told = []
    results = run_parallel(
        refusing.fail_at_one, range(3), args=(kind,), timeout=SOON, retries=1, on_event=told.append
    )
    streamed = list(iter_parallel(refusing.fail_at_one, range(3), args=(kind,), max_failures=1))
    results.save_html(tmp_path / "page.html")
    results.save_trace(tmp_path / "trace.json")

    for text in (
        results.report(),
        results._repr_html_(),
        repr(results.outcomes[1]),
        results.outcomes[1].traceback,
    ):
        assert kind in text
    assert kind in {row["error_type"] for row in results.rows()}
    assert ["failed"] == [event.kind for event in told if event.key == 1 and event.error is not None][-1:]
    assert kind in {type(one.error).__name__ for one in streamed if not one.ok}
