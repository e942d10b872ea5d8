"""How a run in processes packs its items, and how many ahead."""

import os
from collections import namedtuple
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pickle import loads
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from remote_tasks import give_back

from parallelkit import ProcessExecutor, run_parallel
from parallelkit._executors._contract import Block, Ended, Job
from parallelkit._executors._process import _packing, _reserve
from parallelkit._executors._process._blocks import BlockPool, Buffered
from parallelkit._executors._process._carried import CarriedClasses
from parallelkit._executors._process._definitions import Definitions
from parallelkit._executors._process._generators import may_draw
from parallelkit._executors._process._lane import Batch
from parallelkit._executors._process._packing import (
    QUEUED_BYTES,
    QUEUED_FILES,
    Packer,
    Packing,
    all_atoms,
    taken_by,
)
from parallelkit._executors._process._payload import Payload

MARKS_THE_IMPORT = """
import sys
class Finder:
    def find_spec(name, *_):
        if name == "numpy":
            import os
            os.environ["IMPORTED_BY"] = "a worker"
sys.meta_path.insert(0, Finder)
"""
WITHOUT_NUMPY = "import sys; sys.modules['numpy'] = sys.modules['numpy._core'] = None"

SMALL, MIDDLING, LARGE, HUGE = bytes(100), bytes(40_000), bytes(1_000_000), bytes(QUEUED_BYTES - 1000)


class Packed:
    """What is packed ahead of two workers; each item stands for its pickle, or for its block."""

    def __init__(self) -> None:
        self.packing = Packing(lambda: 2, lambda item, _: bytearray(item), Job(len))  # type: ignore[arg-type, return-value, call-overload]
        self.payloads: list[Payload] = []

    @property
    def files(self) -> int:
        """How many of them hold a descriptor."""
        return sum(type(payload) is not bytes for payload in self.payloads)

    def add(self, items: list[bytes]) -> None:
        """Pack as many more as there is space for, with those before still on their way."""
        refused: list[Block | Ended] = []
        self.packing.line.extend((index, 1, item, None) for index, item in enumerate(items))
        self.packing.pack(len(self.payloads), [], self.payloads, refused)
        self.packing.line.clear()
        assert [] == refused

    def end(self, count: int) -> None:
        """Have the first of those that were packed end."""
        ended = Batch(None, [], self.payloads[:count])  # type: ignore[arg-type]  # its lane does not matter
        del self.payloads[:count]
        size, files = taken_by(ended)
        self.packing.bytes -= size
        self.packing.files -= files


def test_items_name_the_classes_of_the_script():
    """The class of an item is packed once for a run, and an item has but its number; from the 65th on it has the class."""
    exec("kinds = [type(f'Kind{n}', (), {'__module__': '__main__'}) for n in range(66)]", scope := {})
    packing = Packing(lambda: 2, Packer(BlockPool(), calls=False), Job(len), definitions := Definitions(3))
    packing.line.extend((index, 1, kind(), None) for index, kind in enumerate(scope["kinds"] * 2))
    packing.pack(0, [], payloads := [], [])
    assert 64 == len(definitions.blobs)
    *named, next_to_last, last = payloads[66:]
    assert max(map(len, named)) < 150 < 300 < min(len(next_to_last), len(last))


def test_one_large_item_does_not_slow_down_all_that_follow():
    """Small items are packed ahead by the thousand again, soon after a large one."""
    packed = Packed()
    for items in ([HUGE], *[[SMALL] * 10] * 20):
        packed.add(items)
        packed.end(len(packed.payloads))

    assert packed.packing.space(0) > 10_000


def test_large_items_among_small_ones_are_not_packed_far_ahead():
    """However many small items lie between large ones, these take no more bytes and descriptors than they may."""
    packed = Packed()
    for _ in range(100):
        packed.add([LARGE] + [SMALL] * 40)
        assert packed.packing.bytes < QUEUED_BYTES + len(LARGE)
        assert 1 <= packed.files <= QUEUED_FILES
        packed.end(20)


def test_small_items_between_large_ones_are_packed_far_ahead():
    """Only the large ones hold a descriptor: where one in a hundred does, thousands of the others may be packed."""
    packed = Packed()
    for _ in range(100):
        packed.add([MIDDLING] + [SMALL] * 99)
    assert QUEUED_FILES == packed.files
    assert len(packed.payloads) > 90 * QUEUED_FILES
    packed.end(len(packed.payloads))
    assert (0, 0) == (packed.packing.bytes, packed.packing.files)


def test_any_number_of_items_may_be_refused():
    """What the next item may take is expected to be less after each that could not be packed, but never nothing."""

    def refuse(item, classes):
        raise TypeError

    packing = Packing(lambda: 2, refuse, Job(len))
    for index in range(1100):  # a half to this power is 0.0
        packing.line.append((index, 1, None, None))
        packing.pack(0, [], [], refused := [])
        assert 1 == len(refused)


def test_items_of_many_runs_leave_descriptors_to_the_program(monkeypatch):
    """Once all runs of an engine have many blocks, smaller buffers travel in the pickles, until some of the blocks come back."""
    monkeypatch.setattr(_packing, "fd_share", lambda: QUEUED_FILES + 8)
    pack, classes = Packer(BlockPool(), calls=False), CarriedClasses(None)
    payloads = [pack(MIDDLING, classes) for _ in range(100)]
    assert QUEUED_FILES + 8 == sum(type(payload) is Buffered for payload in payloads)
    assert Buffered is type(pack(LARGE, classes))
    del payloads
    kinds = [type(pack(MIDDLING, classes)) for _ in range(2)]
    assert [bytes, Buffered] == kinds  # the first finds that they are back


