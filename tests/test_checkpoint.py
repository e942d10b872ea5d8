"""Checkpoints: recorded outcomes are returned and never computed again, and nothing is lost silently."""

import _thread
import asyncio
import collections
import contextlib
import enum
import fcntl
import functools
import gc
import logging
import os
import pickle
import pkgutil
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import weakref
from contextlib import closing, suppress
from functools import partial
from operator import add, itemgetter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from leaks import leaks, look

import parallelkit._journal._file as _file
import parallelkit._journal._lock as _lock
import parallelkit._journal._payload as _payload
import parallelkit._journal._recorder as _recorder
import parallelkit._journal._writer as journal_writer
from parallelkit import (
    Checkpoint,
    InputError,
    ParallelKitError,
    RateLimit,
    RemoteError,
    Retry,
    RunInterrupted,
    Task,
    TaskCancelled,
    TaskFailures,
    TaskTimeout,
    first_success,
    iter_parallel,
    map_reduce,
    run_parallel,
)
from parallelkit._input._portion import Portion
from parallelkit._interrupt import Interrupt, catch_interrupt
from parallelkit._journal._file import APPLICATION, SCHEMA, Journal, Record
from parallelkit._journal._lock import JournalLock
from parallelkit._journal._payload import Payloads
from parallelkit._journal._recorder import Recorder, Recording, close_whole
from parallelkit._ledger import Ledger
from parallelkit._lost import Lost
from parallelkit._runs._interruptible import InterruptibleCall

calls = collections.Counter()


@pytest.fixture(autouse=True)
def _fresh_calls():
    calls.clear()


@pytest.fixture
def path(in_memory):
    return in_memory / "run.journal"


def work(item):
    calls[item] += 1
    return [item]


def fail(item):
    calls[item] += 1
    raise ValueError(f"no {item}")


def same(item):
    return item


def run(items, path, fn=work, **options):
    return run_parallel(fn, list(items), key=same, checkpoint=path, **options)


def recorded(path):
    """The keys in a journal that is not in use."""
    connection = sqlite3.connect(path)
    try:
        return [key for (key,) in connection.execute("SELECT key FROM outcomes")]
    finally:
        connection.close()


# Resuming


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_what_was_recorded_is_not_run_again(path, executor):
    """A second run computes only what the first did not, and has all values, in the requested order."""
    assert [["a"], ["b"]] == run("ab", path, executor=executor).values()
    results = run("cab", path, executor=executor)
    assert [["c"], ["a"], ["b"]] == results.values()
    assert {"a": 1, "b": 1, "c": 1} == calls


def test_it_holds_for_processes_too(path):
    """Values that come from worker processes are recorded and returned."""
    assert [1, 2] == run(["a", "bb"], path, fn=len, executor="processes").values()
    results = run(["a", "bb", "ccc"], path, fn=len, executor="processes")
    assert [1, 2, 3] == results.values()
    assert [0, 0, 1] == [outcome.attempts for outcome in results.outcomes.values()]


def test_it_holds_for_every_form_of_a_run(path):
    """Streams, runs of tasks, folds and races share a journal."""
    assert {"a": ["a"]} == {
        outcome.key: outcome.value for outcome in iter_parallel(work, {"a": "a"}, checkpoint=path)
    }
    assert {"a": ["a"]} == run_parallel(work, {"a": "a"}, checkpoint=path).to_dict()
    assert ["a"] == map_reduce(work, ["a"], list.__add__, initial=[], key=same, checkpoint=path)
    assert {"a": 1} == calls

    tasks = path.with_name("tasks")
    assert ["a"] == first_success([Task(work, "a", key="first")], checkpoint=tasks).value
    assert {"first": ["a"], "second": ["b"]} == run_parallel(
        {"first": Task(work, "a"), "second": Task(work, "b")}, checkpoint=tasks
    ).to_dict()
    assert {"a": 2, "b": 1} == calls


def test_coroutines_are_recorded(path):
    """Outcomes of coroutine functions are recorded like any other."""

    async def double(number):
        calls[number] += 1
        return 2 * number

    assert [2, 4] == run([1, 2], path, fn=double).values()
    assert [2, 4] == run([1, 2], path, fn=double).values()
    assert {1: 1, 2: 1} == calls


def test_a_recalled_outcome_takes_no_worker_and_no_token(path):
    """Recorded outcomes come at once despite a limit of one start an hour, and the progress bar counts them."""
    run("abc", path)
    shown = []

    class Screen:
        def write(self, text):
            shown.append(text)

        def flush(self):
            pass

    progress = {"file": Screen(), "disable": False, "mininterval": 0}
    results = run("abcd", path, limits=RateLimit(1, per=3600), progress=progress)
    assert 4 == len(results.values())
    assert "4/4" in "".join(shown)
    outcome = results.outcomes["a"]
    assert ("checkpoint", 0, 0.0) == (outcome.worker, outcome.attempts, outcome.duration)


def test_what_is_recalled_together_is_settled_together(path, monkeypatch):
    """Recorded values are settled in blocks: settling them one by one took most of the time of a resumed run."""
    items = [*map(str, range(500))]
    run_parallel(int, items, key=str, checkpoint=path)
    calls, succeed = [], Ledger.succeed
    monkeypatch.setattr(Ledger, "succeed", lambda self, *block: calls.append(block) or succeed(self, *block))
    assert [*range(500)] == run_parallel(int, items, key=str, checkpoint=path).values()
    assert 1 == len(calls)


def test_what_is_recalled_settles_in_the_order_of_the_input(path):
    """Recorded failures and values come from a stream, and go to ``then``, as their items were read."""
    items, told = ["1", "a", "2", "3", "b", "c", "4"], []
    run_parallel(int, items, key=str, checkpoint=path)
    recorded = Checkpoint(path, rerun_failed=False)
    stream = iter_parallel(
        int, items, key=str, checkpoint=recorded, then=lambda one: told.append(one.key) or ()
    )
    assert items == [outcome.key for outcome in stream] == told


def test_children_are_recorded_and_made_again_of_recorded_parents(path):
    """``then`` is called for parents from the journal, too; their children also come from it."""
    asked = []

    def grow(outcome):
        asked.append(outcome.key)
        return (
            [Task(work, f"{outcome.value[0]}!", key=("child", outcome.key))] if outcome.parent is None else ()
        )

    for _ in range(2):
        results = run("ab", path, then=grow)
        assert {"a": ["a"], "b": ["b"], ("child", "a"): ["a!"], ("child", "b"): ["b!"]} == results.to_dict()
        assert "a" == results.outcomes["child", "a"].parent
    assert {1} == set(calls.values())
    assert 8 == len(asked)


def test_a_child_of_another_function_has_its_own_name(path):
    """Tasks made by ``then`` may call functions other than the run's own."""

    def grow(outcome):
        return [Task(len, outcome.value, key="len")] if outcome.key == "a" else ()

    assert {"a": ["a"], "len": 1} == run("a", path, then=grow).to_dict()
    assert {"a": ["a"], "len": 1} == run("a", path, then=grow).to_dict()
    assert {"a": 1} == calls


def test_a_key_that_comes_again_in_a_stream_is_answered_by_the_journal(path):
    """In a stream, a key that comes again after it was yielded is answered from the journal."""
    stream = iter_parallel(work, iter("aaaa"), key=same, checkpoint=path, buffersize=1)
    assert [["a"]] * 4 == [outcome.unwrap() for outcome in stream]
    assert {"a": 1} == calls


def test_the_same_function_may_have_been_mended(path):
    """A function is identified by module and name: after a bug fix, only failed tasks run again."""

    def broken(item):
        calls[item] += 1
        if item == "b":
            raise ZeroDivisionError
        return item

    def mended(item):
        calls[item] += 1
        return item

    mended.__qualname__ = broken.__qualname__
    with pytest.raises(TaskFailures):
        run("abc", path, fn=broken).values()
    assert ["a", "b", "c"] == run("abc", path, fn=mended).values()
    assert {"a": 1, "b": 2, "c": 1} == calls


# Failures and cancelled tasks


def test_failures_are_tried_again(path):
    """By default, recorded failures run again."""
    assert 2 == len(run("ab", path, fn=fail).failures)
    assert 2 == len(run("ab", path, fn=fail).failures)
    assert {"a": 2, "b": 2} == calls


def test_failures_may_be_kept(path):
    """With rerun_failed=False, a recorded error comes back with its class, text, notes and traceback."""
    run("ab", path, fn=fail, retries=Retry(1, delay=0))
    failure = run("ab", Checkpoint(path, rerun_failed=False), fn=fail).failures["a"]
    assert ValueError is type(failure.error)
    assert "no a" == str(failure.error)
    assert "raise ValueError" in failure.traceback
    assert ["parallelkit: task 'a', attempt 2 of 2"] == failure.error.__notes__
    assert (0, None, "checkpoint") == (failure.attempts, failure.started_at, failure.worker)
    assert {"a": 2, "b": 2} == calls


def test_a_kept_failure_counts_as_a_failure(path):
    """``max_failures`` and ``on_error`` count a recorded failure like any other."""
    run("ab", path, fn=fail)
    keep = Checkpoint(path, rerun_failed=False)
    stopped = run("abcd", keep, fn=fail, max_failures=1, executor="inline").stopped
    assert "max_failures of 1 reached" == stopped
    with pytest.raises(ValueError, match="no a"):
        run("ab", keep, fn=fail, on_error="raise")


