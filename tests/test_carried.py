"""Functions of the script: a worker unpickles a function once, and what it keeps is there for the next call, or the next run."""

import gc
import sys
from collections import UserList
from collections.abc import Callable
from functools import partial
from threading import Lock
from weakref import ref

import numpy as np
import pytest

from parallelkit import Task, run_parallel
from parallelkit._executors._process import _carried
from parallelkit._executors._process._carried import CarriedClasses
from parallelkit._raised import notes_of
from parallelkit._worker import _call_functions, _jobs
from parallelkit._worker._by_value import pack_function
from parallelkit._worker._call_functions import cached_function
from parallelkit._worker._chunk import Chunk
from parallelkit._worker._jobs import kept_function
from parallelkit._worker._travel import pack

SCRIPT = """
from functools import cache

model, base = None, 10

def load():
    global model
    if model is None:
        model = "loaded"
        return 1
    return 0

def loads(item, other=0):
    return load()

@cache
def cached(item):
    return object()

def is_same(item):
    return cached(0) is cached(0), cached.cache_info().misses

@cache
def itself_cached(item):
    return itself_cached.cache_info().misses

def add(item):
    return base + item

class Echo:
    def __call__(self, item):
        return item

echo = cache(Echo())

def first(item):
    return float(base[0])

def made_anew():
    seen = []

    def nested(item):
        seen.append(item)
        return len(seen)

    return nested

def counter():
    made = []
    return lambda *_: made.append(1) or len(made)

def sharing():
    seen = []

    def is_seen(item, passed):
        return passed is seen

    return is_seen, seen

def keep(kept, item):
    kept.append(item)
    return len(kept)

def large(item, ballast=bytes(100_000)):
    return load()
"""


def submitted(executor, fn):
    return [executor.submit(fn, item).result() for item in range(4)]


def mapped(executor, fn):
    return list(executor.map(fn, range(4)))


def chunked(executor, fn):
    return list(executor.map(fn, range(4), chunksize=2))


def tasks(executor, fn):
    return run_parallel([Task(fn, item) for item in range(4)], executor=executor).values()


def with_then(executor, fn):
    return run_parallel(fn, range(4), executor=executor, then=lambda outcome: ()).values()


def starred(executor, fn):
    pairs = [(item, item) for item in range(4)]
    return run_parallel(fn, pairs, executor=executor, star=True, then=lambda outcome: ()).values()


WAYS: list[Callable] = [submitted, mapped, chunked, tasks, with_then, starred]


@pytest.mark.parametrize("way", WAYS)
def test_what_a_call_puts_into_a_global_variable_is_there_for_the_next(way, executor, script):
    """A global that a call sets, such as a loaded model, is there for the next call, as in a standard pool."""
    assert [1, 0, 0, 0] == way(executor, script["loads"])


def test_a_partial_of_it_is_no_other_function(executor, script):
    """A partial of the function is the same function, with arguments that come with each call; one that has attributes is sent whole."""
    loads = partial(script["loads"], other=[])
    assert [1, 0, 0, 0] == submitted(executor, loads)
    own = partial(script["keep"], kept := [])
    assert ([1, 1], []) == ([executor.submit(own, 0).result() for _ in range(2)], kept)
    with pytest.raises(AssertionError, match="not called here"):
        _carried.carry((own, (), {}), CarriedClasses(None), several=False)[0]()
    loads.note = "mine"
    assert loads is _carried.carry((loads, (), {}), CarriedClasses(None), several=False)[0]


@pytest.mark.parametrize("of", ["lambda held: lambda: len(held)", "lambda held: held.__len__"])
def test_an_executor_lets_go_of_the_function_of_its_last_call(of, executor, script):
    """What the function refers to, which may be large, is gone with the call, and not only with the executor."""
    held = UserList([1, 2])
    assert 2 == executor.submit(eval(of, script)(held)).result()
    gone = ref(held)
    del held
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("way", [way for way in WAYS if way is not starred])
def test_so_is_what_is_in_a_cache(way, executor, script):
    """Caches of the function, and of functions that it uses, keep their content."""
    assert [(True, 1)] * 4 == way(executor, script["is_same"])
    assert [1, 2, 3, 4] == way(executor, script["itself_cached"])


