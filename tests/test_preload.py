"""Which modules a zygote imports for the functions of a run, and where workers look for modules that they import."""

import csv
import dataclasses
import functools
import importlib
import json
import os
import pathlib
import subprocess
import sys
import types
import urllib.parse
from contextlib import closing
from xml.etree import ElementTree as ET

import pytest
import remote_tasks as far
from port_driver import drive

import parallelkit
from parallelkit import Task
from parallelkit._executors._process import _preload
from parallelkit._executors._process._preload import (
    COMMON,
    HARMLESS,
    SCRIPT,
    UNPACKING,
    is_standard,
    module_for,
    modules_for,
    needs,
    stand_ins,
)
from parallelkit._executors._process._prestart import started_ahead, take
from parallelkit._executors._process._search_path import search_path
from parallelkit._executors._processes import ProcessEngine


class Thing:
    """Has a method, and can be called."""

    def method(self):
        """To be bound."""

    def __call__(self):
        """To be called."""


def of_the_script():
    """As if it was defined in the script."""


of_the_script.__module__ = "__mp_main__"


@pytest.mark.parametrize(
    ("fn", "module"),
    [
        (far.nothing, "remote_tasks"),
        (functools.partial(functools.partial(far.nothing)), "remote_tasks"),
        (Thing().method, __name__),
        (Thing(), __name__),
        (Thing, __name__),
        (os.getcwd, "posix"),
        (str.upper, "builtins"),
        (lambda: None, SCRIPT),
        (functools.partial(lambda: None), SCRIPT),
        (of_the_script, SCRIPT),
        (None, ""),
    ],
)
def test_the_module_for_a_function_is_what_a_worker_imports(fn, module):
    """The module for a function is the one that a worker imports; for a function sent by value, the script."""
    assert module == module_for(fn)


@pytest.fixture
def program(monkeypatch):
    """Make modules with these globals."""

    def make(name, **things):
        module = types.ModuleType(name)
        vars(module).update(things)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return make


def test_what_a_module_uses_is_needed(program):
    """A module is needed if the program uses it, a function or class of it, or an object of such a class."""
    program("first", dataclass=dataclasses.dataclass, here=pathlib.Path(), sub=subprocess, getcwd=os.getcwd)
    assert ["dataclasses", "pathlib", "subprocess"] == needs(["first"])


def test_what_is_defined_in_a_part_of_a_package_needs_the_package(program):
    """For a class defined in a submodule, as in Python 3.13's pathlib, the package is needed."""
    program("first", decoder=json.decoder.JSONDecoder, element=ET.Element, quote=urllib.parse.quote)
    assert ["json", "urllib.parse", "xml.etree.ElementTree"] == needs(["first"])


def test_what_modules_of_the_program_use_that_it_uses_is_needed(program):
    """Modules used by the program's own modules are needed, even in import cycles; those used by Python's modules come with them."""
    far_one = program("far_one", dataclass=dataclasses.dataclass)
    near = program("near", far_one=far_one)
    program("first", near=near, os=os, itself=None)
    vars(far_one)["near"] = near

    assert ["dataclasses"] == needs(["first"])
    assert ["dataclasses", "pathlib"] == needs(["first", program("second", Path=pathlib.Path).__name__])


def test_what_the_package_uses_itself_is_not_needed(program):
    """What is behind ``run_parallel`` is not loaded for functions that stand beside it."""
    program("first", run_parallel=parallelkit.run_parallel, Task=Task, package=parallelkit, sub=subprocess)
    assert ["subprocess"] == needs(["first"])


def test_of_a_large_program_what_many_need_is_needed(program, monkeypatch):
    """A large program is not examined completely: then commonly needed modules are imported."""
    monkeypatch.setattr(_preload, "MOST", 10)
    program("first", a=subprocess, b=program("second", c=1))
    assert sorted(COMMON | {"subprocess"}) == needs(["first"])


@pytest.mark.parametrize(
    ("given", "modules"),
    [
        (far.nothing, {"remote_tasks"}),
        ([far.nothing, lambda: None], {"remote_tasks", SCRIPT}),
        ((os.getcwd,), {"posix"}),
        ({"a": lambda: None, "b": functools.partial(far.nothing)}, {"remote_tasks", SCRIPT}),
        ([Task(far.nothing), Task(lambda: None, key="a"), os.getcwd], {"remote_tasks", SCRIPT, "posix"}),
        ([], set()),
        (None, {""}),
    ],
)
def test_the_modules_for_tasks_are_those_of_all_their_functions(given, modules):
    """The modules are those of all functions that are tasks, or of the one function."""
    assert modules == modules_for(given)


