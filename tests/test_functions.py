"""Functions of a script are pickled, and made in a worker, as cloudpickle would do it, but without loading it."""

import asyncio
import builtins
import functools
import subprocess
import sys
import types
from contextlib import _GeneratorContextManager, asynccontextmanager, contextmanager
from io import BytesIO

import cloudpickle
import pytest

from parallelkit import run_parallel
from parallelkit._worker._by_value import pack_function, reduce_function
from parallelkit._worker._elsewhere import MoreError
from parallelkit._worker._travel import by_value_pickler, dump, pack, unpack

SOURCE = '''
import os.path
import urllib.parse as parse
import xml.dom.minidom
import xml.etree.ElementTree
from functools import partial

RATE = 3


def plain(amount: int, *rest: int, by: int = 2) -> int:
    """Has all that a function can have."""
    return amount * by * RATE + sum(rest)


plain.note = ["kept"]


def with_default(amount, by=[2]):
    return amount * by[0]


def uses_a_submodule(amount):
    return len(os.path.join("a" * amount, "b"))


def uses_a_module_of_a_package(amount):
    return parse.quote(" " * amount)


def uses_modules_within_modules(amount):
    return xml.dom.Node.ELEMENT_NODE + len(xml.etree.ElementTree.fromstring("<a>" + "<b/>" * amount + "</a>"))


def has_code_in_its_code(amount):
    return sum(map(lambda one: one * RATE, range(amount)))


def counts_down(amount):
    return 0 if amount == 0 else 1 + counts_down(amount - 1)


def is_annotated(amount: int | None, rest: list[str | bytes] = [], *more: "later") -> tuple[int, ...] | type[None]:
    return amount if rest is not ... else 1j


def yields(amount):
    return [*(one for one in [amount])]


def enclosing():
    by, log = 5, []

    def even(amount):
        return amount == 0 or odd(amount - 1)

    def odd(amount):
        return amount != 0 and even(amount - 1)

    def times(amount):
        log.append(amount)
        return amount * by + len(log)

    def unset(amount):
        return later

    if by < 0:
        later = 1
    return even, times, unset


even, times, unset = enclosing()
FUNCTIONS = [plain, with_default, uses_a_submodule, uses_a_module_of_a_package, uses_modules_within_modules, has_code_in_its_code, counts_down, is_annotated, yields, even, times, lambda x: x + RATE]
'''

SCRIPT = (
    SOURCE
    + """
import sys

from parallelkit import run_parallel


def loaded(amount):
    return "cloudpickle" in sys.modules


expected = [fn(4) for fn in FUNCTIONS]
times = enclosing()[1]
FUNCTIONS[10] = times
for _ in range(2):  # the workers of the first run are forked by a process that has loaded more
    found = run_parallel(dict(enumerate([*FUNCTIONS, loaded])), args=(4,), executor="processes", max_workers=1).values()
    assert found == [*expected, False], (found, expected)
    assert run_parallel(times, [4], executor="processes", max_workers=1).values() == [21]
    assert run_parallel(loaded, [4], executor="processes", max_workers=1).values() == [False]
"""
)


def test_workers_make_the_functions_of_a_script_without_cloudpickle(tmp_path):
    """A worker that runs functions of a script does not load cloudpickle, which takes as long as the worker's start."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)


def functions():
    """The functions of a script; its name is that of this process's script, where they are not found."""
    scope = {"__name__": "__main__"}
    exec(SOURCE, scope)
    return {fn.__name__: fn for fn in [*scope["FUNCTIONS"], scope["unset"]]}


NAMES = sorted(functions())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_pickled_of_a_function_is_what_cloudpickle_takes(name, monkeypatch):
    """The modules that it reaches are found without the search through all that are loaded, which takes longest with cloudpickle."""
    fn = functions()[name]
    theirs = cloudpickle.Pickler._dynamic_function_reduce(cloudpickle.Pickler(BytesIO()), fn)
    monkeypatch.setattr(cloudpickle.cloudpickle, "_find_imported_submodules", None)
    ours = reduce_function(cloudpickle.Pickler(BytesIO()), fn)
    theirs[2][1]["submodules"] = theirs[2][1].pop("_cloudpickle_submodules")
    for _, rest in ours[2], theirs[2]:
        rest["submodules"].sort(key=repr)
    assert (theirs[1][:2], theirs[2]) == (ours[1][:2], ours[2])


