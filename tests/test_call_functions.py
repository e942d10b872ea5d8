"""Functions that come with each task or call: what a worker loads for them does not count within ``timeout``."""

import os
import sys
import textwrap
from functools import partial

import pytest

from parallelkit import ProcessExecutor, Task, TaskTimeout, WorkerDied, run_parallel
from parallelkit._executors._process import _handle

LOADS = 0.6
LIMITS = {"timeout": 0.3, "executor": "processes", "max_workers": 1}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Import a module, whose code takes ``LOADS`` seconds to load in workers, or does what ``loading`` says."""

    def make(loading=f"time.sleep({LOADS})"):
        code = f"""
            import functools, os, time
            if os.getpid() != {os.getpid()}:
                {loading}
                os.environ["LOADED"] = "once"

            def loaded(*_):
                return os.environ["LOADED"]

            class Thing:
                loaded = loaded

            cached = functools.cache(loaded)
        """
        (tmp_path / "brings_much.py").write_text(textwrap.dedent(code))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setitem(sys.modules, "brings_much", None)
        del sys.modules["brings_much"]
        return __import__("brings_much")

    return make


def forms(module):
    """Tasks that bring the module's function, in one way or another."""
    scope = {"__name__": "__main__", "module": module}
    exec("def script(item):\n    return module.loaded(item)", scope)
    functions = [module.loaded, partial(module.loaded), module.Thing().loaded, module.cached, scope["script"]]
    return [Task(function, 1) for function in functions]


@pytest.mark.parametrize("form", range(5))
@pytest.mark.all
def test_what_a_tasks_function_needs_loads_outside_of_its_timeout(module, form):
    """A dict or list of functions works as the map form does, and what the module set in the environment stays."""
    task = forms(module())[form]
    results = run_parallel([task, task], **LIMITS)
    assert not results.failures
    assert max(attempt.duration for attempt in results.attempts) < LIMITS["timeout"]


@pytest.mark.all
def test_calls_and_chunks_load_outside_of_the_timeout(module):
    """What a call of ``submit`` needs, or one of ``map``, whose calls come in chunks, loads outside of its timeout."""
    loaded = module().loaded
    with ProcessExecutor(1, timeout=LIMITS["timeout"]) as executor:
        assert "once" == executor.submit(loaded).result()
    with ProcessExecutor(1, timeout=LIMITS["timeout"]) as executor:
        assert ["once"] * 4 == list(executor.map(loaded, range(4), chunksize=2))


def test_a_module_that_crashes_costs_only_the_tasks_that_need_it(module):
    """Such a task has begun, so it is to blame, and the others are not."""
    crashes = module("os._exit(3)").loaded
    results = run_parallel(
        {"a": crashes, "b": partial(abs, -1), "c": crashes, "d": partial(abs, -2)}, **LIMITS
    )
    assert {"b": 1, "d": 2} == results.successes
    assert [3, 3] == [failure.error.exitcode for failure in results.failures.values()]
    assert all(isinstance(failure.error, WorkerDied) for failure in results.failures.values())


@pytest.mark.all
def test_a_module_that_hangs_costs_only_the_tasks_that_need_it(module, monkeypatch):
    """It may load for as long as the function of a run in map form; the message tells what took so long."""
    monkeypatch.setattr(_handle, "LOAD_LIMIT", 0.7)
    hangs = module("time.sleep(1000)").loaded
    results = run_parallel({"a": hangs, "b": partial(abs, -1)}, **LIMITS)
    assert {"b": 1} == results.successes
    error = results.failures["a"].error
    assert isinstance(error, TaskTimeout)
    assert error.killed
    assert "had not loaded its function after" in str(error)


@pytest.mark.all
def test_the_timeout_holds_after_the_loading(module):
    """After the loading the timeout starts anew: it is not switched off."""
    name = module().__name__
    scope = {"__name__": "__main__"}
    exec(f"import {name}, time\ndef script(item):\n    {name}.loaded()\n    time.sleep(1000)", scope)
    results = run_parallel([Task(scope["script"], 1)], **LIMITS)
    (attempt,) = results.attempts
    assert isinstance(results.failures[0].error, TaskTimeout)
    assert attempt.duration < LIMITS["timeout"] + LOADS


def test_a_module_that_cannot_be_imported_fails_its_task(module):
    """The failure of a task whose module cannot be imported has the module's own error."""
    results = run_parallel([Task(module("raise ImportError('nothing here')").loaded, 1)], **LIMITS)
    assert "nothing here" in str(results.failures[0].error)
