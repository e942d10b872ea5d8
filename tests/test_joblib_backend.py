"""The joblib backend: how many jobs, crashes, kills, when workers end, how arrays are packed, and scikit-learn on top of it."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pickle import PickleBuffer, PicklingError
from types import SimpleNamespace

import numpy as np
import pytest
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from joblib.parallel import FallbackToBackend
from joblib_calls import PATIENCE, is_gone, parallel, pids
from patience import wait_until
from remote_tasks import meet

from parallelkit import WorkerDied
from parallelkit._executors._processes import ProcessEngine
from parallelkit._joblib import _batches, _packing
from parallelkit._joblib._batches import Batches, describe_calls
from parallelkit._joblib._worker import map_part
from parallelkit.joblib_backend import Backend, Crew, backend_class, register

register()


@pytest.fixture
def ours():
    """A block in which our backend is the active one."""
    with parallel_config(backend="parallelkit", n_jobs=2):
        yield


# How many jobs


@pytest.mark.parametrize("n_jobs", [None, 1])
def test_one_job_is_done_right_here(n_jobs):
    """With n_jobs=1, calls run in this process, as everywhere in joblib."""
    assert [os.getpid()] == Parallel(n_jobs=n_jobs, backend="parallelkit")([delayed(os.getpid)()])


def test_how_many_jobs():
    """n_jobs=-1 means all CPUs, and 0 is refused, as everywhere in joblib."""
    with parallel_config(backend="parallelkit"):
        assert (1, 3, effective_n_jobs(-1)) == (effective_n_jobs(None), effective_n_jobs(3), os.cpu_count())
        with pytest.raises(ValueError, match="n_jobs == 0 in Parallel has no meaning"):
            effective_n_jobs(0)


@pytest.mark.parametrize(("counted", "outer", "jobs"), [(8, 1, 8), (6, 1, 6), (8, 2, 4), (4, 2, 4)])
def test_cpus_are_shared_out_once(monkeypatch, counted, outer, jobs):
    """Of eight cpus, n_jobs=-1 means what joblib counts, or a nested run's share, and -2 one less; in a worker, joblib counts that share."""
    monkeypatch.setattr("joblib.cpu_count", lambda: counted)
    monkeypatch.setattr("parallelkit.joblib_backend.usable_cpus", lambda: 8)
    monkeypatch.setattr("parallelkit.joblib_backend.outer_width", lambda: outer)
    with parallel_config(backend="parallelkit"):
        assert [jobs, jobs - 1, 1] == list(map(effective_n_jobs, (-1, -2, -9)))


# What goes wrong


def die(status):
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


@pytest.mark.parametrize(
    ("status", "text"), [(7, "exited with code 7"), (-signal.SIGSEGV, "was ended by SIGSEGV")]
)
@pytest.mark.all
def test_a_crash_names_the_batch_and_the_pool_lives(ours, tmp_path, status, text):
    """A crash raises an error that names the batch; the other worker goes on, and the next call works."""
    before = pids(tmp_path, "before")
    with pytest.raises(WorkerDied) as caught:
        parallel([delayed(die)(status)], pre_dispatch="all")
    assert text in str(caught.value)
    assert f"while it ran a batch of 1 call: die({status})" in str(caught.value)
    assert caught.value.pid in before
    assert before - {caught.value.pid} == before & pids(tmp_path, "after")


def test_a_crash_is_a_broken_pool_to_who_expects_one(ours):
    """The error of a crash is a BrokenProcessPool."""
    with pytest.raises(BrokenProcessPool):
        parallel([delayed(die)(1), delayed(abs)(1)])


def hang(folder):
    open(f"{folder}/{os.getpid()}", "w").close()
    time.sleep(3600)


def see_hanging(folder):
    """Wait until another call hangs."""
    wait_until(lambda: os.listdir(folder))


def fail_beside(folder):
    """Fail while another call hangs."""
    see_hanging(folder)
    raise LookupError("this one")


def hang_or_see(folder, hangs):
    """Hang, or wait until the other call does."""
    if hangs:
        hang(folder)
    try:
        fail_beside(folder)
    except LookupError:
        return hangs


def the_hanging(folder):
    """The pid of the worker that hangs or hung."""
    (path,) = folder.iterdir()
    return int(path.name)


