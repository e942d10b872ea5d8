"""Promise 9: one Ctrl-C ends a run within a second, with what was done; any other exception has the same clean-up."""

import logging
import os
import pkgutil
import random
import re
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

import acts
import pytest
from outside import GRACE, program, rarely, soon, until

from parallelkit import (
    ConcurrencyLimit,
    ProcessExecutor,
    Retry,
    RunInterrupted,
    Task,
    ThreadExecutor,
    iter_parallel,
    map_reduce,
    run_parallel,
)
from parallelkit._executors._process._reloads import Reloads
from parallelkit._executors._process._supervisor import Supervisor
from parallelkit._executors._processes import ProcessPort
from parallelkit._executors._submit._dispatcher import Dispatcher
from parallelkit._executors._thread._port import ThreadPort, _open
from parallelkit._executors._threads import ThreadEngine
from parallelkit._journal._file import Journal

SCRIPT = """
import os, signal, sys, threading, time
from functools import partial
import acts
from broken import Rebuilt, Reduces
from parallelkit import *

path, home = sys.argv[1], os.getpid()

def here(*_, back=None):
    acts.note(path + "here")
    while True:
        time.sleep(0.01)

def in_parent():
    if os.getpid() == home:
        here()
    return 1

{setup}

try:
    found = {call}
    acts.note(path + "told", f"returned {{found!r}}")
except BaseException as error:
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # Python wraps an exception that comes while a class is being created
    kind, results = type(error).__name__, getattr(error, "results", None)
    kinds = [] if results is None else [
        type(o.error).__name__ if not o.ok else o.value for o in results.outcomes.values()]
    acts.note(path + "told", f"{{kind}} {{kinds}}")
    acts.note(path + "trace", repr(__import__("traceback").format_exc()))
acts.wait_for_lines(path + "go", 1)
"""


@contextmanager
def playing(tmp_path, call, setup="", here=1):
    """A program that has reached the place where the test wants it; after the block it is released, and must end without errors or leftovers."""
    path = str(tmp_path / "play-")
    script = SCRIPT.format(call=call, setup=setup)
    with program("-", path, script=script) as started:
        try:
            acts.wait_for_lines(path + "here", here)
        except TimeoutError:
            raise AssertionError(started.err) from None
        yield started, path
        acts.note(path + "go")
        assert "" == started.wait(20).err
        assert [] == soon(started.descendants, [])


def interrupt(started, path, number=signal.SIGINT):
    """Send the signal; return what the program reported, and the seconds until then."""
    began = time.monotonic()
    os.kill(started.pid, number)
    ((_, told),) = acts.wait_for_lines(path + "told", 1)
    took = time.monotonic() - began
    assert [] == soon(started.descendants, []), "workers outlive the run"
    return told, took


HANG_AT_4 = "partial(acts.hang_if, bad={4, 5}, path=path + 'here'), range(6), max_workers=2"


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_one_interrupt_ends_a_run_that_waits(executor, tmp_path):
    """RunInterrupted has what was done; running and queued tasks are cancelled, and the workers are gone."""
    call = f"run_parallel({HANG_AT_4}, executor={executor!r})"
    with playing(tmp_path, call, here=6) as (started, path):
        until(lambda: {"4", "5"} <= {text for _, text in acts.lines(path + "here")})
        told, took = interrupt(started, path)

    assert f"RunInterrupted {[0, 1, 2, 3, *['TaskCancelled'] * 2]}" == told
    assert took < GRACE


EVERYWHERE = {
    "input": "run_parallel(abs, (here() if n else n for n in range(9)), executor={executor!r})",
    "key": "run_parallel(abs, range(9), key=here, executor={executor!r})",
    "key of a lazy input": "run_parallel(abs, iter(range(9)), key=here, executor={executor!r})",
    "priority": "run_parallel(abs, range(9), priority=here, executor={executor!r})",
    "group": "run_parallel(abs, range(9), limits=RateLimit(9, per=1, by=here), executor={executor!r})",
    "then": "run_parallel(abs, range(9), then=here, executor={executor!r})",
    "events": "run_parallel(abs, range(9), on_event=here, executor={executor!r})",
    "a stream's input": "[*iter_parallel(abs, (here() if n else n for n in range(9)), executor={executor!r})]",
    "a stream's wait": "[*iter_parallel(partial(acts.note_and_hang, path=path + 'here'), range(9), executor={executor!r})]",
    "a stream's consumer": "[here() for _ in iter_parallel(abs, range(9), executor={executor!r})]",
    "backoff": "run_parallel(lambda n: 1 // n, (here_once() or n for n in range(2)), executor={executor!r},"
    " retries=Retry(9, delay=1e9, max_delay=1e9))",
    "retries, which error": "run_parallel(lambda n: 1 // n, range(9), executor={executor!r},"
    " retries=Retry(2, on=here))",
    "tenacity, which error": "run_parallel(lambda n: 1 // n, range(9), executor={executor!r}, retries=tenacious('error'))",
    "tenacity, which value": "run_parallel(abs, range(9), executor={executor!r}, retries=tenacious('value'))",
    "tenacity, how long": "run_parallel(lambda n: 1 // n, range(9), executor={executor!r}, retries=tenacious('wait'))",
    "a rate": "run_parallel(abs, (here_once() or n for n in range(9)), limits=RateLimit(1, per=1000), executor={executor!r})",
    "map_reduce": "map_reduce(abs, range(9), here, initial=0, executor={executor!r})",
    "first_success": "first_success([partial(acts.note_and_hang, 0, path + 'here')] * 3, executor={executor!r})",
}
PROCESSES_ONLY = {
    "pickling": "run_parallel(abs, [1, Reduces(here)], executor='processes')",
    "pickling of the function": "run_parallel(partial(print, Reduces(here)), [1], executor='processes')",
    "unpickling": "run_parallel(lambda n: Rebuilt(in_parent), [1, 2], executor='processes')",
    "the start of the workers": "run_parallel(abs, (here_once() or n for n in range(9)), executor='processes')",
}
STAGES = [
    (where, call.format(executor=executor), executor)
    for where, call in EVERYWHERE.items()
    for executor in ("threads", "processes")
]
STAGES += [(where, call, "processes") for where, call in PROCESSES_ONLY.items()]
CORE = ["input", "then", "unpickling", "pickling", "a stream's wait", "a stream's input", "backoff", "key"]
KNOWN: dict[str, str] = {}

