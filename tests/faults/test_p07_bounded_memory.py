"""Promise 7: memory is bounded. Input is read lazily, in the caller's thread, and only a limited distance ahead."""

import gc
import sys
import threading
import time
import weakref
from functools import partial

import acts
import pytest
import remote_tasks as far
from outside import rarely, run_script, until

from parallelkit import iter_parallel, run_parallel

BOTH = pytest.mark.parametrize("executor", ["threads", "processes"])


class Counted:
    """A lazy input that counts how many items were read, and notes which threads read them."""

    def __init__(self, count):
        self.count = count
        self.read = 0
        self.threads = set()
        self.look = lambda: None

    def __iter__(self):
        for number in range(self.count):
            self.read += 1
            self.threads.add(threading.get_ident())
            self.look()
            yield number


# How far ahead


@pytest.mark.parametrize("size", [1, 3, 20])
@BOTH
def test_no_more_than_buffersize_is_read_ahead(executor, size, tmp_path):
    """Whenever an item is read, fewer than ``buffersize`` earlier ones are unsettled."""
    source, path, ahead = Counted(120), str(tmp_path / "done"), []
    # A task notes itself before it settles, so this is at most what the run itself counts.
    source.look = lambda: ahead.append(source.read - len(acts.lines(path)))
    work = partial(acts.noted, path=path)
    results = run_parallel(work, source, executor=executor, max_workers=2, buffersize=size)

    assert 120 == len(results.values())
    assert max(ahead) <= size


@BOTH
def test_default_is_a_multiple_of_the_workers(executor, tmp_path):
    """By default, 32 items per worker are read before anything settles, and no more."""
    path = str(tmp_path / "go")
    source = Counted(10_000)
    stream = iter_parallel(partial(acts.hold, path=path), source, executor=executor, max_workers=2)

    def let_go():
        until(lambda: source.read >= 64)
        time.sleep(0.1)  # in which more would be read
        acts.note(path)

    first = threading.Thread(target=let_go)
    first.start()
    next(stream)
    first.join()

    assert 64 == source.read
    stream.close()


@BOTH
def test_consumer_that_rests_stops_the_reading(executor):
    """While the consumer of a stream asks for nothing, only a bounded number of items is read."""
    source = Counted(100_000)
    stream = iter_parallel(far.give_back, source, executor=executor, max_workers=2)
    next(stream)
    seen = source.read
    threading.Event().wait(0.05)

    assert seen == source.read <= 64 + 1
    stream.close()


@BOTH
def test_window_grows_with_what_was_yielded(executor):
    """The window of a stream grows with the number of yielded outcomes, up to five thousand."""
    source, widest = Counted(40_000), 0
    for yielded, _ in enumerate(iter_parallel(far.give_back, source, executor=executor, max_workers=2), 1):
        ahead = source.read - yielded
        assert ahead <= max(64, min(yielded, 5_000))
        widest = max(widest, ahead)
    assert widest > 1_000


# Where


@pytest.mark.parametrize("main", [True, False], ids=["main thread", "other thread"])
@BOTH
def test_input_is_read_in_the_callers_thread(executor, main):
    """Runs and streams read the input in the caller's thread, to which cursors and generators may be bound."""
    source = Counted(300)
    used = set()

    def call():
        used.add(threading.get_ident())
        run_parallel(far.give_back, source, executor=executor, max_workers=2)
        for _ in iter_parallel(far.give_back, source, executor=executor, max_workers=2):
            pass

    if main:
        call()
    else:
        caller = threading.Thread(target=call)
        caller.start()
        caller.join()
    assert used == source.threads
    assert 600 == source.read


@BOTH
def test_item_of_a_slow_input_starts_before_the_next_is_asked_for(executor, tmp_path):
    """An item of a slow input starts before the next one is requested."""
    path = str(tmp_path / "begun")

    def items():
        for number in range(5):
            acts.wait_for_lines(path, number)
            threading.Event().wait(0.002)
            yield number

    results = run_parallel(partial(acts.noted, path=path), items(), executor=executor, max_workers=2)
    assert [0, 1, 2, 3, 4] == results.values()