def test_a_function_whose_globals_have_changed_here_comes_anew(executor, script):
    """If a function's globals have changed, it is sent anew: a call sees the program as it is at that time."""
    assert 11 == executor.submit(script["add"], 1).result()
    script["base"] = 20
    assert 21 == executor.submit(script["add"], 1).result()


def test_a_long_function_is_not_kept(executor, script):
    """A function with a long pickle is not kept in the worker."""
    assert [1, 1, 1, 1] == submitted(executor, script["large"])
    assert script["large"] in _carried._large


def test_a_worker_keeps_the_functions_that_came_last(monkeypatch, script):
    """A worker keeps the functions that were used last."""
    monkeypatch.setattr(_call_functions, "_functions", {})
    blobs = []
    for number in range(_call_functions.MOST_CACHED + 1):
        script["base"] = number
        blobs.append(pack(script["add"])[::-1])
    first, second, *_, last = blobs
    kept = cached_function(first)
    for blob in blobs[1:-1]:
        cached_function(blob)
    assert kept is cached_function(first)
    cached_function(last)
    assert {*blobs} - {second} == {*_call_functions._functions}
    assert kept is cached_function(first)


def test_a_function_that_goes_by_its_number_is_one_that_came_last(monkeypatch, script):
    """A function that calls name by number stays in the worker while others come, and so does what it keeps for calls of another run."""
    monkeypatch.setattr(_call_functions, "_functions", {})
    monkeypatch.setattr(_call_functions, "_defined", {7: (blob := pack(script["add"])[::-1])})
    kept = cached_function(7)
    for number in range(2 * _call_functions.MOST_CACHED):
        script["base"] = number
        cached_function(pack(script["add"])[::-1])
        assert kept is cached_function(7)
    assert kept is cached_function(blob)


def runs(executor, fn, **options):
    """The values of four runs, of one item each."""
    return [run_parallel(fn, [0], executor=executor, **options).values()[0] for _ in range(4)]


@pytest.mark.parametrize("options", [{}, {"args": ([1],)}, {"kwargs": {"other": {}}}])
def test_what_a_run_puts_into_a_global_variable_is_there_for_the_next(executor, script, options):
    """What a run's function of the script keeps in a worker, such as a loaded model, is there in the next run, as for a module's function."""
    assert [1, 0, 0, 0] == runs(executor, script["loads"], **options)
    assert [0, 0, 0, 0] == runs(executor, partial(script["loads"], other=[]))
    script["base"] = 20
    assert [20] == run_parallel(script["add"], [0], executor=executor).values()
    assert [0, 0, 0, 0] == runs(executor, script["loads"])


def test_a_nested_function_made_anew_has_its_own_closure(executor, script):
    """Two nested functions of the same code and values are two: what one has put into its closure is not in that of the other."""
    first, second = script["counter"](), script["counter"]()
    assert [1, 2, 1, 3] == [executor.submit(count).result() for count in (first, first, second, first)]
    for _ in range(2):
        assert [1, 2] == run_parallel(
            [Task(script["counter"]()) for _ in range(2)], executor=executor
        ).values()
        assert [1] == run_parallel(script["counter"](), [0], executor=executor).values()


def test_so_is_what_a_run_puts_into_a_cache(executor, script):
    """Caches of a run's function, and of functions that it uses, keep their content from run to run."""
    assert [(True, 1)] * 4 == runs(executor, script["is_same"])
    assert [1, 1, 1, 1] == runs(executor, script["itself_cached"])
    assert [0, 0, 0, 0] == runs(executor, script["echo"])