def test_an_iterable_that_is_no_list_is_not_read_for_its_homes():
    """A lazy iterable of tasks is not read for its modules: the run would miss them."""
    tasks = iter([far.nothing])
    modules_for(tasks)
    assert far.nothing is next(tasks)


@pytest.mark.parametrize("given", [lambda: None, {"a": far.nothing, "b": lambda: None}])
def test_zygote_of_the_first_run_loads_what_its_functions_need(given, program):
    """The zygote of a program's first run imports what the function, or the tasks, need; of the script, also what unpacks its classes."""
    program("__main__", csv=csv)
    assert {"csv"} <= started_with(given) < UNPACKING | {"csv"}
    program("__main__", csv=csv, Thing=type("Thing", (), {"__module__": "__main__"}))
    assert UNPACKING | {"csv"} <= started_with(given)


def test_zygote_of_the_first_run_loads_nothing_for_functions_that_need_nothing():
    """For functions of a module that uses nothing of the standard library, the zygote imports nothing."""
    assert set(needs(["remote_tasks"])) == started_with([far.nothing])


def started_with(given):
    """The modules that the zygote of a program's first run imports for these functions."""
    with started_ahead(given, list):
        zygote = take()
        assert zygote is not None
        with closing(zygote):
            return set(zygote._modules)


def test_where_nothing_is_known_what_many_need_is_needed(program):
    """If nothing is known about the functions, commonly needed modules are imported, and those for unpickling if the script has classes."""
    import cloudpickle  # noqa: F401  # that is what needs them

    program("__main__", Thing=type("Thing", (), {"__module__": "__main__"}))
    assert sorted(UNPACKING | COMMON) == needs([""])
    program("__main__", csv=csv)
    assert sorted(COMMON) == needs([""])
    assert [] == needs([]) == needs(["builtins"]) == needs(["no.such.module"])


def test_for_a_function_of_the_script_what_the_script_uses_is_needed(program):
    """For a function of the script, the modules are needed that the script uses, and those that unpickle its classes if it has any."""
    import cloudpickle  # noqa: F401  that is what needs them

    program("__main__", csv=csv, Path=pathlib.Path, later=None)
    assert ["csv", "pathlib"] == needs([SCRIPT])
    program("__main__", csv=csv, Thing=type("Thing", (), {"__module__": "__main__"}))
    assert sorted(UNPACKING | {"csv"}) == needs([SCRIPT])


class Hostile:
    """Raises at every access."""

    __module__ = "nowhere"

    def __getattribute__(self, name):
        raise AssertionError(name)


class HostileType(type):
    """A metaclass whose classes raise at every access."""

    def __getattribute__(cls, name):
        raise AssertionError(name)


class HostileModule(types.ModuleType):
    """Raises at every access, as a lazy module might that imports itself then."""

    __module__ = "nowhere"

    def __getattribute__(self, name):
        raise AssertionError(name)


def test_no_code_of_the_program_is_run(program, monkeypatch):
    """Finding the needed modules runs no code of the program, because it happens in the supervisor's thread."""
    lazy, hostile = HostileModule("lazy"), HostileType("H", (), {"__module__": "nowhere"})
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    program("first", a=Hostile(), b=hostile, c=lazy, d=dataclasses, e=type.__call__(hostile))
    monkeypatch.setitem(sys.modules, "pathlib", HostileModule("pathlib"))
    stray = types.FunctionType((lambda: None).__code__, {})
    stray.__module__ = Hostile()
    nameless = types.ModuleType("nameless")
    vars(nameless)["__name__"] = Hostile()
    program("second", stray=stray, nameless=nameless)

    assert ["dataclasses"] == needs(["first", "second"])
    assert not is_standard("pathlib")
    assert [] == needs(["lazy"])


def test_a_class_without_a_module_comes_from_nowhere(program):
    """A class without a module, as SWIG makes them, needs no module, and raises nothing in the supervisor's thread."""
    scope = {}
    exec("Bare = type('Bare', (), {})", scope)
    bare = scope["Bare"]
    with pytest.raises(AttributeError):
        _ = bare.__module__
    program("first", bare=bare, one=bare(), sub=subprocess)
    assert ["subprocess"] == needs(["first"])
    assert "" == module_for(bare) == module_for(bare())


def test_what_takes_the_place_of_a_standard_module_is_not_loaded_ahead(program):
    """A program's module with the name of a standard one is not preloaded: Python's own would be imported."""
    program("random", __file__="/home/somebody/random.py")
    program("first", random=sys.modules["random"])
    assert [] == needs(["first"])