@pytest.mark.parametrize("options", [{"max_failures": 2}, {"on_error": "raise"}])
@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_kept_failures_that_are_too_many_start_nothing(path, executor, options):
    """If recorded failures alone reach ``max_failures``, the run stops before any new task starts."""
    run("ab", path, fn=fail)
    calls.clear()
    keep = Checkpoint(path, rerun_failed=False)
    if "on_error" in options:
        with pytest.raises(ValueError, match="no a"):
            run("abcd", keep, fn=fail, executor=executor, **options)
    else:
        results = run("abcd", keep, fn=fail, executor=executor, **options)
        assert "max_failures of 2 reached" == results.stopped
        assert [TaskCancelled] * 2 == [type(results.failures[key].error) for key in "cd"]
    assert {} == calls


def test_an_error_that_refuses_to_be_pickled_keeps_its_class_and_text(path):
    """An error whose ``__reduce__`` raises is recorded all the same."""

    class Odd(Exception):
        def __reduce__(self):
            raise TypeError("not me")

    def odd(item):
        raise Odd("very odd")

    run("a", path, fn=odd)
    error = run("a", Checkpoint(path, rerun_failed=False), fn=odd).failures["a"].error
    assert (Odd, "very odd") == (type(error), str(error))


def test_an_error_of_the_script_is_of_its_present_class(path, monkeypatch):
    """When a script is run again, a recorded error of a class of its own is one of the class that it has now, so ``except`` holds; if that is gone, its text is left."""

    def define():
        made = type("Refused", (Exception,), {"__module__": "__main__"})
        monkeypatch.setattr(sys.modules["__main__"], "Refused", made, raising=False)
        return made

    def refuse(item):
        raise refused(item)

    refused = define()
    run("a", path, fn=refuse)
    later = define()
    error = run("a", Checkpoint(path, rerun_failed=False), fn=refuse).failures["a"].error
    assert (later, ("a",)) == (type(error), error.args)
    monkeypatch.delattr(sys.modules["__main__"], "Refused")
    failure = run("a", Checkpoint(path, rerun_failed=False), fn=refuse).failures["a"]
    assert isinstance(failure.error, RemoteError)
    assert "raise refused(item)" in failure.traceback


def test_a_traceback_is_recorded_once(path):
    """A record has the text of a traceback once; making that is most of what the record of a failure costs."""
    failed = run_parallel(fail, ["a"], key=same, checkpoint=path).failures["a"]
    with contextlib.closing(sqlite3.connect(path)) as journal:
        [(payload,)] = journal.execute("SELECT payload FROM outcomes")
    assert 1 == payload.count(b"Traceback (most recent call last)")
    kept = run_parallel(fail, ["a"], key=same, checkpoint=Checkpoint(path, rerun_failed=False))
    assert failed.traceback == kept.failures["a"].traceback


def test_a_traceback_that_came_as_text_comes_back_as_that_text():
    """The traceback of a failure in a worker process is recorded as it was made there, with the source that it has."""
    lost = Lost(ValueError("no"), 1, 0.0, 0.0, "a worker", "Traceback: as it came\n")
    record = Record("'a'", None, False, _payload.pickle_error(lost))
    assert lost.traceback == _payload.recalled(record).lost.traceback


def test_a_timeout_is_a_failure_and_recorded_as_one(path):
    """A recorded timeout is still a TaskTimeout when it comes back."""

    async def hang(item):
        await asyncio.sleep(3600)

    run("a", path, fn=hang, timeout=0.01)
    failure = run("a", Checkpoint(path, rerun_failed=False), fn=hang).failures["a"]
    assert (TaskTimeout, "checkpoint") == (type(failure.error), failure.worker)


def test_cancelled_tasks_are_not_recorded(path):
    """Tasks that a stopped run has cancelled have no record, so the next run runs them."""

    def maybe(item):
        if item == "b":
            raise ValueError
        return item

    results = run("abcd", path, fn=maybe, executor="inline", max_failures=1)
    assert ["a"] == list(results.successes)
    assert ["'a'", "'b'"] == recorded(path)


# Keys

TELLING = [
    1,
    True,
    1.0,
    "1",
    b"1",
    None,
    "None",
    (1,),
    (True,),
    ("1",),
    ((1,),),
    (),
    "",
    "\x00",
    "\ud800",
    "ü",
    -0.0,
    2**70,
]


def test_keys_that_are_equal_in_a_dict_are_not_one_in_the_journal(path):
    """1, True and 1.0 are different keys, as are any others of another type or value."""
    for key in TELLING:
        assert [key] == run_parallel(work_by_repr, {key: key}, checkpoint=path)[key]
    assert len(TELLING) == len(recorded(path))
    for key in TELLING:
        assert [key] == run_parallel(work_by_repr, {key: key}, checkpoint=path)[key]
    assert [1] * len(TELLING) == [calls[repr(key)] for key in TELLING]


def work_by_repr(item):
    calls[repr(item)] += 1
    return [item]


class Colour(enum.IntEnum):
    RED = 1


class Pair(collections.namedtuple("Pair", "a b")):
    pass


BAD = [
    object(),
    frozenset(),
    Colour.RED,
    Pair(1, 2),
    np.float64(1.0),
    np.str_("a"),
    float("nan"),
    ("a", float("nan")),
    (1, frozenset()),
    10**5000,
]


@pytest.mark.parametrize("key", BAD, ids=lambda key: type(key).__name__)
def test_a_key_that_may_mean_something_else_tomorrow_is_refused(path, key):
    """A key that is not stable between programs is refused, with the rule and its type, before anything runs."""
    with pytest.raises(
        TypeError, match=r"key must be a str, int, float .* at position 0; make a str of it, or a number"
    ):
        run_parallel(work, ["x"], key=lambda item: key, checkpoint=path)
    assert not calls
    assert not path.exists()


def test_tasks_without_a_key_are_refused(path):
    """Tasks without a key are refused at once: a position means nothing in another run."""
    with pytest.raises(
        ValueError, match=r"checkpoint must have a key for every task .* got none at position 0"
    ):
        run_parallel(work, ["x"], checkpoint=path)
    for form in (run_parallel, iter_parallel):
        with pytest.raises(ValueError, match="got none at position 1"):
            form([Task(work, "x", key="x"), Task(work, "y")], checkpoint=path)
    with pytest.raises(TypeError, match="got frozenset"):
        run_parallel({frozenset(): Task(work, "x")}, checkpoint=path)
    assert not calls


def test_keys_of_lazy_input_are_refused_as_they_are_read(path):
    """A bad key in lazy input is refused when it is read; earlier items are run and recorded."""
    with pytest.raises(InputError, match="key must be a str") as caught:
        run_parallel(work, iter(["a", object()]), key=same, checkpoint=path)
    assert {"a": ["a"]} == caught.value.results.to_dict()
    with pytest.raises(InputError, match="got none at position 0"):
        run_parallel(iter([work]), checkpoint=path.with_name("other"))
    assert ["'a'"] == recorded(path)


def test_a_child_without_a_key_ends_the_input(path):
    """A child without a key ends the input: another run could not find it."""
    with pytest.raises(InputError, match="then raised ValueError for 'a': checkpoint must have a key"):
        run("a", path, then=lambda outcome: [Task(work, "child")])


# Whose journal it is


def test_another_function_is_refused(path):
    """A journal of another function is refused by name before anything runs; for a stream, at the call."""
    run("a", path)
    name = rf"{__name__}:work, this run of {__name__}:fail"
    with pytest.raises(ValueError, match=rf"run\.journal: it is of {name}"):
        run("a", path, fn=fail)
    with pytest.raises(ValueError, match=name):
        iter_parallel(fail, ["a"], key=same, checkpoint=path)
    with pytest.raises(ValueError, match="this run of several functions"):
        run_parallel({"a": work}, checkpoint=path)
    assert {"a": 1} == calls


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (work, len, "it is of the journal's function, this task of builtins:len; use another file"),
        (len, work, "it is of builtins:len, this task of the journal's function; use another file"),
    ],
)
def test_a_child_of_another_function_is_refused(path, before, now, told):
    """A child is known by its function, which may be that of the run, whose name every record would repeat."""
    run("a", path, then=lambda outcome: [] if outcome.key == "b" else [Task(before, "b", key="b")])
    with pytest.raises(InputError, match=f"key 'b': {told}"):
        run("a", path, then=lambda outcome: [] if outcome.key == "b" else [Task(now, "b", key="b")])


def test_another_function_under_the_same_key_is_refused(path):
    """In a run of tasks, a key recorded with another function is refused: at once if all tasks are known, otherwise when it is read."""
    run_parallel({"a": Task(work, "a"), "b": Task(len, "b"), "c": Task(fail, "c")}, checkpoint=path)
    for form in (iter_parallel, run_parallel):
        with pytest.raises(
            ValueError, match=rf"key 'a': it is of {__name__}:work, this task of {__name__}:fail"
        ):
            form({"a": Task(fail, "a")}, checkpoint=path)
    for other in (
        Task(fail, "a", key="a"),
        Task(work, "c", key="c"),
    ):  # the latter failed, and would run again
        with pytest.raises(InputError, match=f"key '{other.key}': it is of") as caught:
            run_parallel(iter([Task(len, "b", key="b"), other]), checkpoint=path)
        assert {"b": 1} == caught.value.results.successes
    assert {"a": 1, "c": 1} == calls


def test_a_partial_is_known_by_its_function(path):
    """A partial is identified by its function, a method by its class, a callable object by its type."""

    class Worker:
        def method(self, item):
            calls[item] += 1
            return item

        __call__ = method

    run("a", path, fn=functools.partial(work))
    assert [["a"]] == run("a", path, fn=work).values()
    other = path.with_name("method")
    run("a", other, fn=Worker().method)
    run("a", other, fn=Worker().method)
    third = path.with_name("object")
    run("a", third, fn=Worker())
    run("a", third, fn=Worker())
    assert {"a": 3} == calls