@pytest.mark.parametrize("name", sorted({*NAMES} - {"is_annotated"}))
def test_a_function_has_the_same_pickle_with_and_without_cloudpickle(name):
    """Workers know a function by its pickle. Only for types in annotations, cloudpickle has a way of its own."""
    fn = functions()[name]
    assert dump(by_value_pickler(), fn, None) == pack_function(fn, BytesIO())


def test_a_pickle_does_not_tell_which_texts_are_one_object():
    """A function that was made anew from the same source is the same for workers."""
    fn = functions()["has_code_in_its_code"]
    before = pack_function(fn, BytesIO())
    fn.__code__ = fn.__code__.replace(co_filename="".join([*fn.__code__.co_filename]))
    assert before == pack_function(fn, BytesIO())


MORE = {
    "a class": "class thing: pass",
    "an object": "import decimal\nthing = decimal.Decimal(1)",
    "a method": "import random\nthing = random.random",
    "a metaclass that may have code of its own": "from enum import Enum\nclass thing(Enum):\n ONE = 1\nthing.__module__ = 'enum'",
    "a module that is nowhere": "import types\nthing = types.ModuleType('nowhere')",
    "a type without a place": "thing = type(iter([]))",
    "a function that does not say where it is": "def thing(): pass\nthing.__module__ = None",
    "a function that is not where it says": "import random\ndef thing(): pass\nthing.__module__ = 'os'\nthing = [thing, random.random]",
}


@pytest.mark.parametrize("source", MORE.values(), ids=MORE)
def test_what_else_a_function_refers_to_is_left_to_cloudpickle(source):
    """Plain pickle makes another thing of some objects than cloudpickle, and refuses others."""
    scope = {"__name__": "__main__"}
    exec(f"{source}\ndef refers():\n return thing", scope)
    with pytest.raises(MoreError):
        pack_function(scope["refers"], BytesIO())
    dump(by_value_pickler(), scope["refers"], None)  # raises if cloudpickle cannot either


class Late(types.ModuleType):
    """Makes its attributes when they are asked for, as mpmath does."""


class Later(Late):
    pass


@pytest.mark.parametrize("kind", [Late, Later])
def test_a_module_of_a_type_of_its_own_is_sent_by_its_name(monkeypatch, kind):
    """With cloudpickle or without, though pickle refuses it; unless it cannot be imported."""
    module = kind("late_one")
    scope = {"__name__": "__main__", "module": module}
    exec("def refers():\n return module", scope)
    with pytest.raises(MoreError):
        pack_function(scope["refers"], BytesIO())
    with pytest.raises(TypeError, match="cannot pickle 'Late"):
        dump(by_value_pickler(), scope["refers"], None)
    monkeypatch.setitem(sys.modules, "late_one", module)
    packed = pack_function(scope["refers"], BytesIO())
    assert dump(by_value_pickler(), scope["refers"], None) == packed
    assert module is unpack(packed)()


class FunctionWrapper:
    """Refuses to be pickled, as that of wrapt does, by which the decorators of many libraries wrap."""

    def __init__(self, name):
        self.__module__, self.__qualname__ = "wrapped_ones", name

    def __reduce_ex__(self, protocol):
        raise NotImplementedError


class AdapterWrapper(FunctionWrapper):
    pass


