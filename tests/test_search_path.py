"""Modules that a search of ``sys.path`` does not find: workers get them from where the program has them."""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import types
from importlib.machinery import SourceFileLoader

import pytest

from parallelkit import run_parallel
from parallelkit._executors._process import _search_path, _setup
from parallelkit._executors._process._search_path import modules_off
from parallelkit._worker._finder import OffPathFinder

MODULE = """
class Thing:
    def __init__(self, n): self.n = n
class Mistake(Exception): pass
def where(n): return __file__
def fail(n): raise Mistake(n)
"""

SCRIPT = """
import importlib.util, os, sys
from parallelkit import run_parallel

def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

sys.path[1:1] = ["gone", "spaces/one", "spaces/two"]
import was_here, space.one, space.two
from whole import part
for entry in ("gone", "spaces/one", "spaces/two"):
    sys.path.remove(entry)
sys.path.insert(1, os.path.abspath("first"))
import twice
sys.path.insert(1, os.path.abspath("second"))
import package
package.__path__.append(os.path.abspath("beside"))
import package.extra, package.usual
plugins = [load("plugin one", "plugins/a.py"), load("plugin two", "plugins/b.py")]
os.chdir("/")

for module in (was_here, part, space.one, space.two, twice, package.extra, package.usual, *plugins):
    assert [module.__file__] == run_parallel(module.where, [1], executor="processes", max_workers=1).values(), module
for made in run_parallel({m.__name__: m.Thing for m in plugins}, args=(1,), executor="processes").items():
    assert type(made[1]) is sys.modules[made[0]].Thing
[failure] = run_parallel(was_here.fail, [1], executor="processes").failures.values()
assert type(failure.error) is was_here.Mistake
print("all there")
"""


def write(folder, *names):
    """Write the module under each of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(MODULE)


@pytest.mark.all
def test_workers_find_modules_where_the_program_has_them(tmp_path):
    """Workers find modules that the program has from outside ``sys.path``, from a namespace package, from behind another module of that name, or from a given file."""
    write(tmp_path, "gone/was_here.py", "gone/whole/__init__.py", "gone/whole/part.py")
    write(tmp_path, "spaces/one/space/one.py", "spaces/two/space/two.py", "first/twice.py", "second/twice.py")
    write(
        tmp_path, "package/__init__.py", "package/usual.py", "beside/extra.py", "plugins/a.py", "plugins/b.py"
    )
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ("all there\n", "") == (done.stdout, done.stderr)


TEST = """
import pytest
from parallelkit import run_parallel
def double(n): return 2 * n
class TestDoubles:
    def halve(self, n): return n / 2
    def test_workers(self):
        assert run_parallel(double, [1], executor="processes").values() == [2]
        assert run_parallel(self.halve, [1], executor="processes").values() == [0.5]
