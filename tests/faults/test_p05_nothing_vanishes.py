"""Promise 5: nothing vanishes. Every task has exactly one outcome, under its key, and the error is the user's own."""

import subprocess
import sys
import traceback
from functools import partial

import acts
import broken
import deeds
import pytest
import remote_tasks as far

from parallelkit import (
    Failure,
    RemoteError,
    Retry,
    Success,
    Task,
    TaskCancelled,
    TaskExited,
    TaskFailures,
    iter_parallel,
    run_parallel,
)

BOTH = pytest.mark.parametrize("executor", ["threads", "processes"])
EVERYWHERE = pytest.mark.parametrize("executor", ["threads", "processes", "inline"])


# One outcome a task


@EVERYWHERE
@pytest.mark.parametrize("order", ["input", "key", "completion"])
def test_every_task_has_one_outcome_under_its_key(executor, order):
    """A thousand tasks, every third of which fails, each have one outcome under their own key, in every order."""

    def work(item):
        return 1 // (item % 3)

    results = run_parallel(work, range(1000), key="key {:04}".format, executor=executor, order=order)

    assert {f"key {item:04}" for item in range(1000)} == set(results)
    assert 1000 == len(results) == len(list(results)) == len(results.outcomes)
    assert {f"key {item:04}": item % 3 > 0 for item in range(1000)} == {
        key: outcome.ok for key, outcome in results.outcomes.items()
    }
    assert all(key == outcome.key for key, outcome in results.outcomes.items())


@BOTH
@pytest.mark.parametrize("order", ["input", "completion"])
def test_every_task_is_yielded_once(executor, order):
    """A stream yields every task exactly once."""
    seen = [
        outcome.key for outcome in iter_parallel(far.give_back, range(2000), executor=executor, order=order)
    ]
    assert [*range(2000)] == (seen if order == "input" else sorted(seen))


@EVERYWHERE
def test_a_stopped_run_has_an_outcome_for_every_item(executor):
    """If a run over sized input is stopped, items that were never read have outcomes, too, under their own keys."""
    results = run_parallel(
        far.fail, [ValueError(n) for n in range(500)], key=str, executor=executor, max_failures=3
    )
    assert {str(ValueError(number)) for number in range(500)} == set(results)
    assert {ValueError, TaskCancelled} == {type(failure.error) for failure in results.failures.values()}


@BOTH
def test_a_stopped_stream_has_an_outcome_for_every_item(executor):
    """A stopped stream yields an outcome even for items that had been read, but had not reached the loop's thread."""
    for _ in range(20 if executor == "threads" else 3):
        stream = iter_parallel(
            far.fail, [ValueError()] * 2000, executor=executor, buffersize=50, max_failures=1
        )
        assert [*range(2000)] == sorted(outcome.key for outcome in stream)


# Values


@EVERYWHERE
def test_none_is_an_ordinary_value(executor):
    """None is a success, and ``get`` does not take it for a missing value."""
    results = run_parallel(far.nothing, range(5), executor=executor)
    assert [None] * 5 == results.values()
    assert {Success} == {type(outcome) for outcome in results.outcomes.values()}
    assert results.get(2, "default") is None


@EVERYWHERE
def test_no_exception_is_returned_as_a_value(executor):
    """A task that raises is a failure in every view, and its error is never among the values."""
    results = run_parallel(far.fail, [ValueError("no")], executor=executor)

    with pytest.raises(ValueError, match="no"):
        results[0]
    with pytest.raises(TaskFailures):
        results.values()
    with pytest.raises(TaskFailures):
        results.items()
    with pytest.raises(TaskFailures):
        results.to_dict()
    with pytest.raises(ValueError, match="no"):
        results.get(0, "default")
    assert {} == results.successes
    assert [None] == results.values(default=None)


@EVERYWHERE
def test_an_exception_that_a_task_returns_is_its_value(executor):
    """An exception that a task returns instead of raising is an ordinary value."""
    results = run_parallel(far.give_back, [ValueError("a value")], executor=executor)
    assert "ValueError('a value')" == repr(results[0])


# Errors


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_the_very_object_comes_back(executor):
    """Without processes, the error is the very object that was raised."""
    error = broken.TwoArguments(5, "no")
    assert error is run_parallel(far.fail, [error], executor=executor).failures[0].error


