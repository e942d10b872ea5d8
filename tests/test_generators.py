"""A random generator that all tasks of a run would share in processes: refused, since each worker had it in the same state."""

import random
import re
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from pickle import dumps
from tempfile import TemporaryDirectory
from types import MethodType

import numpy as np
import pytest

from parallelkit import ProcessExecutor, Retry, Task, iter_parallel, map_reduce, run_parallel
from parallelkit._executors._contract import Job
from parallelkit._executors._foreign_calls import sealed
from parallelkit._executors._process import _generators
from parallelkit._executors._process._generators import WAYS, Neighbours, refuse_alike

SCRIPT = """
import random
from functools import cache
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

    def walk(self, item):
        return self.hop()

    def hop(self):
        return self.stride()

    def stride(self):
        return rng.normal()

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

@cache
def by_cache(item):
    return rng.normal()

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


def load(text):
    """The names of a program's main module."""
    scope = {"__name__": "__main__"}
    exec(text, scope)
    return scope


@pytest.fixture
def script():
    """The one above."""
    return load(SCRIPT)


@pytest.fixture
def executor(both_running):
    """Of two workers, which have run other tests."""
    return both_running


WHO = r" is (a|a method of a) (Generator|RandomState|Random), which each worker process would get in the same state"


@pytest.mark.parametrize(
    ("name", "what"),
    {
        "by_global": "rng, which __main__.by_global uses,",
        "by_another": "rng, which __main__.by_global uses,",
        "by_method": "normal, which __main__.by_method uses,",
        "by_cache": "rng, which __main__.by_cache uses,",
        "by_default": "source, which __main__.by_default uses,",
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
    with pytest.raises(TypeError, match=r"^rng, which __main__.Model.stride uses," + WHO):
        run_parallel(wrap(script["model"].walk), range(4), executor="processes")
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
    "methods": lambda draw, source: run_parallel(
        [Task(source.random) for n in range(3)], executor="processes"
    ),
    "star": lambda draw, source: run_parallel(
        draw, [(n, source) for n in range(3)], star=True, executor="processes"
    ),
    "dicts": lambda draw, source: run_parallel(
        lambda case: draw(**case), [{"item": n, "source": source} for n in range(3)], executor="processes"
    ),
    "tasks": lambda draw, source: run_parallel(
        [Task(draw, n, source) for n in range(3)], executor="processes"
    ),
    "partials": lambda draw, source: run_parallel(
        [partial(draw, n, source=source) for n in range(3)], executor="processes"
    ),
    "partial methods": lambda draw, source: run_parallel(
        [partial(partial(source.random)) for n in range(3)], executor="processes"
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


@pytest.mark.parametrize(
    ("form", "make"),
    [  # by default, each form and each kind of generator, but not all of their combinations
        pytest.param(form, make, marks=() if form == "star" or make is random.Random else pytest.mark.all)
        for form in FORMS
        for make in [random.Random, np.random.RandomState, np.random.default_rng]
    ],
)
def test_one_that_several_items_bring_is_refused_from_the_second_on(form, make):
    """As in ``delayed(draw)(item, rng)`` for each item: all had the same number."""

    def draw(item, source):
        return source.random()

    results = FORMS[form](draw, make(1))
    assert {0: make(1).random()} == results.successes
    told = rf"the items of task 0 and task 1 share one {type(make(1)).__name__}, "
    assert TypeError is type(results.failures[1].error)
    assert re.match(told, str(results.failures[1].error))


def test_one_that_is_given_is_refused_whatever_the_function_does_with_it():
    """One that copies it can copy what it finds in a list instead, or make it of a seed."""

    def copied(item, source):
        return deepcopy(source).random()

    source = random.Random(1)
    with pytest.raises(TypeError, match=WHO + ".* or all the same one if that is meant"):
        run_parallel(copied, range(2), args=(source,), executor="processes")
    results = run_parallel(copied, [(1, source), (2, source)], star=True, executor="processes")
    assert [1] == [*results.failures]
    same = run_parallel(
        lambda item, box: copied(item, *box), range(2), args=([source],), executor="processes"
    )
    assert [source.random()] * 2 == same.values()


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
    """A function that takes a generator along is refused for pools of others, too: their workers get the same bytes."""
    with pytest.raises(TypeError, match=WHO):
        sealed(Job(script["by_global"], (), {}, star=False))


SEES_TO_IT = {
    "seeds it": """
def task(item):
    rng.seed(item)
    return rng.random()
""",
    "seeds it elsewhere": """
@lru_cache
def begin(item):
    rng.seed(item)

def task(item):
    begin(item)
    return rng.random()
""",
    "seeds it in an inner function": """
def task(item):
    return (lambda: (lambda: rng.seed(item) or rng.random())())()
""",
    "sets its state": """
states = [make(item).getstate() for item in range(3)]

def task(item):
    rng.setstate(states[item])
    return rng.random()
""",
    "makes one where there is a seed": """
def task(item):
    return (random.Random(item) if item is not None else rng).random()
""",
    "copies it": """
def task(item):
    return deepcopy(rng).random()
""",
    "imports what copies it": """
def task(item):
    from copy import deepcopy
    return (lambda: deepcopy(rng).random())()
""",
    "copies it in a class": """
class Common:
    def __init__(self, source):
        self.source = deepcopy(source)

class Special(Common):
    pass

def task(item):
    return Special(rng).source.random()
""",
    "copies it in a static method": """
class Common:
    @staticmethod
    def of(source):
        return deepcopy(source)

def task(item):
    return Common.of(rng).random()
""",
    "copies it in an object": """
class Model:
    def __call__(self, source):
        return deepcopy(source).random()

model = Model()

def task(item):
    return model(rng)
""",
    "assigns the global": """
def begin(item):
    global rng
    rng = make(item)

def task(item):
    begin(item)
    return rng.random()
""",
    "assigns the global in an inner function": """
def task(item):
    def begin():
        global rng
        rng = make(item)

    begin()
    return rng.random()
""",
    "assigns the global by its name": """
def task(item):
    globals()["rng"] = make(item)
    return rng.random()
""",
    "assigns what is in its closure": """
def closed():
    source = make(1)

    def task(item):
        nonlocal source
        source = make(item)
        return source.random()

    return task

task = closed()
""",
    "assigns an attribute": """
class Model:
    def __init__(self):
        self.source = make(1)

    def begin(self, item):
        self.source = make(item)

    def task(self, item):
        self.begin(item)
        return self.source.random()

task = Model().task
""",
}

BEGINNING = """
import random
from copy import deepcopy
from functools import lru_cache

make = random.Random  # under a name that does not show what it is
rng = make(1)
"""


@pytest.mark.parametrize("text", SEES_TO_IT.values(), ids=SEES_TO_IT)
def test_one_that_the_program_seeds_copies_or_replaces_is_its_own_affair(text, executor):
    """Each task draws what it would draw alone; also where the function comes with each task."""
    alone = [load(BEGINNING + text)["task"](item) for item in (1, 2)]
    task = load(BEGINNING + text)["task"]
    assert alone == run_parallel(task, [1, 2], executor=executor).values()
    assert alone == run_parallel([Task(task, item) for item in (1, 2)], executor=executor).values()


@pytest.mark.parametrize(
    "begins", ["global rng; rng = make(7)", "globals()['rng'] = make(7)"], ids=["assigned", "by its name"]
)
def test_one_that_an_initializer_assigns_is_made_in_each_worker(begins):
    """No task has the one of the script."""
    scope = load(BEGINNING + f"def begin(): {begins}\ndef task(item): return rng.random()")
    with ProcessExecutor(1, initializer=scope["begin"]) as executor:
        values = run_parallel(scope["task"], range(2), executor=executor).values()
    source = random.Random(7)
    assert [source.random(), source.random()] == values


GENERATOR = dumps(random.Random(1), 5)
"""What a pickle has in it that brings one."""


@pytest.mark.parametrize("name", [*sorted(WAYS), "seed", "reseed", "SeedSequence", "set_SEED"])
def test_a_name_is_enough(name):
    """As a global or an attribute: nobody looks at what is done with it."""
    for said in (name, f"item.{name}"):
        scope = load(BEGINNING + f"def task(item): return rng.random(), {said}")
        refuse_alike(GENERATOR, scope["task"], (), {}, star=False)


LOOKS_LIKE_IT = {
    "a keyword is called seed": """
def task(seed):
    return dict(seed=seed), rng.random()
""",
    "a default": """
def task(item, *, source=rng):
    return source.random()
""",
    "the object begins with it": """
class Model:
    def __init__(self):
        self.source = make(1)

    def task(self, item):
        return self.source.random()

task = Model().task
""",
    "it is made beside the function": """
def closed():
    source = random.Random(1)

    def task(item):
        return source.random()

    return task

task = closed()
""",
    "another function of the script seeds it": """
def other(item):
    rng.seed(item)

def task(item):
    return rng.random()
""",
    "a function that was imported copies it": """
from test_generators import draw_from_copy as draw

def task(item):
    return draw(rng)
""",
    "what copies has another name here": """
from copy import copy as another

def task(item):
    return another(rng).random()
""",
}


@pytest.mark.parametrize("text", LOOKS_LIKE_IT.values(), ids=LOOKS_LIKE_IT)
def test_without_such_a_name_it_is_refused(text, executor):
    """In the code that travels: what workers import is not looked at."""
    with pytest.raises(TypeError, match=WHO):
        run_parallel(load(BEGINNING + text)["task"], range(2), executor=executor)


def test_one_in_a_function_of_a_module_is_refused(executor):
    """A function inside it cannot be imported, and takes along what it uses."""
    source = random.Random(1)
    with pytest.raises(TypeError, match=r"^source, which .*<lambda> uses," + WHO):
        run_parallel(lambda item: source.random(), range(2), executor=executor)


def draw_from_copy(source):
    """One number."""
    return deepcopy(source).random()


WITH_DEFAULT = """
def task(item, source=rng):
    return item if source is None else source.random()

class Model:
    def task(self, item, source=rng):
        return item if source is None else source.random()

method = Model().task
"""


def test_a_default_that_the_run_replaces_draws_nothing(executor):
    """By a keyword, a further argument, a partial, or whatever an item or a task may bring."""
    scope = load(BEGINNING + WITH_DEFAULT)
    fn = scope["task"]
    with pytest.raises(TypeError, match="^source, which __main__.task uses," + WHO):
        run_parallel(fn, [1, 2], executor=executor)
    for given, options in (
        (fn, {"args": (None,)}),
        (scope["method"], {"args": (None,)}),
        (fn, {"kwargs": {"source": None}}),
        (partial(fn, source=None), {}),
        (partial(fn, source=random.Random(1)), {"kwargs": {"source": None}}),
    ):
        assert [1, 2] == run_parallel(given, [1, 2], executor=executor, **options).values()
    assert [3, 3] == run_parallel(partial(fn, 3), [None, None], executor=executor).values()
    own = [random.Random(item) for item in (1, 2)]
    alone = [random.Random(item).random() for item in (1, 2)]
    assert alone == run_parallel(fn, enumerate(own), star=True, executor=executor).values()
    tasks = [Task(fn, 1, own[0]), Task(fn, 2, kwargs={"source": own[1]})]
    assert alone == run_parallel(tasks, executor=executor).values()


own = random.Random(1)


def bound(source):
    """A function that cannot be imported."""
    return lambda: source


its = bound(own)


def draw_own(item, given, source=own):
    """From what this module has."""
    return own is source is its()


def test_what_a_module_has_is_imported_by_each_worker(executor):
    """Another generator that goes along does not change that."""
    assert [True] * 2 == run_parallel(draw_own, range(2), args=([own],), executor=executor).values()


def test_where_no_generator_goes_along_nothing_is_looked_at(monkeypatch, executor):
    """Told by the bytes: the function of a large script would take long."""
    monkeypatch.setattr(_generators, "reached", None)
    fn = load("word = 'random'\ndef task(item): return word")["task"]
    assert ["random"] == run_parallel(fn, range(1), executor=executor).values()
    assert ["random"] == run_parallel([Task(fn, 0)], executor=executor).values()


class Dice(random.Random):
    """A generator of a module's own class."""


def test_one_of_a_class_of_ones_own_is_refused(executor):
    """Its pickle does not say what it is; as an argument it is seen."""
    for options in ({"args": (Dice(1),)}, {"kwargs": {"dice": Dice(1)}}):
        with pytest.raises(TypeError, match=" is a Dice, which each worker process would get"):
            run_parallel(roll, range(2), executor=executor, **options)


class Shaker:
    """Of a module's own, too."""

    def __init__(self):
        self.source = random.Random(1)

    @cache  # noqa: B019  # one object, for one test
    def shake(self, item):
        """By its own."""
        return self.source.random()


def test_one_of_an_object_of_a_module_is_refused(executor):
    """The object travels, whatever its class is."""
    with pytest.raises(TypeError, match=r"^source, which test_generators\.Shaker\.shake uses," + WHO):
        run_parallel(Shaker().shake, range(2), executor=executor)


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


def test_of_a_large_item_the_outer_parts_are_looked_at():
    """Each once, however deep it is, or if it has itself in it."""
    source = random.Random(1)
    item = [[number] * 1000 for number in range(_generators.PARTS - 4)]
    item += [item, {"source": source}, source]
    assert [source] == _generators._generators_in(item)
    rows = [(1.5,) * 60, (*["text"] * 60, source)]  # numbers and texts are passed over
    assert [source] == _generators._generators_in(rows)
    assert [source] == _generators._generators_in(({"a": [({"b": [source.random]},)]},))


def test_what_raises_when_it_is_asked_what_it_is_does_no_harm():
    """A proxy of what is gone, or one that loads a module when it is looked at."""
    scope = load(
        BEGINNING
        + "import weakref\nmade = weakref.proxy(make(2))\ndef task(item): return made if item else rng.random()"
    )
    with pytest.raises(ReferenceError):
        isinstance(scope["made"], int)
    with pytest.raises(TypeError, match=r"^rng, which __main__\.task uses,"):
        refuse_alike(GENERATOR, scope["task"], (scope["made"],), {}, star=False)
    assert [scope["rng"]] == _generators._generators_in([scope["made"], scope["rng"]])
    refuse_alike(GENERATOR, MethodType(len, "has no code"), (), {}, star=False)


def test_each_function_of_a_large_script_is_looked_at_once(monkeypatch):
    """Not once for each that names the generator."""
    looked = []
    assigns = _generators._assigns
    monkeypatch.setattr(_generators, "_assigns", lambda *given: looked.append(given) or assigns(*given))
    text = "\n".join(f"def f{number}(): return rng, f{number + 1}" for number in range(100))
    scope = load(BEGINNING + text + "\ndef f100():\n    global rng\n    rng = make(1)")
    refuse_alike(GENERATOR, scope["f0"], (), {}, star=False)
    assert 101 == len(looked)