def test_a_function_decorated_with_a_context_manager_is_sent():
    """Each call enters one of its own, as here; one that has been entered is refused, as the rest of its body cannot be sent."""
    names = []

    @contextmanager
    def noting(name, *, end):
        names.append(name)
        yield
        names.append(end)

    @noting("begun", end="done")
    def work(item):
        return item, [*names]

    results = run_parallel(work, [1, 2], executor="processes", max_workers=1)
    assert [(1, ["begun"]), (2, ["begun", "done", "begun"])] == results.values()
    kept = noting("begun", end="done")
    kept.label = "mine"
    assert ["mine"] == run_parallel(
        lambda item: kept.label, [1], executor="processes", max_workers=1
    ).values()
    entered = noting("begun", end="done")
    with entered, pytest.raises(TypeError, match=r"entered, which .* cannot be pickled .*generator"):
        run_parallel(lambda item: entered, [1], executor="processes")


def test_a_context_manager_of_another_class_is_sent():
    """As opentelemetry's ``start_as_current_span`` returns one. Not if the class is made of something else."""

    class Agnostic(_GeneratorContextManager):
        pass

    class Named(_GeneratorContextManager):
        def __init__(self, name):
            super().__init__(noting, (name,), {})

    names = []

    def noting(name):
        names.append(name)
        yield

    @Agnostic(noting, ("begun",), {})
    def work(item):
        return item, names

    _, there = unpack(pack(work))(1)
    assert ["begun"] == there
    with pytest.raises(TypeError, match="cannot pickle 'generator' object"):
        pack([Named("begun")])


def test_a_coroutine_function_decorated_with_a_context_manager_is_sent():
    """The same with ``asynccontextmanager``, for a task that runs an event loop of its own."""

    @asynccontextmanager
    async def passing():
        yield

    @passing()
    async def negative(item):
        return -item

    def work(item):
        return asyncio.run(negative(item))

    assert [-1] == run_parallel(work, [1], executor="processes", max_workers=1).values()


@pytest.mark.parametrize("kind", [FunctionWrapper, AdapterWrapper])
def test_a_function_that_wrapt_has_wrapped_is_sent_by_its_name(monkeypatch, kind):
    """If it has one at which workers find it; others are refused as before."""
    module = types.ModuleType("wrapped_ones")
    module.there = kind("there")
    monkeypatch.setitem(sys.modules, "wrapped_ones", module)
    monkeypatch.setitem(sys.modules, "wrapt", types.SimpleNamespace(FunctionWrapper=FunctionWrapper))
    assert [module.there] == unpack(pack([module.there]))
    for nowhere in kind("not_there"), kind("there"):
        with pytest.raises(NotImplementedError):
            pack([nowhere])
    nameless = kind("there")
    nameless.__module__ = None
    with pytest.raises(NotImplementedError):
        pack([nameless])


def test_a_module_that_is_registered_to_be_sent_is_left_to_cloudpickle(monkeypatch):
    """``cloudpickle.register_pickle_by_value``: its functions are sent by value, too."""
    fn = functions()["uses_a_submodule"]
    pack_function(fn, BytesIO())
    cloudpickle.register_pickle_by_value(types)
    try:
        with pytest.raises(MoreError):
            pack_function(fn, BytesIO())
    finally:
        cloudpickle.unregister_pickle_by_value(types)


def test_functions_inside_a_function_may_use_modules_within_a_package():
    """A worker imports these, too, so that it does not say that the package has no such attribute. cloudpickle forgets them."""
    scope = {"__name__": "__main__"}
    exec(
        "import xml.dom.minidom\ndef names():\n return list(xml.dom.minidom.Document.__name__ for _ in 'a')",
        scope,
    )
    _, rest = reduce_function(cloudpickle.Pickler(BytesIO()), scope["names"])[2]
    assert ["xml.dom", "xml.dom.minidom"] == [module.__name__ for module in rest["submodules"]]


def test_a_class_inside_a_function_may_use_globals():
    """The types of its fields, say. cloudpickle forgets what the body of such a class names."""
    scope = {"__name__": "__main__", "RATE": 7}
    exec("def rate():\n class Rate:\n  now: int = RATE\n return Rate.now", scope)
    assert 7 == unpack(pack(scope["rate"]))()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no such syntax")
