"""Large arrays of a whole run are sent once and mapped by every worker; those in its arguments are read-only there."""

from __future__ import annotations

import faulthandler
import os
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pickle import Pickler
from types import FunctionType

import array_tasks as far
import numpy as np
import pytest

from parallelkit import ProcessExecutor, Task, WorkerDied, run_parallel
from parallelkit._worker import _initial, _travel
from parallelkit._worker._editions import Editions
from parallelkit._worker._travel import pack

LONG = 1 << 17  # of 8 bytes: a mebibyte


def own_memory():
    """Bytes of private memory of this process, and of shared files that it has touched."""
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Rss:")) << 10


def own_pages():
    """Bytes of private memory of this process."""
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Anonymous:")) << 10


def read_part(part, array):
    before = own_memory()
    total = float(array[part * (len(array) // 100) :][: len(array) // 100].sum())
    return total, own_memory() - before


def shared_maps(item=None):
    with open("/proc/self/maps") as file:
        return sum("parallelkit-block" in line for line in file)


@pytest.fixture
def executor(both_running):
    """Of two workers, which have run other tests."""
    return both_running


@pytest.fixture
def new():
    """An executor of two workers for a test that ends one of them, or that leaves blocks for the next items."""
    with ProcessExecutor(2) as executor:
        yield executor


@pytest.fixture
def patience():
    """Allow more than a minute: a million fresh pages on either side may take longer than the limit for a hang."""
    faulthandler.dump_traceback_later(400, exit=True)


def test_arrays_in_args_and_kwargs_are_shared_read_only(executor):
    """Large arrays in args and kwargs are shared and read-only; small ones are pickled, and private to each worker."""
    results = run_parallel(
        far.describe,
        range(6),
        args=(np.full(LONG, 2.0), np.full(10, 3.0)),
        kwargs={"other": np.full(LONG, 4.0)},
        executor=executor,
    )
    assert results.values() == [[(False, 2.0), (True, 3.0), (False, 4.0)]] * 6


def test_who_writes_to_one_fails_and_nobody_else_sees_it(executor):
    """Writing to a shared array is NumPy's error in that task, and affects no other."""
    array = np.zeros(LONG)
    results = run_parallel(far.write, range(3), args=(array,), executor=executor)
    assert [str(failure.error) for failure in results.failures.values()] == [
        "assignment destination is read-only"
    ] * 3
    assert not array.any()
    assert (
        "so read-only: copy what you change in the task (array.copy())"
        in results.failures[0].error.__notes__[0]
    )
    assert "_serve.py" not in results.failures[0].traceback


@pytest.mark.parametrize(
    "write",
    [
        far.make_writable,
        far.write_past_numpy,
        far.compile_for_writable,
        far.write_through_a_library,
        np.ndarray.sort,
    ],
)
def test_who_writes_to_one_in_another_way_is_told_why(executor, write):
    """However numpy or Python refuse to write to a shared array, the error has the note; first of all where the flag is to be set."""
    results = run_parallel(lambda _, array: write(array), [0], args=(np.zeros(LONG),), executor=executor)
    assert "so read-only: copy what you change" in results.failures[0].error.__notes__[0]


def test_who_writes_to_an_array_of_his_own_is_not_told_of_others(executor):
    """For a read-only array of the task's own, and where it is about something else, the error has no note about shared arrays."""
    array = np.zeros(LONG)
    array.flags.writeable = False
    for args in ((array[:10].copy(),), ()):
        results = run_parallel(lambda item, *_: far.write(item, array), [0], args=args, executor=executor)
        assert ["parallelkit: task 0, attempt 1 of 1"] == results.failures[0].error.__notes__
    results = run_parallel(lambda item, _: int(item), ["no number"], args=(array,), executor=executor)
    assert ["parallelkit: task 0, attempt 1 of 1"] == results.failures[0].error.__notes__


def test_who_writes_past_the_flags_ends_by_that(new):
    """Shared memory itself is read-only: a library that ignores the array's flag kills its own task, and changes no other's data."""

    def scribble(item, array):
        import ctypes

        if item == 1:
            ctypes.memset(array.ctypes.data, 1, 8)
        return float(array[0])

    results = run_parallel(scribble, range(8), args=(np.full(LONG, 5.0),), executor=new)
    assert list(results.failures) == [1]
    assert isinstance(results.failures[1].error, WorkerDied)
    assert set(results.successes.values()) == {5.0}


def test_what_the_function_brings_itself_may_be_written_to(new):
    """Arrays that a closure or a method's object brings may be written to; each worker has its own changes."""
    closed = np.full(LONG, 1.0)

    def enclosing(item, *shared):
        closed[0] += 1
        return closed[0], os.getpid(), closed.flags.writeable, *(array.flags.writeable for array in shared)

    class Model:
        def __init__(self):
            self.weights = np.full(LONG, 1.0)

        def __call__(self, item, *shared):
            self.weights[0] += 1
            flags = (array.flags.writeable for array in shared)
            return self.weights[0], os.getpid(), self.weights.flags.writeable, *flags

    for fn in (enclosing, Model()):
        for args in ((), (np.ones(LONG),)):
            values = run_parallel(fn, range(6), args=args, executor=new).values()
            assert {(True, *(False for _ in args))} == {tuple(flags) for _, _, *flags in values}
            counts = {pid: [count for count, where, *_ in values if where == pid] for _, pid, *_ in values}
            assert all(sorted(seen) == [2.0 + n for n in range(len(seen))] for seen in counts.values())
    assert 1.0 == closed[0]


@pytest.mark.all
def test_what_the_function_brings_itself_is_in_memory_once(executor):
    """For a table that the function brings, a worker needs memory only for the parts that it writes to."""
    table = np.ones(8 << 20)

    def total_of(item, table):
        return float(table.sum()), own_pages()

    class Model:
        def __init__(self):
            self.table = table

        def total(self, item):
            return total_of(item, self.table)

    before = max(run_parallel(lambda item: own_pages(), range(8), executor=executor).values())
    for fn in (lambda item: total_of(item, table), partial(total_of, table=table), Model().total):
        totals, pages = zip(*run_parallel(fn, range(8), executor=executor).values(), strict=True)
        assert {float(len(table))} == set(totals)
        assert max(pages) < before + table.nbytes // 4


def test_what_is_both_in_the_function_and_in_args_stays_one_object(executor):
    """An array that is both in the function and in ``args`` arrives as one object, writable; one that is in ``args`` twice arrives once."""
    both, twice = np.ones(LONG), np.ones(LONG)

    def same(item, first, second, third):
        return first is both, second is third, first.flags.writeable, second.flags.writeable

    results = run_parallel(same, [0], args=(both, twice, twice), executor=executor)
    assert results.values() == [(True, True, True, False)]


def test_every_form_of_a_run_shares(executor):
    """Arrays are also shared with ``star``, and by tasks that bring their own functions."""
    array = np.full(LONG, 7.0)
    starred = run_parallel(
        lambda a, b, array: (a, b, array.flags.writeable),
        [(1, 2)],
        star=True,
        args=(array,),
        executor=executor,
    )
    assert starred.values() == [(1, 2, False)]
    own = run_parallel(
        {"x": Task(far.describe, 0), "y": Task(far.describe, 1)}, args=(array,), executor=executor
    )
    assert own.to_dict() == {"x": [(False, 7.0)], "y": [(False, 7.0)]}


def test_what_is_not_contiguous_is_shared_too(executor):
    """A selection of an array, such as some rows of a frame are, is shared like a whole one, in the same order of memory."""
    grid = np.arange(LONG, dtype=float).reshape(-1, 4)
    parts = [grid[:, 1:3], grid.T[:, 5 : LONG // 6], grid[::-2]]

    def look(item, *arrays):
        return [(part.flags.writeable, part.flags.f_contiguous, part[1::999].tolist()) for part in arrays]

    expected = [
        (False, order, part[1::999].tolist()) for order, part in zip([False, True, False], parts, strict=True)
    ]
    assert expected == run_parallel(look, [0], args=parts, executor=executor)[0]


def test_only_what_numpy_cannot_share_is_copied():
    """An array whose axes are in another order has a buffer as it is, such as an image with its colours first."""
    image = np.arange(64 * 64 * 3.0).reshape(64, 64, 3).transpose(2, 0, 1)
    part = image[:, :, 1:]
    for array, is_shared in [(image, True), (part, False), (image.transpose(1, 2, 0)[::2], False)]:
        buffers = []
        blob = _travel.dump(Pickler, array, buffers.append, by_file=True)
        assert 500 > len(blob)
        [buffer] = buffers
        assert is_shared == np.shares_memory(array, np.frombuffer(buffer))
        back = _travel.unpack(blob, buffers)
        assert array.tolist() == back.tolist()
        assert not is_shared or array.strides == back.strides


def test_frames_and_containers_are_shared(executor):
    """Everything that pickles its buffers out of band is shared; bytes arrive as copies, because they own their memory."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": np.arange(LONG, dtype=float), "b": np.ones(LONG)})

    def look(item, frame, held):
        return float(frame["a"].sum() + frame["b"].sum()), held["array"].flags.writeable, len(held["text"])

    held = {"array": np.ones(LONG), "text": b"x" * (1 << 20)}
    results = run_parallel(look, range(2), args=(frame, held), executor=executor)
    assert results.values() == [(float(frame["a"].sum() + LONG), False, 1 << 20)] * 2


@pytest.mark.all
def test_a_worker_that_reads_a_part_pays_for_that_part(executor):
    """A worker that reads a hundredth of 64 MiB needs memory only for that."""
    array = np.ones(8 << 20)
    results = run_parallel(read_part, range(8), args=(array,), executor=executor)
    assert [total for total, _ in results.values()] == [float(len(array) // 100)] * 8
    assert max(grown for _, grown in results.values()) < array.nbytes // 10


# Arrays that are files


def kind_of(array):
    return type(array).__name__, array.flags.writeable, float(array.sum())


@pytest.fixture
def mapped(tmp_path):
    """Ten thousand numbers in a file that is memory-mapped in this mode."""
    path = tmp_path / "numbers"
    np.arange(10_000.0).tofile(path)
    return lambda mode: np.memmap(path, "f8", mode)


@pytest.mark.parametrize(
    "view", [lambda a: a, lambda a: a[500:], lambda a: a.reshape(4, -1).T, lambda a: a[7:8]]
)
def test_an_array_that_is_a_file_is_that_file_in_the_workers(mapped, view, executor):
    """A memory-mapped array, or a part of it, is that file in the workers: what a task writes is in the file."""
    array = view(mapped("r+"))
    assert ("memmap", True, float(array.sum())) == run_parallel(kind_of, [array], executor="threads")[0]

    def add(item, array, held):
        array.flat[item], held["same"].flat[-1] = -1.0, -2.0
        return type(array).__name__, array is held["same"]

    results = run_parallel(add, [0], args=(array,), kwargs={"held": {"same": array}}, executor=executor)
    assert ("memmap", True) == results[0]
    assert -2.0 == array.flat[-1]
    assert array.size == 1 or -1.0 == array.flat[0]


def test_an_array_in_a_file_of_numpy_is_found_behind_its_head(tmp_path, executor):
    """What ``np.load`` maps begins after a head, in the workers, too."""
    np.save(tmp_path / "numbers.npy", np.arange(10_000.0))
    array = np.load(tmp_path / "numbers.npy", mmap_mode="r")
    results = run_parallel(lambda item, array: array[item], [0, 9_999], args=(array,), executor=executor)
    assert [0.0, 9_999.0] == results.values()


def test_a_file_that_the_function_or_the_initializer_names_is_that_file(mapped):
    """What needs no argument is sent as the file, too: in threads a task that writes to it writes to the file."""
    array = mapped("r+")

    def fill(item):
        array[item] = -1.0

    with ProcessExecutor(1, initializer=fill, initargs=(1,)) as executor:
        assert not run_parallel(fill, [0], executor=executor).failures
    assert [-1.0, -1.0, 2.0] == array[:3].tolist()


def test_a_file_that_a_calls_function_or_the_class_of_an_item_names_is_that_file(mapped, executor):
    """An item is its task's own, but not what its class, or the function of a call, refers to: that may be larger than the memory."""

    class Model:
        weights = mapped("r+")

    def fill(item, model=None):
        Model.weights[item] = (model or Model).weights[3] = -1.0

    assert not run_parallel(lambda model: fill(0, model), [Model()], executor=executor).failures
    assert not run_parallel([Task(fill, 1)], executor=executor).failures
    executor.submit(fill, 2).result()
    assert [-1.0, -1.0, -1.0, -1.0, 4.0] == Model.weights[:5].tolist()


def test_a_file_is_not_read_to_see_whether_a_class_has_changed(mapped):
    """A class that refers to a file is the same for workers whatever is in the file, which may be huge."""

    class Model:
        weights = mapped("r+")

    before = pack(Model, editions=Editions(by_file=True))
    Model.weights[0] = -1.0
    assert before == pack(Model, editions=Editions(by_file=True))


def test_a_file_is_not_read_to_see_what_an_initializer_changes(mapped):
    """A memory-mapped array among the globals of an initializer may be larger than the memory."""
    array = mapped("r+")
    before = _initial._content(array)
    array[0] = 1.0
    assert None is not before == _initial._content(array)


def test_a_file_that_is_mapped_to_be_read_is_read_only(mapped, executor):
    """An array that cannot be written to here, by its file's mode or by its flag, cannot be in workers; it needs no memory there."""
    array, guarded = mapped("r"), mapped("r+")
    guarded.flags.writeable = False
    results = run_parallel(
        lambda _, *arrays: [*map(kind_of, arrays)], [0], args=(array, guarded), executor=executor
    )
    assert [("memmap", False, float(array.sum()))] * 2 == results[0]


def test_what_is_no_longer_as_in_its_file_travels_as_it_is(mapped, tmp_path, executor):
    """A mapped array that differs from its file, or whose file is gone, is sent as it is in memory."""
    private, removed = mapped("c"), mapped("r+")
    private[0] = 7.0

    def first(_, *arrays):
        return [float(array[0] + array[-1]) for array in arrays]

    assert [7.0 + 9999.0] == run_parallel(first, [0], args=(private,), executor=executor)[0]
    (tmp_path / "numbers").unlink()
    results = run_parallel(first, [0], args=(private, removed, removed[::3]), executor=executor)
    assert [7.0 + 9999.0, 9999.0, 9999.0] == results[0]
    (tmp_path / "numbers").write_bytes(b"short")
    assert [9999.0] == run_parallel(first, [0], args=(removed,), executor=executor)[0]


def test_an_item_that_is_a_file_is_the_tasks_own(mapped, new):
    """A mapped array as an item is private to its task: what that writes changes no other's data."""
    array = mapped("r+")
    assert 9.0 == run_parallel(far.spoil_first, [array], executor=new)[0]
    assert 0.0 == array[0]


class Counted:
    """Counts how often it is pickled."""

    pickled = 0

    def __reduce__(self):
        Counted.pickled += 1
        return int, ()


def test_arguments_beside_a_function_of_the_script_are_pickled_once(executor, monkeypatch):
    """They may be large: it is not tried in vain to pickle them beside the function's name, which is no use to a worker."""
    own = FunctionType((lambda item, thing: thing).__code__, {"__name__": "__main__"}, "own")
    own.__qualname__ = "own"
    monkeypatch.setattr(sys.modules["__main__"], "own", own, raising=False)
    assert [0] == run_parallel(own, [1], args=[Counted()], executor=executor).values()
    assert 1 == Counted.pickled


def test_a_new_worker_gets_it_too(new):
    """Replacements of killed or retired workers get the shared arrays, too."""

    def die_once(item, array):
        if item == 2:
            os.kill(os.getpid(), 9)
        return float(array[item])

    results = run_parallel(die_once, range(20), args=(np.arange(LONG, dtype=float),), executor=new)
    assert list(results.failures) == [2]
    assert results.successes == {n: float(n) for n in range(20) if n != 2}


@pytest.mark.all
def test_the_memory_is_given_back_after_the_run(new):
    """After the run, the memory is freed here, and in workers that stay."""
    run_parallel(far.describe, range(4), args=(np.ones(LONG),), executor=new).raise_failures()
    deadline = time.monotonic() + 5
    while any(run_parallel(shared_maps, range(4), executor=new).values()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(run_parallel(shared_maps, range(4), executor=new).values())
    assert not shared_maps()


def test_what_cannot_be_pickled_is_named_as_ever(executor):
    """Arguments that cannot be pickled are refused at the call, before anything runs."""
    with pytest.raises(
        TypeError, match=r"args\[1\] cannot be sent to worker processes: an object of type _thread.lock"
    ):
        run_parallel(far.describe, [0], args=(np.ones(LONG), threading.Lock()), executor=executor)


@pytest.mark.all
def test_four_gibibytes_of_which_a_hundredth_is_read(patience):
    """A worker that reads a hundredth of 4 GiB grows by less than a tenth of it."""
    need_memory(10 << 30)
    array = np.ones(1 << 29)
    results = run_parallel(read_part, range(4), args=(array,), executor="processes", max_workers=2)
    assert [total for total, _ in results.values()] == [float(len(array) // 100)] * 4
    assert max(grown for _, grown in results.values()) < array.nbytes // 10


@pytest.mark.all
@pytest.mark.parametrize("make", [bytes, lambda length: np.zeros(length, dtype="u1")], ids=["bytes", "array"])
def test_items_and_values_of_more_than_two_gibibytes(make, patience):
    """Items and values may exceed 2 GiB, the most that one write to a file takes."""
    need_memory(14 << 30)
    length = (1 << 31) + (1 << 20)
    results = run_parallel(far.give_back, [make(length)], executor="processes", max_workers=1)
    assert len(results[0]) == length


@pytest.mark.all
def test_a_small_dev_shm_is_no_limit():
    """With a /dev/shm of 64 MB, as in a container, an argument, an item and a value of 100 MB work."""
    if os.getuid() or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare to mount a small /dev/shm for one process")
    script = (
        "import numpy as np\n"
        "from parallelkit import run_parallel\n"
        "big = np.ones(100 << 17)\n"
        "results = run_parallel(lambda item, shared: item + shared, [big], args=(big,), executor='processes')\n"
        "assert results[0].sum() == 2 * len(big)\n"
    )
    mount = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$0" -c "$1"'
    subprocess.run(["unshare", "-m", "sh", "-c", mount, sys.executable, script], check=True, timeout=50)


def need_memory(amount):
    with open("/proc/meminfo") as file:
        (free,) = [int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable")]
    if free < amount:
        pytest.skip(f"needs {amount >> 30} GiB of free memory, and there are {free >> 30}")