def test_a_run_has_its_function_as_it_is_by_then(executor, script):
    """If a function's globals have changed, a run sends it anew."""
    assert [11] == run_parallel(script["add"], [1], executor=executor).values()
    script["base"] = 20
    assert [21] == run_parallel(script["add"], [1], executor=executor).values()


def test_a_run_has_the_closure_of_its_function(executor, script):
    """A nested function that is made anew for a run has captured new values, though its bytes are those of the one before."""
    values = [run_parallel(script["made_anew"](), [0, 1], executor=executor).values() for _ in range(3)]
    assert [[1, 2]] * 3 == values
    assert [[1, 2]] * 3 == [
        run_parallel(
            eval("lambda item, seen=[]: seen.append(item) or len(seen)", script), [0, 1], executor=executor
        ).values()
        for _ in range(3)
    ]


def test_a_run_has_the_file_that_an_array_is_by_then(executor, script, tmp_path):
    """If an array is a file that another has taken the place of, a function that uses it is sent anew."""
    file, later = tmp_path / "table.npy", tmp_path / "later.npy"
    for number in (1.0, 2.0):
        np.save(later, np.full(4, number))
        later.replace(file)
        script["base"] = np.load(file, mmap_mode="r")
        assert [number] == run_parallel(script["first"], [0], executor=executor).values()
        script["base"] = None  # which closes the file


class Unready:
    """Cannot be unpickled."""

    def __reduce__(self):
        return int, ("no",)


def test_the_function_of_a_run_that_cannot_be_unpickled_belongs_in_a_module(executor, script):
    """The error of a function of the script that a worker cannot unpickle says what to do."""
    script["base"] = Unready()
    blamed, note, _ = run_parallel(script["add"], [0], executor=executor).failures[0].error.__notes__
    assert blamed.startswith("base, which __main__.add uses, is to blame")
    assert note.endswith("; if it is the script's, define it in a module, which workers import")


def test_a_large_function_of_a_run_is_not_kept(executor, script):
    """A function with a long pickle goes with its run, whose large buffers are set apart; it is not packed whole to find out."""
    assert [1, 1, 1, 1] == runs(executor, script["large"])
    assert script["large"] in _carried._large
    script["base"] = reads = Reads([0] * 1000)
    assert (script["add"], b"") == _carried.carry_for_run(script["add"], bare=True)
    assert reads.times < 200


def test_a_nested_function_of_a_run_shares_what_it_has_captured_with_the_arguments(executor, script):
    """An object that it has captured, and that is passed to all tasks, too, is one in a worker as well: a list to append to, a sentinel."""
    is_seen, seen = script["sharing"]()
    assert [True] == run_parallel(is_seen, [0], args=(seen,), executor=executor).values()
    assert [True] == run_parallel(is_seen, [0], kwargs={"passed": seen}, executor=executor).values()
    assert [True] == run_parallel(partial(is_seen, passed=seen), [0], executor=executor).values()


class Reads(UserList):
    """A list whose items take 1 KiB each when it is pickled; counts how many were."""

    times = 0

    def __reduce__(self):
        return list, (), None, self.pickled()

    def pickled(self):
        for _ in self:
            self.times += 1
            yield bytes(1000)


def test_a_worker_keeps_a_function_of_runs_as_it_was_last(monkeypatch, script):
    """A later version of a function takes the place of the earlier, with all that this has loaded; of many functions, the last are kept."""
    monkeypatch.setattr(_jobs, "_kept", {})
    first = ref(kept_function("add", blob := pack(script["add"])[::-1]))
    assert first() is kept_function("add", blob)
    script["base"] = 20
    second = kept_function("add", pack(script["add"])[::-1])
    gc.collect()
    assert first() is None
    for number in range(_call_functions.MOST_CACHED - 1):
        kept_function(str(number), blob)
    assert second is kept_function("add", pack(script["add"])[::-1])
    kept_function("another", blob)
    assert "0" not in _jobs._kept
    assert second is kept_function("add", pack(script["add"])[::-1])