def test_items_of_a_run_leave_descriptors_to_the_program(monkeypatch):
    """Where a process may have few, no more items are packed once theirs are an eighth of them; one has room however few there are."""
    monkeypatch.setattr(_reserve, "fd_limit", lambda: 24)
    packing = Packing(lambda: 2, None, Job(len))
    for files, any_more in [(0, True), (2, True), (3, False)]:
        packing.files = files
        assert any_more == (packing.space(0) > 0)
    monkeypatch.setattr(_reserve, "fd_limit", lambda: 7)
    assert 1 == _reserve.fd_share()


@pytest.mark.parametrize(
    ("item", "searched"),
    [
        ([1, "a"], False),
        (np.ones(5000), False),
        ([np.ones(5000), np.random.default_rng(1)], True),
        ([0.5] * 10_000, True),
        ([0.5] * 200_000, True),
        ([np.ones(5000), [0.5] * 10_000], True),
    ],
    ids=["short", "array", "generator", "in a block", "in a file", "behind an array"],
)
def test_in_which_items_generators_are_searched_for(item, searched):
    """An array does not make a short pickle one that is too long to be looked through; each search takes several microseconds."""
    assert searched == may_draw(Packer(BlockPool(), calls=False)(item, CarriedClasses(None)))


def test_texts_are_packed_without_a_search():
    """A str or bytes refers to nothing that a worker could lack: its pickle need not be searched, which takes longer than to make it."""
    texts = ["x" * 5000, b"y" * 5000]
    packing = Packing(lambda: 2, lambda item, classes: b"searched", Job(len))
    packing.line.extend((index, 1, text, None) for index, text in enumerate(texts))
    payloads: list[Payload] = []
    packing.pack(0, [], payloads, [])

    assert texts == [loads(payload) for payload in payloads]


@pytest.mark.parametrize(
    ("items", "together"),
    [
        ([1, "a", None], True),
        ([(1, "a"), (), (2.5, None, b"x")], True),
        ([(1, "a"), 2], False),
        ([(1, "a"), (2, [])], False),
        ([(1, (2, 3))], False),
        ([(1, "a" * 2000)], False),
        ([("a" * 500,) * 2, ("b" * 500,) * 2], True),
        ([("a" * 500,) * 3, ("b" * 500,) * 3], False),
        ([(1,) * 100], False),
        ([namedtuple("Pair", "a b")(1, 2)], False),
        ([1j, Decimal(1), date(2020, 1, 1), timedelta(1)], True),
        ([(datetime(2020, 1, 1), 1.5), (datetime.now(UTC), 2)], True),
        ([datetime(2020, 1, 1), datetime.now(ZoneInfo("UTC"))], False),  # a zone may be of any class
        ([np.float64(1), np.int8(2), np.bool_(True), 3, "a"], True),
        ([(np.float64(1), 2), (np.int64(3), None)], True),
        ([np.str_("a")], False),
        ([np.array(1.0)], False),
        ([np.float64(1), []], False),
        ([type("Own", (np.float64,), {"__module__": "numpy"})(1)], False),
        ([np.float64(1), "a" * 2000], False),
    ],
)
def test_short_tuples_of_atoms_are_pickled_together(items, together):
    """Numbers, dates, rows and products are the usual items of a run: to pickle each by itself would take three times as long."""
    assert together == all_atoms(items)


def test_atoms_arrive_as_they_are():
    """Numbers of Python's and numpy's, dates and decimals come back from a worker as the same values of the same types."""
    items = [
        *(np.dtype(code).type(1) for code in "?bhilBHILefdgFDG"),
        1j, Decimal("0.10"), date(2020, 1, 1), timedelta(1, 2, 3), datetime(2020, 1, 1), True, None, "a", b"b",
    ]  # fmt: skip
    assert all_atoms(items)
    values = run_parallel(give_back, items, executor="processes", max_workers=1).values()
    assert [(type(item), item) for item in items] == [(type(value), value) for value in values]


def test_numbers_of_numpy_without_numpy_fail_each_task():
    """If numpy cannot be loaded in a worker, each task fails and is told why, and the worker goes on."""
    with ProcessExecutor(1, initializer=exec, initargs=(WITHOUT_NUMPY,)) as executor:
        results = run_parallel(give_back, np.arange(3), executor=executor)
        assert [ModuleNotFoundError] * 3 == [type(failure.error) for failure in results.failures.values()]
        assert "when a worker process unpickled the item" in results.failures[0].error.__notes__[0]
        assert [1] == run_parallel(give_back, [1], executor=executor).values()


def test_what_the_import_of_numpy_changes_stays():
    """Numpy is loaded for the first numbers before their tasks begin: what it changes around them is there for all, not undone after one."""
    with ProcessExecutor(1, initializer=exec, initargs=(MARKS_THE_IMPORT,)) as executor:
        values = run_parallel(
            lambda _: os.environ.get("IMPORTED_BY"), np.arange(3), executor=executor
        ).values()
    assert ["a worker"] * 3 == values