def test_error_of_a_process_is_of_its_own_type():
    """An error from a process has its own type, attributes, arguments, cause and notes, so that ``except`` works."""

    def work(item):
        try:
            {}["missing"]
        except KeyError as cause:
            error = broken.TwoArguments(5, "no")
            error.add_note("the task's own")
            raise error from cause

    results = run_parallel(work, [0], executor="processes")
    error = results.failures[0].error

    with pytest.raises(broken.TwoArguments):
        results[0]
    assert (5, "no", ("no (5)",)) == (error.code, error.reason, error.args)
    assert repr(KeyError("missing")) == repr(error.__cause__)
    assert "the task's own" in error.__notes__


@BOTH
def test_traceback_shows_where_the_task_was(executor, tmp_path):
    """The task's frames are in the failure's text and in the error's traceback object."""
    scene = deeds.Scene(str(tmp_path), 0)
    failure = run_parallel(
        partial(deeds.work, scene=scene, deed=deeds.raise_plainly), ["7"], executor=executor
    ).failures[0]

    printed = "".join(traceback.format_exception(failure.error))
    for text in (failure.traceback, printed):
        assert "in raise_plainly" in text
        assert "ValueError: no" in text
    assert "raise_plainly" == traceback.extract_tb(failure.error.__traceback__)[-1].name


def raise_first(item, *rest, **more):
    raise ValueError(item, rest, more)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"args": (0,)},
        {"kwargs": {"more": 0}},
        {"star": True},
        {"tasks": True},
        {"tasks": True, "args": (0,)},
    ],
    ids=repr,
)
def test_traceback_begins_with_the_task(anywhere, form):
    """In every form of call, the traceback contains only the task's frames and none of ours."""
    options = {"executor": anywhere, **form}
    calls = [Task(raise_first, "x")] if options.pop("tasks", False) else None
    results = run_parallel(calls, **options) if calls else run_parallel(raise_first, ["x"], **options)
    frames = traceback.extract_tb(results.failures[0].error.__traceback__)
    assert ["raise_first"] == [frame.name for frame in frames]


@EVERYWHERE
def test_note_names_key_and_attempt(executor):
    """A note on the error names key and attempt, so that it is printed with the error, and ends the traceback text."""
    results = run_parallel(
        far.fail, [ValueError("no")], key=lambda item: "eu-west", executor=executor, retries=Retry(2, delay=0)
    )
    failure = results.failures["eu-west"]
    assert ["parallelkit: task 'eu-west', attempt 3 of 3"] == failure.error.__notes__
    assert ["parallelkit: task 'eu-west', attempt 3 of 3"] == failure.traceback.splitlines()[-1:]
    assert 1 == failure.traceback.count("parallelkit: ")


@BOTH
@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt("stop"), GeneratorExit(), broken.OwnBase("own")]
)
def test_no_task_can_end_the_callers_program(executor, error):
    """Any BaseException other than an Exception becomes a TaskExited, with the original as its cause."""
    results = run_parallel(partial(far.on, {1: (far.fail, error)}), range(3), executor=executor)
    failure = results.failures[1]

    assert [0, None, 2] == results.values(default=None)
    assert isinstance(failure.error, TaskExited)
    assert str(failure.error).startswith(f"the task raised {type(error).__name__}")
    assert type(error) is type(failure.error.__cause__)
    assert error.args == failure.error.__cause__.args


def test_what_cannot_travel_is_named():
    """If a value, item or error cannot be pickled, the failure names the object."""
    import threading

    tasks = {
        "value": threading.Lock,
        "item": partial(far.give_back, broken.Reduces(broken.raise_, ValueError("stuck"))),
        "error": partial(far.give_back, 1),
    }
    results = run_parallel(tasks, executor="processes")
    assert "task 'value' returned a _thread.lock, which cannot be pickled" in str(
        results.failures["value"].error
    )
    assert "task 'item' cannot be sent to a worker process" in str(results.failures["item"].error)
    assert 1 == results["error"]

    failure = run_parallel(deeds.raise_no_reduce, [0], executor="processes").failures[0]
    assert isinstance(failure.error, (RemoteError, broken.NoReduce))
    assert "sticks" in str(failure.error)
    assert "in raise_no_reduce" in failure.traceback


LEAKING = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
sys.path[:0] = {path!r}
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
from parallelkit import run_parallel
kept = []
def leak(number):
    kept.append(open("/dev/null"))
results = run_parallel(leak, range(100), executor={executor})
failure = results.failures[99]
print(len(results.failures) > 40, repr(failure.error)[:11], "in leak" in failure.traceback)
try:
    results.values()