ONCE = """
def here_once(seen=[]):
    seen or acts.note(path + "here")
    seen.append(1)

def tenacious(where):
    import tenacity
    conditions = {"error": tenacity.retry_if_exception(here), "value": tenacity.retry_if_result(here)}
    return tenacity.Retrying(**({"wait": here} if where == "wait" else {"retry": conditions[where]}))
"""


def stage_params():
    for where, call, executor in STAGES:
        core = where in CORE and (executor == "processes" or where == "a stream's wait")
        fails = pytest.mark.xfail(strict=True, reason=KNOWN.get(where))
        marks = [*([] if core else [pytest.mark.all]), *([fails] if where in KNOWN else [])]
        yield pytest.param(call, id=f"{where}, {executor}", marks=marks)


@pytest.mark.parametrize("call", [*stage_params()])
def test_one_interrupt_ends_a_run_wherever_it_is(call, tmp_path):
    """Wherever the caller is, even in its own code, Ctrl-C raises a KeyboardInterrupt within a second, and no worker is left."""
    with playing(tmp_path, call, ONCE) as (started, path):
        told, took = interrupt(started, path)

    assert told.startswith(("RunInterrupted", "KeyboardInterrupt"))
    assert took < GRACE


def test_interrupted_run_keeps_what_was_done_while_the_input_blocks(tmp_path):
    """If Ctrl-C comes while the input blocks, everything that was read has its outcome."""
    setup = "hang_at_3 = partial(acts.hang_if, bad={3}, path=path + 'begun')"
    items = "(here() if n == 4 else time.sleep(0.02) or n for n in range(9))"
    call = f"run_parallel(hang_at_3, {items}, executor='processes', max_workers=1)"
    with playing(tmp_path, call, setup) as (started, path):
        acts.wait_for_lines(path + "begun", 4)  # all but the last are committed, but not read by the parent
        told, took = interrupt(started, path)

    assert "RunInterrupted [0, 1, 2, 'TaskCancelled']" == told
    assert took < GRACE


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_one_interrupt_ends_a_run_whose_retries_hang(executor, tmp_path):
    """If Ctrl-C comes while ``Retry(on=…)`` hangs, no outcome is lost; the failure that is being judged is cancelled."""
    setup = "def work(n):\n    return acts.hang_if(n, {3}, path + 'begun') if n else 1 // n\n"
    call = f"run_parallel(work, range(4), max_workers=1, executor={executor!r}, retries=Retry(2, on=here))"
    with playing(tmp_path, call, setup) as (started, path):
        acts.wait_for_lines(path + "begun", 3)  # those before the last are committed, and nobody could look
        told, took = interrupt(started, path)

    assert "RunInterrupted ['TaskCancelled', 1, 2, 'TaskCancelled']" == told
    assert took < GRACE


def test_one_interrupt_ends_a_run_whose_value_hangs_as_it_is_recorded(tmp_path):
    """If Ctrl-C comes while a value's pickling for a checkpoint hangs, in the caller's thread, the results still have that value."""
    setup = """
import logging
logging.getLogger("parallelkit").addHandler(logging.NullHandler())
def work(n):
    return Reduces(here) if n == 1 else acts.hang_if(n, {3}, path + "begun")
"""
    call = "run_parallel(work, range(4), key=int, max_workers=1, checkpoint=path + 'journal')"
    with playing(tmp_path, call, setup) as (started, path):
        acts.wait_for_lines(path + "begun", 3)  # those before the last are committed, and nobody could look
        told, took = interrupt(started, path)

    assert re.fullmatch(r"RunInterrupted \[0, <broken.Reduces object at \w+>, 2, 'TaskCancelled'\]", told)
    assert took < GRACE


class Pressed:
    """An input during which Ctrl-C comes after the run was stopped: while it is closed, or while the rest of it is counted."""

    went_on = False

    def press(self):
        signal.raise_signal(signal.SIGINT)
        self.went_on = True

    def closed(self):
        try:
            yield from (0, 1)
        finally:
            self.press()

    def __len__(self):
        return 9

    def __iter__(self):
        yield from (0, 1)
        self.press()