def test_two_runs_at_once_are_refused(path):
    """While a run uses a journal, a second one of the same process is refused, whatever path it uses."""
    link = path.with_name("link")
    link.symlink_to(path)
    stream = iter_parallel(work, ["a", "b", "c"], key=same, checkpoint=path, buffersize=1)
    assert next(stream).ok
    for name in (path, link, os.path.relpath(path)):
        with pytest.raises(
            ValueError, match=f"must not be in use by another run, .*used by process {os.getpid()}"
        ):
            run("a", name)
    stream.close()
    assert [["a"]] == run("a", link).values()


def test_a_stream_takes_its_journal_when_it_begins(path):
    """A stream does not touch its journal before the first ``next``."""
    stream = iter_parallel(work, ["a"], key=same, checkpoint=path)
    assert not path.exists()
    run("b", path)
    assert [["a"]] == [outcome.value for outcome in stream]


HOLDER = """
import sys, time
from parallelkit import iter_parallel
stream = iter_parallel(str, range(10), key=int, checkpoint=sys.argv[1], buffersize=1)
next(stream)
print("on", flush=True)
time.sleep(60)
"""


def test_a_stream_checks_the_records_once(path):
    """The records of a journal, of which there may be millions, are checked at a stream's first ``next()``, not at its call."""
    run("ab", path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as journal:
        journal.execute("UPDATE outcomes SET crc = 0 WHERE key = ?", ("'b'",))
    stream = iter_parallel(work, ["a"], key=same, checkpoint=path)
    with pytest.raises(ValueError, match="the record of 'b' is not as it was written"):
        next(stream)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM journal WHERE name = 'batches'", "it does not say whose it is"),
        ("DELETE FROM journal WHERE name = 'function'", "it does not say whose it is"),
        ("UPDATE outcomes SET payload = 'text'", "something wrong with the record of"),
        ("UPDATE outcomes SET key = x'61' WHERE key LIKE '%b%'", "something wrong"),
        ("PRAGMA journal_mode = DELETE", "its file system cannot share memory"),
    ],
)
def test_a_journal_that_somebody_has_changed_is_refused(path, statement, told):
    """What SQLite may find in order, but is not as we have written it, is told as a damage."""
    run("ab", path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as journal:
        journal.execute(statement)
    with pytest.raises(ValueError, match=f"must be a whole journal of parallelkit, got .*{told}"):
        run("ab", path)


@pytest.mark.parametrize(
    ("at", "by", "told"),
    [(8, [2, 3, 0, 1], "something wrong with the record of"), (4, [0, 1, 3, 3], "database main")],
    ids=["records out of order", "what quick_check finds"],
)
def test_a_page_that_is_not_in_order_is_a_damage(path, at, by, told):
    """Where the b-tree of the records is damaged, but not the records themselves, a search might not find them."""
    run("ab", path)
    data = bytearray(path.read_bytes())
    place = len(data) - 4096 + at  # in the head of the last page: the pointers to its cells are at 8
    data[place : place + 4] = [data[place + each] for each in by]
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"must be a whole journal of parallelkit, got .*{told}"):
        run("ab", path)


def test_a_run_that_has_just_begun_is_named_though_its_number_is_not_known(path, monkeypatch):
    """The error is a whole sentence even if the other run has locked its file, and not written its pid yet."""

    def locked(*given):
        raise BlockingIOError

    monkeypatch.setattr(fcntl, "lockf", locked)
    with pytest.raises(ValueError, match=r"in use by another run, got .*, used by another process$"):
        run("a", path)


def test_a_lock_that_somebody_has_deleted_is_no_failure(path):
    """A run whose ``-run`` file is deleted meanwhile ends as usual."""
    stream = iter_parallel(work, [1, 2], key=same, checkpoint=path, executor="inline")
    next(stream)
    os.unlink(f"{path}-run")
    assert [2] == [outcome.key for outcome in stream]
    assert ["1", "2"] == sorted(recorded(path))


def test_the_lock_vanishes_with_its_holder(path):
    """A second process is refused while the first runs, and admitted after the first was killed."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE)
    try:
        assert b"on\n" == holder.stdout.readline()
        with pytest.raises(ValueError, match=f"used by process {holder.pid}"):
            run_parallel(str, range(3), key=int, checkpoint=path)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert ["0", "1", "2"] == run_parallel(str, range(3), key=int, checkpoint=path).values()


def test_what_a_signal_handler_raises_is_not_taken_for_a_bad_key():
    """It comes out as it is, also while a key is looked at."""
    told = []

    def give_up(number, frame):
        raise LookupError("told to end")

    class Signalling(tuple):
        def __repr__(self):
            if not told:
                told.append(True)
                signal.raise_signal(signal.SIGUSR1)
            return "a key"

    former = signal.signal(signal.SIGUSR1, give_up)
    try:
        with pytest.raises(LookupError, match="told to end"):
            run_parallel(str, [1], key=lambda _: Signalling(), checkpoint="never-made")
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_a_signal_handler_that_raises_leaves_the_journal_to_the_next_run(path):
    """At whatever moment of taking its lock: nothing stays open, and this process can take it again."""

    def strike(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename == _lock.__file__ and event in ("call", "c_return"):
            left -= 1
            if left == 0:
                raise LookupError("told to end")  # and Python takes this function off

    before, former, struck = look(), sys.getprofile(), 0
    for moment in range(1, 200):
        left = moment
        sys.setprofile(strike)
        try:
            lock = JournalLock(os.fspath(path)).take()
        except LookupError:
            struck += 1
        else:
            sys.setprofile(former)
            break
        finally:
            sys.setprofile(former)
        assert [] == leaks(before, look(), 0), moment
    lock.release(in_order=True)
    assert struck > 20


@pytest.mark.parametrize(
    "step",
    ["_file.Journal.close", "_file.Journal._close", "_lock.JournalLock.release", "_recorder.close_whole"],
)
def test_a_signal_handler_that_raises_as_a_journal_is_closed_leaves_it_to_the_next_run(
    step, path, monkeypatch
):
    """What it raises comes out, and the program can go on with the journal: it was in use until the program's end."""
    *place, name = f"parallelkit._journal.{step}".split(".")
    taken, calls = pkgutil.resolve_name(".".join(place)), []
    take = getattr(taken, name)

    def struck(*args, **options):
        calls.append(args)
        if len(calls) == 1:
            raise LookupError("told to end")
        return take(*args, **options)

    monkeypatch.setattr(taken, name, struck)
    with pytest.raises(LookupError, match="told to end"):
        run_parallel(str, [1], key=int, checkpoint=path)
    assert ["1", "2"] == run_parallel(str, [1, 2], key=int, checkpoint=path).values()


@pytest.mark.all
def test_a_signal_handler_that_raises_at_any_moment_leaves_the_journal_to_the_next_run(path):
    """As a run opens, checks and closes it; also while what was raised is still being handled."""
    ours = _lock.__file__, _file.__file__, _recorder.__file__

    def strike(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename in ours and event in ("call", "c_return"):
            left -= 1
            if left == 0:
                raise LookupError("told to end")  # and Python takes this function off

    def run():
        return run_parallel(str, [1], key=int, checkpoint=path).values()

    before, former, struck = look(), sys.getprofile(), 0
    for moment in range(1, 2_000):
        left = moment
        sys.setprofile(strike)
        try:
            run()
        except LookupError:
            sys.setprofile(former)
            struck += 1
            assert ["1"] == run(), moment
        finally:
            sys.setprofile(former)
        if left > 0:
            break
    assert struck > 100
    assert [] == leaks(before, look(), 0)


def test_a_lock_is_given_up_only_when_its_file_is_closed(path, monkeypatch):
    """A lock is released only after its file is closed, because the close frees all locks of the process on that file."""
    held, close = JournalLock(os.fspath(path)).take(), os.close

    def close_late(fd):
        with pytest.raises(ValueError, match="in use by another run"):
            JournalLock(os.fspath(path)).take()
        close(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", close_late)
        held.release(in_order=True)
    JournalLock(os.fspath(path)).take().release(in_order=True)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, LookupError])
def test_the_first_exception_of_a_signal_does_not_keep_what_is_done_from_being_written(kind):
    """Ctrl-C, or what another handler raises, comes out once the writer has been closed after all."""
    calls = []

    def close():
        calls.append("close")
        if len(calls) == 1:
            raise kind

    with pytest.raises(kind):
        close_whole(SimpleNamespace(close=close))
    assert ["close", "close"] == calls


def test_a_journal_is_not_closed_while_another_thread_writes(path, monkeypatch):
    """As after a second Ctrl-C, when nobody waits for that thread any longer: Python crashed at times."""
    begun, go_on, write = threading.Event(), threading.Event(), Journal._write

    def write_late(journal, records):
        begun.set()
        assert go_on.wait(20)
        write(journal, records)

    monkeypatch.setattr(Journal, "_write", write_late)
    journal, record = Journal(os.fspath(path), "f").open(), Record("1", None, True, b"one")
    writing = threading.Thread(target=journal.write, args=([record],))
    closing_it = threading.Thread(target=journal.close)
    writing.start()
    assert begun.wait(20)
    closing_it.start()
    closing_it.join(0.02)
    assert closing_it.is_alive()
    go_on.set()
    writing.join()
    closing_it.join()
    with pytest.raises(InterruptedError):
        journal.write([record])
    with closing(Journal(os.fspath(path), "f").open()) as again:
        assert [record] == list(again.find(["1"]))