"""


@pytest.mark.all
def test_workers_find_tests_that_pytest_has_imported_by_their_files(tmp_path):
    """Workers find test modules that pytest has imported by file, even two of one name in folders that are not packages."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test_same.py").write_text(TEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir=."],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load a module from a file in a folder of its own, and forget it after the test."""

    def load(name, file, loader=None):
        write(tmp_path, file)
        spec = importlib.util.spec_from_file_location(name, tmp_path / file, loader=loader)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


class OwnLoader(SourceFileLoader):
    """A loader that does not execute what the file says."""


def test_what_a_look_along_the_path_leads_to_is_not_told(tmp_path, load):
    """Not sent to workers are modules that the search finds, those of special loaders, those with another name, and libraries on the path."""
    load("stray_top", "here/stray_top/__init__.py")
    load("stray_top.inner", "here/stray_top/inner.py")
    load("stray_space.inner", "here/stray_space/inner.py")
    load("stray_library", "site-packages/other/stray_library.py")
    load("stray_made", "there/stray_made.py", OwnLoader("stray_made", str(tmp_path / "there/stray_made.py")))
    load("stray_named", "there/stray_named.py").__spec__.name = "stray"
    path = [str(tmp_path / "here"), str(tmp_path / "site-packages"), "relative", *sys.path]
    assert [] == [name for name in modules_off(path) if name.startswith("stray_")]


def test_what_it_does_not_lead_to_is(tmp_path, load):
    """Sent to workers are a package with its place, a submodule from another file, a module behind another of its name, and this test."""
    load("stray_top", "there/stray_top/__init__.py")
    load("stray_top.inner", "there/stray_top/inner.py")
    load("stray_top.moved", "there/moved.py")
    load("stray_twice", "there/stray_twice.py")
    write(tmp_path, "here/stray_twice.py")
    there = str(tmp_path / "there")
    told = modules_off([str(tmp_path / "here"), there + "/not"])
    assert {
        "stray_top": (f"{there}/stray_top/__init__.py", [f"{there}/stray_top"]),
        "stray_top.moved": (f"{there}/moved.py", None),
        "stray_twice": (f"{there}/stray_twice.py", None),
        __name__: (__file__, None),
    } == {name: told[name] for name in told if name.startswith("stray_") or name == __name__}
    assert "stray_twice" in modules_off([str(tmp_path / "here"), there])
    assert "stray_twice" not in modules_off([there, str(tmp_path / "here")])


def test_a_working_directory_that_was_removed_leads_nowhere(tmp_path, monkeypatch):
    """A removed working directory on the path finds nothing; an existing one is searched."""
    write(tmp_path, "stray_here.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    importlib.import_module("stray_here")
    try:
        assert "stray_here" not in modules_off([""])
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        assert "stray_here" in modules_off([""])
    finally:
        del sys.modules["stray_here"]


def test_a_package_without_a_file_comes_with_its_parts(tmp_path, load, monkeypatch):
    """A namespace package is sent with its parts, whatever represents it."""
    load("stray_space.inner", "there/stray_space/inner.py")
    assert "stray_space" not in modules_off([])
    monkeypatch.setitem(sys.modules, "stray_space", space := types.ModuleType("stray_space"))
    assert (None, []) == modules_off([])["stray_space"]
    space.__path__ = [str(tmp_path / "there/stray_space"), 5]
    assert (None, [str(tmp_path / "there/stray_space")]) == modules_off([])["stray_space"]


def test_the_finder_finds_what_it_was_told(tmp_path, monkeypatch):
    """The worker's finder finds what it was sent, and where the modules of a package are; it leaves the rest to the others."""
    write(tmp_path, "there/inner.py", "there/odd.py", "beside/other.py")
    inner, odd, beside = (str(tmp_path / place) for place in ("there/inner.py", "there/odd.py", "beside"))
    places = {
        "stray_space": (None, [beside]),
        "stray_space.inner": (inner, None),
        "stray_odd": (odd, [beside]),
    }
    monkeypatch.setattr(sys, "meta_path", [finder := OffPathFinder(places), *sys.meta_path])
    names = "stray_space.inner", "stray_space.other", "stray_odd.other"
    try:
        found = [importlib.import_module(name).where(1) for name in names]
    finally:
        for name in (*names, "stray_space", "stray_odd"):
            sys.modules.pop(name, None)
    assert [inner, f"{beside}/other.py", f"{beside}/other.py"] == found
    assert finder.find_spec("stray") is None


def test_a_module_that_was_replaced_is_sent_as_the_one_that_is_there(load):
    """If a module is replaced by another file of the same name, each run has that of its time."""
    for file in ("first/plugin.py", "second/plugin.py"):
        module = load("stray_plugin", file)
        assert [module.__file__] == run_parallel(
            module.where, [1], executor="processes", max_workers=1
        ).values()


def test_many_that_start_together_look_once(load, monkeypatch):
    """Workers that start together share one search, which takes milliseconds in a large program; new or replaced modules are searched for."""
    looks = []
    find = _search_path._find
    monkeypatch.setattr(_search_path, "_find", lambda path, modules: looks.append(1) or find(path, modules))
    monkeypatch.setattr(_search_path, "_latest", (None, {}))
    first, second = modules_off(sys.path), modules_off(list(sys.path))
    assert (1, first) == (len(looks), second)
    module = load("stray_late", "first/stray_late.py")
    assert module.__file__ == modules_off(sys.path)["stray_late"][0]
    module = load("stray_late", "second/stray_late.py")
    assert module.__file__ == modules_off(sys.path)["stray_late"][0]
    assert 3 == len(looks)


def test_a_path_that_cannot_be_gone_through_is_no_hindrance(monkeypatch):
    """A package path that cannot be iterated over, or holds anything, does no harm."""

    class Gone:
        def __iter__(self):
            raise KeyError("its parent")

    for path in (Gone(), 5):
        odd = types.ModuleType("stray_odd")
        odd.__path__ = path
        monkeypatch.setitem(sys.modules, "stray_odd", odd)
        assert "stray_odd" not in modules_off(sys.path)
    assert [1] == run_parallel(abs, [-1], executor="processes", max_workers=1).values()


@pytest.mark.parametrize("part", [{}, {"root": None}, {"Logger": type("Logger", (), {})}])
def test_logging_that_is_just_being_loaded_is_no_hindrance(part, monkeypatch):
    """Another thread may be loading it as a worker is told the levels."""
    logging = types.ModuleType("logging")
    vars(logging).update(part)
    monkeypatch.setitem(sys.modules, "logging", logging)
    assert _setup.setup_frame(1, initializer=False)


HOOK = """
import importlib.util, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, {file!r}) if name == "hooked" else None
sys.meta_path.append(Finder)
"""

USES_HOOK = """
from parallelkit import run_parallel

def where(_):
    import hooked
    return hooked.__file__

print(run_parallel(where, [0], executor="processes").values()[0])
"""


def test_hooks_that_site_installs_find_modules_in_workers_too(tmp_path):
    """What a task imports is found by the import hook of an editable install, or of ``sitecustomize``, as in the program."""
    file = tmp_path / "elsewhere" / "hooked.py"
    file.parent.mkdir()
    file.touch()
    (tmp_path / "sitecustomize.py").write_text(HOOK.format(file=str(file)))
    done = subprocess.run(
        [sys.executable, "-c", USES_HOOK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
    )
    assert (f"{file}\n", "") == (done.stdout, done.stderr)


def test_workers_load_site_only_where_something_calls_for_it(monkeypatch):
    """Loading ``site`` takes longer than the rest of a worker's start."""
    usual = [importlib.machinery.BuiltinImporter, importlib.machinery.PathFinder, OffPathFinder({})]
    monkeypatch.setattr(sys, "meta_path", usual)
    monkeypatch.delitem(sys.modules, "sitecustomize", raising=False)
    monkeypatch.delitem(sys.modules, "usercustomize", raising=False)
    assert not _setup._needs_site()
    editable = type("Finder", (), {"__module__": "__editable___thing_1_0_finder"})
    for finder in (editable, editable()):
        monkeypatch.setattr(sys, "meta_path", [*usual, finder])
        assert _setup._needs_site()
    monkeypatch.setattr(sys, "meta_path", usual)
    monkeypatch.setitem(sys.modules, "usercustomize", types.ModuleType("usercustomize"))
    assert _setup._needs_site()
