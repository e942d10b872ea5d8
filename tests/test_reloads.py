"""Modules that a program reloads, as %autoreload does: workers that stay have the old versions, and are replaced."""

import importlib
import os
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
import remote_tasks as far
from joblib import Parallel, delayed, parallel_config
from patience import wait_until

from parallelkit import ProcessExecutor, iter_parallel, run_parallel
from parallelkit._executors._process import _reloads
from parallelkit._executors._process._reloads import Reloads
from parallelkit._worker._elsewhere import is_installed
from parallelkit.joblib_backend import register

PATIENCE = 10.0

SOURCE = "import os, time\ndef version(item):\n    time.sleep(item / 100)\n    return {}\ndef pid(item):\n    return os.getpid()\n"


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """A module, and a function that edits and reloads it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"edited_{os.getpid()}_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SOURCE.format(1))
    module = importlib.import_module(name)

    def edit(version):
        (tmp_path / f"{name}.py").write_text(SOURCE.format(version))
        importlib.reload(module)

    yield module, edit
    del sys.modules[name]


def test_the_next_run_has_the_module_as_it_is_now(edited):
    """After a reload, the next run has the new module, by name or within a function; without one, the workers stay."""
    module, edit = edited
    with ProcessExecutor(2) as executor:

        def seen():
            values = run_parallel(module.version, range(4), executor=executor).values()
            return set(values) | set(
                run_parallel(lambda item: module.version(0), [0, 1], executor=executor).values()
            )

        assert {1} == seen()
        pids = set(run_parallel(module.pid, range(4), executor=executor).values())
        edit(22)
        assert {22} == seen()
        assert pids.isdisjoint(run_parallel(module.pid, range(4), executor=executor).values())
        edit(333)
        assert {333} == seen()
        stay = set(run_parallel(module.pid, range(4), executor=executor).values())
        assert seen() == {333}
        assert 2 >= len(stay | set(run_parallel(module.pid, range(4), executor=executor).values()))


def test_a_reload_counts_once(edited, monkeypatch):
    """The look after the next one finds nothing new, with autoreload or without; a module that is gone is no reload."""
    module, edit = edited
    reloads = Reloads()
    reloads.look()
    edit(22)
    assert [True, False] == [reloads.look(), reloads.look()]
    monkeypatch.setitem(sys.modules, "IPython.extensions.autoreload", ModuleType("autoreload"))
    edit(333)
    assert [True, False] == [reloads.look(), reloads.look()]
    del sys.modules[module.__name__]
    gone = reloads.look()
    sys.modules[module.__name__] = module
    assert not gone


@pytest.mark.all
def test_so_has_the_next_parallel_of_joblib(edited):
    """A block of ``parallel_config`` may last for a whole notebook, and its workers with it."""
    module, edit = edited
    register()
    with parallel_config(backend="parallelkit", n_jobs=2):

        def seen():
            return set(Parallel()(delayed(module.version)(0) for _ in range(4)))

        assert {1} == seen()
        edit(22)
        assert {22} == seen()


@pytest.mark.all
def test_a_run_that_is_under_way_ends_with_what_it_has(edited):
    """A running run is completed, on its workers or on others, and no task is blamed."""
    module, edit = edited
    with ProcessExecutor(2) as executor:
        stream = iter_parallel(module.version, [1, *[5] * 20], executor=executor)
        assert 1 == next(stream).value
        edit(22)
        assert [22] == run_parallel(module.version, [0], executor=executor).values()
        rest = [outcome.value for outcome in stream]
        assert 20 == len(rest)
        assert {1, 22} >= set(rest)


def test_a_worker_with_more_to_do_is_replaced_once_that_is_done(edited):
    """After a reload no more tasks run at a time than before; a worker that had several to do still ends, and calls for no spare."""
    module, edit = edited
    with ProcessExecutor(1) as executor:
        run_parallel(module.version, [0] * 100, executor=executor)  # so short that a worker gets several
        stream = iter_parallel(module.version, [0, 20, 0, 0, 0, 0], executor=executor)
        old = next(stream).worker
        edit(22)
        assert [22] == run_parallel(module.version, [0], executor=executor).values()
        (worker,) = executor._pool._supervisor.pool.workers
        assert old != worker.label
        assert 5 == len(list(stream))
        assert executor._pool._supervisor.pool.spare is None


def test_a_spare_has_no_older_version(edited):
    """The worker that stands by after a death is replaced, too: it would take over with what was there as it started."""
    module, edit = edited
    with ProcessExecutor(1) as executor:
        assert run_parallel(os._exit, [3], executor=executor).failures
        assert [1] == run_parallel(module.version, [10], executor=executor).values()
        spare = executor._pool._supervisor.pool.spare
        wait_until(lambda: spare.ready and not spare.wire.loading)
        edit(22)
        assert [22] == run_parallel(module.version, [0], executor=executor).values()


@pytest.mark.all
def test_a_worker_that_is_held_is_replaced_too(edited):
    """A worker that is held is replaced, too, and what was queued behind its task runs elsewhere."""
    module, edit = edited
    with ProcessExecutor(1, timeout=30) as executor:
        assert {1} == set(run_parallel(module.version, [0, 0], executor=executor).values())
        late = []
        thread = threading.Thread(
            target=lambda: late.extend(run_parallel(module.version, [20, 0, 0], executor=executor).values())
        )
        thread.start()
        edit(22)
        assert [22] == run_parallel(module.version, [0], executor=executor).values()
        thread.join()
        assert 3 == len(late)


def test_autoreload_may_change_functions_and_reload_nothing(edited, monkeypatch):
    """With autoreload, as of IPython 9, which may patch functions without a reload, changed files count."""
    module, _ = edited
    path = Path(module.__file__)
    with ProcessExecutor(1) as executor:
        assert [1] == run_parallel(module.version, [0], executor=executor).values()
        path.write_text(SOURCE.format(4444))
        assert [1] == run_parallel(module.version, [0], executor=executor).values()
        monkeypatch.setitem(sys.modules, "IPython.extensions.autoreload", ModuleType("autoreload"))
        assert [4444] == run_parallel(module.version, [0], executor=executor).values()
        (pid,) = run_parallel(module.pid, [0], executor=executor).values()
        path.unlink()  # it counts as a change, once
        assert [pid] != run_parallel(far.pid_of, [0], executor=executor).values()


def test_the_next_run_finds_modules_in_places_that_are_new(tmp_path, monkeypatch):
    """After ``sys.path`` has got an entry, or a module was loaded by its file, the next run finds it; else the workers stay."""
    name = f"late_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text(SOURCE.format(1))
    with ProcessExecutor(1) as executor:

        def pid(fn):
            (value,) = run_parallel(fn, [0], executor=executor).values()
            return value

        first = pid(far.pid_of)
        spec = importlib.util.spec_from_file_location(f"{name}_plugin", tmp_path / f"{name}.py")
        plugin = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, plugin.__name__, plugin)
        spec.loader.exec_module(plugin)
        second = pid(plugin.pid)
        assert first != second == pid(plugin.pid)
        monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
        monkeypatch.setitem(sys.modules, name, importlib.import_module(name))
        third = pid(sys.modules[name].pid)
        assert second != third == pid(plugin.pid)


def test_the_next_run_finds_modules_in_a_new_working_directory(tmp_path, monkeypatch):
    """With an empty entry in ``sys.path``, as notebooks have it, modules are found after a change of directory, too."""
    name = f"moved_{os.getpid()}"
    (tmp_path / f"{name}.py").write_text(SOURCE.format(1))
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with ProcessExecutor(1) as executor:

        def pid(fn):
            (value,) = run_parallel(fn, [0], executor=executor).values()
            return value

        first = pid(far.pid_of)
        monkeypatch.chdir(tmp_path)
        assert first == pid(far.pid_of)
        monkeypatch.setitem(sys.modules, name, importlib.import_module(name))
        second = pid(sys.modules[name].pid)
        assert first != second == pid(far.pid_of)


def test_libraries_are_not_looked_at_and_nothing_is_run():
    """Libraries are not checked, no code is run, and whatever is not a module is skipped."""
    looked = Reloads()
    assert not looked.look()
    assert far.__name__ in looked._marks
    assert not {"numpy", "os", "pytest"} & set(looked._marks)
    sys.modules["a_stand_in"] = object()
    try:
        assert not looked.look()
    finally:
        del sys.modules["a_stand_in"]
    assert not looked.look()


def test_a_key_that_is_no_name_is_no_module(monkeypatch):
    """``sys.modules`` is a dict in which some programs keep other things."""
    reloads = Reloads()
    monkeypatch.setitem(sys.modules, 7, ModuleType("seven"))
    monkeypatch.setitem(sys.modules, None, None)
    assert not reloads.look()


def test_a_module_that_is_loaded_as_another_goes_is_looked_at(edited, monkeypatch):
    """A module that is loaded while another is removed is noticed, although their number is the same."""
    module, edit = edited
    looked = Reloads()
    monkeypatch.setitem(sys.modules, "a_stand_in", ModuleType("a_stand_in"))
    del sys.modules[module.__name__]
    looked.look()
    del sys.modules["a_stand_in"]
    sys.modules[module.__name__] = module
    assert not looked.look()
    edit(2)
    assert looked.look()


def test_one_looks_at_a_time(edited, monkeypatch):
    """Only one thread checks at a time."""
    looked = Reloads()
    looked.look()
    other = threading.Thread(target=looked.look)
    waited = []

    def attribute_of(name, attribute):
        if not waited:
            waited.append(True)
            other.start()
            other.join(0.05)
            waited.append(other.is_alive())
        return getattr(sys.modules[name], attribute)

    monkeypatch.setattr(_reloads, "attribute_of", attribute_of)
    looked.look()
    other.join(PATIENCE)
    assert [True, True] == waited
    assert not other.is_alive()


def test_what_is_installed_is_a_library_wherever_it_lies():
    """Everything in a site-packages folder, the user's or the system's, is a library."""
    assert is_installed("/home/somebody/.local/lib/python3.12/site-packages/numpy/__init__.py")
    assert is_installed("/usr/lib/python3/dist-packages/numpy/__init__.py")
    assert not is_installed("/home/somebody/work/numbers.py")