FORKED = """
import os, signal, sys
from parallelkit import iter_parallel, run_parallel
path, tried, over = sys.argv[1], os.pipe(), os.pipe()

def say(call):
    try:
        print(call(), flush=True)
    except (RuntimeError, ValueError) as error:
        print(error, flush=True)

stream = iter_parallel(abs, range(3), key=str, checkpoint=path)
next(stream)
child = os.fork()
if child == 0:
    signal.alarm(20)
    say(lambda: next(stream))
    say(lambda: run_parallel(abs, range(3), key=str, checkpoint=path))
    os.write(tried[1], b"x")
    os.read(over[0], 1)
    say(lambda: run_parallel(abs, range(3), key=str, checkpoint=path).summary.attempts)
    os._exit(0)
os.close(tried[1])
os.read(tried[0], 1)
print(os.getpid(), len(list(stream)), flush=True)
os.write(over[1], b"x")
print(os.waitpid(child, 0)[1])
"""


def test_a_fork_leaves_the_journal_to_its_parent(path):
    """A forked child cannot continue its copy of a stream; it can use the journal once the parent no longer does."""
    forked = subprocess.run(
        [sys.executable, "-c", FORKED, path], capture_output=True, text=True, check=False, timeout=50
    )
    refused, in_use, parent, attempts, status = forked.stdout.splitlines()
    pid, rest = parent.split()
    assert "not to a fork" in refused
    assert in_use.endswith(f"used by process {pid}")
    assert ("2", "0", "0") == (rest, attempts, status)


def test_the_lock_of_a_file_that_was_taken_away_does_not_count(path, monkeypatch):
    """If the file is deleted between open and lock, a new file is locked: otherwise a third process could lock that one."""
    lock, locked = fcntl.lockf, []

    def lock_late(fd, how):
        if not locked:
            os.unlink(f"{path}-run")
        lock(fd, how)
        locked.append(fd)

    monkeypatch.setattr(fcntl, "lockf", lock_late)
    held = JournalLock(os.fspath(path)).take()
    next_one = (
        "import sys; from parallelkit._journal._lock import JournalLock; JournalLock(sys.argv[1]).take()"
    )
    done = subprocess.run([sys.executable, "-c", next_one, path], capture_output=True, text=True, check=False)
    held.release(in_order=True)
    assert f"used by process {os.getpid()}" in done.stderr
    assert 2 == len(locked)
    assert not os.listdir(path.parent)


# Damage


def test_a_file_that_is_no_journal_is_refused_and_left_alone(path):
    """A file that is not a journal (text, empty, another database, a folder) is refused by name and left unchanged."""
    path.write_text("dear diary " * 1000)
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"must be a whole journal of parallelkit, got .*run\.journal: file is not"
    ):
        run("a", path)
    assert before == path.read_bytes()

    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"run\.journal: it is something else, or empty"):
        run("a", path)

    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE diary (dear TEXT)")
    connection.close()
    with pytest.raises(ValueError, match=r"run\.journal: it is something else"):
        run("a", path)

    folder, link = path.parent / "folder", path.parent / "link"
    folder.mkdir()
    link.symlink_to(folder)
    before = sorted(os.listdir(path.parent))
    for name in (folder, f"{folder}/", link):
        with pytest.raises(
            ValueError, match=r"must be a file, got .*: it is a folder; .*/folder/run\.journal$"
        ):
            run("a", name)
    assert before == sorted(os.listdir(path.parent))
    assert not calls


def test_a_journal_that_has_no_place_is_refused_by_its_own_name(path, monkeypatch):
    """A journal whose folder is missing or not writable is refused by its path; a stream says so at its call."""
    nowhere = path.parent / "nowhere" / "run.journal"
    with pytest.raises(ValueError, match=r"folder that exists, got .+/run\.journal: there is no .+/nowhere$"):
        run("a", nowhere)
    with pytest.raises(ValueError, match="folder that exists"):
        iter_parallel(abs, [1], key=str, checkpoint=nowhere)
    with (
        monkeypatch.context() as patch,
        pytest.raises(ValueError, match=r"can make files, .* is not writable"),
    ):
        patch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)  # modes do not stop root
        iter_parallel(abs, [1], key=str, checkpoint=path)
    (path.parent / "run.journal-run").mkdir()
    with pytest.raises(ValueError, match=r"can make files, got .+/run\.journal: Is a directory"):
        run("a", path)
    monkeypatch.setattr(os, "getcwd", lambda: os.stat(nowhere))  # the current folder was removed
    with pytest.raises(
        ValueError, match=r"folder that exists, got run\.journal: the current folder was removed"
    ):
        run("a", "run.journal")


@pytest.mark.parametrize("missing", [os.R_OK, os.W_OK])
def test_a_journal_that_may_not_be_read_or_written_is_refused_before_the_run(path, monkeypatch, missing):
    """A journal whose mode forbids its use is refused before a task runs, and no file is made beside it."""
    run("a", path)
    monkeypatch.setattr(os, "access", lambda place, mode: not mode & missing)  # modes do not stop root
    with pytest.raises(ValueError, match=r"can read and write, got .*run\.journal: Permission denied$"):
        run("ab", path)
    assert ["run.journal"] == os.listdir(path.parent)
    assert {"a": 1} == calls


def test_a_journal_that_another_program_has_locked_is_not_called_damaged(path, monkeypatch):
    """If SQLite cannot get at a file that is whole, the error says why, and does not speak of damage."""
    run("a", path)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("UPDATE journal SET value = value")
        with pytest.raises(
            ValueError, match=r"can read and write, got .*run\.journal: .* locked \(SQLITE_BUSY\)"
        ):
            run("ab", path)
    assert [["a"], ["b"]] == run("ab", path).values()


def test_a_journal_of_a_later_version_is_refused(path):
    """A journal of a later version is refused, because it may mean something unknown to this one."""
    run("a", path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(ValueError, match=r"run\.journal: it is of another version"):
        run("a", path)


def fill(path, number=60):
    """Make a journal of several pages, with values of very different sizes."""
    return run_parallel(blob, range(number), key=same, checkpoint=path).to_dict()


def blob(number):
    calls[number] += 1
    return bytes([number]) * (number**2 if number % 7 else 3 * number**2)


@pytest.mark.all
def test_a_journal_of_which_a_byte_was_changed_gives_an_error_or_the_truth(path, tmp_path):
    """Whichever byte is changed, a journal is refused or gives the right values: never another value, and no task runs again."""
    truth = fill(path)
    whole = path.read_bytes()
    calls.clear()
    refused = [
        error
        for position in range(0, len(whole), len(whole) // 400)
        if (error := refusal(path, with_bit_flipped(whole, position), truth)) is not None
    ]
    assert len(refused) > 100
    assert all("run.journal" in str(error) for error in refused)
    assert not calls


def with_bit_flipped(content, position):
    changed = bytearray(content)
    changed[position] ^= 0x10
    return changed


def refusal(path, content, truth):
    """The error with which a journal is refused, or None; then its values must be right."""
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        values = fill(path)
    except ValueError as error:
        return error
    assert truth == values
    return None


def test_a_journal_that_was_cut_short_is_refused(path):
    """A truncated journal is refused, wherever it was cut, because something is missing."""
    fill(path)
    whole = path.read_bytes()
    for length in (len(whole) - 4096, len(whole) - 2000, 4096, 100, 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"run\.journal"):
            fill(path)


KILLED = """
import os, signal, sqlite3, sys, time
from parallelkit import iter_parallel
path = sys.argv[1]

def items():
    yield from range(1500)
    journal = sqlite3.connect(path)
    look = "SELECT count(*), (SELECT value FROM journal WHERE name = 'batches') FROM outcomes"
    while journal.execute(look).fetchone() != (1500, int(open(path + "-run").read().split()[2])):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

for outcome in iter_parallel(str, items(), key=int, checkpoint=path):
    pass
"""


@pytest.fixture(scope="module")
def folder_of_killed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, "-c", KILLED, folder / "run.journal"], check=False, timeout=50)
    return folder


@pytest.fixture
def killed(path, folder_of_killed):
    """A journal whose run was killed, so that most of it is in the write-ahead log."""
    shutil.copytree(folder_of_killed, path.parent, dirs_exist_ok=True)
    assert Path(f"{path}-wal").stat().st_size > 50_000
    return path


def resume(path):
    return run_parallel(str, range(2000), key=int, checkpoint=path)


def test_after_a_kill_the_rest_is_run(killed):
    """After a kill, what was committed counts; after the next run only the journal file is left."""
    attempts = [outcome.attempts for outcome in resume(killed).outcomes.values()]
    assert 1500 == attempts.count(0)
    assert ["run.journal"] == os.listdir(killed.parent)


def test_a_record_is_written_while_the_run_goes_on(path):
    """A finished task is soon in the journal, though no other finishes until then: a kill costs no more than 100 ms of work."""

    def begin(before):
        deadline = time.monotonic() + 10
        while before and f"'{before}'" not in recorded(path):
            assert time.monotonic() < deadline, f"{before} is not recorded"
            time.sleep(0.01)

    chain = {"a": "", "b": "a", "c": "b", "d": "c"}
    run_parallel(begin, chain, checkpoint=path, max_workers=4).raise_failures()


def damage_log(log):
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 0xFF
    log.write_bytes(content)


@pytest.mark.parametrize(
    "hurt",
    [
        damage_log,
        Path.unlink,
        lambda log: os.truncate(log, log.stat().st_size // 2),
        lambda log: os.truncate(log, 0),
    ],
    ids=["changed", "gone", "cut short", "emptied"],
)
def test_a_damaged_log_is_no_silent_loss(killed, hurt):
    """SQLite skips a damaged write-ahead log, but our count shows that batches are missing; a second try does not hide it."""
    hurt(Path(f"{killed}-wal"))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"run\.journal: the last of \d+ batches are missing"):
            resume(killed)


