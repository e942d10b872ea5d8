"""What a library has once, and may look for with ``is``: a task of a script has that of its own process."""

import abc
import collections
import dataclasses
import enum
import importlib
import json
import os
import pickle
import sys
import threading
import types
from importlib.machinery import ModuleSpec

import cloudpickle
import pytest

from parallelkit import run_parallel
from parallelkit._worker._editions import Editions
from parallelkit._worker._elsewhere import is_installed, is_of_library
from parallelkit._worker._travel import by_value_pickler, dump, pack, unpack

MODULE = """
class UNSIGNED: pass
UNSIGNED = UNSIGNED()
class Missing:
    def __bool__(self): return False
missing, gone = Missing(), Missing()
del gone
"""


@pytest.fixture
def module(monkeypatch):
    """A module with tokens, one of which has the name of its class, as that of botocore does."""
    made = types.ModuleType("with_tokens")
    exec(MODULE, vars(made))
    monkeypatch.setitem(sys.modules, "with_tokens", made)
    return made


def of_script(source, **scope):
    """A function ``used`` of a script."""
    scope |= {"__name__": "__main__"}
    exec(source, scope)
    return scope["used"]


def test_a_worker_has_its_own():
    """As if it had imported it, which a worker of a standard pool does."""

    def used(item, other=dataclasses.KW_ONLY):
        return token is dataclasses.KW_ONLY is other

    from dataclasses import KW_ONLY as token  # noqa: N811  # a script may call it anything

    assert [True] == run_parallel(used, [1], executor="processes", max_workers=1).values()


def test_tokens_are_sent_by_name(module):
    """A function's global, whatever it is called there, and the same one in what else the function has."""
    source = "def used(other=token, more=[token, missing]): return token, other, *more, missing"
    there = unpack(pack(of_script(source, token=module.UNSIGNED, missing=module.missing)))()
    assert all(one is module.UNSIGNED for one in there[:3])
    assert all(one is module.missing for one in there[3:])
    captured = of_script(
        "def outer(token):\n def used(): return token\n return used\nused = outer(token)",
        token=module.UNSIGNED,
    )
    assert unpack(pack(captured))() is module.UNSIGNED


def test_what_its_module_does_not_have_is_no_token(module):
    """Another object of the class is sent by value, before and after there was a token of that class."""
    other = type(module.missing)()
    for name in ("other", "missing", "other"):
        sent = of_script(f"def used(): return {name}", other=other, missing=module.missing)
        assert (name == "missing") == (unpack(pack(sent))() is module.missing)


@pytest.mark.parametrize("token", ["UNSIGNED", "missing"])
def test_what_holds_a_token_has_it_there_too(module, token):
    """A schema of marshmallow has ``missing``, whether or not a function has been sent before that names it."""
    source = """
class Schema:
    default = token
    def __init__(self): self.given = token
schema = Schema()
def outer():
    more = {"a": [schema]}
    def used(): return schema.given, Schema.default, more["a"][0].given, every[0]
    return used
used = outer()
"""
    known = getattr(module, token)
    there = unpack(pack(of_script(source, token=known, every=[known])))()
    assert all(one is known for one in there)


def test_objects_of_known_classes_have_tokens_too(module):
    """The class was sent with an item before; plain pickle, which can then do, would make other tokens."""
    scope = {"__name__": "__main__"}
    exec("class Held:\n def __init__(self, token): self.token = token", scope)
    held = scope["Held"](module.missing)
    editions = Editions()
    pack([held], editions=editions)
    editions.known[id(scope["Held"])] = Held.make, ()
    Held.made = scope["Held"]
    assert unpack(pack([held], editions=editions))[0].token is module.missing


class Held:
    """Has the class that is known at the other end."""

    @staticmethod
    def make():
        return Held.made


def library(monkeypatch, name, **has):
    """A module of a library that is installed, which workers can import."""
    made = types.ModuleType(name)
    made.__file__ = f"/lib/site-packages/{name}.py"
    made.__spec__ = ModuleSpec(name, None)
    vars(made).update(has)
    monkeypatch.setitem(sys.modules, name, made)
    return made


def sentinel(name):
    """As ``boltons.typeutils.make_sentinel`` makes those of glom."""

    class Sentinel:
        def __init__(self):
            self.name = name

    return Sentinel()


@pytest.mark.parametrize("token", [object(), sentinel("SKIP")])
def test_a_token_whose_class_tells_no_module_is_that_of_its_library(monkeypatch, token):
    """As with ``from simpy.events import PENDING``, which is a plain object, or glom's ``SKIP``. A library comes before the program."""
    own = library(monkeypatch, "own", imported=token)
    own.__file__ = "/home/somebody/own.py"
    waves = library(monkeypatch, "waves", PENDING=token)
    library(monkeypatch, f"after_{type(token).__name__}", PENDING=token)  # so that it is looked for anew
    sent = of_script("def used(): return token, every[0]", token=token, every=[token])
    blob = pack(sent)
    assert [] == [name for name in (b"own\x94", b"after") if name in blob]
    waves.PENDING = object()
    assert all(one is waves.PENDING for one in unpack(blob)())


