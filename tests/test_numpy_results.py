"""Results that are numbers of numpy: they travel like Python's numbers, and arrive as what they are."""

import math
import pickle
import sys
import types

import numpy as np
import pytest
from remote_tasks import give_back

from parallelkit import ProcessExecutor, run_parallel
from parallelkit._worker import _channel, _numpy_numbers


class Own(np.float64):
    """A subclass, which may have attributes."""


NUMBERS = [
    *(np.float64(x) for x in (1.5, -0.0, math.inf, 1e308, 5e-324)),
    *(np.float32(x) for x in (1.5, -0.0, -math.inf, 1e-45, 0.1)),
    *(np.int64(x) for x in (0, -1, 2**63 - 1, -(2**63))),
    np.bool_(True),
    np.bool_(False),
]
OTHERS = [
    np.float16(0.5),
    np.int32(7),
    np.uint64(2**64 - 1),
    np.longdouble(1) / 3,
    2,
    2.5,
    None,
    Own(3),
]


@pytest.fixture(scope="module")
def executor():
    """One worker, which has numpy loaded before its first batch of results."""
    with ProcessExecutor(1) as executor:
        run_parallel(give_back, [np.array(1)], executor=executor)
        yield executor


def looks(values):
    """Types and values, also of zeros and NaN."""
    return [(type(value), repr(value)) for value in values]


@pytest.mark.parametrize(
    "items",
    [NUMBERS[:5], NUMBERS[5:10], NUMBERS[10:14], NUMBERS[14:], [*NUMBERS, *OTHERS], [np.float64("nan")]],
)
def test_numbers_of_numpy_come_back_as_they_are(executor, items):
    """A number that a task returns has its type and its value, alone, among others of its type, or among anything else."""
    pickled = pickle.loads(pickle.dumps(items))  # which makes numpy's own type of a subclass
    assert looks(pickled) == looks(run_parallel(give_back, items, executor=executor).values())


def test_numbers_are_in_their_slots(executor, monkeypatch):
    """They are not pickled, which would take five times as long."""
    seen = []
    monkeypatch.setattr(
        "parallelkit._executors._process._decode.read_numbers",
        lambda kind, words: seen.append(kind) or _numpy_numbers.read_numbers(kind, words),
    )
    for number in (np.float64(1), np.float32(2), np.int64(3), np.bool_(True)):
        assert [number] * 2 == run_parallel(give_back, [number] * 2, executor=executor).values()
    assert {_channel.FLOAT64, _channel.FLOAT32, _channel.INT64, _channel.BOOL} == set(seen)


def test_a_program_that_has_not_loaded_numpy_loads_it(executor, monkeypatch):
    """If only the tasks use numpy, the caller's process loads it for their results; if it cannot, it says so of each."""
    monkeypatch.setattr("parallelkit._executors._process._decode.read_numbers", lambda *_: None)
    assert looks(NUMBERS) == looks(run_parallel(give_back, NUMBERS, executor=executor).values())

    def halted(*_):
        raise ModuleNotFoundError("No module named 'numpy'")

    monkeypatch.setattr("parallelkit._executors._process._decode.read_number", halted)
    results = run_parallel(give_back, NUMBERS[:2], executor=executor)
    assert ["the value of task 0 cannot be unpickled", "the value of task 1 cannot be unpickled"] == [
        str(failure.error).partition(" (")[0] for failure in results.failures.values()
    ]


def test_numpy_may_just_be_loaded(monkeypatch):
    """While a thread of a task loads numpy, its types may not be there yet."""
    ring = types.SimpleNamespace(words=[0], floats=[0.0], kinds=[0])
    monkeypatch.setitem(sys.modules, "numpy", types.ModuleType("numpy"))
    assert {} == _numpy_numbers.puts_for(ring)
    assert _numpy_numbers.read_numbers(_channel.INT64, bytes(8)) is None
    monkeypatch.delitem(sys.modules, "numpy")
    assert {} == _numpy_numbers.puts_for(ring)
    assert _numpy_numbers.read_numbers(_channel.INT64, bytes(8)) is None
