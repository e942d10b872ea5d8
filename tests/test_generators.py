"""A random generator that all tasks of a run would share in processes: refused, since each worker had it in the same state."""

import random
import re
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
import pytest

from parallelkit import ProcessExecutor, Retry, Task, iter_parallel, map_reduce, run_parallel
from parallelkit._executors._contract import Job
from parallelkit._executors._foreign import sealed
from parallelkit._executors._process import _generators
from parallelkit._executors._process._captures import MOST, reached
from parallelkit._executors._process._generators import Neighbours

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

RIGHT = """
import copy, random
from copy import deepcopy
from functools import lru_cache, partial
import numpy as np

rng, source, base = np.random.default_rng(1), random.Random(1), np.random.default_rng(1)
by_worker = random.Random(1)

def initializer():
    global by_worker
    by_worker = random.Random(5)
    globals()["by_name"] = by_worker

def made_by_the_initializer(item):
    return by_worker.random() < 1 and random.Random(item).random()

by_name = random.Random(1)

def made_under_a_name(item):
    return by_name.random() < 1 and random.Random(item).random()

def stored(item):
    global rng
    rng = random.Random(item)
    return by_helper()

def by_helper():
    return rng.random()

def seeded(item):
    source.seed(item)
    return source.random()

@lru_cache
def again(item):
    source.seed(item)

def seeded_in_a_cache(item):
    again(item)
    return source.random()

def set_back(item):
    source.setstate(random.Random(item).getstate())
    return source.random()

def spawned(item):
    return random.Random(base.bit_generator.seed_seq.entropy + item - 1).random()

def closed():
    rng = random.Random(1)

    def draw(item):
        nonlocal rng
        rng = random.Random(item)
        return rng.random()

    return draw

in_closure = closed()

def by_default(item, given=random.Random(1)):
    return random.Random(item).random()

class Model:
    def __init__(self):
        self.rng = random.Random(1)

    def start(self, item):
        self.rng = random.Random(item)

    def simulate(self, item):
        self.start(item)
        return self.rng.random()

    def __call__(self, item, given):
        return copy.copy(given).random()

simulate = Model().simulate

class Common:
    def __init__(self, given):
        self.given = deepcopy(given)

    def draw(self):
        return self.given.random()

def by_class(item, given):
    return Common(given).draw()

def by_import(item, given):
    import copy as c
    return c.copy(given).random()

def by_object(item, given):
    return model(item, given)

model = Model()

def by_module(item, given):
    return helpers.copy_and_draw(item, given)

def by_import_of_ones_own(item, given):
    from test_generators import copy_and_draw
    return copy_and_draw(item, given)

def copied(item, given):
    return deepcopy(given).random()
"""