def test_who_stands_in_for_a_standard_module_is_known(program, monkeypatch):
    """Program modules that shadow standard ones are found; built-in, extension and zipped modules are Python's."""
    for name in ("math", "select", "sys", "dataclasses", "importlib.machinery", "json"):
        importlib.import_module(name)
    assert [] == stand_ins()
    program("tokenize", __file__="/home/somebody/tokenize.py")
    program("html", __file__="/home/somebody/html/__init__.py")
    program("elsewhere", __file__="/home/somebody/elsewhere.py")
    program("zlib", __file__="/home/somebody/python.zip/zlib.pyc")
    monkeypatch.setitem(sys.modules, "queue", HostileModule("queue"))
    assert ["html", "tokenize"] == sorted(stand_ins())


SCRIPT_WITH_STAND_INS = """
import dataclasses
import {name}
from parallelkit import run_parallel

class Own:
    pass  # so that what unpacks classes is loaded ahead

def fate(_):
    return {name}.OURS, dataclasses.__file__

for runs in range(2):
    seen = run_parallel(fate, range(12), executor="processes", max_workers=6).values()
    assert [True] * 12 == [ours for ours, _ in seen], seen
    assert {{dataclasses.__file__}} == {{file for _, file in seen}}, seen
print("ours")
"""


@pytest.mark.parametrize("name", ["tokenize", "copy", "html"])
@pytest.mark.all
def test_a_module_of_the_program_that_is_named_as_one_that_comes_along_is_its_own_in_workers(tmp_path, name):
    """If a program's module shadows a standard one that preloading would import, workers import the program's, in every run."""
    (tmp_path / f"{name}.py").write_text("OURS = True\ndef copy(thing): return thing\n")
    (tmp_path / "script.py").write_text(SCRIPT_WITH_STAND_INS.format(name=name))
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ("ours\n", "") == (done.stdout, done.stderr)


def test_what_is_loaded_ahead_is_there_and_starts_nothing():
    """All modules that may be preloaded exist, and start no thread, descriptor or child process."""
    look = (
        "import os, sys, threading; before = os.listdir('/proc/self/fd');"
        f"[__import__(name) for name in {sorted(HARMLESS)!r}];"
        "print(threading.active_count(), len(os.listdir('/proc/self/fd')) - len(before),"
        "open(f'/proc/self/task/{os.getpid()}/children').read() or 'none')"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60
    )
    assert ("1 0 none\n", "") == (done.stdout, done.stderr)
    for name in HARMLESS:
        __import__(name)
        assert is_standard(name), name


@pytest.mark.parametrize("fn", [far.nothing, lambda _: None])
def test_zygote_loads_what_the_function_needs(fn):
    """The zygote imports what the function needs, be it of a module or of the script."""
    engine = ProcessEngine(5)
    try:
        drive(engine, fn, range(5))
        assert needs([module_for(fn)]) == list(engine._supervisor._starter._zygote._modules)
    finally:
        engine.close()


LOOKS_FROM_ELSEWHERE = """
import os, sys
sys.path.append("lib")
import far_one, inner.part
if {again}:
    os.chdir("deeper")
    import deep_one
os.chdir("/")
from parallelkit import run_parallel
for fn in (far_one.where, inner.part.where, *([deep_one.where] if {again} else [])):
    print(*run_parallel(fn, [0], executor="processes").values())
[path] = run_parallel(lambda _: sys.path, [0], executor="processes").values()
print(len(path) - len(sys.path))
"""


@pytest.mark.parametrize("again", [False, True])
def test_workers_find_what_was_found_before_the_program_changed_its_directory(tmp_path, again):
    """After the program has changed its directory, workers still find modules that it had found by relative paths."""
    where = f"import os\ndef where(_): return os.path.relpath(__file__, {str(tmp_path)!r})\n"
    for name in ("lib/far_one.py", "inner/part.py", "deeper/deep_one.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(where)
    done = subprocess.run(
        [sys.executable, "-c", LOOKS_FROM_ELSEWHERE.format(again=again)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = ["lib/far_one.py", "inner/part.py", *["deeper/deep_one.py"] * again]
    assert ([*found, "0"], "") == (done.stdout.split(), done.stderr)


def test_workers_look_where_the_program_does(monkeypatch, tmp_path):
    """Workers search the program's ``sys.path``, without entries that are not strings, with the working directory, even if removed."""
    monkeypatch.setattr(sys, "path", ["", "never/looked/there", pathlib.Path("/somewhere"), 5, ["/list"]])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    assert ["", "never/looked/there"] == search_path()
    folder = tmp_path / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert ["", "never/looked/there"] == search_path()
