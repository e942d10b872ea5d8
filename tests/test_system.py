"""What a test puts in place of Python's own is meant for the code that it tests: runs go on by what the system has."""

import os
import subprocess
import sys
import time
from math import inf
from pathlib import Path
from unittest.mock import MagicMock, mock_open, patch

import pytest

import parallelkit
from parallelkit import ProcessExecutor, Retry, TaskTimeout, iter_parallel, run_parallel
from parallelkit._executors import _width
from parallelkit._executors._process._spawn import check_popen
from parallelkit._system import environment, monotonic, read

PACKAGE = Path(parallelkit.__file__).parent

OF_OTHERS = ("_command", "_demo", "testing.py", "_policies.py")
"""What is a program, or reckons with another library's clock."""


@pytest.fixture
def frozen(monkeypatch):
    """Stops the time as freezegun does, for a test."""
    freeze(monkeypatch.setattr)


def freeze(put=setattr):
    """Put a clock that stands still where anybody has ``time.monotonic``."""
    real = time.monotonic
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is real:
                put(module, name, lambda: 1577836800.0)
    assert 1577836800.0 == time.monotonic()


def test_the_clock_is_that_of_python():
    """Another function of the same clock: time-machine 2 replaces ``monotonic`` in C, wherever that is."""
    before = time.monotonic()
    now = monotonic()
    assert before <= now <= time.monotonic()
    assert monotonic not in (time.monotonic, time.perf_counter)
    assert monotonic.__name__ == "perf_counter"


def test_the_package_reads_no_other_clock():
    """But for what has nothing to do with a run's."""
    sources = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}
    found = {
        name for name, text in sources.items() if "import monotonic" in text or "time.monotonic(" in text
    }
    others = {name for name in found if "_system import" not in sources[name]}
    assert [] == sorted(name for name in others if not name.startswith(OF_OTHERS))


@pytest.mark.parametrize("executor", ["threads", "processes"])
@pytest.mark.all
def test_runs_go_on_while_the_time_stands_still(executor, frozen):
    """Tasks are timed out, and tried again; no worker is taken for dead because its clock goes on."""
    results = run_parallel(select_for, [0, 1], executor=executor, timeout=0.3, max_workers=2)
    assert [0] == list(results.successes)
    assert type(results.failures[1].error) is TaskTimeout
    assert 2 == run_parallel(int, ["x"], executor=executor, retries=Retry(1, delay=0.01)).outcomes[0].attempts
    assert [3] == [outcome.value for outcome in iter_parallel(abs, [-3], executor=executor, max_workers=1)]


def test_workers_in_which_the_time_stands_still_are_believed():
    """An initializer may stop the time for all tasks: what a worker says of its own times is none the less true."""
    with ProcessExecutor(1, initializer=freeze) as executor:
        first, second = run_parallel(lambda _: time.monotonic(), [0, 0], executor=executor).outcomes.values()
    assert (1577836800.0, 1577836800.0) == (first.value, second.value)
    assert 0 < first.started_at < second.started_at


def test_a_thread_may_delete_a_variable_while_the_environment_is_copied(monkeypatch):
    """Workers are started in a thread, where a KeyError would end the run."""
    name, look = "PARALLELKIT_GONE", os._Environ.__getitem__
    monkeypatch.setenv(name, "soon")

    def delete_first(variables, asked):
        if asked == name and name in list(os.environ):
            del variables[name]
        return look(variables, asked)

    with monkeypatch.context() as patch:
        patch.setattr(os._Environ, "__getitem__", delete_first)
        copied = environment()
    assert dict(os.environ) == copied
    assert name not in copied


def select_for(seconds):
    """Sleeps, whatever has become of ``time``."""
    import select

    select.select([], [], [], seconds)


@pytest.mark.parametrize("text", ["hello", "1 0"])
@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_a_mock_of_open_is_asked_by_nobody_here(executor, text, monkeypatch):
    """It stands for the files of the code under test, and counts how often they are opened."""
    monkeypatch.setattr(_width, "_quota", (-inf, None))
    with patch("builtins.open", mock_open(read_data=text)) as opened:
        assert [1] == run_parallel(abs, [-1], executor=executor).values()
    opened.assert_not_called()


def test_a_mock_in_place_of_popen_starts_no_workers(monkeypatch):
    """Who signals its process, which has number 1, ends whatever began the container; so it is refused, if it was there first."""
    with monkeypatch.context() as patched:
        holders = [
            module for module in sys.modules.values() if getattr(module, "Popen", None) is subprocess.Popen
        ]
        for found in (MagicMock(), MagicMock, lambda: None):
            for module in holders:
                patched.setattr(module, "Popen", found)
            with pytest.raises(RuntimeError, match=r"have its runs inline"):
                check_popen()
        assert [1] == run_parallel(abs, [-1], executor="processes", max_workers=1).values()
    check_popen()


@pytest.mark.all
def test_a_mock_of_the_current_thread_keeps_no_run_from_ending():
    """A program that is in a thread of another name for a while, as the engine of processes is loaded, has its results."""
    mocked = """
from unittest.mock import patch
from parallelkit import run_parallel

with patch("threading.current_thread"):
    print(run_parallel(abs, [-1], executor="processes", max_workers=1).values())
"""
    command = [sys.executable, "-c", mocked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ("[1]\n", "") == (done.stdout, done.stderr)


@pytest.mark.all
def test_workers_start_in_spite_of_a_profiler_that_wraps_each_start_of_python(tmp_path):
    """As VizTracer does, with ``-m`` and its name put in, which a worker without ``site`` would not find."""
    program = tmp_path / "program.py"
    program.write_text(WRAPPED)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("wrapped\n[1]\n", "")


WRAPPED = """
import functools, subprocess, sys

plain = subprocess.Popen.__init__

@functools.wraps(plain)
def wrapped(self, args, **options):
    plain(self, [sys.executable, "-c", "print('wrapped')"], **options)

subprocess.Popen.__init__ = wrapped
subprocess.run([sys.executable, "-c", "pass"])

from parallelkit import run_parallel

print(run_parallel(abs, [-1], executor="processes").values())
"""


def test_a_file_of_the_system_may_have_any_bytes(tmp_path):
    """Names of threads are cut off anywhere."""
    (tmp_path / "status").write_bytes(b"Name:\tgr\xc3\n")
    assert "Name:\tgr\xc3\n" == read(str(tmp_path / "status"))


OWN_MODULES = """
import os, resource, signal
from parallelkit import run_parallel

def die(item):
    os._exit(3) if item else os.kill(os.getpid(), 6)

assert [400_000] == run_parallel(resource.length, [bytes(400_000)], executor="processes").values()
ended, failure = run_parallel(die, [0, 1], executor="processes").failures.values()
assert "SIGABRT" in str(ended.error), ended.error
assert 3 == failure.error.exitcode
"""


def test_a_module_of_the_program_may_be_called_signal_or_resource(tmp_path):
    """What the system is asked to kill, or how many descriptors there may be, goes past Python's modules of these names."""
    for name in ("signal", "resource"):
        (tmp_path / f"{name}.py").write_text("length = len\n")
    (tmp_path / "script.py").write_text(OWN_MODULES)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)
