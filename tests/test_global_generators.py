"""Random numbers in worker processes: what draws from a module's own generator draws from that of its worker."""

import copyreg
import random
import secrets

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config

from parallelkit import ProcessExecutor, Task, run_parallel
from parallelkit._worker._travel import pack, unpack
from parallelkit.joblib_backend import register

SCRIPT = """
from random import choices, getrandbits, random
from numpy.random import bytes as np_bytes, random as np_random

class Distribution:  # as scipy's
    def __init__(self, source):
        self.source = source

    def draw(self):
        return self.source.getrandbits(64)

def by_method(item):
    return getrandbits(64)

def by_python_method(item):
    return tuple(choices(range(1000), k=10))

def by_numpy(item):
    return np_bytes(8), np_random()

def first_only(item):
    return random()
"""

WORDS = [(64,)] * 6
"""Arguments of calls that draw as many bits."""


@pytest.mark.parametrize(
    "name",
    ["by_method", *(pytest.param(name, marks=pytest.mark.all) for name in ("by_python_method", "by_numpy"))],
)
def test_what_a_script_imports_from_random_draws_in_each_worker_from_its_own(name, script):
    """``from random import choices`` gives a method of the module's generator: sent with its state, workers drew the same numbers."""
    with ProcessExecutor(3, max_tasks_per_child=1) as executor:
        runs = [run_parallel(script[name], range(4), executor=executor).values() for _ in range(2)]
        runs.append([executor.submit(script[name], item).result() for item in range(4)])
    assert 12 == len({number for run in runs for number in run})


def test_a_function_of_such_a_module_given_as_it_is_draws_anew_in_each_call():
    """As tasks, by ``submit`` and with ``star``, plain or numpy's."""
    state = random.getstate(), np.random.get_state()[1].tolist()
    with ProcessExecutor(2) as executor:
        numbers = run_parallel(random.getrandbits, WORDS, star=True, executor=executor).values()
        numbers += run_parallel([Task(random.getrandbits, 64) for _ in WORDS], executor=executor).values()
        numbers += [executor.submit(random.getrandbits, 64).result() for _ in WORDS]
        numbers += [executor.submit(np.random.bytes, 8).result() for _ in WORDS]
    assert 24 == len(set(numbers))
    assert state == (random.getstate(), np.random.get_state()[1].tolist())


@pytest.mark.all
def test_under_joblib_too(script):
    """A call of the module as it is, and one of the script."""
    register()
    with parallel_config(backend="parallelkit", n_jobs=2):
        numbers = Parallel(batch_size=1)(delayed(random.getrandbits)(64) for _ in range(6))
        numbers += Parallel(batch_size=1)(delayed(script["by_method"])(item) for item in range(6))
    assert 12 == len(set(numbers))


def test_an_object_that_holds_a_modules_generator_holds_the_same_at_the_other_end(script):
    """In an argument, in an item and in a value; here it is the module's own again."""
    inner = random.getrandbits.__self__
    held = script["Distribution"](inner)
    with ProcessExecutor(2) as executor:
        numbers = run_parallel(lambda _, it: it.draw(), range(4), args=(held,), executor=executor).values()
        numbers += run_parallel(script["Distribution"].draw, [held] * 4, executor=executor).values()
        back = run_parallel(
            lambda item: (random.getrandbits.__self__, np.random.mtrand._rand), [0], executor=executor
        )[0]
    assert 8 == len(set(numbers))
    assert back[0] is inner
    assert back[1] is np.random.mtrand._rand


def test_a_generator_of_ones_own_comes_with_its_state():
    """As an item it is the task's own, and draws what it would draw here."""
    makes = (random.Random, np.random.RandomState, np.random.default_rng)
    here = [make(seed).random() for make in makes for seed in range(5)]
    items = [make(seed) for make in makes for seed in range(5)]
    for executor in ("processes", "threads"):
        assert here == run_parallel(lambda source: source.random(), items, executor=executor).values()


def test_generators_of_the_system_have_no_state_to_send(script):
    """``from secrets import choice`` in a script was refused."""
    scope = {"__name__": "__main__"}
    exec("from secrets import randbelow\ndef draw(item): return randbelow(2**64)", scope)
    numbers = run_parallel(scope["draw"], range(4), executor="processes").values()
    numbers += run_parallel([Task(secrets.randbits, 64) for _ in range(4)], executor="processes").values()
    assert 8 == len(set(numbers))


def test_the_word_alone_is_plain_data():
    """``splitter='random'`` and the like need no other pickler."""
    for thing in ("random", ["Random", {"__randomstate_ctor": "andom"}], random, "numpy.random"):
        assert thing == unpack(pack(thing))
    assert b"cloudpickle" not in pack(["random", "Random", {"random": "Random"}])


def test_who_has_taught_pickle_to_send_generators_is_left_alone(monkeypatch):
    """By ``copyreg``: then what arrives is what that makes of one of the program's own, whichever pickler it is."""
    monkeypatch.setitem(copyreg.dispatch_table, random.Random, lambda _: (abs, (-3,)))
    for company in ("plain", lambda: "by value"):
        assert 3 == unpack(pack([random.Random(), company]))[0]