def test_a_type_in_a_class_inside_a_function_may_use_globals():
    """What a type stands for is evaluated late, in a scope of its own, which sees the variables of the class, too."""
    scope = {"__name__": "__main__", "RATE": 7}
    exec("def rate():\n class Rate:\n  type now = RATE\n return Rate.now.__value__", scope)
    assert 7 == unpack(pack(scope["rate"]))()


def test_a_function_may_use_a_module_that_has_no_package():
    """A module that a program has made itself may lack any attribute."""
    module = types.ModuleType("own")
    del module.__package__
    scope = {"__name__": "__main__", "module": module}
    exec("def name():\n return module.__name__", scope)
    assert "own" == unpack(pack(scope["name"]))()


def looks(fn):
    """What there is to see of a function, without what differs between any two copies."""
    names = [
        "__name__",
        "__qualname__",
        "__module__",
        "__doc__",
        "__defaults__",
        "__kwdefaults__",
        "__dict__",
    ]
    code = fn.__code__
    free = {name for name, cell in zip(code.co_freevars, fn.__closure__ or (), strict=True) if is_set(cell)}
    scope = {name for name in fn.__globals__ if name != "__builtins__"}
    return [getattr(fn, name) for name in names], fn.__annotations__, free, scope, code.co_code, code.co_flags


def is_set(cell):
    """Whether the variable of this cell has a value."""
    try:
        cell.cell_contents  # raises if it has none
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_a_function_is_made_as_cloudpickle_makes_it(name):
    """A function has its attributes, globals and closure at the other end, and does the same."""
    fn = functions()[name]
    theirs, ours = cloudpickle.loads(cloudpickle.dumps(fn)), unpack(pack(fn))
    assert looks(theirs) == looks(ours)
    if name == "unset":
        with pytest.raises(NameError):
            ours(4)
    else:
        assert functions()[name](4) == ours(4)


def test_no_function_needs_what_only_cloudpickle_has(monkeypatch):
    """All that the pickles of functions name is there without cloudpickle."""
    pickles = [pack(fn) for fn in functions().values()]
    pickles.append(pack(functools.partial(functions()["plain"], by=7)))
    pickles += [pack_function(fn, BytesIO()) for fn in functions().values()]
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    monkeypatch.setitem(sys.modules, "cloudpickle.cloudpickle", None)
    assert all(callable(unpack(one)) for one in pickles)


def test_functions_of_one_pickle_share_their_globals():
    """What one function of a script assigns to a global is seen by another that came along with it."""
    scope = {"__name__": "__main__"}
    exec(
        "def assign(to):\n global rate\n rate = to\nrate = 1\n"
        "def read():\n return rate\n"
        "def both(to):\n assign(to)\n return read()",
        scope,
    )
    both = unpack(pack(scope["both"]))
    assert 7 == both(7)
    assert 1 == scope["rate"]


@pytest.mark.parametrize(
    "pickled", [pack, lambda fn: pack_function(fn, BytesIO())], ids=["by cloudpickle", "of the script"]
)
def test_functions_of_one_pickle_share_what_they_captured(pickled):
    """What an inner function assigns to a ``nonlocal`` variable is seen by the others, there as here, and only there."""
    scope = {"__name__": "__main__"}
    exec(
        "def outer():\n total = 0\n"
        " def add(x):\n  nonlocal total\n  total += x\n  return work\n"
        " def work(*parts):\n  assert all(add(part) is work for part in parts)\n  return total\n"
        " return work",
        scope,
    )
    work = scope["outer"]()
    there = unpack(pickled(work))
    assert (6, 10) == (there(1, 2, 3), there(4))
    assert 0 == work()


def test_a_function_of_the_script_has_the_same_builtins():
    """A function that names ``__builtins__`` gets the module, as in a script, and not a copy of what is in it."""
    scope = {"__name__": "__main__"}
    exec("def given():\n return __builtins__, len", scope)
    assert (builtins, len) == unpack(pack(scope["given"]))()