NEARLY = """
import random
source = random.Random(1)

class Model:
    def __init__(self):
        self.rng = random.Random(1)

    def draw(self, item):
        return [self.rng.random() for _ in range(2)]

class Plain:
    pass

def copies_another(item):
    return [item].copy(), source.random()

def names_a_seed(seed):
    return dict(seed=seed), source.random()

def stores_another(item):
    rng = Plain()
    rng.source = item
    return source.random()

def by_keyword(item, *, given=source):
    return given.random()

draw = Model().draw
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


def test_a_callable_that_is_not_true_is_looked_into_as_any_other():
    """It has a length, say, and none yet."""

    class Model(list):
        def __call__(self, item, source):
            return deepcopy(source).random()

    source = random.Random(1)
    values = run_parallel(Model(), [(1, source), (2, source)], star=True, executor="processes").values()
    assert [source.random()] * 2 == values


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
        drawn = run_parallel(lambda item, source: source.normal(), pairs, star=True, executor=executor)
        assert [np.random.default_rng(item).normal() for item in range(2)] == drawn.values()
        shared = random.SystemRandom(), random.getrandbits, np.random.normal, np.random.SeedSequence(1)
        run_parallel(lambda item, *shared: None, range(2), args=shared, executor=executor).raise_failures()


def test_pools_of_others_are_told_too(script):
    """Their workers get the same bytes."""
    with pytest.raises(TypeError, match=WHO):
        sealed(Job(script["by_global"], (), {}, star=False))


@pytest.fixture(scope="module")
def right():
    """Programs that name a generator which travels, and draw from another, or mean to draw the same."""
    scope = {"__name__": "__main__", "helpers": sys.modules[__name__]}
    exec(RIGHT, scope)
    return scope


@pytest.fixture
def executor(right):
    """Its initializer makes a generator for each worker."""
    with ProcessExecutor(2, initializer=right["initializer"]) as executor:
        yield executor


@pytest.mark.parametrize(
    "name",
    [
        "made_by_the_initializer",
        "made_under_a_name",
        "stored",
        "seeded",
        "seeded_in_a_cache",
        "set_back",
        "spawned",
        "in_closure",
        "simulate",
    ],
)
def test_one_that_the_program_seeds_or_replaces_is_its_own_affair(name, right, executor):
    """By the task, what that calls, or the initializer; also where the function comes with each task."""
    alone = [random.Random(item).random() for item in (1, 2)]
    assert alone == run_parallel(right[name], [1, 2], executor=executor).values()
    assert alone == run_parallel([Task(right[name], item) for item in (1, 2)], executor=executor).values()


@pytest.mark.parametrize(
    "name",
    [
        "copied",
        "by_class",
        "by_import",
        "by_object",
        "by_module",
        "by_import_of_ones_own",
        "model",
    ],
)
def test_who_copies_one_means_common_random_numbers(name, right, executor):
    """Of an argument for all, and of one that each item brings."""
    fn, source = right[name], random.Random(7)
    same = [random.Random(7).random()] * 2
    assert same == run_parallel(fn, [1, 2], args=(source,), executor=executor).values()
    assert same == run_parallel(fn, [(1, source), (2, source)], star=True, executor=executor).values()
    assert same == run_parallel([Task(fn, n, source) for n in (1, 2)], executor=executor).values()


def test_a_default_that_the_run_replaces_draws_nothing(right, executor):
    """By a keyword, a further argument, a partial, or whatever an item or a task may bring."""
    fn, own = right["by_default"], [random.Random(item) for item in (1, 2)]
    alone = [random.Random(item).random() for item in (1, 2)]
    for given, options in (
        (fn, {"args": (None,)}),
        (fn, {"kwargs": {"given": None}}),
        (partial(fn, given=None), {}),
        (partial(fn, given=own[0]), {"kwargs": {"given": None}}),
    ):
        assert alone == run_parallel(given, [1, 2], executor=executor, **options).values()
    pairs = list(zip([1, 2], own, strict=True))
    assert alone == run_parallel(fn, pairs, star=True, executor=executor).values()
    tasks = [Task(fn, 1, own[0]), Task(fn, 2, kwargs={"given": own[1]})]
    assert alone == run_parallel(tasks, executor=executor).values()


@pytest.mark.parametrize("name", ["copies_another", "names_a_seed", "stores_another", "by_keyword", "draw"])
def test_what_only_looks_like_it_is_refused(name, executor):
    """A list is copied, a keyword is called seed, another attribute is stored, or the object's own is by ``__init__``."""
    scope = {"__name__": "__main__"}
    exec(NEARLY, scope)
    with pytest.raises(TypeError, match=WHO):
        run_parallel(scope[name], range(2), executor=executor)


def test_functions_of_a_module_in_a_package_are_reached():
    """By what the function names of the package, and of the module."""
    package = ModuleType("package")
    package.helpers, package.itself = sys.modules[__name__], package

    def draw(item):
        return package.itself.helpers.copy_and_draw(item, None)

    assert [draw, copy_and_draw, copied] == reached(draw)


def copy_and_draw(item, source):
    """By another function of this module."""
    return copied(source).random()