def test_a_plain_object_of_a_module_of_the_program_is_that_of_the_module(monkeypatch):
    """If workers can import it, and it has one there; else one is made, which is the same wherever it is used."""
    token = object()
    own = library(monkeypatch, "own", MISSING=token)
    own.__file__ = "/home/somebody/own.py"
    sent = of_script("def used(): return token, every[0]", token=token, every=[token])
    blob = pack(sent)
    assert (token, token) == unpack(blob)()
    own.MISSING = "another"
    one, other = unpack(blob)()
    assert type(one) is object
    assert one is other is not token
    own.MISSING, own.__spec__ = token, None
    library(monkeypatch, "more")  # so that it is looked for anew
    assert b"own\x94" not in pack(sent)


def test_what_the_script_has_made_for_itself_is_in_no_module():
    """A plain object of its own is one object there, too, and another than here."""
    token = object()
    one, other = unpack(pack(of_script("def used(): return token, every[0]", token=token, every=[token])))()
    assert one is other is not token


def test_a_token_with_texts_is_that_of_its_module_if_it_has_these_there(module):
    """Such as httpx's ``USE_CLIENT_DEFAULT``, which has ``__module__``. With others, it is as it was here."""
    exec("class Named:\n def __init__(self): self.name = 'default'\ndefault = Named()", vars(module))
    blob = pack(of_script("def used(): return default", default=module.default))
    assert unpack(blob)() is module.default
    module.default.name = "another"
    assert "default" == unpack(blob)().name
    assert unpack(blob)() is not module.default


@pytest.mark.parametrize(
    "body",
    [
        "def __init__(self): self.size = 1",
        "__slots__ = ['size']\n def __init__(self): self.size = 1",
        "def __eq__(self, other): return type(self) is type(other)",
        "def __reduce__(self): return type(self), ()",
        "def __reduce_ex__(self, protocol): return type(self), ()",
        "def __getstate__(self): return None",
        "def __getnewargs__(self): return ()\n def __init__(self): self.size = 1",
    ],
)
def test_what_has_state_or_a_way_of_its_own_is_no_token(module, body):
    """It is sent as it is now, or as it says, not as the worker finds it."""
    exec(f"class Setting:\n {body}\nsetting = Setting()", vars(module))
    there = unpack(pack(of_script("def used(): return setting", setting=module.setting)))()
    assert type(there) is module.Setting
    assert there is not module.setting


def test_what_refuses_to_be_pickled_is_no_token(module):
    """The error is that of pickling it."""
    exec(
        "class Refuses:\n def __getattribute__(self, name): raise OSError(5, 'no')\nit = Refuses()",
        vars(module),
    )
    with pytest.raises(OSError, match="no"):
        pack(of_script("def used(): return it", it=module.it))


SETTINGS = """
class Slow: pass
class Fast: pass
strategy = client = Slow()
def made():
    class Hidden: pass
    return Hidden()
hidden = made()
"""


def test_a_token_that_the_program_has_put_into_a_module_is_sent_by_value(module, monkeypatch):
    """A worker that imports the module has what was there before, or nothing: such as a client that is made at its first use."""
    exec(SETTINGS, vars(module))
    for name, value in (("strategy", module.Fast()), ("client", module.Slow()), ("hidden", module.made())):
        monkeypatch.setattr(module, name, value)
        blob = pack(of_script("def used(again=it): return it is again, it", it=value))
        for there in (module.missing, None):
            monkeypatch.setattr(module, name, there)
            same, found = unpack(blob)()
            assert same
            assert type(found).__qualname__ == type(value).__qualname__
        monkeypatch.delattr(module, name)
        assert type(unpack(blob)()[1]).__qualname__ == type(value).__qualname__


def test_a_script_has_its_own_tokens(monkeypatch):
    """Its classes are not in any module that a worker has; what one function refers to twice is one object there, too."""
    source = (
        "class Missing: pass\nmissing = Missing()\ndef used(other=missing): return missing is other, missing"
    )
    used = of_script(source)
    monkeypatch.setattr(sys.modules["__main__"], "missing", used()[1], raising=False)
    is_one, there = unpack(pack(used))()
    assert is_one
    assert there is not used()[1]