@pytest.mark.parametrize("return_as", ["list", "generator"])
@pytest.mark.all
def test_an_error_comes_back_and_kills_what_runs(ours, tmp_path, return_as):
    """A call's own error is raised, with its class and text, and other calls are killed."""
    with pytest.raises(LookupError, match="this one") as caught:
        list(parallel([delayed(hang)(tmp_path), delayed(fail_beside)(tmp_path)], return_as=return_as))
    (note,) = caught.value.__notes__
    assert "in fail_beside" in note
    assert 'raise LookupError("this one")' in note
    assert is_gone(the_hanging(tmp_path))


@pytest.mark.all
def test_a_timeout_kills_what_runs_and_the_next_call_works(ours, tmp_path):
    """A timeout raises joblib's own error and kills the hung worker."""

    def calls():
        yield delayed(hang)(tmp_path)
        yield delayed(abs)(-1)
        see_hanging(tmp_path)  # joblib's clock starts when it has read the input: the worker hangs by then

    with pytest.raises(multiprocessing.TimeoutError):
        parallel(calls(), timeout=0.5)
    assert is_gone(the_hanging(tmp_path))
    assert [2] == parallel([delayed(abs)(-2)])


@pytest.mark.all
def test_ctrl_c_kills_what_runs_though_the_input_waits(ours, tmp_path, monkeypatch):
    """The input is read on in our thread, by joblib, and may come back late: what runs does not live on until then."""
    monkeypatch.setattr(_batches, "GRACE", 0.01)
    go_on, readers = threading.Event(), []

    def calls():
        yield delayed(hang)(tmp_path)
        yield delayed(abs)(-1)
        see_hanging(tmp_path)
        readers.append(threading.current_thread())
        os.kill(os.getpid(), signal.SIGINT)
        go_on.wait()

    with pytest.raises(KeyboardInterrupt):
        parallel(calls(), pre_dispatch=2)
    try:
        assert is_gone(the_hanging(tmp_path))
    finally:
        go_on.set()
        readers[0].join()


@pytest.mark.all
def test_a_generator_that_is_closed_kills_what_runs(ours, tmp_path):
    """Closing a generator of results kills the calls that run."""
    results = parallel([delayed(hang_or_see)(tmp_path, hangs) for hangs in (0, 1)], return_as="generator")
    assert 0 == next(results)
    with pytest.warns(UserWarning, match="cancelled"):
        results.close()
    assert is_gone(the_hanging(tmp_path))


@pytest.mark.parametrize(
    "make", [threading.Lock, lambda: (n for n in "a"), lambda: multiprocessing.Pipe()[0]]
)
def test_what_cannot_be_pickled_is_said_with_its_batch(ours, make):
    """An argument that cannot be pickled raises an error as joblib's; such a value is its call's error. The pool lives."""
    with pytest.raises(PicklingError, match=r"the task to send .* a batch of 1 call: id\(<"):
        parallel([delayed(id)(make())])
    with pytest.raises(
        (TypeError, PicklingError), match=r"cannot be pickled \(.*or use backend='threading'$"
    ):
        parallel([delayed(make)()])
    assert [2] == parallel([delayed(abs)(-2)])


class Leaves:
    """Exits the program as it is pickled."""

    def __reduce__(self):
        raise SystemExit(3)


@pytest.mark.parametrize("made", [lambda: (abs(number) for number in range(3)), lambda: [(abs, 1)]])
def test_calls_without_delayed_are_told_to_have_it(ours, made):
    """The error of the usual mistake with joblib says what to write; the next call works."""
    with Parallel(n_jobs=2) as parallel:
        with pytest.raises(TypeError, match=r"calls that delayed has made, got .*write delayed\(f\)\(x\)"):
            parallel(made())
        assert [0, 1, 2] == parallel(delayed(abs)(number) for number in range(3))


def test_calls_may_be_lists(ours):
    """Calls that were put together by hand, as joblib's own backends take them."""
    assert [1, 8] == Parallel(n_jobs=2)([[abs, (-1,), {}], (pow, [2, 3], {})])


def test_calls_that_a_failed_one_has_left_are_not_those_of_the_next(ours):
    """Joblib keeps what it has read ahead, and would put its results before those of the next call, as under loky."""
    with Parallel(n_jobs=2) as parallel:
        with pytest.raises(ZeroDivisionError):
            parallel(delayed(divmod)(1, number - 50) for number in range(60))
        assert [0, 1, 2] == parallel(delayed(abs)(number) for number in range(3))