def test_a_log_that_outlives_its_run_is_no_silent_loss(path):
    """If another connection makes SQLite keep the log after the run, the count is kept, too, and shows a damage."""
    stream = iter_parallel(str, range(9), key=int, checkpoint=path)
    next(stream)
    with contextlib.closing(sqlite3.connect(path)) as onlooker:
        onlooker.execute("SELECT * FROM outcomes").fetchone()
        assert 8 == len([*stream])
        kept = shutil.copytree(path.parent, path.parent / "kept")
    damage_log(kept / "run.journal-wal")
    with pytest.raises(ValueError, match=r"run\.journal: the last of \d+ batches are missing"):
        resume(kept / "run.journal")


@pytest.mark.parametrize(
    "gone", [[""], ["", "-run"], ["", "-wal"]], ids=lambda gone: "".join(gone) or "alone"
)
def test_a_journal_that_is_gone_while_its_log_is_there_is_no_silent_loss(killed, gone):
    """If the journal is gone but its log or count is there, no new journal is made; the error says what to delete first."""
    for end in gone:
        Path(f"{killed}{end}").unlink()
    with pytest.raises(ValueError, match=r"to start anew, delete .*-wal, .*-shm, .*-run"):
        resume(killed)
    assert not killed.exists()
    for end in ("-wal", "-shm", "-run"):
        Path(f"{killed}{end}").unlink(missing_ok=True)
    assert 2000 == len(resume(killed).values())


@pytest.mark.parametrize("known", [True, False])
def test_after_a_power_failure_the_count_is_not_compared(killed, monkeypatch, known):
    """After a reboot, or where none is noticed, the count is not checked: what had not reached the disk runs again."""
    side = Path(f"{killed}-run")
    _, boot, _ = side.read_text().split()
    if not known:  # as on macOS
        monkeypatch.setattr(_lock, "boot_id", lambda: _lock.UNKNOWN)
    side.write_text(side.read_text().replace(boot, boot[::-1] if known else _lock.UNKNOWN))
    Path(f"{killed}-wal").unlink()
    assert 2000 == len(resume(killed).values())
    assert not side.exists()


def test_a_journal_that_was_killed_on_several_systems_is_resumed(killed, monkeypatch):
    """A system without boot ids writes a shorter line over that of a killed run; what follows it is no reason to refuse."""
    with monkeypatch.context() as elsewhere:  # a container without /proc, say, in a folder of the machine's
        elsewhere.setattr(_lock, "boot_id", lambda: _lock.UNKNOWN)
        _lock.JournalLock(str(killed)).take().release(in_order=False)
    assert 2 == len(Path(f"{killed}-run").read_text().splitlines())
    assert 2000 == len(resume(killed).values())


def test_a_run_that_was_killed_while_it_made_its_journal_does_no_harm(path):
    """A draft of a journal that a killed run has left is replaced."""
    draft = path.with_name("run.journal-new")
    Journal(str(path), "f").open().close()
    with contextlib.closing(sqlite3.connect(draft)) as half:
        half.execute(f"PRAGMA application_id = {APPLICATION}")
    whole, blank = path.read_bytes(), bytes(4096)
    # Blank or missing: pages of which a power failure has kept none or some from the disk.
    torn = (blank, whole[:4096], whole[:8192] + blank, whole[:4096] + blank + whole[8192:])
    for content in (whole, draft.read_bytes(), b"", *torn):
        path.unlink(missing_ok=True)
        calls.clear()
        draft.write_bytes(content)
        path.with_name("run.journal-run").write_bytes(bytes(60) if content else b"")
        assert [["a"]] == run("a", path).values()
        assert ["run.journal"] == os.listdir(path.parent)


@pytest.mark.parametrize("end", ["-run", "-new"])
def test_a_file_of_the_users_beside_the_journal_is_left_alone(path, end):
    """A file that happens to have one of the names a journal needs is neither overwritten nor deleted: the run is refused."""
    theirs = path.with_name(f"run.journal{end}")
    theirs.write_text("took about 12")
    with pytest.raises(
        ValueError, match=rf"leave the names beside it free, got .*: .*{end} is something else"
    ):
        run("a", path)
    assert "took about 12" == theirs.read_text()
    assert [theirs.name] == os.listdir(path.parent)


def test_a_journal_or_database_of_the_users_beside_the_journal_is_left_alone(path):
    """What is named as a draft would be is not deleted: a journal, be it in use or not, or another database."""
    theirs = path.with_name("run.journal-new")

    def is_refused():
        with pytest.raises(ValueError, match="-new is something else"):
            run("c", path)

    with contextlib.closing(iter_parallel(work, ["a", "b"], key=same, checkpoint=theirs)) as stream:
        next(stream)
        is_refused()
    is_refused()
    assert recorded(theirs)
    theirs.unlink()
    with contextlib.closing(sqlite3.connect(theirs)) as database:
        database.execute("CREATE TABLE mine (name)")
    is_refused()
    theirs.unlink()
    run("ab", theirs)
    damaged = bytearray(theirs.read_bytes())
    damaged[100] = 0  # the kind of the first page
    theirs.write_bytes(damaged)
    is_refused()
    assert [theirs.name] == os.listdir(path.parent)
    assert "c" not in calls


@pytest.mark.all
@pytest.mark.skipif(shutil.which("strace") is None, reason="without strace nobody sees the waits")
def test_a_new_journal_waits_for_the_disk_once(tmp_path):
    """A journal is made with one wait for the disk, not one for each of SQLite's steps, and then the records are written with a few."""
    trace, path = tmp_path / "trace", tmp_path / "journal"
    program = f"import parallelkit; parallelkit.run_parallel(abs, [1], key=str, checkpoint={str(path)!r})"
    command = [
        "strace",
        "-f",
        "-e",
        "trace=fsync,fdatasync,rename",
        "-o",
        trace,
        sys.executable,
        "-c",
        program,
    ]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("nothing may be traced here")
    before, _, after = trace.read_text().partition("rename(")
    assert (1, True) == (before.count("sync("), after.count("sync(") <= 4)


def test_a_journal_that_cannot_be_made_leaves_no_draft(path, monkeypatch):
    """If the disk is full when a journal is created, the error says so, and no file is left."""
    with monkeypatch.context() as patch:
        patch.setattr("parallelkit._journal._file.SCHEMA", f"PRAGMA max_page_count = 1; {SCHEMA}")
        with pytest.raises(
            ValueError, match=r"^checkpoint .+ can make files, got .+/run\.journal: .+ is full"
        ):
            run("a", path)
    assert not os.listdir(path.parent)
    assert [["a"]] == run("a", path).values()


def test_ctrl_c_while_a_journal_is_made_leaves_no_draft(path, monkeypatch):
    """Ctrl-C while a journal is created is raised at once, leaves no file, and the next run creates it."""

    def pressed(source, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.rename", pressed)
        [*iter_parallel(abs, [1], key=str, checkpoint=path)]
    assert not os.listdir(path.parent)
    assert [["a"]] == run("a", path).values()


def test_a_journal_that_cannot_be_read_any_more_ends_the_input(path, monkeypatch):
    """If the disk fails as a later task is looked up, what was done is not lost: it comes with the error."""
    find, asked = Journal.find, []

    def find_at_first(self, keys):
        asked.extend(keys)
        if len(asked) > 10:
            raise ValueError("database disk image is malformed")
        return find(self, keys)

    monkeypatch.setattr(Journal, "find", find_at_first)
    with pytest.raises(InputError, match="malformed") as raised:
        run_parallel(work, iter("abcdefghijkl"), key=same, checkpoint=path, max_workers=1, buffersize=1)
    assert [*"abcdefghij"] == [*raised.value.results.successes]


def test_a_journal_that_is_deleted_stops_its_run(path):
    """SQLite would go on writing to a deleted file, and the run end as if all were recorded."""

    def delete(item):
        path.unlink(missing_ok=True)
        time.sleep(0.01)

    results = run_parallel(delete, range(100), key=same, max_workers=1, checkpoint=path)
    assert "run.journal could not be written: FileNotFoundError" in results.stopped
    assert len(results.failures) > 50


def test_if_writing_fails_the_run_stops_and_says_why(path, monkeypatch, caplog):
    """If the disk is full, the run stops; the results have what was done, and the rest is cancelled."""

    def full(self, records):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Journal, "write", full)
    wait = threading.Event()
    results = run_parallel(
        lambda item: item and wait.wait(0.1), range(100), key=same, max_workers=1, checkpoint=path
    )
    assert "run.journal could not be written: OperationalError: database or disk is full" in results.stopped
    assert 0 == results[0]
    assert len(results.failures) > 50
    assert "database or disk is full" in caplog.text


def test_if_only_the_last_batch_fails_the_results_say_so(path, monkeypatch):
    """If only the last write fails, when nothing is left to stop, the results still say so."""

    def full(self, records):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Journal, "write", full)
    results = run("a", path)
    assert [["a"]] == results.values()
    assert "database or disk is full" in results.stopped


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_a_stream_whose_journal_cannot_be_written_raises_at_its_end(path, monkeypatch, executor):
    """A stream raises the write error after it has yielded every outcome, even if only the last batch fails."""
    break_writing(monkeypatch)
    stream, seen = iter_parallel(same, ["a", "b"], key=same, executor=executor, checkpoint=path), []
    with pytest.raises(
        ParallelKitError, match=r"run\.journal could not be written: OperationalError"
    ) as caught:
        seen.extend(outcome.key for outcome in stream)
    assert ["a", "b"] == sorted(seen)
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert [] == list(stream)