def as_list(fn, items, **options):
    return [outcome.unwrap() for outcome in iter_parallel(fn, items, **options)]


def as_results(fn, items, **options):
    return run_parallel(fn, items, **options).values()


@pytest.mark.parametrize("key", [None, str])
@pytest.mark.parametrize(
    ("run", "executor"),
    [
        (as_results, "threads"),
        (as_results, "inline"),
        (as_list, "threads"),
        (as_list, "inline"),
        (as_results, "processes"),
        pytest.param(as_list, "processes", marks=pytest.mark.all),
    ],
)
def test_input_may_wait_for_what_its_last_item_does(run, executor, key, tmp_path):
    """The input may wait for tasks that it has yielded, such as those that fill a queue: the last items run meanwhile."""
    path = str(tmp_path / "begun")

    def items():
        for burst in range(0, 40, 8):
            acts.wait_for_lines(path, burst)
            yield from range(burst, burst + 8)

    work = partial(acts.noted_in_time if executor == "processes" else acts.noted, path=path)
    assert [*range(40)] == sorted(run(work, items(), executor=executor, max_workers=2, key=key))


# What is held


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_items_of_settled_tasks_are_let_go(executor):
    """After a run, only the caller's own references keep an item alive."""
    things = [acts.Thing(number) for number in range(100)]
    refs = [weakref.ref(thing) for thing in things]
    results = run_parallel(far.nothing, iter(things), executor=executor, max_workers=2)
    del things

    assert [None] * 100 == [ref() for ref in refs]
    assert 100 == len(results)


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_failure_holds_no_other_tasks_items(executor):
    """A failure keeps no other task's item alive, even without garbage collection."""
    things = [acts.Thing(number) for number in range(3000)]
    refs = [weakref.ref(thing) for thing in things]
    gc.disable()
    try:
        results = run_parallel(acts.fail_at, iter(things), executor=executor, max_workers=2, args=(100,))
        del things
        alive = [number for number, ref in enumerate(refs) if ref() is not None and number % 100]
        assert 30 == len(results.failures)
        del results
        assert [] == alive
    finally:
        gc.enable()


FLAT = """
import resource, sys
import remote_tasks as far
from parallelkit import iter_parallel

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

count, before = {count}, 0
for number, outcome in enumerate(iter_parallel({fn}, (n for n in range(count)), executor={executor!r}, max_workers=2)):
    if number == count // 10:
        before = peak()
print(peak() - before)
"""


@pytest.mark.parametrize("fn", ["far.nothing", *rarely("far.fail", "str")])
@pytest.mark.parametrize(
    "count",
    [pytest.param(100_000, id="100,000"), pytest.param(1_000_000, id="a million", marks=pytest.mark.all)],
)
@BOTH
def test_stream_is_flat(executor, count, fn):
    """The peak of memory grows by less than 8 MiB over the last nine tenths of the tasks."""
    if fn == "far.fail":
        count //= 10
    finished = run_script(FLAT.format(count=count, executor=executor, fn=fn), limit=300)
    assert 0 == finished.code, finished.err
    assert float(finished.out) < 8


@pytest.mark.all
def test_a_million_outcomes_are_small():
    """A million outcomes take less than 150 MB."""
    script = """
import resource
from parallelkit import run_parallel
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
before = rss()
results = run_parallel(bool, range(1_000_000), max_workers=2)
assert len(results) == 1_000_000
print(rss() - before)
"""
    finished = run_script(script, limit=120)
    assert 0 == finished.code, finished.err
    assert float(finished.out) < 150


def test_large_items_do_not_pile_up():
    """Of a hundred items of 1 MB, at most eight are alive at a time with ``buffersize=6``."""
    alive, most = weakref.WeakSet(), []

    def items():
        for _ in range(100):
            thing = acts.Large()
            alive.add(thing)
            yield thing
            del thing
            most.append(len(alive))

    until(lambda: gc.collect() == 0)
    run_parallel(far.nothing, items(), executor="processes", max_workers=2, buffersize=6)
    assert max(most) <= 8


assert sys.implementation.name == "cpython", "references are counted"