def test_who_looks_for_names_of_the_script_in_a_call_finds_none(script):
    """The pickle of a call contains no name of the script; otherwise it would be pickled a second time, with the slower cloudpickle."""
    call = _carried.carry((script["loads"], (1,), {}), CarriedClasses(None), several=False)
    assert b"__main__" not in pack(call)


def test_a_chunk_of_calls_keeps_its_function(script):
    """The caller's chunk still has the function itself, which messages name, and which is packed anew with later chunks."""
    chunk = Chunk(script["loads"])
    carried, *_ = _carried.carry((chunk, ([(1,)],), {}), CarriedClasses(None), several=False)
    assert [script["loads"], _carried.Carried] == [chunk.fn, type(carried.fn)]


def test_the_function_of_a_run_names_an_array_that_is_a_file(script, tmp_path):
    """Workers map the file, which may be huge, and tasks may write to it; a copy would be sent with each run."""
    script["base"] = np.memmap(tmp_path / "table", "f8", "w+", shape=(4,))
    _, packed = _carried.carry_for_run(script["add"], bare=True)
    assert b"open_memmap" in packed
    script["base"] = 10  # and so the file is closed


def test_a_function_may_refer_to_an_array_of_any_size(script, executor):
    """Neither to a small one, nor to one that is shared: the memory of one between is handed over whole as it is pickled."""
    for size in (10_000, 30_000):
        script["base"] = np.full(size, 2.0)
        assert [2.0] == run_parallel(script["first"], [0], executor=executor).values()
        assert 2.0 == executor.submit(script["first"], 0).result()


def test_the_function_of_a_module_goes_by_its_name(executor):
    """A function of a module is sent by its name."""
    call = (submitted, (1,), {})
    assert call == _carried.carry(call, CarriedClasses(None), several=False)


def test_functions_of_many_tasks_are_packed_once_for_each_portion_of_them(script, executor, monkeypatch):
    """Packing a function takes four times as long as all the rest of a task. A later run packs it as it is then."""
    packed = []

    def counted(fn, file):
        packed.append(fn)
        return pack_function(fn, file)

    monkeypatch.setattr(_carried, "pack_function", counted)
    add, loads = script["add"], script["loads"]
    tasks = [*(Task(add, n) for n in range(500)), *(Task(partial(loads, n)) for n in range(500))]

    values = run_parallel(tasks, executor=executor).values()

    assert [*range(10, 510), 1, *[0] * 499] == values
    assert {add, loads} == set(packed)
    assert len(packed) < 100
    script["base"] = 20
    assert [*range(20, 520)] == run_parallel(tasks[:500], executor=executor).values()


def test_an_error_shows_none_of_the_packing_within(script):
    """What a function cannot bring is shown with the error of pickle, and not as raised while we were handling one of our own."""
    script["base"] = Lock()

    with pytest.raises(TypeError, match=r"^base, which .*add uses, cannot be sent") as caught:
        run_parallel(script["add"], [1], executor="processes")

    assert type(caught.value.__cause__) is TypeError
    assert caught.value.__cause__.__context__ is None
    assert [] == notes_of(caught.value.__cause__)


def test_the_notes_of_pickle_begin_at_the_part_to_blame(script):
    """They name neither what we send a call as nor, if a function goes by value, what it is sent as."""
    given = {"deep": [Lock()]}
    script["base"] = Lock()
    with pytest.raises(TypeError, match=r"^kwargs\['option'\] cannot be sent") as caught:
        run_parallel(len, [1], executor="processes", kwargs={"option": given})
    results = run_parallel(len, [given, [script["add"]]], executor="processes")
    of_task = run_parallel([Task(len, given)], executor="processes")

    notes = ["when serializing list item 0", "when serializing dict item 'deep'"]
    errors = [caught.value, *(results.failures[key].error for key in (0, 1)), of_task.failures[0].error]
    found = [notes_of(error.__cause__) for error in errors]
    expected = notes if sys.version_info >= (3, 14) else []
    assert [expected, expected, [], expected] == found