@pytest.mark.parametrize("form", ["closed", "counted"])
def test_one_interrupt_ends_what_the_input_does_after_a_stop(form):
    """After a stop, Ctrl-C is raised at once in the input's own code, which may hang; the results are kept."""
    pressed = Pressed()
    items = pressed.closed() if form == "closed" else pressed
    with pytest.raises(RunInterrupted) as raised:
        run_parallel(lambda n: 1 // n, items, on_error="raise", max_workers=1, buffersize=1)
    assert not pressed.went_on
    assert isinstance(raised.value.results.failures[0].error, ZeroDivisionError)
    assert (1 if form == "closed" else 9) == len(raised.value.results)


class PressedAsPickled:
    def __init__(self):
        self.input = Pressed()

    def __reduce__(self):
        self.input.press()
        return int, ()


def list_parallel(*given, **options):
    return list(iter_parallel(*given, **options))


@pytest.mark.parametrize("run", [run_parallel, list_parallel])
def test_one_interrupt_ends_the_pickling_of_the_function(run):
    """Ctrl-C interrupts the pickling of the function and its arguments, which may take long."""
    with ProcessPoolExecutor(1) as pool:
        for executor in ("processes", pool):
            captured = PressedAsPickled()
            with pytest.raises(KeyboardInterrupt):
                run(print, [1], args=(captured,), executor=executor)
            assert not captured.input.went_on


@pytest.mark.parametrize("run", [run_parallel, list_parallel])
@pytest.mark.parametrize("step", ["_check_records", "find"])
def test_one_interrupt_ends_the_check_of_a_journal(run, step, tmp_path, monkeypatch):
    """Ctrl-C interrupts the check of a journal, which may take seconds, and leaves the journal usable."""
    journal, pressed = tmp_path / "journal", Pressed()
    with monkeypatch.context() as patch:
        patch.setattr(Journal, step, lambda *_: pressed.press())
        with pytest.raises(KeyboardInterrupt):
            run([Task(abs, 1, key="1")], checkpoint=journal)
    assert not pressed.went_on
    assert {"1": 1} == run_parallel([Task(abs, 1, key="1")], checkpoint=journal).to_dict()


@pytest.mark.parametrize("run", [run_parallel, list_parallel])
def test_an_interrupt_between_the_steps_of_an_opening_leaves_nothing_open(run, tmp_path, monkeypatch):
    """Only what takes long is cut off: a journal stayed in use, and a run stayed with its executor, for the program's life."""

    def pressed(step):
        def call(*args, **options):
            made = step(*args, **options)
            signal.raise_signal(signal.SIGINT)
            return made

        return call

    journal = tmp_path / "journal"
    with monkeypatch.context() as patch:
        patch.setattr("parallelkit._journal._recorder.Journal", pressed(Journal))
        for _ in ("made", "found"):
            with pytest.raises(KeyboardInterrupt):
                run(abs, [1], key=str, checkpoint=journal)
    assert {"1": 1} == run_parallel(abs, [1], key=str, checkpoint=journal).to_dict()
    with ProcessExecutor(1) as pool, monkeypatch.context() as patch:
        patch.setattr(Reloads, "look", pressed(Reloads.look))
        with pytest.raises(KeyboardInterrupt):
            run(abs, [1], executor=pool)
        workers = pool._engine()._supervisor.pool
        until(lambda: not workers.lanes)


def test_an_interrupt_that_comes_too_late_to_stop_anything_keeps_the_results(monkeypatch):
    """If Ctrl-C comes while a finished run is being closed, RunInterrupted has all results."""
    monkeypatch.setattr("parallelkit._progress.Silent.close", lambda bar: signal.raise_signal(signal.SIGINT))
    with pytest.raises(RunInterrupted) as raised:
        run_parallel(abs, [-1, 2])
    assert [1, 2] == raised.value.results.values()


def test_second_interrupt_raises_at_once(tmp_path):
    """A second Ctrl-C, while the run still cleans up after the first, is raised at once."""
    setup = """
import parallelkit._executors._processes as engine
close = engine.ProcessPort.close
def slow(port):
    acts.note(path + "closing")
    time.sleep(1000 if len(acts.lines(path + "closing")) == 1 else 0)
    close(port)
engine.ProcessPort.close = slow
"""
    call = "run_parallel(partial(acts.note_and_hang, path=path + 'here'), range(3), executor='processes')"
    with playing(tmp_path, call, setup) as (started, path):
        os.kill(started.pid, signal.SIGINT)
        acts.wait_for_lines(path + "closing", 1)
        told, took = interrupt(started, path)

    assert told.startswith("KeyboardInterrupt")
    assert took < GRACE


@pytest.mark.parametrize("executor", [*rarely("threads"), "processes"])
def test_two_interrupts_in_a_row(executor, tmp_path):
    """Two Ctrl-C in immediate succession raise a KeyboardInterrupt or RunInterrupted, and nothing is left."""
    setup = f"""
def call():
    try:
        run_parallel(partial(acts.note_and_hang, path=path + "here"), range(3), executor={executor!r})
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one from now on is not for the run
"""
    with playing(tmp_path, "call()", setup) as (started, path):
        os.kill(started.pid, signal.SIGINT)
        told, took = interrupt(started, path)
    assert told.startswith(("RunInterrupted", "KeyboardInterrupt"))
    assert took < GRACE


def test_task_that_holds_the_lock_of_its_interpreter(tmp_path):
    """Ctrl-C also ends a worker that holds the GIL in C and ignores signals, and its child."""
    setup = """
import deeds
def deaf(item):
    child = os.fork()
    if child == 0:
        time.sleep(1000)
    acts.note(path + "here")
    deeds.hang_in_c(None)
"""
    with playing(tmp_path, "run_parallel(deaf, range(2), executor='processes')", setup, here=2) as (
        started,
        path,
    ):
        told, took = interrupt(started, path)
    assert told.startswith("RunInterrupted")
    assert took < GRACE


def test_nested_runs_end_together(tmp_path):
    """Ctrl-C ends a run in processes inside a task of a run in processes."""
    setup = """
def inner(item):
    run_parallel(partial(acts.note_and_hang, path=path + "here"), range(2), executor="processes", max_workers=2)
"""
    with playing(tmp_path, "run_parallel(inner, [0], executor='processes')", setup, here=2) as (
        started,
        path,
    ):
        told, took = interrupt(started, path)
    assert told.startswith("RunInterrupted")
    assert took < GRACE


def test_nested_run_in_the_main_thread(tmp_path):
    """Ctrl-C ends a run that is called from a callback of another run, and then that other run."""
    setup = """
def then(outcome):
    run_parallel(partial(acts.note_and_hang, path=path + "here"), range(2), executor="processes", max_workers=2)
"""
    call = "run_parallel(abs, range(2), executor='processes', then=then)"
    with playing(tmp_path, call, setup, here=2) as (started, path):
        told, took = interrupt(started, path)
    assert told.startswith("RunInterrupted")
    assert took < GRACE


def test_run_in_another_thread_goes_on(tmp_path):
    """Ctrl-C interrupts only the main thread: a run in another thread goes on and has all its results."""
    setup = """
found = []
def run():
    found.append(run_parallel(lambda n: time.sleep(0.15) or n, range(2), executor="processes").values())
def call():
    thread = threading.Thread(target=run)
    thread.start()
    try:
        here()
    except KeyboardInterrupt:
        thread.join()
    return found
"""
    path = str(tmp_path / "play-")
    with program("-", path, script=SCRIPT.format(call="call()", setup=setup)) as started:
        acts.wait_for_lines(path + "here", 1)
        os.kill(started.pid, signal.SIGINT)
        ((_, told),) = acts.wait_for_lines(path + "told", 1)
        acts.note(path + "go")
        assert "" == started.wait(20).err
    assert "returned [[0, 1]]" == told


def test_run_inside_an_event_loop_obeys_asyncio(tmp_path):
    """Inside ``asyncio.run``, the first Ctrl-C is handled by asyncio, which cancels its task; the second interrupts the run, which cleans up."""
    setup = """
import asyncio
async def main():
    first = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *args: (first(*args), acts.note(path + "first")))
    run_parallel(partial(acts.note_and_hang, path=path + "here"), range(2), executor="processes")
"""
    with playing(tmp_path, "asyncio.run(main())", setup, here=2) as (started, path):
        os.kill(started.pid, signal.SIGINT)
        acts.wait_for_lines(path + "first", 1)
        told, took = interrupt(started, path)
    assert told.startswith(("RunInterrupted", "KeyboardInterrupt"))
    assert took < GRACE


# Other signals, other exceptions

RAISES = """
class Stop(Exception): pass
def handler(*_):
    raise {error}
signal.signal(signal.SIGTERM, handler)
"""


@pytest.mark.parametrize(
    ("form", "executor", "error"),
    [
        ("run_parallel({})", "processes", "Stop()"),
        ("[*iter_parallel({})]", "threads", "Stop()"),
        pytest.param("run_parallel({})", "threads", "Stop()", marks=pytest.mark.all),
        pytest.param("[*iter_parallel({})]", "processes", "Stop()", marks=pytest.mark.all),
        pytest.param("run_parallel({})", "processes", "SystemExit(3)", marks=pytest.mark.all),
        pytest.param("[*iter_parallel({})]", "threads", "SystemExit(3)", marks=pytest.mark.all),
    ],
)
def test_handler_that_raises_cleans_up_the_same_way(form, executor, error, tmp_path):
    """What a SIGTERM handler raises propagates unchanged, and the workers are gone."""
    call = form.format(f"partial(acts.note_and_hang, path=path + 'here'), range(3), executor={executor!r}")
    with playing(tmp_path, call, RAISES.format(error=error)) as (started, path):
        told, took = interrupt(started, path, signal.SIGTERM)
    assert f"{error.partition('(')[0]} []" == told
    assert took < GRACE


@pytest.mark.parametrize("error", [SystemExit(3), *rarely(TimeoutError("an alarm"))])
@pytest.mark.parametrize(
    ("function", "kind"), [(abs, acts.Signals), (acts.Arrived, int)], ids=["sent", "got"]
)
def test_handler_that_raises_blames_nothing_that_is_pickled(function, kind, error):
    """What a signal handler raises while an item or value is pickled or unpickled propagates; it is not that task's failure."""
    with handling(error), pytest.raises(type(error)) as raised:
        run_parallel(function, [kind(os.getpid()), 1], executor="processes", max_workers=1)
    assert raised.value is error


class Struck:
    """Sends its own process a signal the n-th time that it is pickled there; can be pickled only if ``fit``."""

    def __init__(self, number, fit=True):
        self.left, self.fit, self.pid = number, fit, os.getpid()

    def __reduce__(self):
        self.left -= 1
        if self.left == 0:
            acts.strike(self.pid)
        if not self.fit:
            raise TypeError("unfit")
        return int, ()


class StruckError(Exception):
    """A task's error that sends the parent a signal when it is unpickled."""

    def __reduce__(self):
        return strike_and_make, (os.getppid(),)


def strike_and_make(pid):
    acts.strike(pid)
    return StruckError()


def raise_struck(item):
    raise StruckError


def hear(event):
    if event.kind == "succeeded":
        acts.strike(os.getpid())


class StruckFunction:
    """A function that sends a signal when it is asked for an attribute that it lacks, such as its code."""

    def __getattr__(self, name):
        acts.strike(os.getpid())
        raise AttributeError(name)

    def __call__(self, item):
        return item


def strike_here(item):
    acts.strike(os.getpid())


def log_a_line(item):
    logging.getLogger("struck").warning("a line")


def run_with_a_struck_filter():
    logger = logging.getLogger("struck")
    logger.addFilter(strike_here)
    try:
        run_parallel(log_a_line, [1], executor="processes")
    finally:
        logger.removeFilter(strike_here)


ASIDE = {
    "a function": lambda: run_parallel(StruckFunction(), [1]),
    "an item, once": lambda: run_parallel(abs, [Struck(1)], executor="processes"),
    "an argument": lambda: run_parallel(int, [1], args=(Struck(1, fit=False),), executor="processes"),
    "an argument that is to blame": lambda: run_parallel(
        int, [1], args=(Struck(3, fit=False),), executor="processes"
    ),
    "an item that is to blame": lambda: run_parallel([Task(int, Struck(3, fit=False))], executor="processes"),
    "initargs": lambda: ProcessExecutor(1, None, print, (Struck(1, fit=False),)),
    "an error": lambda: run_parallel(raise_struck, [1], executor="processes"),
    "a log record": run_with_a_struck_filter,
    "a listener": lambda: run_parallel(abs, [1], on_event=hear),
}


def strike_here_before(*_):
    """A ``key``, ``by``, ``then`` and so on that sends its own process a signal."""
    acts.strike(os.getpid())


def struck_items(last=()):
    """An input that sends a signal when its third item is requested or, with ``last``, when it is closed."""
    try:
        yield from (1, 2)
        if not last:
            acts.strike(os.getpid())
        yield from last
    finally:
        if last:
            acts.strike(os.getpid())


class StruckSize:
    """An input that sends a signal while its unread rest is counted."""

    def __len__(self):
        return 9

    def __iter__(self):
        yield from (1, 2)
        acts.strike(os.getpid())


class StruckKey:
    """A key that sends a signal when it is hashed."""

    def __hash__(self):
        acts.strike(os.getpid())
        return 0


class StruckName:
    """A key that sends a signal when its ``repr`` is taken."""

    def __repr__(self):
        acts.strike(os.getpid())
        return "a name"


class StruckNoteError(Exception):
    """An error that sends a signal when a note is added."""

    def add_note(self, note):
        acts.strike(os.getpid())


class StruckNotesError(Exception):
    """An error that sends a signal when its notes are read."""

    @property
    def __notes__(self):
        acts.strike(os.getpid())


class StruckDelayError(Exception):
    """An error that sends a signal when its ``retry_after`` is read."""

    @property
    def retry_after(self):
        acts.strike(os.getpid())


class StruckTextError(Exception):
    """An error that sends a signal when its text is taken."""

    def __str__(self):
        acts.strike(os.getpid())
        return "a text"


def raise_kind(kind):
    raise kind


def raise_later(kind):
    yield 1
    raise kind


def not_again(retry):
    import tenacity

    return tenacity.Retrying(retry=retry(tenacity)(strike_here_before))


ASKED = {
    "the input": lambda: run_parallel(abs, struck_items()),
    "the input, with limits": lambda: run_parallel(abs, struck_items(), limits=ConcurrencyLimit(1)),
    "the input of a stream": lambda: list(iter_parallel(abs, struck_items())),
    "the input, closed": lambda: run_parallel(raise_kind, struck_items(range(99)), on_error="raise"),
    "the input, counted": lambda: run_parallel(raise_kind, StruckSize(), on_error="raise", buffersize=1),
    "the input's error": lambda: run_parallel(abs, raise_later(StruckTextError)),
    "key, at the door": lambda: run_parallel(abs, [1], key=strike_here_before),
    "key": lambda: run_parallel(abs, iter([1]), key=strike_here_before),
    "a key's hash": lambda: run_parallel(abs, iter([1]), key=lambda item: StruckKey()),
    "a key's repr": lambda: run_parallel(raise_kind, [1], key=lambda item: StruckName()),
    "by": lambda: run_parallel(abs, [1], limits=ConcurrencyLimit(1, by=strike_here_before)),
    "priority": lambda: run_parallel(abs, [1], priority=strike_here_before),
    "then": lambda: run_parallel(abs, [1], then=strike_here_before),
    "the tasks of then": lambda: run_parallel(abs, [1], then=lambda outcome: struck_items()),
    "reduce": lambda: map_reduce(abs, [1], strike_here_before, initial=0),
    "on": lambda: run_parallel(raise_kind, [KeyError], retries=Retry(1, on=strike_here_before)),
    "tenacity, of an error": lambda: run_parallel(
        raise_kind, [KeyError], retries=not_again(lambda tenacity: tenacity.retry_if_exception)
    ),
    "tenacity, of a value": lambda: run_parallel(
        abs, [1], retries=not_again(lambda tenacity: tenacity.retry_if_result)
    ),
    "an error's add_note": lambda: run_parallel(raise_kind, [StruckNoteError]),
    "an error's notes": lambda: run_parallel(raise_kind, [StruckNotesError]),
    "an error's delay": lambda: run_parallel(raise_kind, [StruckDelayError]),
    "an error's text": lambda: run_parallel(raise_kind, [StruckTextError]).report(),
}


@pytest.mark.parametrize("place", ASKED)
def test_what_a_handler_raises_is_not_taken_for_the_fault_of_what_it_struck(place):
    """What a signal handler raises inside the caller's code propagates: it is no InputError, costs no task its retries, and is not lost."""
    alarm = TimeoutError("an alarm")
    with handling(alarm), pytest.raises(TimeoutError) as raised:
        ASKED[place]()
    assert raised.value is alarm


class StruckFirst:
    """Sends the process that made it a signal the first time that it is pickled there, or when it is unpickled there."""

    def __init__(self, arriving):
        self.arriving = arriving
        self.struck = False

    def __reduce__(self):
        if self.arriving:
            return strike_and_make, (os.getpid(),)
        if not self.struck:
            self.struck = True
            acts.strike(os.getpid())
        return int, ()


@pytest.mark.parametrize("arriving", [False, True])
def test_a_checkpoint_blames_no_value_for_what_a_handler_raised(tmp_path, arriving):
    """What a signal handler raises while a value is recorded or read back propagates: neither the value nor the record is rejected."""
    alarm = TimeoutError("an alarm")

    def run():
        return run_parallel(StruckFirst, [arriving], key=str, checkpoint=tmp_path / "journal")

    if arriving:
        run()
    with handling(alarm), pytest.raises(TimeoutError) as raised:
        run()
    assert raised.value is alarm


def struck_value(item):
    return StruckFirst(arriving=True)


def test_a_cache_is_not_passed_over_for_what_a_handler_raised(tmp_path):
    """What a signal handler raises while a cached value is loaded propagates; the task is not run instead."""
    import joblib

    alarm, cached = TimeoutError("an alarm"), joblib.Memory(tmp_path, verbose=0).cache(struck_value)
    run_parallel(cached, [1])
    with handling(alarm), pytest.raises(TimeoutError) as raised:
        run_parallel(cached, [1])
    assert raised.value is alarm


def test_an_alarm_that_a_task_has_left_costs_its_error_nothing():
    """If a signal handler that a task has set raises while the worker pickles the task's error, the error still arrives."""
    failure = run_parallel(acts.raise_under_an_alarm, [1], executor="processes").failures[0]
    assert type(failure.error) is acts.StruckOnceError


@contextmanager
def handling(error):
    """A block in which a signal handler of SIGUSR2 raises this error."""

    def handler(*_):
        raise error

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("place", ASIDE)
def test_what_a_handler_raises_is_never_lost(place):
    """What a signal handler raises propagates from wherever we try the caller's code and would otherwise go on after an error."""
    alarm = TimeoutError("an alarm")
    with handling(alarm), pytest.raises(TimeoutError) as raised:
        ASIDE[place]()
    assert raised.value is alarm


def test_a_program_that_is_ended_while_a_task_runs_inline_ends():
    """A SystemExit from a signal handler ends the program even during an inline task; an ordinary exception is that task's failure."""
    before = signal.signal(signal.SIGUSR2, lambda *_: sys.exit(3))
    try:
        with pytest.raises(SystemExit):
            run_parallel(strike_here, [1], executor="inline")
        signal.signal(signal.SIGUSR2, lambda number, frame: 1 // 0)
        assert isinstance(
            run_parallel(strike_here, [1], executor="inline").failures[0].error, ZeroDivisionError
        )
    finally:
        signal.signal(signal.SIGUSR2, before)


class AsksWhoCalls:
    """Cannot be pickled, and looks at the frame of its caller."""

    def __reduce__(self):
        caller = sys._getframe(1)
        raise ValueError(f"asked by {caller.f_code.co_name}")


def test_code_that_looks_at_its_caller_is_no_handler():
    """If pickling code that has looked at its caller's frame fails, that is an ordinary failure of its task."""
    results = run_parallel(abs, [AsksWhoCalls(), -1], executor="processes")
    assert [None, 1] == results.values(default=None)


@pytest.mark.parametrize("started", [True, False])
def test_handler_that_raises_as_a_thread_starts(started, monkeypatch):
    """What a handler raises while a thread starts propagates, whether or not that thread runs by then; nothing waits for it."""

    class Stop(BaseException):
        pass

    start, starts = threading.Thread.start, []

    def interrupted(thread):
        starts.append(thread)
        if len(starts) < 3 or started:
            start(thread)
        if len(starts) == 3:
            raise Stop

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(Stop):
        run_parallel(abs, range(5), max_workers=5)


def test_handler_that_raises_as_the_thread_of_a_stream_starts(monkeypatch):
    """What a handler raises then propagates, also if the thread is there and has yet to say so; it ends without the run."""

    class Stop(Exception):
        pass

    there, may_go_on = threading.Event(), threading.Event()

    class Started(threading.Event):
        def set(self):
            there.set()
            assert may_go_on.wait(GRACE)
            super().set()

        def wait(self, timeout=None):
            assert there.wait(GRACE)
            raise Stop

    monkeypatch.setattr("parallelkit._conditions.Event", Started)
    try:
        with pytest.raises(Stop):
            next(iter_parallel(abs, [1]))
    finally:
        may_go_on.set()


@pytest.mark.parametrize("step", ["_loop.Loop.ask_to_stop", "_collector.do_freely"])
def test_handler_that_raises_as_a_stream_is_closed(step, monkeypatch):
    """What a handler raises then propagates, and all is closed; the run's thread would wait for ever."""

    class Stop(Exception):
        pass

    *path, name = f"parallelkit.{step}".split(".")
    taken, calls = pkgutil.resolve_name(".".join(path)), []
    take = getattr(taken, name)

    def struck(*args):
        calls.append(args)
        if len(calls) == 1:
            raise Stop
        take(*args)

    monkeypatch.setattr(taken, name, struck)
    stream = iter_parallel(abs, iter([1, 2]), buffersize=1)
    next(stream)
    with pytest.raises(Stop):
        stream.close()


def stream_all(*args, **options):
    return [*iter_parallel(*args, **options)]


@pytest.mark.parametrize("run", [run_parallel, stream_all])
def test_handler_that_raises_as_a_run_has_opened_its_port(run):
    """The executor keeps nothing of the run, though it is not the run's own."""

    class Stop(Exception):
        pass

    opened = False

    def trace(frame, event, arg):
        if opened:
            raise Stop  # at the first call after that, as a signal handler might
        return note if frame.f_code is ThreadEngine.open.__code__ else None

    def note(frame, event, arg):
        nonlocal opened
        opened = opened or event == "return"
        return note

    before = sys.gettrace()
    with ThreadExecutor(1) as executor:
        sys.settrace(trace)
        try:
            with pytest.raises(Stop):
                run(abs, [1], executor=executor)
        finally:
            sys.settrace(before)
        assert () == executor._engine().ports


def test_handler_that_raises_as_a_port_is_made(monkeypatch):
    """No run counts as under way from then on."""

    class Stop(Exception):
        pass

    class Ports(set):
        def add(self, port):
            super().add(port)
            raise Stop

    ports = Ports()
    monkeypatch.setattr("parallelkit._executors._thread._port._open", ports)
    with pytest.raises(Stop):
        run_parallel(abs, [1])
    assert not ports


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(("make", "step"), [(ThreadExecutor, "begin"), (ProcessExecutor, "enter")])
def test_handler_that_raises_as_a_port_begins(make, step, again, monkeypatch):
    """The engine keeps nothing of it: it would look at it, and count it as a run beside others, for ever.

    ``again``: a second one raises as what the first had raised closes the port.
    """

    class Stop(Exception):
        pass

    owner = ThreadPort if make is ThreadExecutor else Supervisor
    done = getattr(owner, step)

    def strike(*args):
        done(*args)
        raise Stop

    with make(1) as executor:
        engine, before = executor._engine(), set(_open)
        monkeypatch.setattr(owner, step, strike)
        strike_closings(monkeypatch, ThreadPort if make is ThreadExecutor else ProcessPort, [Stop()] * again)
        with pytest.raises(Stop):
            run_parallel(abs, [1], executor=executor)
        if make is ThreadExecutor:
            assert () == engine.ports
            assert before == _open
        else:
            until(lambda: not engine._supervisor.pool.lanes)


@pytest.mark.parametrize("run", [run_parallel, stream_all])
def test_handler_that_raises_again_as_its_first_error_closes_the_port(run, monkeypatch):
    """The executor keeps nothing of the run."""

    class Stop(Exception):
        pass

    strike_closings(monkeypatch, ThreadPort, [Stop(), Stop()])
    with ThreadExecutor(1) as executor:
        with pytest.raises(Stop):
            run(abs, [1], executor=executor)
        assert () == executor._engine().ports


def strike_closings(monkeypatch, port, errors):
    """Have each of the next closings of a port raise one of the errors instead."""
    close = port.close

    def strike(self):
        if errors:
            raise errors.pop()
        close(self)

    monkeypatch.setattr(port, "close", strike)


@pytest.mark.parametrize("make", [ThreadExecutor, pytest.param(ProcessExecutor, marks=pytest.mark.all)])
def test_handler_that_raises_as_an_executor_that_is_not_used_any_more_is_shut_down(make, monkeypatch):
    """Python ignores the error. The executor's threads, and its workers, end nevertheless."""

    class Stop(Exception):
        pass

    shut, left, ignored = Dispatcher.shut, [Stop()], []

    def strike(*args):
        if left:
            raise left.pop()
        shut(*args)

    monkeypatch.setattr(Dispatcher, "shut", strike)
    monkeypatch.setattr("sys.unraisablehook", lambda trouble: ignored.append(trouble.exc_type))
    executor = make(1)
    executor.submit(abs, 1).result()
    thread = executor._dispatcher._opening.thread
    del executor
    assert [Stop] == ignored
    thread.join(5)
    assert not thread.is_alive()


def test_handler_that_raises_as_an_idle_thread_is_woken():
    """The thread takes the next call, though it was off the list of idle ones already, where nobody would wake it."""

    class Stop(Exception):
        pass

    class Idle(deque):
        struck = False

        def pop(self):
            worker = super().pop()
            if not self.struck:
                self.struck = True
                raise Stop
            return worker

    with ThreadExecutor(1, initializer=int) as executor:
        executor.submit(abs, 1).result()
        engine = executor._engine()
        until(lambda: engine.idle)
        engine.idle = Idle(engine.idle)
        with pytest.raises(Stop):
            run_parallel(abs, [1], executor=executor)
        try:
            assert 1 == executor.submit(abs, -1).result(5)
        finally:
            engine.rouse()  # else the executor's end would wait for that call, if this fails


def test_own_handler_of_sigint_is_left_alone(tmp_path):
    """A caller's own SIGINT handler stays in force: what it raises ends the run."""
    setup = RAISES.format(error="Stop()") + "signal.signal(signal.SIGINT, handler)\n"
    call = "run_parallel(partial(acts.note_and_hang, path=path + 'here'), range(3), executor='processes')"
    with playing(tmp_path, call, setup) as (started, path):
        told, _ = interrupt(started, path)
    assert "Stop []" == told


def test_handler_that_the_callers_code_sets_stays():
    """A SIGINT handler that ``then`` or an inline task sets stays after the run, and may call the one before it, which raises as Python's own."""
    before, handler = signal.getsignal(signal.SIGINT), lambda *of_signal: None
    found = []

    def use(_):
        found.append(signal.signal(signal.SIGINT, handler))
        return ()

    try:
        for run in (
            partial(run_parallel, abs, [-1], then=use),
            partial(run_parallel, use, [0], executor="inline"),
        ):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            run()
            assert signal.getsignal(signal.SIGINT) is handler
            with pytest.raises(KeyboardInterrupt):
                found[-1](signal.SIGINT, None)
    finally:
        signal.signal(signal.SIGINT, before)


def test_handler_is_put_back():
    """After a run or stream, the SIGINT handler is the one from before."""
    before = signal.getsignal(signal.SIGINT)
    run_parallel(abs, range(3))
    list(iter_parallel(abs, range(3)))
    assert before is signal.getsignal(signal.SIGINT)


# The parent's own death

FATAL = {
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "os._exit": "os._exit(3)",
    "a crash": "__import__('ctypes').string_at(0)",
}
TREE = """
import deeds
def deaf(item):
    if os.fork() == 0:
        time.sleep(1000)
    acts.note(path + "here")
    deeds.hang_in_c(None)
def nested(item):
    run_parallel(partial(acts.note_and_hang, path=path + "here"), range(2), executor="processes", max_workers=2)
"""
WORKS = {
    "hangs deaf in C with a child": ("deaf", 2),
    "nested": ("nested", 2),
    "hangs": ("partial(acts.note_and_hang, path=path + 'here')", 2),
}


@pytest.mark.parametrize("fatal", ["SIGKILL", *rarely(*[name for name in FATAL if name != "SIGKILL"])])
@pytest.mark.parametrize("work", WORKS)
def test_no_worker_outlives_its_parent(fatal, work, tmp_path):
    """However the parent ends, its workers, their children and their nested workers are soon gone."""
    function, count = WORKS[work]
    setup = (
        TREE
        + f"""
def end():
    acts.wait_for_lines(path + "end", 1)
    {FATAL[fatal]}
threading.Thread(target=end, daemon=True).start()
"""
    )
    path = str(tmp_path / "play-")
    call = f"run_parallel({function}, range(2), executor='processes', max_workers=2)"
    with program("-", path, script=SCRIPT.format(call=call, setup=setup)) as started:
        acts.wait_for_lines(path + "here", count)
        assert len(started.descendants()) >= count
        acts.note(path + "end")
        started.wait(20)
        assert [] == soon(started.descendants, [])


@pytest.mark.all
def test_parent_killed_while_its_workers_start(tmp_path):
    """Workers that are only just starting end with their parent, too: it is killed at ten moments of the first 200 ms."""
    call = "run_parallel(partial(acts.note_and_hang, path=path + 'working'), range(2), executor='processes')"
    setup = "acts.note(path + 'here')"
    for moment in range(10):
        path = str(tmp_path / f"{moment}-")
        with program("-", path, script=SCRIPT.format(call=call, setup=setup)) as started:
            acts.wait_for_lines(path + "here", 1)
            time.sleep(moment * 0.02)
            started.process.kill()
            started.wait(20)
            assert [] == soon(started.descendants, [])


# At any moment

SHORT = "run_parallel(partial(acts.nap), [0.005] * 40, executor={executor!r}, max_workers=2{more})"


@pytest.mark.parametrize("what", ["SIGINT", *rarely("a handler that raises")])
@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.parametrize("seed", [0, *rarely(*range(1, 20))])
def test_interrupt_at_any_moment(what, executor, seed, tmp_path):
    """A signal at a random moment before, during or after a run: the program ends in time, with an exception or results, and leaves nothing."""
    dice = random.Random(f"{what} {executor} {seed}")
    setup = RAISES.format(error="Stop()") + "acts.note(path + 'here')"
    number = signal.SIGINT if what == "SIGINT" else signal.SIGTERM
    for turn in range(2):
        moment = dice.uniform(0, 0.25)
        folder = tmp_path / str(turn)
        folder.mkdir()
        path = str(folder / "play-")
        script = SCRIPT.format(call=SHORT.format(executor=executor, more=""), setup=setup)
        with program("-", path, script=script) as started:
            acts.wait_for_lines(path + "here", 1)
            time.sleep(moment)
            os.kill(started.pid, number)
            acts.note(path + "go")
            finished = started.wait(10)
            assert [] == soon(started.descendants, []), f"moment {moment}, seed {turn}"
            told = [text for _, text in acts.lines(path + "told")]
        # If the signal came after the run, it ended the rest of the script.
        wanted = ("RunInterrupted", "KeyboardInterrupt", "Stop", "returned")
        assert not told or told[0].startswith(wanted), (
            told,
            acts.lines(path + "trace"),
            finished.err,
            moment,
        )
        assert "Fatal" not in finished.err
        # Python's import drops exceptions raised while it frees a module's lock, and an interrupted Thread.start
        # forgets a thread that has already begun, whose first step then fails (both seen on 3.13).
        own = ("<function _get_module_lock", "del _limbo[self]")
        ignored = finished.err.count("Exception ignored") - sum(map(finished.err.count, own))
        assert ignored == 0, finished.err