def test_a_stream_that_is_closed_raises_it_then(path, monkeypatch):
    """A stream that is closed early raises the write error at the close."""
    break_writing(monkeypatch)
    stream = iter_parallel(same, ["a", "b", "c"], key=same, executor="inline", checkpoint=path)
    next(stream)
    with pytest.raises(ParallelKitError, match="could not be written"):
        stream.close()


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_a_race_is_won_though_its_journal_cannot_be_written(path, monkeypatch, caplog, executor):
    """A race returns its winner despite a write error, which is logged."""
    break_writing(monkeypatch)
    won = first_success({"lost": lambda: 1 / 0, "won": lambda: 7}, executor=executor, checkpoint=path)
    assert ("won", 7) == (won.key, won.value)
    assert "run.journal could not be written: OperationalError: database or disk is full" in caplog.text


def test_a_race_that_nobody_wins_raises_what_is_wrong_with_its_journal(path, monkeypatch):
    """A race without a winner raises the write error: there is no result that the error could cost."""
    break_writing(monkeypatch)
    with pytest.raises(ParallelKitError, match="could not be written"):
        first_success({"lost": lambda: 1 / 0}, executor="inline", checkpoint=path)


def add_up(items, path, fn=same, **options):
    """Run a fold with a journal."""
    return map_reduce(fn, items, add, initial="", key=same, checkpoint=path, **options)


@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_a_fold_is_given_back_though_its_last_batch_cannot_be_written(path, monkeypatch, caplog, executor):
    """A complete fold is returned although its last batch cannot be written, which is logged."""
    break_writing(monkeypatch)
    monkeypatch.setattr(journal_writer, "GATHER", 5)  # so that it writes when all is done
    assert "abc" == add_up(list("abc"), path, executor=executor, order="input")
    assert "run.journal could not be written: OperationalError: database or disk is full" in caplog.text


def test_a_fold_whose_parts_failed_says_so_though_its_journal_cannot_be_written(path, monkeypatch):
    """If tasks of a fold failed, TaskFailures is raised, and not the write error, which matters less."""
    break_writing(monkeypatch)
    monkeypatch.setattr(journal_writer, "GATHER", 5)
    with pytest.raises(TaskFailures) as caught:
        add_up(list("abc"), path, lambda item: item if item == "a" else 1 / 0, executor="inline")
    assert ["b", "c"] == list(caught.value.results.failures)


@pytest.mark.parametrize("items", [list, iter], ids=["sized", "unsized"])
def test_a_fold_that_was_stopped_by_its_journal_is_none(path, monkeypatch, items):
    """A fold that a write error has stopped raises it, because its value would lack the missing parts."""
    told, fail = threading.Event(), Recording._fail

    def fail_and_tell(recording, error):
        fail(recording, error)
        told.set()

    break_writing(monkeypatch)
    monkeypatch.setattr(Recording, "_fail", fail_and_tell)
    with pytest.raises(ParallelKitError, match="could not be written"):
        add_up(
            items("abcdef"),
            path,
            lambda item: item if item == "a" else item * told.wait(20),
            max_workers=1,
            buffersize=2,
        )


def test_an_error_that_ends_the_stream_is_told_of_the_journal(path, monkeypatch):
    """An error that ends a stream takes precedence over the write error, which is added as a note."""

    def items():
        yield "a"
        raise LookupError("gone")

    break_writing(monkeypatch)
    with pytest.raises(InputError) as caught:
        list(iter_parallel(same, items(), key=same, executor="inline", checkpoint=path))
    assert "could not be written" in caught.value.__notes__[0]


def break_writing(monkeypatch):
    def full(self, records):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Journal, "write", full)


@pytest.mark.parametrize(
    ("bound", "most_waiting"), [("MOST_ENTRIES", 20), ("MOST_BYTES", 20 * len(pickle.dumps([1], 5)))]
)
def test_the_run_waits_for_a_slow_disk(path, monkeypatch, bound, most_waiting):
    """With a slow disk, the run waits once a limited number of records, or bytes of them, wait in memory."""
    most, original = [], Journal.write

    def slow(self, records):
        most.append(len(records))
        original(self, records)

    monkeypatch.setattr(Journal, "write", slow)
    monkeypatch.setattr(journal_writer, bound, most_waiting)
    monkeypatch.setattr(journal_writer, "GATHER", 5)
    assert 250 == len(run(range(250), path, executor="inline").values())
    assert 21 == max(most)


@pytest.mark.parametrize("bound", ["MOST_ENTRIES", "MOST_BYTES"])
def test_a_disk_that_is_full_while_the_run_waits_for_it_ends_the_wait(monkeypatch, bound):
    """If writing fails while the run waits for the disk, the run goes on, so that it can stop and say why."""

    class FullDisk:
        def write(self, records):
            writing.set()
            while not writer._is_full():  # and then the run waits
                time.sleep(0.001)
            raise OSError("No space left on device")

    def put_many():
        for number in range(9):
            writer.put([Record(str(number), None, True, b"1")])
            writing.wait()

    monkeypatch.setattr(journal_writer, bound, 2)
    failures, writing = [], threading.Event()
    writer = journal_writer.JournalWriter(FullDisk(), failures.append)
    putting = threading.Thread(target=put_many, daemon=True)
    putting.start()
    putting.join(10)
    assert not putting.is_alive()
    writer.close()
    assert 1 == len(failures)


# Ctrl-C


class Pressed:
    """A value during whose pickling, which hangs, Ctrl-C comes."""

    def __reduce__(self):
        signal.raise_signal(signal.SIGINT)
        threading.Event().wait(30)
        return Pressed, ()


@pytest.mark.parametrize("executor", ["inline", "threads"])
def test_ctrl_c_while_a_value_is_pickled_costs_its_record_and_no_outcome(path, caplog, executor):
    """A value whose pickling Ctrl-C interrupts is in the results, and is computed again by the next run."""
    pressed = []

    def make(item):
        calls[item] += 1
        return Pressed() if item == 2 and not pressed else [item]

    with pytest.raises(RunInterrupted) as caught:
        run(range(5), path, make, executor=executor, max_workers=1)
    pressed.append(True)
    assert [[0], [1]] == caught.value.results.values(default=None)[:2]
    assert isinstance(caught.value.results[2], Pressed)
    assert "the value of task 2 cannot be recorded" in caplog.text
    assert "because Ctrl-C came as it was being pickled" in caplog.text
    assert {"0", "1"} <= set(recorded(path)) <= {"0", "1", "3", "4"}
    assert [[item] for item in range(5)] == run(range(5), path, make).values()
    assert (5, 1, 1, 2) == (len(recorded(path)), calls[0], calls[1], calls[2])


class PressedError(Exception):
    """An error during whose pickling, which hangs, Ctrl-C comes."""

    __reduce__ = Pressed.__reduce__


class LadenError(Exception):
    """An error with an attribute during whose pickling Ctrl-C comes, in every way in which pickling is tried."""

    def __init__(self):
        self.load = Pressed()


@pytest.mark.parametrize("executor", ["inline", "threads"])
@pytest.mark.parametrize("kind", [PressedError, LadenError])
def test_ctrl_c_while_an_error_is_pickled_costs_its_record_and_no_outcome(path, caplog, executor, kind):
    """One Ctrl-C is enough: that error is not recorded, but it is in the results, and what was done before is in the journal."""

    def fail(item):
        if item == 2:
            raise kind
        return item

    with pytest.raises(RunInterrupted) as caught:
        run(range(5), path, fail, executor=executor, max_workers=1)
    results = caught.value.results
    assert (0, 1, kind) == (results[0], results[1], type(results.failures[2].error))
    assert "the error of task 2 cannot be recorded" in caplog.text
    assert "because Ctrl-C came as it was being pickled" in caplog.text
    assert {"0", "1"} <= set(recorded(path)) <= {"0", "1", "3", "4"}


def recording(values):
    """Record these values as one block; return the keys that reach the journal, and whether the run is to stop."""
    interrupt, entries, booked = Interrupt(), [], []
    journal = SimpleNamespace(path="run.journal", find=lambda keys: [])
    writer = SimpleNamespace(find=lambda keys: {}, put=entries.extend)
    book = SimpleNamespace(succeed=lambda block: booked.extend(block[1]))
    recorder = Recorder(book, journal, writer, None, True, pytest.fail, InterruptibleCall(interrupt))
    places = range(len(values))
    recorder(Portion(list(places), list(places)), 0)
    with suppress(KeyboardInterrupt), catch_interrupt(interrupt):
        recorder.succeed((places, values, places, places, places))
        assert not interrupt.exposed
    assert values == booked
    return [int(entry.key) for entry in entries], interrupt.asked


def test_ctrl_c_costs_no_value_of_a_block():
    """After Ctrl-C in the pickling of a value, earlier values are recorded; later ones are not tried, because they might hang, too."""
    assert ([0, 1], True) == recording([[0], [1], Pressed(), [3], Pressed(), [5]])


class PressedBack:
    """A value that is pickled at once; Ctrl-C comes as it is unpickled, which hangs."""

    def __reduce__(self):
        return Pressed.__reduce__, (None,)


def test_ctrl_c_while_a_value_is_read_back_costs_its_record_only():
    """After Ctrl-C in the unpickling of a value, plain data is still recorded; no further object is read back."""
    assert ([0, 2], True) == recording([[0], PressedBack(), [2], PressedBack()])