def test_a_module_that_is_sent_by_value_has_none(module):
    """``cloudpickle.register_pickle_by_value``: no worker has it. Nor does one have what says that it is of no module."""
    sent = of_script("def used(): return missing", missing=module.missing)
    cloudpickle.register_pickle_by_value(module)
    try:
        assert unpack(pack(sent))() is not module.missing
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    type(module.missing).__module__ = 7
    assert unpack(pack(sent))() is not module.missing


LIBRARY = """
__file__ = "/lib/site-packages/waves/__init__.py"
def made():
    def sin(number): return registry[sin]
    return sin
sin = made()
registry = {sin: 7}
class Wave: pass
Wave.__module__ = "_waves.core"
"""


@pytest.fixture
def waves(monkeypatch):
    """A library with a function and a class that are not where they say; another one, loaded before, has imported them."""
    made = types.ModuleType("waves")
    exec(LIBRARY, vars(made))
    made.sin.__module__ = "waves.tracer"
    before = types.ModuleType("before_waves")
    before.sin, before.Wave = made.sin, made.Wave
    for module in (before, made):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


@pytest.mark.parametrize("again", ["", "; Local"], ids=["by itself", "with cloudpickle"])
def test_a_function_that_is_not_where_it_says_is_that_of_its_library(waves, again):
    """As autograd has those of numpy, which it knows by who they are, and not those that were sent."""
    source = f"class Local: pass\ndef used():\n sin(1){again}\n return sin"
    assert unpack(pack(of_script(source, sin=waves.sin)))() is waves.sin
    there = unpack(pack(of_script(source.replace("return sin", "return sin(1)"), sin=waves.sin)))
    assert 7 == there()


def test_a_class_that_is_not_where_it_says_is_that_of_its_library(waves):
    """As regex has ``Match``, which says that it is in ``_regex``; it may be in an annotation."""
    there = unpack(pack(of_script("def used(item: Wave): return Wave", Wave=waves.Wave)))
    assert there(1) is waves.Wave is there.__annotations__["item"]
    assert [waves.Wave] == unpack(pack([waves.Wave]))


@pytest.mark.parametrize("name", ["sin", "Wave"])
def test_what_no_module_of_its_library_has_is_sent_by_value(waves, monkeypatch, name):
    """Other libraries may have it, but importing them may do anything. Nor does one have it that is itself sent by value."""
    sent, known = (
        of_script(f"def used(): return {name}", **{name: getattr(waves, name)}),
        getattr(waves, name),
    )
    cloudpickle.register_pickle_by_value(waves)
    try:
        assert b"waves\x94\x85" not in pack(sent), "the module is not imported"
    finally:
        cloudpickle.unregister_pickle_by_value(waves)
    monkeypatch.delattr(waves, name)
    assert unpack(pack(sent))().__name__ == known.__name__
    assert b"before_waves" not in pack(sent)


def test_what_the_program_may_have_put_there_is_sent_by_value(waves, monkeypatch):
    """A module of its own binds a name anew, or one that is in memory has it; or a function is wrapped around the library's."""
    source = "def made(size):\n def get(): return size\n return get\nget = made(1)"
    for file in ("/home/somebody/work/own.py", None):
        own = types.ModuleType("own")
        monkeypatch.setitem(sys.modules, "own", own)
        if file is not None:
            own.__file__ = file
        exec(source, vars(own))
        own.get = own.made(5)
        blob = pack(of_script("def used(): return get()", get=own.get))
        own.get = own.made(1)
        assert 5 == unpack(blob)()
        own.Made = type(
            "Made", (), {"size": 5, "__module__": "own.gone", "__qualname__": "made.<locals>.Made"}
        )
        blob = pack([own.Made])
        own.Made = None
        assert 5 == unpack(blob)[0].size
    wrapped = of_script("def used(number): return 'wrapped'")
    wrapped.__module__, wrapped.__name__, wrapped.__qualname__ = "waves.tracer", "sin", "sin"
    monkeypatch.setattr(waves, "sin", wrapped)
    blob = pack(of_script("def used(): return sin(1)", sin=wrapped))
    monkeypatch.undo()
    assert "wrapped" == unpack(blob)()


def test_a_module_is_sent_by_its_own_name(waves, monkeypatch):
    """Not by another one, under which it is loaded, too: a worker may have none of that."""
    waves.__name__ = "waves.other"
    monkeypatch.setitem(sys.modules, "waves.other", types.ModuleType("waves.other"))
    there = unpack(pack(of_script("def used(): return sin", sin=waves.sin)))
    assert "sin" == there().__name__


class InC(threading.local):
    """Refuses to be pickled as an object written in C does that has no way of its own, such as the functions of nanobind."""

    def __init__(self, name):
        self.__name__ = name

    def __call__(self):
        return self.__name__


class InPython:
    """A callable with state."""

    def __init__(self, name):
        self.__name__ = name

    def __call__(self):
        return self.__name__