def test_what_exits_as_it_is_pickled_is_an_error_and_no_hang(ours):
    """A SystemExit out of a ``__reduce__`` is the error of its batch; it used to end the thread that sends batches."""
    with pytest.raises(PicklingError, match="SystemExit: 3"):
        parallel([delayed(id)(Leaves())], timeout=PATIENCE)


def input_that_exits():
    """An input that exits the program after more calls than are read ahead."""
    yield from (delayed(abs)(number) for number in range(8))
    sys.exit(3)


@pytest.mark.parametrize(
    ("return_as", "ahead"),
    [("list", "2*n_jobs"), pytest.param("generator", 1, marks=pytest.mark.all), ("generator_unordered", 1)],
)
def test_an_input_that_exits_exits(ours, return_as, ahead):
    """A SystemExit out of the input, which joblib reads on in a thread of the backend, is raised by the call, also if no other batch is under way."""
    with pytest.raises(SystemExit, match="3"):
        list(parallel(input_that_exits(), return_as=return_as, pre_dispatch=ahead, timeout=PATIENCE))
    assert [2] == parallel([delayed(abs)(-2)])


def broken_initializer():
    raise RuntimeError("no")


@pytest.mark.all
def test_an_initializer_that_raises_is_an_error_and_no_hang():
    """An initializer that raises breaks the pool, as with the standard one."""
    with pytest.raises(
        BrokenProcessPool, match="the initializer of a worker process raised RuntimeError: no"
    ):
        Parallel(2, backend="parallelkit", initializer=broken_initializer)(delayed(abs)(n) for n in range(9))


def raise_if_there(path):
    if os.path.exists(path):
        raise RuntimeError("the service is down")


@pytest.mark.all
def test_after_an_initializer_that_raised_the_next_call_has_new_workers(tmp_path):
    """In the same block, too: it may have been an outage. It waited for ever."""
    down = tmp_path / "down"
    down.touch()
    with parallel_config(backend="parallelkit", n_jobs=2, initializer=raise_if_there, initargs=(str(down),)):
        with pytest.raises(BrokenProcessPool, match="the service is down"):
            parallel([delayed(abs)(-1)])
        down.unlink()
        assert [2] == parallel([delayed(abs)(-2)])


@pytest.mark.parametrize("where", [parallel_config, Parallel])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"initializer": 5}, "initializer must be callable, got 5"),
        ({"initializer": print, "initargs": "ab"}, "initargs must be a tuple or a list .* got 'ab'"),
    ],
)
def test_an_initializer_that_cannot_be_called_is_refused(where, given, message):
    """A bad initializer, or ``initargs`` that are a string, is refused before a worker starts."""
    with pytest.raises(TypeError, match=message):
        made = where(backend="parallelkit", n_jobs=2, **given)
        made([delayed(abs)(1)])


@pytest.mark.parametrize("where", [parallel_config, Parallel])
def test_an_option_that_nobody_knows_is_refused(where):
    """An unknown option is refused with its name, and where it may belong."""
    with pytest.raises(
        TypeError, match=r"no option 'retries', only initargs and initializer; .* of Parallel"
    ):
        made = where(backend="parallelkit", n_jobs=2, retries=3)
        made([delayed(abs)(1)])


def test_shared_memory_is_refused_in_the_name_of_our_class():
    """The error by which joblib refuses ``require="sharedmem"`` of a backend of processes names our class and its module."""
    with pytest.raises(ValueError, match=r"parallelkit\.joblib_backend\.ParallelkitBackend"):
        Parallel(2, backend="parallelkit", require="sharedmem")


def test_an_interrupt_in_a_worker_is_one_here(ours):
    """A KeyboardInterrupt in a worker is raised here, as under the other backends."""

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parallel([delayed(interrupted)(), delayed(abs)(1)])


# Workers


def test_workers_stay_warm_for_the_block_and_end_with_it(tmp_path):
    """Calls in one block share their workers, which end with the block."""
    with parallel_config(backend="parallelkit", n_jobs=2):
        first = pids(tmp_path, "first")
        assert first == pids(tmp_path, "second")
    assert all(map(is_gone, first))


@pytest.fixture
def without_collector():
    """No garbage is collected during the test."""
    gc.disable()
    yield
    gc.enable()


def fail_in(folder):
    """Call one function that hangs and one that fails; keep no reference to the error."""
    try:
        parallel([delayed(hang)(folder), delayed(fail_beside)(folder), delayed(abs)(-1)])
    except LookupError:
        return