def copied(source):
    """As it came."""
    return deepcopy(source)


class Dice(random.Random):
    """A generator of a module's own class."""


def test_one_of_a_class_of_ones_own_is_refused(executor):
    """Its pickle does not say what it is; as an argument it is seen."""
    for options in ({"args": (Dice(1),)}, {"kwargs": {"dice": Dice(1)}}):
        with pytest.raises(TypeError, match=" is a Dice, which each worker process would get"):
            run_parallel(roll, range(2), executor=executor, **options)


def roll(item, dice):
    """A throw."""
    return dice.randint(1, 6)


def test_items_that_hold_the_word_are_not_looked_through(monkeypatch, executor):
    """Ten thousand rows with the text "random" took ten times as long as without."""
    looked = []
    monkeypatch.setattr(Neighbours, "refuse_alike", lambda *given: looked.append(given[2]))
    rows = [["random", "a random word", f"Randomly {number}"] for number in range(3)]
    assert [3] * 3 == run_parallel(len, rows, executor=executor).values()
    assert [] == looked
    sources = [(make(1),) for make in (random.Random, np.random.RandomState, np.random.default_rng)]
    assert [1] * 3 == run_parallel(len, sources, executor=executor).values()
    assert sources == looked


ODD = """
import random, weakref
from copy import copy as another

fallback = random.Random(1)
made = weakref.proxy(random.Random(2))  # of what is gone by now

def helper():
    return made

def falls_back(item):
    generator = random.Random(item) if item is not None else fallback
    return generator.random()

def copies_by_another_name(item):
    return another(fallback).random()

make = random.Random  # the name of no class that is known

class Holder:
    def __init__(self):
        self.own = fallback

    def assigns_its_own(self, item):
        self.own = make(item)
        return self.own.random()

assigns_its_own = Holder().assigns_its_own

second = third = fallback

def assigns(item):
    global second
    second = make(item)
    return second.random()

def start():
    global third
    third = make(7)

def after_start(item):
    return third.random()

def names_what_is_gone(item):
    return helper if item is None else fallback.random()
"""


@pytest.mark.parametrize("name", ["falls_back", "copies_by_another_name", "assigns", "assigns_its_own"])
def test_who_makes_one_or_copies_it_by_another_name_is_left_alone(name, executor):
    """As a function does that takes the shared one only where it was given no seed."""
    scope = {"__name__": "__main__"}
    exec(ODD, scope)
    values = run_parallel(scope[name], range(2), executor=executor).values()
    assert [scope[name](0), scope[name](1)] == values


def test_what_an_initializer_assigns_is_not_shared():
    """It has made one for its worker, by the time that a task draws."""
    scope = {"__name__": "__main__"}
    exec(ODD, scope)
    with ProcessExecutor(1, initializer=scope["start"]) as executor:
        values = run_parallel(scope["after_start"], range(2), executor=executor).values()
    source = random.Random(7)
    assert [source.random(), source.random()] == values


def test_what_raises_when_it_is_asked_what_it_is_does_no_harm():
    """A proxy of what is gone, or one that loads a module when it is looked at."""
    scope = {"__name__": "__main__"}
    exec(ODD, scope)
    with pytest.raises(ReferenceError):
        isinstance(scope["made"], int)
    assert not _generators._sees_to_it(scope["names_what_is_gone"])
    found = []
    _generators._gather([scope["made"], scope["fallback"]], 3, _generators._kinds(), found)
    assert [scope["fallback"]] == found


def test_of_many_functions_not_all_are_looked_at():
    """A large script is left alone: it would take a tenth of a second for each task."""
    scope = {"__name__": "__main__"}
    exec("\n".join(f"def f{n}(): return f{n + 1}" for n in range(300)), scope)
    assert MOST < len(reached(scope["f0"])) < 2 * MOST
    assert _generators._sees_to_it(scope["f0"])
    assert not _generators._sees_to_it(scope["f250"])