@pytest.mark.parametrize("kind", [InC, InPython])
def test_a_callable_written_in_c_is_that_of_its_library(monkeypatch, kind):
    """Such as ``duckdb.connect``; others are sent as they are now."""
    library = types.ModuleType(f"{__name__}.library")
    library.connect, library.other = kind("connect"), kind("another")
    monkeypatch.setitem(sys.modules, library.__name__, library)
    there = unpack(pack(of_script("def used(): return connect", connect=library.connect)))()
    assert (kind is InC) == (there is library.connect)
    assert "connect" == there()
    if kind is InC:
        for _ in range(2):  # its type is known by now
            with pytest.raises(TypeError, match="cannot pickle"):
                pack(of_script("def used(): return other", other=library.other))


CLASSES = """
import abc, enum
class Base(abc.ABC):
    class Inner(abc.ABC): pass
class Color(enum.Enum):
    RED = 1
"""


def test_classes_of_any_metaclass_are_no_tokens(module):
    """Nor does using one keep others, that a worker finds where they say, from being sent."""
    exec(CLASSES, vars(module))
    sent = of_script(
        "import abc, enum\nclass Local: pass\ndef used(): return ABC, Enum, Base, Base.Inner, Color, Color.RED, Local",
        ABC=abc.ABC,
        Enum=enum.Enum,
        Base=module.Base,
        Color=module.Color,
    )
    for _ in range(2):
        *there, _ = unpack(pack(sent))()
        assert there == [abc.ABC, enum.Enum, module.Base, module.Base.Inner, module.Color, module.Color.RED]


@pytest.mark.parametrize(
    ("home", "name"), [("numpy.linalg._umath_linalg", "det"), ("msgspec", "UNSET"), ("msgspec", "NODEFAULT")]
)
def test_what_tells_no_module_is_not_looked_for_in_the_script(monkeypatch, home, name):
    """As with ``from scipy.special import expit``. Once multiprocessing is imported, the script is ``__mp_main__``, too."""
    if home == "msgspec":
        pytest.importorskip("msgspec", reason="needs msgspec (pip install msgspec)")
    known = getattr(importlib.import_module(home), name)
    script = types.ModuleType("__main__")
    setattr(script, name, known)
    for second in ("__main__", "__mp_main__"):
        monkeypatch.setitem(sys.modules, second, script)
    for module in [path for path in list(sys.modules) if path.partition(".")[0] == home.partition(".")[0]]:
        sys.modules[module] = sys.modules.pop(module)  # so that it comes after the script
    for sent in (known, [known], of_script("def used(): return known", known=known)):
        assert b"__mp_main__" not in pack(sent)
        there = unpack(pack(sent))
    assert there() is known


def test_what_tells_no_module_and_is_in_none_is_refused_as_before(monkeypatch):
    """Nor is one by name that only a module has that is sent by value."""
    np = pytest.importorskip("numpy", reason="its ufuncs tell no module")
    known = np.frompyfunc(abs, 1, 1)
    with pytest.raises(pickle.PicklingError, match="Can't pickle <ufunc"):
        pack([known])
    library = types.ModuleType("with_ufuncs")
    setattr(library, known.__name__, known)
    monkeypatch.setitem(sys.modules, "with_ufuncs", library)
    assert b"import_module" in dump(by_value_pickler(), [known], None)
    cloudpickle.register_pickle_by_value(library)
    try:
        assert b"import_module" not in dump(by_value_pickler(), [known], None)
    finally:
        cloudpickle.unregister_pickle_by_value(library)


def test_how_many_modules_are_loaded_does_not_matter(monkeypatch):
    """A class of ``namedtuple`` has functions that are not where they say; all modules were looked through for each."""
    Point = collections.namedtuple("Point", "x y", module="__main__")
    calls = []

    def count(sent):
        calls.clear()
        sys.setprofile(lambda frame, event, function: calls.append(event))
        try:
            pack(sent)
        finally:
            sys.setprofile(None)
        return len(calls)

    def used(item: Point | None) -> Point: ...

    used.__module__ = "__main__"
    for sent in (Point, [Point(1, 2)], used):
        pack(sent)
        before = count(sent)
        for number in range(100):
            name = f"{Point.__name__}.{number}"
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        pack(sent)
        assert count(sent) < before + 50
        monkeypatch.undo()


def test_modules_of_libraries():
    """What is part of the standard library, also in the interpreter itself, or was installed; not what the program has made."""
    assert is_installed(json.__file__)
    assert not is_installed(f"{sys.prefix}/libs/own.py")
    assert not is_installed(f"{os.path.dirname(os.__file__)}_of_mine/own.py")
    assert all(map(is_of_library, ("json", "sys", "itertools", "pytest")))
    assert not any(map(is_of_library, (__name__, "not_there")))