@pytest.mark.all
def test_workers_end_with_the_block_where_a_call_has_failed(tmp_path, without_collector):
    """After a failed call, workers end with the block, without garbage collection."""
    with parallel_config(backend="parallelkit", n_jobs=2):
        first = pids(tmp_path, "first")
        (tmp_path / "hang").mkdir()
        fail_in(tmp_path / "hang")
        second = pids(tmp_path, "second")
    assert all(map(is_gone, first | second))


def test_other_workers_are_made_where_others_are_asked_for():
    """A call with another width, cap of threads or initializer in the same block does not get the workers of the one before."""
    crew = Crew()
    for wanted in ((2, None, None, ()), (3, None, None, ()), (3, 1, None, ()), (3, 1, print, ("a",))):
        before, engine = crew._engine, crew.engine(*wanted)
        assert engine is not before
        assert engine is crew.engine(*wanted)
    assert engine is not crew.engine(3, 1, print, ("b",))


def test_workers_end_with_their_parallel(tmp_path):
    """Workers of a Parallel outside a block end with it."""
    found = Parallel(2, backend="parallelkit", batch_size=1)(
        delayed(meet)(str(tmp_path), 2) for _ in range(2)
    )
    assert all(map(is_gone, found))


def test_a_parallel_beside_another_has_its_workers():
    """A call in a block while the results of another are still being taken has the workers of the block, set up as they are."""
    backend = backend_class()(0, 3, initializer=print, initargs=("a",))
    assert 2 == backend.configure(2, parallel=object())
    with pytest.raises(FallbackToBackend) as caught:
        backend.configure(2, parallel=object())
    sibling = caught.value.backend
    assert 2 == sibling.configure(2, parallel=object())
    assert sibling._workers._engine is backend._workers._engine
    for each in (backend, sibling):
        each.abort_everything(ensure_ready=False)


def test_the_size_of_batches_is_found_anew_for_each_call():
    """A call with slow functions does not begin with the large batches of the one before it in the block."""
    backend = backend_class()(0)
    assert 2 == backend.configure(2, parallel=object())
    backend._effective_batch_size = 1000
    backend.terminate()
    assert 1 == backend.compute_batch_size()


@pytest.mark.all
def test_a_parallel_in_a_with_statement_works_after_an_error():
    """A Parallel that is used for several calls, by ``with``, makes the next one after one that has failed."""
    with Parallel(2, backend="parallelkit", batch_size=1) as both:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                both(delayed(divmod)(1, number) for number in (1, 0))
            assert [1, 2] == both(delayed(abs)(-number) for number in (1, 2))


def environment(name):
    return os.environ.get(name)