except Exception as error:
    print(type(error).__name__, len(error.exceptions) == len(results.failures))
"""


@pytest.mark.all
@pytest.mark.parametrize("executor", ["'threads'", "'inline'", "ThreadPoolExecutor(2)"])
def test_failures_can_be_looked_at_where_the_tasks_have_used_up_all_descriptors(executor):
    """Tasks that leak files fail with that error, and then the program can load no module any more."""
    command = [sys.executable, "-c", LEAKING.format(path=sys.path, executor=executor)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ("True OSError(24, True\nTaskFailures True\n", "") == (done.stdout, done.stderr)


LEAKING_ONCE = """
import resource, sys
sys.path[:0] = {path!r}
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
from parallelkit import run_parallel
kept = []
def leak_once(number):
    while not kept:
        files = []
        try:
            while True:
                files.append(open("/dev/null"))
        except OSError:
            kept.append(files)
            raise
    kept[0].clear()
    return number
outcome = run_parallel(leak_once, [7], retries=1).outcomes[0]
print(outcome.attempts, outcome.error or outcome.value)
"""


@pytest.mark.all
def test_a_task_that_has_used_up_all_descriptors_is_tried_again():
    """Nothing has to be loaded for that."""
    command = [sys.executable, "-c", LEAKING_ONCE.format(path=sys.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ("2 7\n", "") == (done.stdout, done.stderr)


LEAKING_HERE = """
import resource, sys
sys.path[:0] = {path!r}
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
from parallelkit import iter_parallel, run_parallel
kept = []
def leak(*_):
    try:
        while True:
            kept.append(open("/dev/null"))
    except OSError:
        pass
def numbers():
    yield from [1] * 9
    leak()
    yield from [0] * 9
def invert(number):
    return 1 / number
options = dict(executor="processes", max_workers=2, max_failures=1, buffersize=2)
{run}
print(*{{type(outcome.error).__name__ for outcome in outcomes if outcome.error}} - {{"TaskCancelled"}})
"""


@pytest.mark.all
@pytest.mark.parametrize(
    "run",
    [
        "outcomes = run_parallel(invert, numbers(), **options).outcomes.values()",
        "outcomes = run_parallel(invert, [1, 0, 0, 0, 0, 0, 0], then=leak, **options).outcomes.values()",
        "outcomes = [(outcome, leak())[0] for outcome in iter_parallel(invert, [1, 1, 1, 0, 0, 0], **options)]",
    ],
)
def test_a_run_can_end_where_the_program_has_used_up_all_descriptors_meanwhile(run):
    """An input, ``then`` or the loop over a stream that leaks files hides no outcome of tasks in processes."""
    command = [sys.executable, "-c", LEAKING_HERE.format(path=sys.path, run=run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ("ZeroDivisionError\n", "") == (done.stdout, done.stderr)


@BOTH
def test_all_failures_are_raised_together(executor):
    """``values()`` raises all failures in one group, which works with ``except*`` and has the results."""
    errors = [ValueError(1), KeyError(2), ValueError(3)]
    results = run_parallel(far.fail, errors, executor=executor)
    caught = {}
    try:
        results.values()
    except* ValueError as group:
        caught["values"] = sorted(str(error) for error in group.exceptions)
        caught["results"] = group.results
    except* KeyError as group:
        caught["keys"] = [str(error) for error in group.exceptions]

    assert results is caught.pop("results")
    assert {"values": ["1", "3"], "keys": ["2"]} == caught


@BOTH
def test_every_attempt_is_logged(executor, tmp_path):
    """A success after two failures leaves three attempts, with their errors."""
    path = str(tmp_path / "begun")

    def work(item):
        acts.note(path, item)
        if len(acts.lines(path)) < 3:
            raise ValueError("again")
        return "at last"

    results = run_parallel(work, [0], executor=executor, max_workers=1, retries=Retry(5, delay=0))
    assert [(1, ValueError), (2, ValueError), (3, type(None))] == [
        (attempt.number, type(attempt.error)) for attempt in results.attempts
    ]
    assert 3 == results.outcomes[0].attempts


@BOTH
def test_failures_are_failures(executor):
    """A failure has its key, index, attempts, times and worker."""
    failure = run_parallel(far.fail, [ValueError("no")], executor=executor).failures[0]
    assert isinstance(failure, Failure)
    assert (0, 0, 1) == (failure.key, failure.index, failure.attempts)
    assert 0 <= failure.queued_at <= failure.started_at
    assert failure.duration >= 0
    assert failure.worker