def test_ctrl_c_in_plain_data_costs_no_record():
    """If Ctrl-C comes while plain data is pickled, which cannot hang, every value is recorded before the run ends."""
    cue = Cue()
    press = map(_thread.interrupt_main, [signal.SIGINT])
    cue.__reduce_ex__ = partial(next, map(itemgetter(0), zip([(Cue, ())], press, strict=False)))
    assert ([0, 1, 2], True) == recording([[0], cue, [2]])


class Cue:
    """An object that is pickled without running Python code, so that no signal is handled meanwhile."""


# Values


def test_the_file_is_its_owners_alone(path):
    """Only the owner can read or write the files of a journal: loading one runs code."""
    stream = iter_parallel(work, ["a", "b"], key=same, checkpoint=path, buffersize=1)
    next(stream)
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    stream.close()
    assert {"run.journal", "run.journal-wal", "run.journal-shm", "run.journal-run"} == set(modes)
    assert {0o600} == set(modes.values())


def test_a_value_that_cannot_be_pickled_costs_a_warning(path, caplog):
    """A task whose value cannot be pickled succeeds, and runs again next time; there is one warning for all such values."""

    def lock(item):
        calls[item] += 1
        return threading.Lock() if item else item

    for count in (1, 2):
        caplog.clear()
        assert 3 == len(run([0, 1, 2], path, fn=lock).values())
        assert {0: 1, 1: count, 2: count} == calls
        (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "task 1 cannot be recorded in" in warning.getMessage()
        assert "cannot pickle '_thread.lock'" in warning.getMessage()


@pytest.mark.parametrize("what", ["value", "error"])
def test_what_is_too_large_for_a_journal_costs_a_warning(path, monkeypatch, caplog, what):
    """A value or error larger than a row of SQLite is not recorded; it would have ended the run."""

    def make(item):
        if item and what == "error":
            raise ValueError("x" * 5000)
        return "x" * 5000 * item

    monkeypatch.setattr(_payload, "LARGEST", 5000)
    results = run([0, 1, 2], path, fn=make)
    assert (None, 3) == (results.stopped, len(results))
    assert ["0"] == recorded(path)
    (warning,) = caplog.records
    assert re.search(
        rf"the {what} of task 1 .* because it takes [0-9,]+ bytes, and at most 5,000", warning.getMessage()
    )


class Coded:
    """Can be pickled but not unpickled, like many errors; it is none, as tblib may have taught pickle to unpickle those."""

    def __init__(self, code, text):
        self.text = text

    def __reduce__(self):
        return Coded, (self.text,)


def test_a_value_that_cannot_be_unpickled_costs_a_warning(path, caplog):
    """A task that returns such a value succeeds, and runs again next time, when its record would have ended the run."""

    def collect(item):
        calls[item] += 1
        return (item, Coded(404, "gone") if item else None)

    for count in (1, 2):
        caplog.clear()
        assert 3 == len(run([0, 1, 2], path, fn=collect).values())
        assert {0: 1, 1: count, 2: count} == calls
        (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "task 1 cannot be recorded in" in warning.getMessage()
        assert "its pickle cannot be unpickled (TypeError: Coded.__init__() missing" in warning.getMessage()


class Exiting:
    def __reduce__(self):
        raise SystemExit("no")


def test_a_value_that_exits_as_it_is_pickled_costs_its_record_only(path, caplog):
    """If a value's pickling code raises SystemExit, that value is not recorded; the run goes on, and so does the program."""
    results = run("abc", path, lambda item: Exiting() if item == "b" else item)
    assert ["a", "b", "c"] == list(results.successes)
    assert ["'a'", "'c'"] == recorded(path)
    assert "it cannot be pickled (SystemExit: no)" in caplog.text


def test_values_that_only_cloudpickle_can_pickle_are_recorded(path):
    """Lambdas and objects of local classes are recorded."""

    class Local:
        value = 7

    def make(item):
        calls[item] += 1
        return (lambda: item, Local())

    run([1], path, fn=make)
    function, local = run([1], path, fn=make)[1]
    assert (1, 7) == (function(), local.value)
    assert {1: 1} == calls


def test_to_recall_an_object_leaves_its_class_alone(path):
    """A local class that the program still has keeps what was assigned to it since the value was recorded."""

    class Local:
        value = 7

    run([1], path, fn=lambda item: Local())
    Local.value = 8
    local = run([1], path, fn=lambda item: Local())[1]
    assert (Local, 8) == (type(local), Local.value)


@pytest.mark.parametrize(
    "form", [run_parallel, lambda *given, **options: list(iter_parallel(*given, **options))]
)
@pytest.mark.parametrize("step", ["_check_records", "find"])
def test_ctrl_c_as_a_journal_is_opened_is_obeyed_at_once(path, monkeypatch, form, step):
    """Ctrl-C while a journal is checked, which may take long, or compared with the tasks, is raised at once, and leaves it free."""
    went_on, tasks = [], {"a": Task(work, "a")}
    run_parallel(tasks, checkpoint=path)

    def press(*_):
        signal.raise_signal(signal.SIGINT)
        went_on.append(True)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Journal, step, press)
        form(tasks, checkpoint=path)
    assert not went_on
    assert {"a": ["a"]} == run_parallel(tasks, checkpoint=path).to_dict()


@pytest.mark.parametrize("form", [run_parallel, iter_parallel])
def test_ctrl_c_as_a_journal_is_closed_costs_no_record(path, monkeypatch, caplog, form):
    """One Ctrl-C while a journal is being closed does not interrupt its writer."""
    close, pressed = journal_writer.JournalWriter.close, []

    def press_once(writer):
        if not pressed:
            pressed.append(True)
            raise KeyboardInterrupt
        close(writer)

    monkeypatch.setattr(journal_writer, "GATHER", 0.2)
    monkeypatch.setattr(journal_writer.JournalWriter, "close", press_once)
    with pytest.raises(KeyboardInterrupt):
        list(form(same, list("abc"), key=same, checkpoint=path))
    assert 3 == len(recorded(path))
    assert not caplog.records


@pytest.mark.all
def test_ctrl_c_while_the_writer_of_a_journal_is_awaited_costs_no_record(path, monkeypatch, caplog):
    """Ctrl-C during the join of the writer's thread costs no record; before Python 3.13, that thread then counts as ended."""
    write, close, closed = Journal.write, Journal.close, threading.Event()

    def write_after_ctrl_c(journal, records):
        closed.wait(0.1)  # until this thread is awaited
        os.kill(os.getpid(), signal.SIGINT)
        closed.wait(0.3)
        write(journal, records)

    def note_close(journal):
        closed.set()
        close(journal)

    monkeypatch.setattr(journal_writer, "GATHER", 60)  # nothing is written before the close
    monkeypatch.setattr(Journal, "write", write_after_ctrl_c)
    monkeypatch.setattr(Journal, "close", note_close)
    with pytest.raises(KeyboardInterrupt):
        list(iter_parallel(same, list("abc"), key=same, checkpoint=path, executor="inline"))
    monkeypatch.undo()
    assert 3 == len(recorded(path))
    assert not caplog.records


def test_writer_whose_thread_ends_before_it_has_begun_is_not_waited_for(path, monkeypatch):
    """A writer thread that never does its work is not waited for: Ctrl-C during its start can have that effect."""

    def come_to_nothing(writer):
        with writer._changed:
            writer._changed.wait_for(lambda: writer._closing, 10)

    monkeypatch.setattr(journal_writer.JournalWriter, "_work", come_to_nothing)
    caller = threading.Thread(target=run, args=("abc", path), daemon=True)
    caller.start()
    caller.join(10)
    assert not caller.is_alive()
    assert 3 == len(recorded(path))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("begins", [True, False])
def test_a_signal_as_the_writer_of_a_journal_is_started_costs_no_record(
    path, monkeypatch, caplog, begins, error
):
    """What a signal handler raises while the writer's thread starts comes out, and costs no record, whether or not the thread has begun."""
    start, pressed = threading.Thread.start, []

    def handle(number, frame):
        raise error

    def press_once(thread):
        if pressed or thread.name != "parallelkit_journal":
            start(thread)
            return
        pressed.append(True)
        if begins:
            start(thread)
        handle(signal.SIGINT, sys._getframe())

    monkeypatch.setattr(journal_writer, "GATHER", 0.2)
    monkeypatch.setattr(threading.Thread, "start", press_once)
    with pytest.raises(error):
        list(iter_parallel(same, list("abc"), key=same, checkpoint=path, executor="inline"))
    assert 1 == len(recorded(path))
    assert not caplog.records


def test_a_batch_that_ctrl_c_broke_off_can_be_written_again(path):
    """Ctrl-C in the midst of a batch, which comes where this thread has to write, undoes the batch, so that the next try works."""

    class Interrupted:
        def __init__(self, connection):
            self.connection, self.pressed = connection, False

        def __getattr__(self, name):
            return getattr(self.connection, name)

        def execute(self, statement, *values):
            if statement.startswith("UPDATE") and not self.pressed:
                self.pressed = True
                raise KeyboardInterrupt
            return self.connection.execute(statement, *values)

    journal = Journal(str(path), "f").open()
    journal._writing = Interrupted(journal._writing)
    records = [Record("'a'", None, True, b"1")]
    with pytest.raises(KeyboardInterrupt):
        journal.write(records)
    journal.write(records)
    journal.close()
    assert ["'a'"] == recorded(path)


def test_a_value_that_needs_cloudpickle_costs_no_other_its_record():
    """Values that end together are recorded together, though pickling begins anew after each that plain pickle refuses."""
    payloads = Payloads("run.journal", lambda call: call())
    values = [lambda: 1, 2, lambda: 3]
    assert [1, 2, 3] == [
        value() if callable(value) else value
        for value in map(pickle.loads, payloads.of_values(["'a'", "'b'", "'c'"], values))
    ]


def test_a_record_that_is_replaced_while_it_is_written_is_written_again():
    """In a stream, a key whose failure is just being written may come again, and succeed: the success must not be lost."""
    written, writing, go_on = [], threading.Event(), threading.Event()

    class SlowJournal:
        def write(self, records):
            writing.set()
            go_on.wait()
            written.extend(records)

    writer = journal_writer.JournalWriter(SlowJournal(), None)
    failure, success = Record("'a'", None, False, b"1"), Record("'a'", None, True, b"2")
    writer.put([failure])
    writing.wait()
    writer.put([success])
    go_on.set()
    writer.close()
    assert [failure, success] == written


@pytest.mark.parametrize("at_once", [False, True])
def test_what_is_about_to_be_written_counts_before_what_was(at_once):
    """A key that comes again after it has succeeded is answered, even if the journal has only an earlier failure, or gets the record just then."""
    waiting = {"'a'": Record("'a'", None, True, pickle.dumps(1))}
    written = {"'a'": Record("'a'", None, False, b"")}

    def find(records):
        found = dict(records)
        if at_once:  # what waits is written after the first question
            written.update(waiting)
            waiting.clear()
        return found

    journal = SimpleNamespace(path="run.journal", find=lambda keys: find(written).values())
    writer = SimpleNamespace(find=lambda keys: find(waiting))
    recorder = Recorder(None, journal, writer, None, True, pytest.fail, None)
    assert [1] == [recalled.value for recalled in recorder(Portion(["a"], ["a"]), 0).values()]


class Trace:
    """A value to which a weak reference can be made."""


def test_the_values_of_a_run_go_with_its_results(path):
    """A run with a journal keeps no value alive after its results, even without garbage collection."""
    made = weakref.WeakSet()

    def make(item):
        made.add(value := Trace())
        return value

    gc.disable()
    try:
        results = run([1, 2], path, fn=make)
        assert 2 == len(made) == len(results)
        del results
        assert not made
    finally:
        gc.enable()


class Answer(Trace):
    """A function to which a weak reference can be made."""

    def __call__(self, *item):
        return 42


def test_the_functions_of_a_run_go_with_it(path):
    """A run with a journal keeps no function of its tasks, nor what it holds, even without garbage collection."""
    gc.disable()
    try:
        fn = Answer()
        made = weakref.ref(fn)
        assert {"a": 42} == run_parallel({"a": fn}, checkpoint=path).successes
        then = run_parallel(fn, ["a"], key=str, checkpoint=path.with_suffix(".then"), then=lambda outcome: [])
        assert {"a": 42} == then.successes
        del fn
        assert made() is None
    finally:
        gc.enable()


def test_a_stream_of_a_million_tasks_does_not_keep_what_their_functions_are_known_by(path):
    """Keys and functions of all tasks are compared with the journal as it is opened, and not kept while the run lasts."""
    stream = iter_parallel([Task(abs, number, key=number) for number in range(9)], checkpoint=path)
    recording = stream.gi_frame.f_locals["self"]._plan.journal
    assert 9 == len(recording._tasks)
    next(stream)
    assert not recording._tasks
    assert 8 == len(list(stream))


def test_what_a_consumer_does_to_a_value_is_not_recorded(path):
    """A value is pickled before the consumer gets it, so later changes are not recorded."""
    for outcome in iter_parallel(work, ["a", "b"], key=same, checkpoint=path):
        outcome.value.append("changed")
    assert [["a"], ["b"]] == run("ab", path).values()


class Moved:
    """A class that is removed later."""


def test_a_recorded_value_that_cannot_be_unpickled_is_not_made_again(path, monkeypatch):
    """If a recorded value's class is gone, one error says so; the tasks do not run again, which might do harm."""

    def make(item):
        calls[item] += 1
        return item if item == "b" else Moved()

    run("abc", path, fn=make)
    monkeypatch.delattr(sys.modules[__name__], "Moved")
    with pytest.raises(InputError, match=r"key 'a': AttributeError: .*Moved") as caught:
        run("abc", path, fn=make)
    assert not hasattr(caught.value, "__notes__")  # a note for each of many such values would be a flood
    assert {"b": "b"} == caught.value.results.successes
    assert ["a", "c"] == list(caught.value.results.failures)
    assert {"a": 1, "b": 1, "c": 1} == calls
    assert str(caught.value).endswith("delete its row from the table outcomes of this SQLite file")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM outcomes WHERE key = ?", (ascii("a"),))
    monkeypatch.undo()
    assert [Moved, str, Moved] == list(map(type, run("abc", path, fn=make).values()))


SCRIPT = """
import sys
from parallelkit import run_parallel

class Point:
    def __init__(self, x):
        self.x = x

def point(x):
    return Point(x)

results = run_parallel(point, range(3), key=int, checkpoint=sys.argv[1])
assert all(isinstance(value, Point) for value in results.values())
print(sum(outcome.attempts for outcome in results.outcomes.values()))
"""


@pytest.mark.all
def test_classes_of_a_script_are_the_same_when_it_is_run_again(path, tmp_path):
    """A recorded object of a class of ``__main__`` comes back as one of the current ``__main__``."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    outputs = [
        subprocess.run([sys.executable, script, path], capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert [b"3\n", b"0\n"] == outputs


# The option


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "checkpoint must be a path or a Checkpoint, got 7"),
        (b"path", "checkpoint must be a path or a Checkpoint"),
        ("", "Checkpoint: path must be one that a file can have, got ''"),
        ("a\0b", r"Checkpoint: path must be one that a file can have, got 'a\\x00b'"),
    ],
)
def test_what_is_no_path_is_refused(given, message):
    """A checkpoint that is not a path is refused by type and value."""
    with pytest.raises((TypeError, ValueError), match=message):
        run("a", given)


def test_a_checkpoint_checks_its_arguments():
    """An error about an argument of Checkpoint uses the argument's own name."""
    with pytest.raises(TypeError, match=r"Checkpoint: path must be a str or a pathlib\.Path, got 7"):
        Checkpoint(7)
    with pytest.raises(TypeError, match="rerun_failed must be a bool, got 1"):
        Checkpoint("x", rerun_failed=1)


def test_a_checkpoint_is_a_value():
    """A Checkpoint can be compared, printed, pickled and used for many runs."""
    assert Checkpoint("x") == pickle.loads(pickle.dumps(Checkpoint("x")))
    assert "Checkpoint(path='x', rerun_failed=True)" == repr(Checkpoint("x"))


def test_a_program_that_changes_its_folder_keeps_its_journal(tmp_path, monkeypatch):
    """A relative path is resolved against the directory in which the run began."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    for outcome in iter_parallel(work, ["a", "b", "c"], key=same, checkpoint="run.journal", buffersize=1):
        os.chdir("elsewhere" if outcome.key == "a" else ".")
    assert (tmp_path / "run.journal").exists()
    assert [] == os.listdir(tmp_path / "elsewhere")


def test_a_copy_of_a_journal_is_a_journal(path):
    """While no run uses it, a journal is a single file that can be copied."""
    run("a", path)
    shutil.copy(path, path.with_name("copy"))
    assert [["a"]] == run("a", path.with_name("copy")).values()
    assert {"a": 1} == calls


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("parallelkit._journal._lock.JournalLock.note", "No space left on device"),
        ("fcntl.lockf", "No locks available"),
    ],
)
def test_a_claim_that_cannot_be_made_leaves_no_descriptor(tmp_path, monkeypatch, call, why):
    """On a full disk or one without locks, the error names the file, no descriptor is left, and the next run can try again."""

    def fails(*given):
        raise OSError(28, why)

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(call, fails)
        with pytest.raises(ValueError, match=rf"can make files, got .+/journal: {why}"):
            run_parallel(abs, [1], key=str, checkpoint=tmp_path / "journal")
    assert before == len(os.listdir("/proc/self/fd"))
    assert {"1": 1} == run_parallel(abs, [1], key=str, checkpoint=tmp_path / "journal").to_dict()


def test_journal_is_free_though_its_close_was_interrupted(tmp_path):
    """After a second Ctrl-C during the close, another run of the same process can use the journal and finds what was written."""
    path = str(tmp_path / "journal")
    journal = Journal(path, "here:call").open()

    class Interrupted:
        def close(self):
            raise KeyboardInterrupt

    journal._connections.insert(0, Interrupted())
    with pytest.raises(KeyboardInterrupt):
        journal.close()
    Journal(path, "here:call").open().close()


@pytest.mark.parametrize("refusals", [1, 1000])
def test_system_that_has_no_thread_for_the_journal(tmp_path, monkeypatch, refusals):
    """Where the system has no thread for the journal, now or at all, the run's own writes each outcome as it comes."""
    start, refused = threading.Thread.start, []

    def refuse(thread):
        if thread.name == "parallelkit_journal" and len(refused) < refusals:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    path = tmp_path / "journal"
    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(journal_writer, "MOST_ENTRIES", 2)
    stream = iter_parallel(abs, range(9), key=str, checkpoint=path, executor="inline")
    keys = [next(stream).key for _ in range(5)]
    assert [*map(str, range(5))] == keys
    if refusals > 1:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM outcomes").fetchone()[0] >= 5
    stream.close()
    assert refused
    monkeypatch.undo()
    results = run_parallel(abs, range(9), key=str, checkpoint=path)
    assert 5 == sum(outcome.attempts == 0 for outcome in results.outcomes.values())
