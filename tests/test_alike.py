"""A random generator that all tasks of a run would share in processes: refused, since each worker had it in the same state."""

import random
import re
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from parallelkit import ProcessExecutor, Retry, Task, iter_parallel, map_reduce, run_parallel
from parallelkit._executors._contract import Job
from parallelkit._executors._foreign import sealed

SCRIPT = """
import random
import numpy as np

rng = np.random.default_rng(1)
normal = rng.normal

class Touchy:
    def __init__(self, fn):
        pass

    def __get__(self, owner, cls):
        if owner is None:
            raise ValueError("asked of the class")
        return lambda item: 0

class Model:
    def __init__(self):
        self.rng = random.Random(1)

    def simulate(self, item):
        return self.step() + item

    def step(self):
        return self.rng.random()

    def predict(self, item):
        return 2 * item + self.touchy(item)

    @Touchy
    def touchy(self):
        pass

model = Model()

def by_global(item):
    return rng.normal()

def by_another(item):
    return by_global(item)

def by_method(item):
    return normal()

def by_default(item, source=np.random.RandomState(1)):
    return source.normal()

def closed():
    source = random.Random(1)
    return lambda item: source.random()

by_closure = closed()

def own(item):
    rng = np.random.default_rng(item)
    return rng.normal(), random.random(), np.random.random()
"""


@pytest.fixture
def script():
    """The names of a program's main module."""
    scope = {"__name__": "__main__"}
    exec(SCRIPT, scope)
    return scope


WHO = r" is (a|a method of a) (Generator|RandomState|Random), which each worker process would get in the same state"


@pytest.mark.parametrize(
    ("name", "what"),
    {
        "by_global": "rng, which __main__.by_global uses,",
        "by_another": "rng, which __main__.by_global uses,",
        "by_method": "normal, which __main__.by_method uses,",
        "by_default": "a default of __main__.by_default",
        "by_closure": "source, which __main__.closed.<locals>.<lambda> uses,",
    }.items(),
)
def test_one_that_a_function_of_the_script_uses_is_refused_at_the_call(name, what, script):
    """Several tasks, and more so the simulations of several workers, had the same numbers, and nothing told."""
    with pytest.raises(TypeError, match="^" + re.escape(what) + WHO):
        run_parallel(script[name], range(4), executor="processes")
    assert 4 == len(set(run_parallel(script[name], range(4)).values()))


@pytest.mark.parametrize("wrap", [lambda fn: fn, partial], ids=["itself", "in a partial"])
def test_one_of_the_object_whose_method_draws_is_refused(wrap, script):
    """Where this method names the attribute, or another does that it calls."""
    with pytest.raises(TypeError, match=r"^rng, which __main__.Model.step uses," + WHO):
        run_parallel(wrap(script["model"].simulate), range(4), executor="processes")
    assert [0, 2] == run_parallel(wrap(script["model"].predict), range(2), executor="processes").values()


@pytest.mark.parametrize("make", [random.Random, np.random.RandomState, np.random.default_rng])
def test_one_among_the_arguments_of_a_run_is_refused(make):
    """In every form of a run; in threads there is one, for all of them."""
    source = make(1)

    def draw(item, source):
        return source.random()

    for options in ({"args": (source,)}, {"kwargs": {"source": source}}):
        name = re.escape("args[0]" if "args" in options else "kwargs['source']")
        for run in (
            lambda given: run_parallel(draw, range(2), executor="processes", **given),
            lambda given: list(iter_parallel(draw, range(2), executor="processes", **given)),
            lambda given: map_reduce(
                draw, range(2), float.__add__, initial=0.0, executor="processes", **given
            ),
        ):
            with pytest.raises(TypeError, match="^" + name + WHO):
                run(options)
        assert 4 == len(set(run_parallel(draw, range(4), **options).values()))
    with pytest.raises(TypeError, match=r"^args\[0\] of the partial" + WHO):
        run_parallel(partial(draw, source), range(2), executor="processes")
    with pytest.raises(TypeError, match=r"^fn is a method of a"):
        run_parallel(source.random, [()], star=True, executor="processes")


FORMS = {
    "star": lambda draw, source: run_parallel(
        draw, [(n, source) for n in range(3)], star=True, executor="processes"
    ),
    "dicts": lambda draw, source: run_parallel(
        lambda case: draw(**case), [{"item": n, "source": source} for n in range(3)], executor="processes"
    ),
    "tasks": lambda draw, source: run_parallel(
        [Task(draw, n, source) for n in range(3)], executor="processes"
    ),
    "keywords": lambda draw, source: run_parallel(
        [Task(draw, n, kwargs={"source": source}) for n in range(3)], executor="processes"
    ),
    "then": lambda draw, source: run_parallel(
        draw, [(n, source) for n in range(3)], star=True, executor="processes", then=lambda outcome: ()
    ),
    "lazily": lambda draw, source: run_parallel(
        draw, ((n, source) for n in range(3)), star=True, executor="processes"
    ),
}


@pytest.mark.parametrize("make", [random.Random, np.random.RandomState, np.random.default_rng])
@pytest.mark.parametrize("form", FORMS)
def test_one_that_several_items_bring_is_refused_from_the_second_on(form, make):
    """As in ``delayed(draw)(item, rng)`` for each item: all had the same number."""

    def draw(item, source):
        return source.random()

    results = FORMS[form](draw, make(1))
    assert {0: make(1).random()} == results.successes
    told = rf"the item of task 1 has the very {type(make(1)).__name__} that the one of task 0 has"
    assert TypeError is type(results.failures[1].error)
    assert re.match(told, str(results.failures[1].error))


def test_a_function_that_comes_with_each_task_may_not_bring_one_either(script):
    """By ``submit`` it may: that is a call by itself, as in a standard pool."""
    by_global = script["by_global"]
    results = run_parallel([Task(by_global, item) for item in range(2)], executor="processes")
    assert 2 == len(results.failures)
    assert re.match("rng, which __main__.by_global uses," + WHO, str(results.failures[1].error))
    with ProcessExecutor(1) as executor:
        source = random.Random(1)
        futures = [executor.submit(random.Random.random, source) for _ in range(2)]
        assert isinstance(executor.submit(by_global, 0).result(), float)
        assert 2 * [source.random()] == [future.result() for future in futures]


def test_a_task_that_is_tried_again_brings_its_own_again():
    """Each attempt has it as it came."""

    def fail_first(number, source, path):
        drawn = source.random()
        if not path.exists():
            path.touch()
            raise ValueError(drawn)
        return drawn

    with TemporaryDirectory() as folder:
        item = 0, random.Random(1), Path(folder) / "tried"
        results = run_parallel(fail_first, [item], star=True, executor="processes", retries=Retry(1, delay=0))
    assert [random.Random(1).random()] == results.values()


def test_what_each_task_makes_or_brings_itself_is_its_own(script):
    """A generator of the task, those of modules, of the system, and one for each item."""
    with ProcessExecutor(2) as executor:
        run_parallel(script["own"], range(2), executor=executor).raise_failures()
        pairs = [(item, np.random.default_rng(item)) for item in range(2)]
        run_parallel(
            lambda item, source: source.normal(), pairs, star=True, executor=executor
        ).raise_failures()
        shared = random.SystemRandom(), random.getrandbits, np.random.normal, np.random.SeedSequence(1)
        run_parallel(lambda item, *shared: None, range(2), args=shared, executor=executor).raise_failures()


def test_pools_of_others_are_told_too(script):
    """Their workers get the same bytes."""
    with pytest.raises(TypeError, match=WHO):
        sealed(Job(script["by_global"], (), {}, star=False))