@pytest.mark.parametrize(("inner", "threads"), [(3, "3"), (None, str(max(1, os.cpu_count() // 2)))])
@pytest.mark.all
def test_numerical_libraries_are_capped(inner, threads, monkeypatch):
    """Threads of numerical libraries are limited as requested, or to a worker's share."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with parallel_config(backend="parallelkit", n_jobs=2, inner_max_num_threads=inner):
        assert [threads] * 2 == parallel([delayed(environment)("OMP_NUM_THREADS")] * 2)


@pytest.mark.all
def test_the_initializer_runs_first_in_each_worker(tmp_path):
    """The initializer of the block, or of the call, runs first in each worker."""

    def mark(name):
        os.environ["MARK"] = name

    with parallel_config(backend="parallelkit", n_jobs=2, initializer=mark, initargs=("block",)):
        assert ["block"] * 4 == parallel([delayed(environment)("MARK")] * 4)
        assert ["call"] * 4 == parallel(
            [delayed(environment)("MARK")] * 4, initializer=mark, initargs=("call",)
        )


@pytest.mark.all
def test_parallel_within_a_call(ours):
    """A nested Parallel uses threads by default, or processes if they are named, which works in workers, too."""

    def by_default():
        nested = Parallel(n_jobs=2)
        return type(nested._backend).__name__, nested([delayed(os.getpid)()] * 2)

    def by_name():
        nested = Parallel(n_jobs=2, backend="parallelkit")
        return os.getpid() in nested([delayed(os.getpid)()] * 2)

    for name, found in parallel([delayed(by_default)()] * 2):
        assert ("ThreadingBackend", 1) == (name, len(set(found)))
    assert [False, False] == parallel([delayed(by_name)()] * 2)


# Arrays


def total_and_spoil(array):
    total = float(array.sum())
    array[:] = 0
    return total


@pytest.mark.parametrize("options", [{}, {"max_nbytes": None}, {"max_nbytes": 10}])
@pytest.mark.all
def test_each_batch_may_write_its_array_and_nobody_sees_it(ours, options):
    """Each batch has the array as the caller has it, and may write to it without affecting others."""
    array = np.ones(300_000)
    assert [300_000.0] * 12 == parallel([delayed(total_and_spoil)(array) for _ in range(12)], **options)
    assert 300_000.0 == array.sum()


def test_an_array_that_comes_again_is_copied_once(ours):
    """Repeated arrays are copied once, into a file that all workers map; the next array has another."""

    def mapped(array, _):
        where = array.__array_interface__["data"][0]
        with open("/proc/self/maps") as maps:
            for line in maps:
                start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
                if start <= where < end:
                    return line.split()[4]  # the inode
        return None

    first, second = np.ones(300_000), np.ones(300_000)
    inodes = parallel(delayed(mapped)(array, n) for n in range(10) for array in (first, second))
    assert 1 == len(set(inodes[4::2]))
    assert 1 == len(set(inodes[5::2]))
    assert inodes[4] != inodes[5]


@pytest.mark.all
def test_arrays_within_things_are_shared_too(ours):
    """Arrays in frames, containers and objects are shared, in either memory order, and read-only ones."""
    import pandas as pd

    frame = pd.DataFrame(np.arange(600_000.0).reshape(-1, 6))
    fortran = np.asfortranarray(np.ones((1000, 300)))
    frozen = np.ones(300_000)
    frozen.flags.writeable = False
    expected = (float(frame.to_numpy().sum()), 300_000.0, 300_000.0)

    def totals(frame, rest):
        return float(frame.to_numpy().sum()), float(rest["fortran"].sum()), float(rest["frozen"][0].sum())

    calls = [delayed(totals)(frame, {"fortran": fortran, "frozen": [frozen]}) for _ in range(8)]
    assert [expected] * 8 == parallel(calls)


def test_a_change_between_two_calls_is_seen(ours):
    """A change to an array between two calls, even of one Parallel, is seen."""
    array = np.ones(300_000)
    with Parallel(batch_size=1) as several:
        for factor in (1, 2, 3):
            assert [300_000.0 * factor] * 6 == several(delayed(np.sum)(array) for _ in range(6))
            array += 1


@pytest.mark.all
def test_a_class_is_as_the_script_has_it(ours):
    """A change to a class of the script between two calls, even of one Parallel, is seen."""

    class Box:
        factor = 0

    with Parallel(batch_size=1) as several:
        for factor in (1, 2):
            Box.factor = factor
            assert [factor] * 4 == several(delayed(lambda box: box.factor)(Box()) for _ in range(4))


@pytest.mark.all
def test_arrays_that_were_dropped_are_forgotten(ours):
    """New arrays at the addresses of dropped ones are not confused with them, and no descriptor leaks."""
    results = parallel(delayed(np.sum)(np.full(300_000, n)) for n in range(40) for _ in range(2))
    assert [300_000 * n for n in range(40) for _ in range(2)] == results


def test_the_copy_of_an_array_ends_with_its_parallel(ours):
    """Its descriptor, and so its memory, is given back at the end, though the caller still has the array."""
    array = np.ones(300_000)
    assert [300_000.0] * 4 == parallel(delayed(np.sum)(array) for _ in range(4))
    with os.scandir("/proc/self/fd") as entries:
        names = [os.readlink(entry.path) for entry in entries if os.path.lexists(entry.path)]
    assert not [name for name in names if "parallelkit-array" in name]


class Grid:
    """Lends its memory to numpy by the array interface, as extension modules do; it is no array, and has no base."""

    def __init__(self, values):
        self.values = values
        self.__array_interface__ = values.__array_interface__


def test_the_memory_of_an_array_may_be_that_of_any_object(ours):
    """An array over the memory of an object that is no array is sent as any other."""
    array = np.asarray(Grid(np.ones(300_000)))
    assert [300_000.0] * 4 == parallel(delayed(np.sum)(array) for _ in range(4))


def test_a_call_may_have_more_arrays_than_a_process_has_descriptors(monkeypatch):
    """Each copy takes a descriptor, so only so many arrays are copied, and another once one of them is gone."""

    def are_copies():
        return [isinstance(part, tuple) for part in packer.pack(arrays)[1]]

    monkeypatch.setattr(_packing, "MOST", 2)
    packer, arrays = _packing.Packer(1_000_000), [np.full(300_000, n) for n in range(4)]
    assert [False] * 4 == are_copies()
    assert [True, True, False, False] == are_copies() == are_copies()
    del arrays[0]
    assert [True, True, False] == are_copies()
    packer.close()


def test_batches_are_packed_only_as_far_as_there_is_room():
    """With ``pre_dispatch="all"`` all batches come at once, but only some are packed, which takes memory for what is in them again."""
    packed, news = [], threading.Semaphore(0)
    port = SimpleNamespace(failure=None, room=lambda: 2 - len(packed), start=packed.extend, close=list)
    port.wait, port.wake = lambda until: news.acquire() and [], news.release
    batches = Batches(SimpleNamespace(open=lambda job: port), None)
    for _ in range(5):
        batches.submit(SimpleNamespace(items=[]), None)
    while news._value:
        time.sleep(0.001)
    assert (2, 3) == (len(packed), len(batches._inbox))
    batches.close()


def test_a_batch_that_comes_after_the_workers_have_failed_fails():
    """Nobody is left to settle it: those of another call in the same block may have broken them before there was any batch."""
    failure, called = BrokenProcessPool("no"), []
    port = SimpleNamespace(failure=failure, room=lambda: 0, start=list, close=list, wait=lambda until: [])
    port.wake = lambda: None
    batches = Batches(SimpleNamespace(open=lambda job: port), None)
    first = batches.submit(None, called.append)
    batches._thread.join(10)
    second = batches.submit(None, called.append)
    assert [first, second] == called
    with pytest.raises(BrokenProcessPool):
        second.result()
    batches.close()


# Signal handlers that raise, as for a timeout. What a test leaves behind, a thread or a worker, fails it.


def raising_once(where, monkeypatch, after=False):
    """Make a method raise TimeoutError at its next call, as if a signal handler did at its begin, or its end."""
    owner, name = where
    method = getattr(owner, name)

    def cut_off(*args):
        monkeypatch.undo()
        if after:
            method(*args)
        raise TimeoutError

    monkeypatch.setattr(owner, name, cut_off)


def test_a_port_whose_thread_was_not_started_is_closed(monkeypatch):
    """Nobody else would close it: the workers would go on as if there were a run."""
    closed, port = [], SimpleNamespace(wake=list)
    port.close = lambda: closed.append(port)
    batches = Batches(SimpleNamespace(open=lambda job: port), None)
    raising_once((_batches.Thread, "start"), monkeypatch)
    with pytest.raises(TimeoutError):
        batches.submit(None, None)
    batches.close()
    assert [port] == closed


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "where",
    [
        (Backend, "start_call"),
        (_batches.Thread, "start"),
        (ProcessEngine, "open"),
        (Backend, "terminate"),
        (Batches, "close"),
        (Batches, "let_go"),
    ],
    ids=lambda where: where[1],
)
def test_a_signal_handler_may_raise_at_any_time(ours, monkeypatch, where, after):
    """Be it before the call has begun or as it ends, when joblib terminates no backend: workers and thread end with it."""
    raising_once(where, monkeypatch, after)
    with pytest.raises(TimeoutError):
        Parallel()(delayed(abs)(number) for number in range(3))
    assert [0, 1, 2] == Parallel()(delayed(abs)(number) for number in range(3))


@pytest.mark.parametrize("max_nbytes", [None, 3_000_000])
def test_an_array_is_not_shared_below_the_bound_of_the_caller(max_nbytes):
    """An array smaller than ``max_nbytes``, or any if that is None, is sent with each batch: it may change meanwhile."""
    packer, array = _packing.Packer(max_nbytes), np.ones(300_000)
    assert [True] * 3 == [isinstance(packer.pack(array)[1][0], PickleBuffer) for _ in range(3)]


def test_parts_of_one_array_are_not_taken_for_each_other():
    """Views of one array are shared each for itself, be they as large at another place, or smaller at the same."""
    array = np.arange(600_000)
    views = [array[:300_000], array[300_000:], array[:200_000]]
    packer = _packing.Packer(1_000_000)
    packer.pack(views)
    copies = [np.frombuffer(map_part(*part), array.dtype) for part in packer.pack(views)[1]]
    packer.close()
    assert [list(view) for view in views] == [list(copy) for copy in copies]


def test_what_must_be_pickled_twice_has_each_array_once():
    """Arrays before and after what plain pickle refuses stay apart; were the first sent twice, it would take the place of the second."""
    arrays = np.zeros(300_000), np.ones(300_000)
    _, parts = _packing.Packer(None).pack((arrays[0], lambda: None, arrays[1]))
    assert [0, 1] == [np.frombuffer(part)[0] for part in parts]


def test_a_large_buffer_may_be_that_of_no_array():
    """A large buffer of something else than an array, such as a column of a pyarrow table, is sent with each batch."""
    packer, buffer = _packing.Packer(1), bytearray(2_000_000)
    for _ in range(2):
        _, (part,) = packer.pack(PickleBuffer(buffer))
        assert buffer == part.raw()


def test_an_array_that_is_a_file_goes_by_its_name_beside_what_has_none(tmp_path):
    """A lambda among the calls has them pickled by value, but not the content of a file."""
    array = np.memmap(tmp_path / "file", "f8", "w+", shape=(12,))
    blob, _ = _packing.Packer(None).pack((array, lambda: None))
    assert b"open_memmap" in blob


# scikit-learn


@pytest.fixture(scope="module")
def problem():
    from sklearn.datasets import make_classification

    return make_classification(300, 12, random_state=0)


@pytest.mark.all
def test_a_grid_search_finds_what_it_finds_alone(problem, ours):
    """A grid search finds the same scores, parameters and predictions as without parallelism."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    grid = {"C": [0.1, 1, 10]}
    alone = GridSearchCV(LogisticRegression(), grid, cv=3, n_jobs=1).fit(*problem)
    here = GridSearchCV(LogisticRegression(), grid, cv=3, n_jobs=2).fit(*problem)
    assert alone.best_params_ == here.best_params_
    np.testing.assert_array_equal(alone.cv_results_["mean_test_score"], here.cv_results_["mean_test_score"])


@pytest.mark.all
def test_cross_validation_gives_the_same_scores(problem, ours):
    """Cross-validation gives exactly the same scores."""
    from sklearn.model_selection import cross_val_score
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(random_state=0)
    np.testing.assert_array_equal(
        cross_val_score(tree, *problem, cv=4, n_jobs=1), cross_val_score(tree, *problem, cv=4, n_jobs=2)
    )


@pytest.mark.all
def test_a_forest_grows_the_same_trees(problem, ours):
    """A forest has the same trees, even in a search that is parallel itself."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import GridSearchCV

    forest = RandomForestClassifier(8, random_state=0)
    alone = forest.set_params(n_jobs=1).fit(*problem).predict_proba(problem[0])
    here = forest.set_params(n_jobs=2).fit(*problem).predict_proba(problem[0])
    np.testing.assert_array_equal(alone, here)

    search = GridSearchCV(forest, {"max_depth": [2, None]}, cv=2, n_jobs=2).fit(*problem)
    assert 0.5 < search.best_score_ <= 1


@pytest.mark.all
def test_a_search_whose_fits_fail_says_so(problem, ours):
    """scikit-learn's handling of failed fits works."""
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    with pytest.raises(ValueError, match="All the 3 fits failed"):
        cross_val_score(SVC(C=-1), *problem, cv=3, n_jobs=2)


# Small things


def test_calls_are_described_in_short():
    """Calls are described briefly in errors, whatever their arguments' repr does."""

    class Rude:
        def __repr__(self):
            raise RuntimeError("no")

        def __getattr__(self, name):
            raise RuntimeError("no context")

    calls = [
        (sum, (list(range(1000)),), {}),
        (print, ("x" * 1000, 2, 3, 4), {"end": ""}),
        (Rude(), (Rude(),), {"number": 10**5000}),
    ]
    text = describe_calls([*calls, *calls])
    assert text.startswith("a batch of 6 calls: sum([0, 1, 2, 3, 4, 5, ...]), print('xxx")
    assert text.endswith(" and 3 more")
    assert len(text) < 300


def test_without_joblib_the_error_says_what_to_install(monkeypatch):
    """Without joblib, the ImportError names the extra to install."""
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(
        ImportError, match=r"parallelkit.joblib_backend needs joblib: pip install 'parallelkit\[joblib\]'"
    ):
        register()
